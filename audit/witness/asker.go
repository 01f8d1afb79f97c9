package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

const (
	// round is how often witnesses are asked about a head that has moved.
	round = time.Second
	// A witness that does not answer is asked again after pauses from minPause, doubled
	// up to maxPause.
	minPause, maxPause = time.Second, time.Minute
	// LagAlarm is how long a head may wait for the quorum before that is an alarm.
	LagAlarm = 5 * time.Minute
	// catchUp is how long Cosigned waits for the quorum.
	catchUp = 20 * time.Second
)

var (
	// ErrRolledBack says that a witness remembers more of the log, or another one, than
	// the database has.
	ErrRolledBack = refusal.New(refusal.Unavailable, "log-behind-witness",
		"a witness remembers more of the audit log, or another one, than the database has",
		"nothing is granted. An operator must find out whether the database was restored, failed over or changed: docs/witness.md says how, and how to go on")
	// ErrUnwitnessed says that the witnesses lag, where certificates wait for them.
	ErrUnwitnessed = refusal.New(refusal.Unavailable, "log-unwitnessed",
		"the audit log's witnesses have not confirmed it for too long, and this broker issues nothing without them",
		"try again in a moment; if it lasts, an operator finds the cause in the broker's own log, or at the witnesses")
)

// AskerConfig is what an asker needs. Every field without "optional" must be set.
type AskerConfig struct {
	Log *audit.Log
	// Policy names the witnesses, where they are, and how many must agree.
	Policy *cosignature.Policy
	Clock  clock.Clock
	Logger *slog.Logger
	// Require is for how long certificates are issued while the newest head waits for
	// the quorum. Optional: for ever.
	Require time.Duration
	// Client makes the calls. Optional: one that follows no redirects.
	Client *http.Client
}

// Asker has the log's heads cosigned, in one process; those of other replicas do so as
// well, and witnesses tell them what they have missed.
type Asker struct {
	cfg   AskerConfig
	log   note.Verifier
	peers []*peer

	mu      sync.Mutex
	newest  []byte    // the newest checkpoint that the quorum has cosigned
	size    int64     // of it
	waiting time.Time // since when a larger head waits; zero: none does
	alarmed bool
	moved   chan struct{} // closed and made anew when newest moves
	kick    chan struct{}
}

// peer is a witness with what is known of it.
type peer struct {
	Peer
	mu     sync.Mutex
	size   int64 // that it has last cosigned, as far as is known
	at     time.Time
	next   time.Time // when it may be asked again
	pause  time.Duration
	failed error
	told   bool // that it contradicts the log
}

