// Package revocations tells hosts what has ended before its time: grants that somebody
// finished or revoked, certificates that were revoked by themselves, and which grants
// are followed by others. It is one list with one number, which only grows; the entries
// are made by the database in the transactions that end something (migrations), and
// signed here with the log's key.
//
// Hosts wait for the list to change. However many wait, each change is read once, and
// signed once for all that had the same list before: they share the bytes. What is
// signed says when the database was last asked, so that a host knows how fresh its
// knowledge is, also when there is no news.
//
// For hosts without the daemon there is the same as an OpenSSH KRL (krl.go).
package revocations

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/broker/keys"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

const (
	// lookEvery is how often the database is asked for the list's number. Asking works
	// across replicas, and costs one read of one row however many hosts wait.
	lookEvery = 200 * time.Millisecond
	// staleAfter is how long the list is believed to be whole when the database does
	// not answer.
	staleAfter = 10 * time.Second
	// noteLife is how long a signed note is given out.
	noteLife = 15 * time.Second
	// maxNotes is how many notes are signed for one list, for hosts that had different
	// ones before; to further ones the whole list is given.
	maxNotes = 256
	// pruneEvery is how often entries that nobody needs any more are left out.
	pruneEvery = 10 * time.Minute
	// kept is how long an entry stays, at least; the migration says the same.
	kept = 7 * 24 * time.Hour
)

// Refusals.
var (
	ErrBehind = refusal.New(refusal.Unavailable, "revocations-behind",
		"the broker's list of revocations is older than yours",
		"keep yours and ask again; an operator finds out why the database was put back to an older state")
	ErrUnknown = refusal.New(refusal.Unavailable, "revocations-unknown",
		"the broker does not know now what has been revoked", "keep the list that you have, and ask again")
)

// Config is what a list needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log signs the list with its key, and takes events.
	Log   *audit.Log
	Clock clock.Clock
	// Approvals ends grants.
	Approvals *approvals.Service
	// UserCA signs the KRL.
	UserCA keys.Signer
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// List is the list of revocations. It is safe for concurrent use.
type List struct {
	cfg Config
	krl krlCache

	mu     sync.Mutex
	now    *state
	looked time.Time // when the database last answered
	behind bool      // and whether it then was older than what is known
}

// state is the list with one number. Only notes changes.
type state struct {
	number  uint64
	entries []entry       // by number
	changed chan struct{} // closed when there is another state
	pruned  time.Time

	mu    sync.Mutex
	notes map[uint64]*signed // by the number of the list that they are joined to
}

// signed is a note that is being signed, or was.
type signed struct {
	once sync.Once
	note []byte
	err  error
	made time.Time
}

// New returns the list as it is now. Run keeps it so.
func New(ctx context.Context, cfg Config) (*List, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Clock == nil || cfg.Approvals == nil || cfg.UserCA == nil {
		return nil, errors.New("revocations: pool, log, clock, approvals and user CA must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &List{cfg: cfg, now: &state{changed: make(chan struct{}), notes: map[uint64]*signed{}}}
	if err := l.look(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Run looks for changes until ctx ends. Every replica runs it.
func (l *List) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			l.cfg.Logger.ErrorContext(ctx, "hosts cannot be told what is revoked", "error", err)
		}
		failing = err != nil
	}
}

// look asks the database for the number, and reads what is new.
func (l *List) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	at := l.cfg.Clock.Now()
	number, err := l.head(ctx)
	if err != nil {
		return err
	}
	have := l.current()
	if number < have.number {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.behind = true
		return fmt.Errorf("%w: its number is %d, and was %d", ErrBehind, number, have.number)
	}
	next := have
	if prune := at.Sub(have.pruned) > pruneEvery; number > have.number || prune {
		next = &state{changed: make(chan struct{}), notes: map[uint64]*signed{}, pruned: have.pruned}
		since := have.number
		if prune {
			since, next.pruned = 0, at
		}
		fresh, err := l.read(ctx, since, at)
		if err != nil {
			return err
		}
		next.entries = fresh
		if !prune {
			next.entries = slices.Concat(have.entries, fresh)
		}
		next.number = number
		if n := len(fresh); n > 0 { // one more may have come since head
			next.number = max(number, fresh[n-1].number)
		}
	}
	l.swap(have, next, at)
	return nil
}

