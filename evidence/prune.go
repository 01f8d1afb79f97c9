package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/retention"
	"sallyport/audit/stream"
	"sallyport/internal/clock"
)

// Limits on what is pruned.
const (
	// StandardMinAge is how old an entry is before it may be removed, unless somebody
	// says otherwise, who may not go below LeastMinAge.
	StandardMinAge = 90 * 24 * time.Hour
	LeastMinAge    = 24 * time.Hour
)

// Needs is what the broker still asks the log about, and what packs are made of.
type Needs interface {
	Documents
	// Open are the requests whose events must still be there.
	Open(ctx context.Context) ([]string, error)
	// Deploying are the deployments that are not over.
	Deploying(ctx context.Context) ([]string, error)
	// InForce is the event that put the policy into force, or audit.ErrNoEntry.
	InForce(ctx context.Context) (uuid.UUID, error)
}

// PrunerConfig is what a Pruner needs. Every field without "optional" must be set.
type PrunerConfig struct {
	// Log is the log, as the broker's role; its Run must be running here.
	Log *audit.Log
	// Needs are read as the broker's role, too.
	Needs Needs
	// Streams are how far the log's streams are; without those in Without, nothing is
	// removed that one of them has not delivered.
	Streams func(context.Context) ([]stream.Cursor, error)
	Without []string
	// Admin is a connection as the owner of the log's tables. It is the pruner's alone.
	Admin *pgx.Conn
	Clock clock.Clock
	// Dir takes the archives.
	Dir string
	// Version of the program, which archives name.
	Version string
	// By says who runs it, as the machine and the database know them.
	By string
	// MinAge is how old entries must be, at least LeastMinAge.
	MinAge time.Duration
	// Checkpoint is a signed head that was kept outside of the database. Nothing is
	// removed that it does not cover.
	Checkpoint []byte
	// Progress is told what is being done. Optional.
	Progress func(format string, args ...any)
	// Fault lets tests fail, or die, at a step: "planned", "archived", "verified",
	// "logged", "removing" and "removed". Optional.
	Fault func(step string) error
}

// Pruner removes old entries from the database, after it has archived them.
//
//  1. What goes is fixed: whole partitions, all of whose entries are old enough, below
//     a checkpoint kept outside of the database, and needed by nothing that runs.
//  2. They are archived as an evidence pack, which is read again from the disk and
//     verified as an auditor would.
//  3. The log gets an event that names the archive by its hash, for which the log's
//     key vouches (package audit/retention).
//  4. Their partitions are dropped, in one transaction.
//
// Whatever stops it in between, nothing is lost, and the next run finishes it: it
// begins with an event whose entries are still there.
type Pruner struct {
	cfg      PrunerConfig
	verifier note.Verifier
}

// NewPruner checks the configuration, and that the connection is the owner's.
func NewPruner(ctx context.Context, cfg PrunerConfig) (*Pruner, error) {
	if cfg.Log == nil || cfg.Needs == nil || cfg.Streams == nil || cfg.Admin == nil || cfg.Clock == nil || cfg.Dir == "" || cfg.Version == "" || cfg.By == "" {
		return nil, errors.New("pruning: log, needs, streams, administrator, clock, folder, version and by must be set")
	}
	if cfg.MinAge < LeastMinAge {
		return nil, ErrTooYoung.With("entries younger than %s are never removed", LeastMinAge)
	}
	var owner bool
	err := cfg.Admin.QueryRow(ctx, `SELECT pg_has_role(current_user, 'sallyport_owner', 'MEMBER')`).Scan(&owner)
	if err != nil {
		return nil, fmt.Errorf("looking who the administrator is: %w", err)
	}
	if !owner {
		return nil, ErrNotOwner
	}
	verifier, err := note.NewVerifier(cfg.Log.VerifierKey())
	if err != nil {
		return nil, err
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, ...any) {}
	}
	return &Pruner{cfg: cfg, verifier: verifier}, nil
}

