package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/audit/stream"
	"sallyport/broker/keys"
	"sallyport/evidence"
	"sallyport/internal/clock"
	"sallyport/migrations"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Look after the log"}
	cmd.AddCommand(auditPruneCommand())
	return cmd
}

// pruning is what the command line says about pruning.
type pruning struct {
	adminURL, appURL, keysDir, checkpoint, dir, before string
	minAge                                             time.Duration
	without                                            []string
	dryRun                                             bool
}

func auditPruneCommand() *cobra.Command {
	p := pruning{adminURL: os.Getenv("SALLYPORT_ADMIN_URL"), appURL: os.Getenv("SALLYPORT_DATABASE_URL")}
	cmd := &cobra.Command{
		Use:   "prune --before TIME|INDEX --export-dir DIR",
		Short: "Archive old entries of the log, and remove them from the database",
		Long: `Archive old entries of the log, and remove them from the database. What goes are
whole partitions whose entries are all before a time or an index:

 1. they are written to DIR as an evidence pack, which is read again and verified;
 2. the log gets an event that names that archive by its SHA-256;
 3. the partitions are dropped.

Tree hashes stay, so that receipts hold, and new ones can be made. Whatever stops
it in between, nothing is lost: run it again, and it goes on. The broker may serve
meanwhile.

It refuses to remove what is younger than --min-age, what a checkpoint kept outside
of the database does not cover, and what the broker still asks the log about:
requests that are not over, emergencies without a review, the policy in force; nor
what a stream has not delivered. Evidence packs that are being made come first.
Witnesses need nothing of it: what they ask for is proved by hashes, which stay.

It needs the log's key, the broker's login and the administrator's, who owns the
tables. Keep the archive: the database cannot give those entries back.`,
		Example: `  sallyportd audit prune --before 2025-01-01 --export-dir /srv/archive --dry-run
  sallyportd audit prune --before 2025-01-01 --export-dir /srv/archive
  sallyportd audit prune --before 131072 --export-dir /srv/archive --without-stream old-siem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.run(cmd.Context(), func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...) })
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&p.before, "before", "", "Remove what happened before a date or a time in RFC 3339, or entries before an index. Required")
	flags.StringVar(&p.dir, "export-dir", "", "Folder for the archive. Required")
	flags.BoolVar(&p.dryRun, "dry-run", false, "Say what would go, and change nothing")
	flags.DurationVar(&p.minAge, "min-age", evidence.StandardMinAge, "How old entries must be, 24h at least")
	flags.StringVar(&p.checkpoint, "checkpoint", filepath.Join(fromEnvironment("state-dir"), "checkpoint"),
		"File with a checkpoint kept outside of the database, such as the broker's own state folder has")
	flags.StringSliceVar(&p.without, "without-stream", nil, "Do not wait for the stream of this name: its receiver never gets the entries. Repeatable")
	flags.Var((*secretValue)(&p.adminURL), "admin-url", "PostgreSQL as the login that migrate uses. Required. [$SALLYPORT_ADMIN_URL]")
	flags.Var((*secretValue)(&p.appURL), "database-url", "PostgreSQL as serve uses it. Required. [$SALLYPORT_DATABASE_URL]")
	flags.StringVar(&p.keysDir, "keys-dir", fromEnvironment("keys-dir"), "Folder with log.key and log.vkey. [$SALLYPORT_KEYS_DIR]")
	return cmd
}

// fromEnvironment is an option of serve as its variable has it, or its standard.
func fromEnvironment(name string) string {
	if v, ok := os.LookupEnv(variable(name)); ok {
		return v
	}
	return standardOf(name)
}

// until reads what --before says.
func (p pruning) until() (evidence.Until, error) {
	if index, err := strconv.ParseInt(p.before, 10, 64); err == nil && index > 0 {
		return evidence.Until{Index: index}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, p.before); err == nil {
			return evidence.Until{Time: t.UTC()}, nil
		}
	}
	return evidence.Until{}, fmt.Errorf("--before: %q is neither a date, nor a time in RFC 3339, nor an index", p.before)
}

func (p pruning) run(ctx context.Context, say func(format string, args ...any)) error {
	for name, value := range map[string]string{"before": p.before, "export-dir": p.dir, "admin-url": p.adminURL, "database-url": p.appURL} {
		if value == "" {
			return usageError{fmt.Errorf("--%s is not set", name)}
		}
	}
	until, err := p.until()
	if err != nil {
		return usageError{err}
	}
	if p.minAge < evidence.LeastMinAge {
		return usageError{fmt.Errorf("--min-age: %s is less than %s", p.minAge, evidence.LeastMinAge)}
	}
	if info, err := os.Stat(p.dir); err != nil || !info.IsDir() {
		return usageError{fmt.Errorf("--export-dir: %s is no folder", p.dir)}
	}
	kept, err := os.ReadFile(p.checkpoint)
	if err != nil {
		return usageError{fmt.Errorf("--checkpoint: %w", err)}
	}
	signer, verifier, err := keys.LoadLog(p.keysDir)
	if err != nil {
		return err
	}
	pool, err := connect(ctx, p.appURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, p.adminURL)
	if err != nil {
		return errNoDatabase.Because(err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	log, err := audit.Open(ctx, audit.Config{Pool: pool, Signer: signer, VerifierKey: verifier, Clock: clock.System})
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	pruner, err := evidence.NewPruner(ctx, evidence.PrunerConfig{
		Log: log, Needs: approvals.Kept{Pool: pool, Log: log}, Without: p.without,
		Streams: func(ctx context.Context) ([]stream.Cursor, error) { return stream.Cursors(ctx, pool) },
		Admin:   admin, Clock: clock.System, Dir: p.dir,
		Version: version(), By: whoRuns(admin), MinAge: p.minAge, Checkpoint: kept, Progress: say,
	})
	if err != nil {
		return err
	}
	if p.dryRun {
		return p.show(ctx, pruner, until, say)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = log.Run(running) }() // as any replica does
	defer func() { stop(); <-done }()
	plan, err := pruner.Prune(ctx, until)
	if err != nil {
		return err
	}
	say("done: entries %d to %d are in %s, and not in the database any more", plan.First, plan.Before-1, filepath.Join(p.dir, plan.Archive))
	return nil
}

func (p pruning) show(ctx context.Context, pruner *evidence.Pruner, until evidence.Until, say func(string, ...any)) error {
	plan, err := pruner.Plan(ctx, until)
	if err != nil {
		return err
	}
	if r := plan.Recorded; r != nil {
		say("entry %d says that entries before %d were pruned, and they are still there: what was begun would be finished", r.Index, r.Before)
	}
	say("would go: entries %d to %d, from %s to %s, partitions %v", plan.First, plan.Before-1,
		plan.Since.Format(time.RFC3339), plan.Latest.Format(time.RFC3339), plan.Partitions)
	say("the archive would be %s", filepath.Join(p.dir, plan.Archive))
	return nil
}

// whoRuns names who runs this, as the machine and the database know them. Neither is
// proved; that they have the log's key and the tables is.
func whoRuns(admin *pgx.Conn) string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + " as " + admin.Config().User
}
