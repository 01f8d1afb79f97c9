// Package stream sends the log to others as it grows: every event as one document of the
// Open Cybersecurity Schema Framework, a line of JSON each (OCSF, NDJSON), to a file, to
// a signed webhook or to Splunk.
//
//   - At least once, in order: the cursor is in the database and moves when the receiver
//     has taken what is before it. After any crash it goes on from there; duplicates have
//     the same metadata.uid, gaps show in metadata.sequence.
//   - Beside the log: what it sends, it reads from the log in small batches. A receiver
//     that is slow or gone costs nothing but its own lag.
//   - One broker of several sends a stream at a time, and another takes over.
//
// A document has the exact leaf in raw_data, so that whoever has it can still ask for its
// receipt.
package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit"
	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/internal/clock"
)

const (
	// maxBatch and maxBatchBytes are how much is sent at once at most; a single document
	// may be larger.
	maxBatch      = 256
	maxBatchBytes = 512 << 10
	// look is how often it looks for new entries.
	look = 500 * time.Millisecond
	// hold is for how long a broker holds a stream: longer than one delivery.
	hold = callLimit + 30*time.Second
	// A failed delivery is tried again after pauses from minPause, doubled up to maxPause.
	minPause, maxPause = time.Second, time.Minute
	// LagAlarm is how long a receiver may take nothing before that is an alarm.
	LagAlarm = 5 * time.Minute
)

// Config is what streams need. All of it must be set.
type Config struct {
	Pool    *pgxpool.Pool
	Log     *audit.Log
	Clock   clock.Clock
	Logger  *slog.Logger
	Outlets []Outlet
	// Version of the program, as documents name it.
	Version string
}

// Streams are all streams of one broker.
type Streams struct {
	cfg    Config
	log    note.Verifier
	origin origin
	all    []*stream
	// process is this one among all that use the database.
	process string
}

// stream is one of them.
type stream struct {
	Outlet
	s *Streams

	mu    sync.Mutex
	state Status
	most  int       // documents at once
	since time.Time // of the first failure after a success
	told  bool
}

// Status is how far a stream is.
type Status struct {
	Name, Destination string
	Next              int64 // entry to deliver
	Size              int64 // of the log then
	Held              bool  // by this process
	Error             string
}

// New checks the configuration.
func New(cfg Config) (*Streams, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Clock == nil || cfg.Logger == nil || len(cfg.Outlets) == 0 {
		return nil, errors.New("streams: pool, log, clock, logger and outlets must be set")
	}
	verifier, err := note.NewVerifier(cfg.Log.VerifierKey())
	if err != nil {
		return nil, err
	}
	s := &Streams{cfg: cfg, log: verifier, origin: origin{verifier.Name(), cfg.Version}, process: rand.Text()}
	for _, o := range cfg.Outlets {
		s.all = append(s.all, &stream{Outlet: o, s: s, most: maxBatch, state: Status{Name: o.name, Destination: o.to.where()}})
	}
	return s, nil
}

// Run sends until ctx ends, and then returns nil.
func (s *Streams) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, one := range s.all {
		all.Go(func() { one.run(ctx) })
	}
	all.Wait()
	return nil
}

// Status says how far each stream is.
func (s *Streams) Status() []Status {
	list := make([]Status, len(s.all))
	for i, one := range s.all {
		one.mu.Lock()
		list[i] = one.state
		one.mu.Unlock()
	}
	return list
}