// Until is what to prune: entries before the index or, if Index is 0, those that
// happened before Time.
type Until struct {
	Index int64
	Time  time.Time
}

// Plan is what goes.
type Plan struct {
	First, Before   int64 // Before is not in it
	Since, Latest   time.Time
	Partitions      []string
	Archive         string // name of the file
	Recorded        *audit.Pruned
	previous, until int64 // the event about what went before; the end of the archive
}

// Plan says what would go, and refuses what must not.
func (p *Pruner) Plan(ctx context.Context, until Until) (Plan, error) {
	first, err := p.cfg.Log.Oldest(ctx)
	if err != nil {
		return Plan{}, err
	}
	records, err := p.cfg.Log.Prunes(ctx)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{First: first}
	switch {
	case len(records) > 0 && int64(records[0].Before) > first: // a run that was stopped
		plan.Recorded, plan.Before = &records[0], int64(records[0].Before)
	case len(records) == 0 && first > 0, len(records) > 0 && int64(records[0].Before) < first:
		return Plan{}, ErrLogDamaged.With("entries before %d are not there, and the log does not say that they were pruned", first)
	default:
		if plan.Before, err = p.wanted(ctx, until); err != nil {
			return Plan{}, err
		}
		if len(records) > 0 {
			plan.previous = records[0].Index
		}
	}
	if err := p.whole(ctx, &plan); err != nil {
		return plan, err
	}
	if err := p.covered(ctx, plan.Before); err != nil {
		return plan, err
	}
	if err := p.needed(ctx, plan); err != nil {
		return plan, err
	}
	if err := p.delivered(ctx, plan.Before); err != nil {
		return plan, err
	}
	return plan, p.span(ctx, &plan)
}

// wanted is the index that was asked for, if what is before it is old enough.
func (p *Pruner) wanted(ctx context.Context, until Until) (int64, error) {
	young := p.cfg.Clock.Now().Add(-p.cfg.MinAge)
	oldEnough, err := p.cfg.Log.FirstSince(ctx, young)
	if err != nil {
		return 0, err
	}
	index := until.Index
	if index == 0 {
		if until.Time.After(young) {
			return 0, ErrTooYoung.With("entries from %s on are not old enough: --min-age is %s", young.UTC().Format(time.RFC3339), p.cfg.MinAge)
		}
		if index, err = p.cfg.Log.FirstSince(ctx, until.Time); err != nil {
			return 0, err
		}
	}
	if index > oldEnough {
		return 0, ErrTooYoung.With("entries from %d on are not old enough: --min-age is %s", oldEnough, p.cfg.MinAge)
	}
	return index, nil
}

// whole moves the end of the plan back to that of a partition.
func (p *Pruner) whole(ctx context.Context, plan *Plan) error {
	list, err := p.cfg.Log.Partitions(ctx)
	if err != nil {
		return err
	}
	wanted := plan.Before
	plan.Before = 0
	next := wanted
	for _, part := range list {
		if part.Until > wanted {
			next = part.Until
			break
		}
		plan.Partitions, plan.Before = append(plan.Partitions, part.Name), part.Until
	}
	if plan.Before <= plan.First {
		return ErrNothingToPrune.With("no partition has only entries before %d; the next one ends with entry %d", wanted, next-1)
	}
	return nil
}

// covered checks that the checkpoint kept outside is of this log, and goes that far.
func (p *Pruner) covered(ctx context.Context, before int64) error {
	known, err := checkpoint.Open(p.cfg.Checkpoint, p.verifier)
	if err != nil {
		return ErrUnwitnessed.With("the checkpoint kept outside of the database is not signed by this log's key").Because(err)
	}
	if known.N < before {
		return ErrUnwitnessed.With("the checkpoint kept outside of the database has %d entries, and those before %d would go", known.N, before)
	}
	made, err := p.cfg.Log.CheckpointAt(ctx, known.N)
	if errors.Is(err, audit.ErrNoEntry) {
		return ErrUnwitnessed.With("the log in the database is shorter than the checkpoint kept outside of it, with %d entries", known.N)
	}
	if err != nil {
		return err
	}
	same, err := checkpoint.Open(made, p.verifier)
	if err == nil && same != known {
		err = ErrUnwitnessed.With("the first %d entries of the log in the database are not those of the checkpoint kept outside of it", known.N)
	}
	return err
}