// NewAsker returns an asker. Check and Run do its work.
func NewAsker(cfg AskerConfig) (*Asker, error) {
	if cfg.Log == nil || cfg.Policy == nil || cfg.Clock == nil || cfg.Logger == nil {
		return nil, errors.New("witnesses: log, policy, clock and logger must be set")
	}
	verifier, err := note.NewVerifier(cfg.Log.VerifierKey())
	if err != nil {
		return nil, err
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	a := &Asker{cfg: cfg, log: verifier, moved: make(chan struct{}), kick: make(chan struct{}, 1)}
	for _, w := range cfg.Policy.All() {
		if w.URL == "" {
			continue
		}
		a.peers = append(a.peers, &peer{Peer: Peer{Name: w.Name, URL: strings.TrimRight(w.URL, "/") + addCheckpoint, Key: w.Key}, pause: minPause})
	}
	if len(a.peers) == 0 {
		return nil, errors.New("witnesses: the policy names none with an address: witness <name> <vkey> <url>")
	}
	return a, nil
}

// head is a head of the log that is to be cosigned.
type head struct {
	tree tlog.Tree
	note *note.Note
	msg  []byte
}

func (a *Asker) head(ctx context.Context) (head, error) {
	msg, err := a.cfg.Log.Checkpoint(ctx)
	if err != nil {
		return head{}, err
	}
	tree, err := checkpoint.Open(msg, a.log)
	if err != nil {
		return head{}, err
	}
	n, err := note.Open(msg, note.VerifierList(a.log))
	return head{tree, n, msg}, err
}

// ask has one witness cosign a head. A witness that remembers another size, because
// another replica asked it or this process is new, is asked once more from there.
func (a *Asker) ask(ctx context.Context, p *peer, h head) (note.Signature, error) {
	p.mu.Lock()
	old := min(p.size, h.tree.N)
	p.mu.Unlock()
	for again := range 3 {
		proof, err := a.proof(ctx, old, h.tree.N)
		if err != nil {
			return note.Signature{}, err
		}
		sig, err := p.Peer.ask(ctx, a.cfg.Client, request{old, proof, h.msg})
		var other conflict
		switch {
		case err == nil:
			p.mu.Lock()
			p.size, p.at = h.tree.N, a.cfg.Clock.Now()
			p.mu.Unlock()
			return sig, nil
		case !errors.As(err, &other):
			return sig, err
		case other.size > h.tree.N:
			return sig, other
		case other.size == old && again > 0:
			return sig, errContradicted // of one size, and not the same tree
		}
		old = other.size
	}
	return note.Signature{}, errors.New("it names another size each time")
}

func (a *Asker) proof(ctx context.Context, from, to int64) (tlog.TreeProof, error) {
	if from == 0 || from == to {
		return nil, nil
	}
	proof, err := tlog.ProveTree(to, from, a.cfg.Log.Hashes(ctx))
	if err != nil {
		return nil, fmt.Errorf("proving that %d entries continue %d: %w", to, from, err)
	}
	return proof, nil
}

// Check asks every witness once, before anything else is done with the log. It returns
// ErrRolledBack if one of them remembers what the database does not have. A witness
// that does not answer keeps nobody from starting.
func (a *Asker) Check(ctx context.Context) error {
	h, err := a.head(ctx)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	refused := make([]error, len(a.peers))
	for i, p := range a.peers {
		all.Go(func() {
			_, err := a.ask(ctx, p, h)
			var ahead conflict
			switch {
			case errors.As(err, &ahead):
				refused[i] = fmt.Errorf("the witness %s has cosigned %d entries, the database has %d", p.Name, ahead.size, h.tree.N)
			case errors.Is(err, errContradicted):
				refused[i] = fmt.Errorf("the witness %s: %w than the database's first %d entries", p.Name, err, h.tree.N)
			case err != nil:
				a.cfg.Logger.Warn("a witness does not answer", "witness", p.Name, "error", err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(refused...); err != nil {
		return ErrRolledBack.Because(err)
	}
	return nil
}

// Run asks until ctx ends, and then returns nil.
func (a *Asker) Run(ctx context.Context) error {
	ticker := time.NewTicker(round)
	defer ticker.Stop()
	for {
		a.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-a.kick:
		}
	}
}

// round asks those witnesses that may be asked about the newest head, if the quorum
// has not cosigned it yet or one of them has not.
func (a *Asker) round(ctx context.Context) {
	h, err := a.head(ctx)
	if err != nil {
		return // the log's own alarm
	}
	now := a.cfg.Clock.Now()
	var all sync.WaitGroup
	var mu sync.Mutex
	n := &note.Note{Text: h.note.Text, Sigs: h.note.Sigs}
	for _, p := range a.peers {
		if !p.due(h.tree.N, now) {
			continue
		}
		all.Go(func() {
			sig, err := a.ask(ctx, p, h)
			if ctx.Err() != nil {
				return
			}
			p.result(err, a.cfg.Clock.Now())
			if err != nil {
				a.complain(ctx, p, h, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			n.Sigs = append(n.Sigs, sig)
		})
	}
	all.Wait()
	if len(n.Sigs) > len(h.note.Sigs) {
		a.cosigned(h, n)
	}
	a.lag(ctx, h, now)
}

func (p *peer) due(size int64, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return (p.size != size || p.failed != nil) && !now.Before(p.next)
}

func (p *peer) result(err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed = err; err == nil {
		p.pause, p.next, p.told = minPause, time.Time{}, false
		return
	}
	p.next = now.Add(p.pause)
	p.pause = min(2*p.pause, maxPause)
}

// complain tells of a witness that contradicts the log; one that is only ahead may
// have heard from another replica meanwhile.
func (a *Asker) complain(ctx context.Context, p *peer, h head, err error) {
	var ahead conflict
	if errors.As(err, &ahead) {
		if now, again := a.head(ctx); again != nil || ahead.size <= now.tree.N {
			return
		}
		err = fmt.Errorf("it has cosigned %d entries, the database has %d", ahead.size, h.tree.N)
	} else if !errors.Is(err, errContradicted) {
		a.cfg.Logger.Warn("a witness does not cosign", "witness", p.Name, "error", err)
		return
	}
	p.mu.Lock()
	told := p.told
	p.told = true
	p.mu.Unlock()
	a.cfg.Logger.Error("a witness contradicts the log", "witness", p.Name, "error", err)
	if !told {
		a.record(ctx, event.WitnessContradicts{Witness: p.Name, Size: uint64(h.tree.N), Reason: err.Error()})
	}
}

// cosigned keeps a note with new cosignatures, if the quorum is among them.
func (a *Asker) cosigned(h head, n *note.Note) {
	msg, err := note.Sign(n)
	if err != nil {
		return
	}
	if _, enough := a.cfg.Policy.Witnesses(msg); !enough {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.tree.N < a.size {
		return
	}
	a.newest, a.size = msg, h.tree.N
	close(a.moved)
	a.moved = make(chan struct{})
}

// lag notes since when a head waits for the quorum, and tells of it once.
func (a *Asker) lag(ctx context.Context, h head, now time.Time) {
	a.mu.Lock()
	var say event.Data
	switch {
	case h.tree.N <= a.size:
		if a.alarmed {
			say = event.WitnessesCaughtUp{Size: uint64(a.size)}
		}
		a.waiting, a.alarmed = time.Time{}, false
	case a.waiting.IsZero():
		a.waiting = now
	case !a.alarmed && now.Sub(a.waiting) >= LagAlarm:
		a.alarmed = true
		say = event.WitnessesLag{Size: uint64(h.tree.N), Cosigned: uint64(a.size), Since: a.waiting, Silent: a.silent()}
	}
	a.mu.Unlock()
	if say != nil {
		a.cfg.Logger.Warn("witnesses", "what", say.Summary())
		a.record(ctx, say)
	}
}

func (a *Asker) silent() []string {
	names := []string{}
	for _, p := range a.peers {
		p.mu.Lock()
		if p.failed != nil {
			names = append(names, p.Name)
		}
		p.mu.Unlock()
	}
	return names
}

func (a *Asker) record(ctx context.Context, data event.Data) {
	e := event.New(a.cfg.Clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, data)
	if _, err := a.cfg.Log.Record(ctx, e); err != nil {
		a.cfg.Logger.Error("it could not be recorded", "what", data.Summary(), "error", err)
	}
}

// Late says why nothing may be issued, where certificates wait for witnesses.
func (a *Asker) Late() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cfg.Require == 0 || a.waiting.IsZero() || a.cfg.Clock.Now().Sub(a.waiting) < a.cfg.Require {
		return nil
	}
	return ErrUnwitnessed.Because(fmt.Errorf("a head waits since %s", a.waiting.Format(time.RFC3339)))
}

// Newest is the newest checkpoint that the quorum has cosigned, with all cosignatures;
// nil if there is none yet.
func (a *Asker) Newest() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newest
}

// Cosigned returns a checkpoint of at least so many entries that the quorum has
// cosigned. If there is none in time, it returns the log's own: what is missing is for
// whoever reads it to find.
func (a *Asker) Cosigned(ctx context.Context, atLeast int64) ([]byte, error) {
	select {
	case a.kick <- struct{}{}:
	default:
	}
	limit := time.NewTimer(catchUp)
	defer limit.Stop()
	for {
		a.mu.Lock()
		newest, size, moved := a.newest, a.size, a.moved
		a.mu.Unlock()
		if newest != nil && size >= atLeast {
			return newest, nil
		}
		select {
		case <-moved:
		case <-limit.C:
			return a.cfg.Log.Checkpoint(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Status is what is known of a witness.
type Status struct {
	Name  string
	Size  int64     // of the head that it has last cosigned
	At    time.Time // when; zero: never since this process began
	Error string    // why it does not cosign now
}

// Status says how it stands, by the witnesses' names, and since when the newest head
// waits for the quorum; zero if it does not.
func (a *Asker) Status() (list []Status, waiting time.Time) {
	for _, p := range a.peers {
		p.mu.Lock()
		s := Status{Name: p.Name, Size: p.size, At: p.at}
		if p.failed != nil {
			s.Error = p.failed.Error()
		}
		p.mu.Unlock()
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y Status) int { return strings.Compare(x.Name, y.Name) })
	a.mu.Lock()
	defer a.mu.Unlock()
	return list, a.waiting
}