func (t *stream) run(ctx context.Context) {
	defer t.release()
	pause := minPause
	for {
		more, err := t.turn(ctx)
		if ctx.Err() != nil {
			return
		}
		t.note(ctx, err)
		wait := look
		switch {
		case errors.Is(err, errTooMuch):
			t.most = max(1, t.most/2)
			wait = 0
		case err != nil:
			wait = pause
			pause = min(2*pause, maxPause)
		case more:
			wait = 0
			fallthrough
		default:
			pause = minPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// turn sends one batch, if this process holds the stream and something waits. It says
// whether there is more.
func (t *stream) turn(ctx context.Context) (more bool, err error) {
	next, held, err := t.take(ctx)
	if err != nil || !held {
		t.set(func(s *Status) { s.Held = false })
		return false, err
	}
	msg, err := t.s.cfg.Log.Checkpoint(ctx)
	if err != nil {
		return false, err
	}
	tree, err := checkpoint.Open(msg, t.s.log)
	if err != nil {
		return false, err
	}
	t.set(func(s *Status) { s.Held, s.Next, s.Size = true, next, tree.N })
	if next >= tree.N {
		return false, nil
	}
	var lines [][]byte
	size, until := 0, next
	full := errors.New("the batch is full")
	err = t.s.cfg.Log.Scan(ctx, next, min(tree.N, next+int64(t.most)), func(e audit.Entry) error {
		line := t.s.origin.convert(e)
		if len(lines) > 0 && size+len(line) > maxBatchBytes {
			return full
		}
		lines, size, until = append(lines, line), size+len(line), e.Index+1
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, full):
		return false, err
	case len(lines) == 0: // pruned, or lost: the receiver sees the gap
		if until, err = t.s.cfg.Log.Oldest(ctx); err != nil {
			return false, err
		}
		until = min(tree.N, max(until, next+int64(t.most)))
	default:
		if err := t.to.deliver(ctx, lines); err != nil {
			return false, err
		}
	}
	if err := t.moved(ctx, next, until); err != nil {
		return false, err
	}
	t.set(func(s *Status) { s.Next = until })
	return until < tree.N, nil
}

// take holds the stream for this process, unless another does, and returns its cursor. A
// destination that is new, or another one than before, is an event.
func (t *stream) take(ctx context.Context) (next int64, held bool, err error) {
	now := t.s.cfg.Clock.Now()
	err = pgx.BeginFunc(ctx, t.s.cfg.Pool, func(tx pgx.Tx) error {
		next, held = 0, false
		var before string
		_, err := tx.Exec(ctx, `INSERT INTO log_streams (name, destination) VALUES ($1, '') ON CONFLICT DO NOTHING`, t.name)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `
			SELECT next, destination FROM log_streams
			WHERE name = $1 AND (holder = $2 OR held_until < $3) FOR UPDATE SKIP LOCKED`, t.name, t.s.process, now).Scan(&next, &before)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		held = true
		_, err = tx.Exec(ctx, `UPDATE log_streams SET holder = $2, held_until = $3, destination = $4 WHERE name = $1`,
			t.name, t.s.process, now.Add(hold), t.to.where())
		if err != nil || before == t.to.where() {
			return err
		}
		return t.s.cfg.Log.Stage(ctx, tx, event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{},
			event.StreamStarted{Stream: t.name, Destination: t.to.where(), Before: before, Next: uint64(next)}))
	})
	if err != nil {
		return 0, false, fmt.Errorf("the stream %s: %w", t.name, err)
	}
	return next, held, nil
}

// moved notes what the receiver has taken. If another process holds the stream by now,
// what was sent may come again.
func (t *stream) moved(ctx context.Context, from, to int64) error {
	_, err := t.s.cfg.Pool.Exec(ctx, `
		UPDATE log_streams SET next = $4, held_until = $5 WHERE name = $1 AND holder = $2 AND next = $3`,
		t.name, t.s.process, from, to, t.s.cfg.Clock.Now().Add(hold))
	if err != nil {
		return fmt.Errorf("noting how far the stream %s is: %w", t.name, err)
	}
	return nil
}

// release lets another process have the stream at once.
func (t *stream) release() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = t.s.cfg.Pool.Exec(ctx, `UPDATE log_streams SET held_until = '-infinity' WHERE name = $1 AND holder = $2`, t.name, t.s.process)
}

func (t *stream) set(change func(*Status)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.state)
}

// note tells of a stream that lags, once, and that it does no more.
func (t *stream) note(ctx context.Context, err error) {
	now := t.s.cfg.Clock.Now()
	var say event.Data
	t.mu.Lock()
	switch {
	case err == nil:
		if t.told {
			say = event.StreamCaughtUp{Stream: t.name, Next: uint64(t.state.Next)}
		}
		t.state.Error, t.since, t.told = "", time.Time{}, false
	case t.since.IsZero():
		t.state.Error, t.since = err.Error(), now
		t.s.cfg.Logger.WarnContext(ctx, "a stream of the log does not go on; it will be tried again", "stream", t.name, "error", err)
	default:
		t.state.Error = err.Error()
		if !t.told && now.Sub(t.since) >= LagAlarm {
			t.told = true
			say = event.StreamLagging{Stream: t.name, Next: uint64(t.state.Next), Since: t.since, Reason: err.Error()}
		}
	}
	t.mu.Unlock()
	if say == nil {
		return
	}
	t.s.cfg.Logger.WarnContext(ctx, "streams", "what", say.Summary())
	e := event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{}, say)
	if _, err := t.s.cfg.Log.Record(ctx, e); err != nil {
		t.s.cfg.Logger.ErrorContext(ctx, "it could not be recorded", "what", say.Summary(), "error", err)
	}
}