// span finds out when the entries happened, and where their archive ends: with an entry
// that is later than all of them, so that its lists have them all, and not before the
// event about what was pruned earlier.
func (p *Pruner) span(ctx context.Context, plan *Plan) error {
	earliest, latest, err := p.cfg.Log.Span(ctx, plan.First, plan.Before)
	if err != nil {
		return err
	}
	later, err := p.cfg.Log.FirstAfter(ctx, plan.Before, latest)
	if errors.Is(err, audit.ErrNoEntry) {
		return ErrNothingToPrune.With("the log has nothing that is later than what would go")
	}
	if err != nil {
		return err
	}
	plan.Since, plan.Latest = earliest, latest
	plan.until = max(later.Index, plan.previous) + 1
	plan.Archive = archiveName(p.verifier.Name(), plan.First, plan.Before)
	return nil
}

// Prune does what a plan says. Of several at the same time one does it.
func (p *Pruner) Prune(ctx context.Context, until Until) (Plan, error) {
	var alone bool
	err := p.cfg.Admin.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended('audit prune', 0))`).Scan(&alone)
	if err != nil {
		return Plan{}, fmt.Errorf("beginning to prune: %w", err)
	}
	if !alone {
		return Plan{}, ErrPruning
	}
	defer p.cfg.Admin.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(hashtextextended('audit prune', 0))`)
	plan, err := p.Plan(ctx, until)
	if err != nil {
		return plan, err
	}
	return plan, p.carryOut(ctx, &plan)
}

func (p *Pruner) carryOut(ctx context.Context, plan *Plan) error {
	if err := p.step("planned"); err != nil {
		return err
	}
	if plan.Recorded != nil {
		p.cfg.Progress("finishing what was begun on %s: entry %d", plan.Recorded.Time.Format(time.DateOnly), plan.Recorded.Index)
	}
	archived, err := p.archive(ctx, plan)
	if err != nil {
		return err
	}
	if err := p.step("verified"); err != nil {
		return err
	}
	if plan.Recorded == nil {
		if err := p.record(ctx, plan, archived); err != nil {
			return err
		}
	}
	if err := p.step("logged"); err != nil {
		return err
	}
	if err := p.remove(ctx, plan); err != nil {
		return err
	}
	return p.step("removed")
}

func (p *Pruner) step(name string) error {
	if p.cfg.Fault == nil {
		return nil
	}
	return p.cfg.Fault(name)
}

// record writes into the log what is going to be removed.
func (p *Pruner) record(ctx context.Context, plan *Plan, a archived) error {
	root, err := tlog.TreeHash(plan.Before, p.cfg.Log.Hashes(ctx))
	if err != nil {
		return fmt.Errorf("reading the tree: %w", err)
	}
	d, err := retention.Vouch(event.RetentionPruned{
		First: uint64(plan.First), Before: uint64(plan.Before), Count: uint64(plan.Before - plan.First),
		Earliest: plan.Since, Latest: plan.Latest, Root: root.String(),
		Archive: plan.Archive, ArchiveSHA256: a.sha256, ArchiveBytes: uint64(a.bytes), By: p.cfg.By, Previous: uint64(plan.previous),
	}, p.cfg.Log.Vouch)
	if err != nil {
		return err
	}
	e := event.New(p.cfg.Clock.Now(), event.Actor{Kind: event.Broker, Name: p.cfg.By}, "", event.Subject{}, d)
	entries, err := p.cfg.Log.Record(ctx, e)
	if err != nil {
		return err
	}
	plan.Recorded = &audit.Pruned{Index: entries[0].Index, ID: e.ID, Time: e.Time, RetentionPruned: d}
	p.cfg.Progress("recorded as entry %d", entries[0].Index)
	return nil
}
