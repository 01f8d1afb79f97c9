package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/event"
	"sallyport/audit/retention"
	"sallyport/evidence/populations"
)

const (
	// grace is for how long a request is remembered after it is over, by the log's
	// own times: what happens to it still is told better by what it was.
	grace = time.Hour
	// reported is how long after its certificate's end a session may be reported.
	reported = 24 * time.Hour
	// keysGrace is how long notes about a provider's keys are remembered: a decision
	// names one that is at most evidence.KeysLifetime old.
	keysGrace = 3 * time.Hour
	// resultGrace is how long after its intent the result of a signature may come.
	resultGrace = 10 * time.Minute
)

// Config is what reconciliation needs. All of it must be set.
type Config struct {
	// From and To are the period: exceptions are reported of what is in it, To
	// excluded. Entries before and after it are context.
	From, To time.Time
	// First is the index of the first entry: not 0 if older ones were pruned.
	First int64
	// LogKey is the log's public key in note format, by which notes are opened.
	LogKey string
	// Document returns the policy document with the hash (SHA-256, hex).
	Document func(hash string) ([]byte, error)
	// Report takes an exception. Its error ends everything.
	Report func(Exception) error
	// Row takes a row of a register: the event that began what it is about, and the cells
	// of its fields. Its error ends everything.
	Row func(r *populations.Register, e *populations.Event, cells []string) error
}

// Engine reconciles one log.
type Engine struct {
	cfg  Config
	key  note.Verifier // of the log
	err  error
	now  time.Time // the latest time of any event so far
	next int64     // the index that should come
	gap  struct{ from, to int64 }

	requests    map[string]*request
	sweepAt     int
	emergencies map[string]*emergency
	unreviewed  map[string]string // by person: the real emergency that waits
	leavers     map[string]leaver
	notes       map[string]keysNote
	lent        map[string]delegation
	live        map[uint64]*certificate
	recorded    recorded
	intents     intents

	deployments map[string]*deployment
	ending      []ended               // of deployments, in that order
	open        map[string][]*opening // by host: batches that are open now
	runs        map[string]*run
	verified    map[place]string // digest that was verified last
	emails      map[string]email // by person
	policies    policies
	prunes      []pruned
	pruned      int64 // by the log's own word: entries before it may be gone
}

// New begins.
func New(cfg Config) (*Engine, error) {
	if cfg.LogKey == "" || cfg.Document == nil || cfg.Report == nil || cfg.Row == nil || !cfg.From.Before(cfg.To) {
		return nil, errors.New("reconciling: period, log key, documents, report and rows must be set")
	}
	key, err := note.NewVerifier(cfg.LogKey)
	if err != nil {
		return nil, fmt.Errorf("reconciling: the log's key: %w", err)
	}
	return &Engine{
		cfg: cfg, key: key, next: cfg.First, sweepAt: 1024,
		requests: map[string]*request{}, emergencies: map[string]*emergency{}, unreviewed: map[string]string{},
		leavers: map[string]leaver{}, notes: map[string]keysNote{}, lent: map[string]delegation{}, live: map[uint64]*certificate{},
		deployments: map[string]*deployment{}, open: map[string][]*opening{}, runs: map[string]*run{}, verified: map[place]string{}, emails: map[string]email{}, recorded: recorded{open: map[string]*recordedSession{}},
		intents: newIntents(), policies: newPolicies(),
	}, nil
}

// Now is the latest time of any event so far: at the end, when the log was last
// heard of.
func (g *Engine) Now() time.Time { return g.now }

// in reports whether something at the time is in the period.
func (g *Engine) in(t time.Time) bool { return !t.Before(g.cfg.From) && t.Before(g.cfg.To) }

// report reports what is about an event, if the event is in the period.
func (g *Engine) report(code string, e *populations.Event, related int64, format string, args ...any) {
	if !g.in(e.Time) {
		return
	}
	person := e.Subject.PersonID
	if e.Actor.Kind == event.Person && person == "" {
		person = e.Actor.ID
	}
	g.say(Exception{Code: code, Index: e.Index, Related: related, Time: e.Time, Request: e.Subject.RequestID, Person: person,
		Detail: fmt.Sprintf(format, args...)})
}

// say reports, whatever the period.
func (g *Engine) say(x Exception) {
	if g.err == nil {
		g.err = g.cfg.Report(x)
	}
}