// swap puts the next state in the place of the one that it was made from. Of two who
// looked at the same time, one has nothing to do any more.
func (l *List) swap(have, next *state, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != have {
		return
	}
	l.looked, l.behind = at, false
	if next == have {
		return
	}
	l.now = next
	if next.number == have.number { // those who wait go on waiting, for the same
		next.changed = have.changed
		return
	}
	close(have.changed)
}

func (l *List) current() *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// fresh is when the database was last asked, or why that is not to be relied on.
func (l *List) fresh() (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.behind:
		return time.Time{}, ErrBehind
	case l.cfg.Clock.Now().Sub(l.looked) > staleAfter:
		return time.Time{}, ErrUnknown
	}
	return l.looked, nil
}

// News returns the note about what came after the list with the number that the host
// has, as soon as there is something; when the wait is over, or closing is closed, a
// note that says that there is nothing. It returns ErrBehind if the host has a later
// list than there is, and ErrUnknown while the database does not answer.
func (l *List) News(ctx context.Context, after uint64, wait time.Duration, closing <-chan struct{}) ([]byte, error) {
	if after > l.current().number { // another replica may have been faster
		if err := l.look(ctx); err != nil {
			return nil, ErrUnknown.Because(err)
		}
		if after > l.current().number {
			return nil, ErrBehind
		}
	}
	if s := l.current(); s.number <= after && wait > 0 {
		up := time.NewTimer(wait)
		defer up.Stop()
		select {
		case <-s.changed:
		case <-up.C:
		case <-closing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	at, err := l.fresh()
	if err != nil {
		return nil, err
	}
	return l.note(l.current(), after, at)
}

// note is signed by the first who needs it, and shared by all who do.
func (l *List) note(s *state, since uint64, at time.Time) ([]byte, error) {
	s.mu.Lock()
	n := s.notes[since]
	if n == nil && len(s.notes) >= maxNotes {
		since = 0
		n = s.notes[0]
	}
	if n == nil || at.Sub(n.made) > noteLife {
		n = &signed{made: at}
		s.notes[since] = n
	}
	s.mu.Unlock()
	n.once.Do(func() {
		text, err := json.Marshal(s.since(since, at))
		if err != nil {
			n.err = err
			return
		}
		n.note, n.err = l.cfg.Log.Vouch(hostapi.RevocationsKind, string(text))
	})
	return n.note, n.err
}

// since is what a host lacks that has the list with the number.
func (s *state) since(number uint64, at time.Time) hostapi.Revocations {
	out := hostapi.Revocations{Number: s.number, Since: number, MadeAt: at, Oldest: at.Add(-kept),
		Serials: []hostapi.RevokedSerial{}, Grants: []hostapi.EndedGrant{}, Extended: []hostapi.ExtendedGrant{}, Sealed: []hostapi.SealedHost{}}
	first, _ := slices.BinarySearchFunc(s.entries, number+1, func(e entry, n uint64) int { return cmp.Compare(e.number, n) })
	for _, e := range s.entries[first:] {
		switch e.what {
		case "serial":
			out.Serials = append(out.Serials, hostapi.RevokedSerial{Serial: e.serial, Request: e.request, Until: e.until})
		case "ended":
			out.Grants = append(out.Grants, hostapi.EndedGrant{Request: e.request, EndedAt: e.at, Reason: hostapi.EndReason(e.reason), Until: e.until})
		case "extended":
			out.Extended = append(out.Extended, hostapi.ExtendedGrant{Request: e.request, By: e.by, EndsAt: e.at, Until: e.until})
		case "sealed":
			out.Sealed = append(out.Sealed, hostapi.SealedHost{Host: e.host, Deployment: e.deployment, At: e.at, Until: e.until})
		}
	}
	slices.SortFunc(out.Serials, func(a, b hostapi.RevokedSerial) int { return cmp.Compare(a.Serial, b.Serial) })
	slices.SortFunc(out.Grants, func(a, b hostapi.EndedGrant) int { return strings.Compare(a.Request, b.Request) })
	slices.SortFunc(out.Extended, func(a, b hostapi.ExtendedGrant) int { return strings.Compare(a.Request, b.Request) })
	out.Sealed = hostapi.LastSealings(out.Sealed)
	return out
}
