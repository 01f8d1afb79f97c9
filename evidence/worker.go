package evidence

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/evidence/pack"
	"sallyport/internal/refusal"
)

const (
	// lookEvery is how often a replica looks for packs to make, and beatEvery how
	// often it says that it is at one. After stale without a word another begins anew.
	lookEvery = 2 * time.Second
	beatEvery = time.Second
	stale     = time.Minute
	// cleanEvery is how often what is kept no longer is removed.
	cleanEvery = time.Minute
)

func (s *Service) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run makes packs, one at a time, until ctx ends, and then returns nil. Every replica
// runs one.
func (s *Service) Run(ctx context.Context) error {
	if s.temporary {
		defer os.RemoveAll(s.cfg.Dir)
	}
	look, clean := time.NewTicker(lookEvery), time.NewTicker(cleanEvery)
	defer look.Stop()
	defer clean.Stop()
	s.clean(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-clean.C:
			s.clean(ctx)
			continue
		case <-s.kick:
		case <-look.C:
		}
		for {
			more, err := s.next(ctx)
			if err != nil && ctx.Err() == nil {
				s.cfg.Logger.Error("making an evidence pack failed", "error", err)
			}
			if !more || err != nil || ctx.Err() != nil {
				break
			}
		}
	}
}

// next makes the oldest pack that waits, and reports whether there was one.
func (s *Service) next(ctx context.Context) (bool, error) {
	r, err := s.claim(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for evidence packs to make: %w", err)
	}
	if r.Attempts > maxAttempts { // as often, whoever made it died of it
		return true, s.failed(ctx, r, errors.New("its makers died"))
	}
	return true, s.make(ctx, r)
}

// claim takes the oldest pack that waits, or whose maker has died, or returns
// pgx.ErrNoRows. One pack is made at a time, whatever the number of replicas: each
// reads the whole log, out of the database that certificates wait for.
func (s *Service) claim(ctx context.Context) (r row, err error) {
	now := s.cfg.Clock.Now()
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		if err := lockPacks(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			UPDATE evidence_packs SET state = 'running', worker = $1, beat_at = $2, attempts = attempts + 1, done = 0
			WHERE id = (
				SELECT id FROM evidence_packs WHERE state IN ('waiting', 'running')
				AND NOT EXISTS (SELECT FROM evidence_packs WHERE state = 'running' AND beat_at >= $3)
				ORDER BY created_at, id LIMIT 1)
			RETURNING `+columns, s.worker, now, now.Add(-stale))
		if err != nil {
			return err
		}
		r, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[row])
		return err
	})
	return r, err
}

// lockPacks has the transaction be the only one that asks for a pack or takes one.
func lockPacks(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('evidence packs', 0))`)
	return err
}

// make makes one pack, and writes down what came of it.
func (s *Service) make(ctx context.Context, r row) error {
	made, err := s.attempt(ctx, r)
	// Whatever happens to ctx, what became of the pack is written down.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err != nil {
		if ctx.Err() != nil { // this process stops: somebody else may begin at once
			_, err := s.cfg.Pool.Exec(after, `
				UPDATE evidence_packs SET state = 'waiting', attempts = attempts - 1 WHERE id = $1 AND worker = $2 AND state = 'running'`, r.ID, s.worker)
			return err
		}
		return errors.Join(err, s.failed(after, r, err))
	}
	now := s.cfg.Clock.Now()
	e := r.event(now, event.PackMade{PackID: r.ID, Manifest: made.Manifest,
		End: uint64(made.end), Exceptions: uint64(made.Exceptions), Missing: uint64(made.Missing)})
	err = pgx.BeginFunc(after, s.cfg.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(after, `
			UPDATE evidence_packs SET state = 'ready', ended_at = $3, manifest = $4, bytes = $5, exceptions = $6, missing = $7, done = total
			WHERE id = $1 AND worker = $2 AND state = 'running'`,
			r.ID, s.worker, now, made.Manifest, made.bytes, made.Exceptions, made.Missing)
		if err != nil || tag.RowsAffected() == 0 { // another replica thought that this one was gone
			return err
		}
		return s.cfg.Log.Stage(after, tx, e)
	})
	if err != nil {
		return fmt.Errorf("finishing evidence pack %s: %w", r.ID, err)
	}
	s.cfg.Log.Kick()
	return nil
}