// Add takes the next entry. idToken is the token of a statement that the provider
// signed, which is not in the leaf itself; "" if it is not there. The event must not
// change afterwards.
func (g *Engine) Add(e *populations.Event, idToken string) error {
	if e.Index != g.next {
		return fmt.Errorf("reconciling: entry %d comes instead of %d", e.Index, g.next)
	}
	g.next++
	g.endGap()
	if e.Time.After(g.now) {
		g.now = e.Time
	}
	if e.Err != nil {
		if e.Time.IsZero() {
			e.Time = g.now
		}
		g.report(EventUnreadable, e, -1, "%s", e.Err)
		return g.err
	}
	g.leaving(e)
	switch d := e.Known.(type) {
	case event.RequestCreated:
		g.created(e, d)
	case event.RequestDecided:
		g.decided(e, d, idToken)
	case event.DecisionVoided:
		g.voided(e, d)
	case event.RequestClosed:
		g.closed(e)
	case event.GrantStarted:
		g.started(e, d)
	case event.GrantEnded:
		g.ended(e, d)
	case event.CertificateIssued:
		g.issued(e, d)
	case event.EmergencyStarted:
		g.opened(e, d)
	case event.ReviewGiven:
		g.reviewed(e, d, idToken)
	case event.ProviderKeysSeen:
		g.notes[d.NoteHash] = keysNote{d.Note, e.Time}
	case event.DelegationMade:
		g.lent[d.DelegationID] = delegation{d.Note, d.Until}
	case event.PolicyProposed:
		g.proposed(e, d)
	case event.PolicyDecided:
		g.policyDecided(e, d, idToken)
	case event.PolicyWithdrawn:
		delete(g.policies.proposals, d.ProposalID)
	case event.PolicyActivated:
		g.activated(e, d)
	case event.PersonSignedIn:
		g.emails[e.Actor.ID] = email{d.Email, e.Time}
	case event.PersonRemoved:
		g.leavers[e.Subject.PersonID] = leaver{e.Time, e.Index}
	case event.PersonRestored:
		delete(g.leavers, e.Subject.PersonID)
	case event.RetentionPruned:
		g.prunedBefore(e, d)
	default:
		if !g.deploying(e, idToken) {
			g.other(e)
		}
	}
	g.overdueIntents(e.Time)
	g.overdueRecordings(e.Time)
	g.forgetEnded(g.now)
	if g.remembered() >= g.sweepAt {
		g.sweep()
	}
	return g.err
}

// other takes events that this program does not know, or that are checked by their
// names alone.
func (g *Engine) other(e *populations.Event) {
	switch {
	case e.Type == "session.started":
		g.session(e)
		g.recording(e)
	case strings.HasPrefix(e.Type, "session."):
		g.recording(e)
	case e.Type == "host.certificate_issued":
		g.intents.add(e)
	case e.Type == "certificate.signed", e.Type == "host.certificate_signed", e.Type == "deployment.certificate_signed":
		g.intents.result(e)
	}
}

// deploying takes what is about deploy agents and deployments, and reports whether the
// event is.
func (g *Engine) deploying(e *populations.Event, idToken string) bool {
	switch d := e.Known.(type) {
	case event.AgentAdmitted:
		g.admitted(e, d)
	case event.AgentTokenShared:
		g.tokenShared(e, d)
	case event.AgentRevoked:
		g.runRevoked(e, d)
	case event.DeploymentOpened:
		g.deploymentOpened(e, d)
	case event.DeploymentDecided:
		g.deploymentDecided(e, d, idToken)
	case event.DeploymentMoved:
		g.deploymentMoved(e, d)
	case event.DeploymentHeld:
		g.deploymentHeld(e, d.DeploymentID, d.Code, true)
	case event.DeploymentResumed:
		g.deploymentHeld(e, d.DeploymentID, d.Code, false)
	case event.DeploymentLeased:
		g.deploymentLeased(e, d)
	case event.DeploymentReleased:
		g.deploymentReleased(e, d)
	case event.DeploymentUnfrozen:
		g.deploymentUnfrozen(e, d)
	case event.BatchMoved:
		g.batchMoved(e, d)
	case event.BatchReported:
		g.batchReported(e, d)
	case event.BatchVerified:
		g.batchVerified(e, d)
	case event.GateDecided:
		g.gateDecided(e, d)
	case event.DeploymentCertificateIssued:
		g.agentIssued(e, d)
	default:
		return false
	}
	return true
}

// Missing says that the next entry is not there.
func (g *Engine) Missing(index int64) error {
	if index != g.next {
		return fmt.Errorf("reconciling: entry %d comes instead of %d", index, g.next)
	}
	if g.gap.to != index || g.gap.to == g.gap.from {
		g.endGap()
		g.gap.from = index
	}
	g.next++
	g.gap.to = g.next
	return g.err
}

// endGap reports a stretch of missing entries. When they happened nobody knows: it
// is reported whatever the period.
func (g *Engine) endGap() {
	if g.gap.from == g.gap.to {
		return
	}
	said := fmt.Sprintf("entry %d is missing", g.gap.from)
	if g.gap.to-g.gap.from > 1 {
		said = fmt.Sprintf("entries %d to %d are missing", g.gap.from, g.gap.to-1)
	}
	g.say(Exception{Code: LogGap, Index: g.gap.from, Related: g.gap.to - 1, Time: g.now,
		Detail: said + ": the database lacks them or has others; the tree has their hashes"})
	g.gap.from, g.gap.to = 0, 0
}