// failed gives a pack back to be tried again, or up.
func (s *Service) failed(ctx context.Context, r row, cause error) error {
	code, reason := "internal", "it could not be made; an operator finds the reason in the broker's log"
	if known := refusal.As(cause); known != nil {
		code, reason = known.Code, known.Detail
	}
	for _, damage := range []error{pack.ErrTree, pack.ErrNotAsked} {
		if errors.Is(cause, damage) {
			code, reason = "log-damaged", damage.Error()
		}
	}
	now := s.cfg.Clock.Now()
	e := r.event(now, event.PackFailed{PackID: r.ID, Code: code, Reason: reason})
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE evidence_packs SET state = 'waiting' WHERE id = $1 AND worker = $2 AND state = 'running' AND attempts < $3`,
			r.ID, s.worker, maxAttempts)
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
		tag, err = tx.Exec(ctx, `
			UPDATE evidence_packs SET state = 'failed', ended_at = $3, problem = $4 WHERE id = $1 AND worker = $2 AND state = 'running'`,
			r.ID, s.worker, now, reason)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, e)
	})
	if err != nil {
		return fmt.Errorf("giving evidence pack %s back: %w", r.ID, err)
	}
	s.cfg.Log.Kick()
	return nil
}

// made is what a pack turned out to have.
type made struct {
	pack.Summary
	bytes, end int64
}

// attempt writes the pack's file.
func (s *Service) attempt(ctx context.Context, r row) (made, error) {
	if r.Checkpoint == nil {
		var err error
		if r, err = s.begin(ctx, r); err != nil {
			return made{}, err
		}
	}
	s.makeRoom()
	path := s.path(r.ID)
	f, err := os.OpenFile(path+partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return made{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		s.beat(ctx, r.ID, &done, cancel)
	}()
	defer func() { cancel(nil); <-beating }()

	to := &limited{w: bufio.NewWriterSize(f, 1<<20), left: MaxKept}
	summary, end, err := s.write(ctx, to, r, func(n, _ int64) { done.Store(n) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err == nil {
		err = errors.Join(to.w.Flush(), f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return made{}, err
	}
	return made{Summary: summary, bytes: MaxKept - to.left, end: end}, nil
}

// begin fixes what the pack is made of.
func (s *Service) begin(ctx context.Context, r row) (row, error) {
	entries, err := s.cfg.Log.Wait(ctx, uuid.UUID(r.EventID))
	if err != nil {
		return r, err
	}
	head, err := s.head(ctx, entries[0].Index+1)
	if err != nil {
		return r, err
	}
	tree, err := s.open(head)
	if err != nil {
		return r, err
	}
	first, err := s.cfg.Log.Oldest(ctx)
	if err != nil {
		return r, err
	}
	start, err := s.cfg.Log.FirstSince(ctx, r.PeriodFrom)
	if err != nil {
		return r, err
	}
	startHead, err := s.cfg.Log.CheckpointAt(ctx, min(start, tree))
	if err != nil {
		return r, err
	}
	headText, startText := string(head), string(startHead)
	r.First, r.Checkpoint, r.Start, r.Total = &first, &headText, &startText, tree
	tag, err := s.cfg.Pool.Exec(ctx, `
		UPDATE evidence_packs SET first = $3, checkpoint = $4, start = $5, total = $6
		WHERE id = $1 AND worker = $2 AND state = 'running' AND checkpoint IS NULL`, r.ID, s.worker, first, headText, startText, tree)
	if err == nil && tag.RowsAffected() == 0 {
		err = errLost
	}
	return r, err
}

// head is the signed head to end with.
func (s *Service) head(ctx context.Context, atLeast int64) ([]byte, error) {
	if s.cfg.Witnessed != nil {
		return s.cfg.Witnessed(ctx, atLeast)
	}
	return s.cfg.Log.Checkpoint(ctx)
}

// open returns how many entries a signed head has.
func (s *Service) open(head []byte) (int64, error) {
	verifier, err := note.NewVerifier(s.cfg.Log.VerifierKey())
	if err != nil {
		return 0, err
	}
	tree, err := checkpoint.Open(head, verifier)
	return tree.N, err
}

// errLost says that another replica makes the pack.
var errLost = errors.New("another replica makes the pack")

// beat says that the pack is being made, and how far it has come.
func (s *Service) beat(ctx context.Context, id string, done *atomic.Int64, lost context.CancelCauseFunc) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tag, err := s.cfg.Pool.Exec(ctx, `
			UPDATE evidence_packs SET beat_at = $3, done = $4 WHERE id = $1 AND worker = $2 AND state = 'running'`,
			id, s.worker, s.cfg.Clock.Now(), done.Load())
		if err == nil && tag.RowsAffected() == 0 {
			lost(errLost)
			return
		}
	}
}

// write writes the pack's zip.
func (s *Service) write(ctx context.Context, to io.Writer, r row, progress func(done, total int64)) (pack.Summary, int64, error) {
	verifier, err := note.NewVerifier(s.cfg.Log.VerifierKey())
	if err != nil {
		return pack.Summary{}, 0, err
	}
	tree, err := checkpoint.Open([]byte(*r.Checkpoint), verifier)
	if err != nil {
		return pack.Summary{}, 0, err
	}
	params, err := r.params(tree.Hash.String())
	if err != nil {
		return pack.Summary{}, 0, err
	}
	summary, err := pack.Write(ctx, to, pack.Order{
		ID: r.ID, Params: params, Tool: "sallyportd " + s.cfg.Version, MadeAt: r.CreatedAt,
		MadeBy: pack.Operator{ID: r.PersonID, Name: r.PersonName},
		Key:    s.cfg.Log.VerifierKey(), First: *r.First, Checkpoint: []byte(*r.Checkpoint), Start: []byte(*r.Start),
		Trust: []byte("log " + s.cfg.Log.VerifierKey() + "\n" + s.cfg.Trust), Dir: s.cfg.Dir, Progress: progress,
	}, source{s.cfg.Log, s.cfg.Approvals})
	return summary, tree.N, err
}