// Finish reports what is still open at the end.
func (g *Engine) Finish() error {
	g.endGap()
	for _, id := range sorted(g.requests) {
		g.forget(g.requests[id])
	}
	for _, id := range sorted(g.emergencies) {
		g.stillOpen(g.emergencies[id])
	}
	g.overdueIntents(g.now)
	g.overdueRecordings(g.now)
	g.forgetAll()
	g.archived()
	if g.cfg.First > g.pruned {
		g.say(Exception{Code: PrunedWithoutRecords, Index: -1, Related: -1, Time: g.now,
			Detail: fmt.Sprintf("entries 0 to %d are not in the database, and no event in this pack says that they were pruned", g.cfg.First-1)})
	}
	return g.err
}

// sweep forgets what is over.
func (g *Engine) sweep() {
	for _, id := range sorted(g.requests) {
		if r := g.requests[id]; r.followers == 0 && r.over(g.now) {
			g.forget(r)
		}
	}
	for serial, c := range g.live {
		if g.now.After(c.before.Add(reported)) {
			delete(g.live, serial)
		}
	}
	for hash, n := range g.notes {
		if g.now.After(n.at.Add(keysGrace)) {
			delete(g.notes, hash)
		}
	}
	for id, d := range g.lent {
		if g.now.After(d.until.Add(grace)) {
			delete(g.lent, id)
		}
	}
	for id, r := range g.runs {
		if g.now.After(r.expires.Add(grace)) {
			delete(g.runs, id)
		}
	}
	for id, m := range g.emails {
		if g.now.After(m.at.Add(signedIn)) {
			delete(g.emails, id)
		}
	}
	g.sweepAt = max(1024, 2*g.remembered())
}

// remembered is how much a sweep may make less.
func (g *Engine) remembered() int {
	return len(g.requests) + len(g.live) + len(g.notes) + len(g.lent) + len(g.runs) + len(g.emails)
}

// keysNote is a note about the keys of the provider, and when it was seen.
type keysNote struct {
	note string
	at   time.Time
}

// delegation is the note of one that runs.
type delegation struct {
	note  string
	until time.Time
}

// beforePack reports that something rests on what older entries say, if there are
// any that the pack has not; else it reports false.
func (g *Engine) beforePack(e *populations.Event, what string) bool {
	if g.cfg.First == 0 {
		return false
	}
	g.report(BeforePack, e, -1, "%s is before entry %d, the first of this pack", what, g.cfg.First)
	return true
}

// prunedBefore believes the log about what was removed from the database, if the log's
// key vouches for it. If it does not, that is reported whatever the period.
func (g *Engine) prunedBefore(e *populations.Event, d event.RetentionPruned) {
	err := retention.Check(d, g.key)
	if err == nil && int64(d.Before) > e.Index {
		err = errors.New("it is about entries after itself")
	}
	if err != nil {
		g.say(Exception{Code: PrunedWithoutRecords, Index: e.Index, Related: -1, Time: e.Time,
			Detail: fmt.Sprintf("entry %d says that entries before %d were pruned, and does not count: %s", e.Index, d.Before, err)})
		return
	}
	g.pruned = max(g.pruned, int64(d.Before))
	g.prunes = slices.DeleteFunc(g.prunes, func(p pruned) bool { return p.Before == d.Before }) // another archive was made
	g.prunes = append(g.prunes, pruned{d, e.Index, e.Time})
}

// pruned is a record of what is not in the pack.
type pruned struct {
	event.RetentionPruned
	index int64
	at    time.Time
}

// archived reports what is of the period, and in an archive. Of entries before those that
// the oldest record is about, only that archive says when they happened.
func (g *Engine) archived() {
	for i, p := range g.prunes {
		earlier := i == 0 && p.First > 0
		if int64(p.Before) > g.cfg.First || p.Latest.Before(g.cfg.From) || !p.Earliest.Before(g.cfg.To) && !earlier {
			continue
		}
		said := fmt.Sprintf("entries %d to %d, of %s to %s, were pruned: they are in the archive %s with SHA-256 %s", p.First, p.Before-1,
			populations.Time(p.Earliest), populations.Time(p.Latest), p.Archive, p.ArchiveSHA256)
		if earlier {
			said += fmt.Sprintf("; entry %d, which is in it, says where those before them are", p.Previous)
		}
		g.say(Exception{Code: PrunedInPeriod, Index: p.index, Related: -1, Time: p.at, Detail: said})
	}
}
