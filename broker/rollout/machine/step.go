package machine

import (
	"slices"
	"time"

	"sallyport/broker/rollout/plan"
)

// MaxOverride is how long a freeze can be overridden for at a time.
const MaxOverride = 24 * time.Hour

// step is one step under way.
type step struct {
	t       *plan.Terms
	s       State
	now     time.Time
	effects []Effect
}

// Step takes what happened, at the time. What time alone brings about comes first, so
// that nobody acts on a lease, an open batch or a soak that the clock has ended, however
// late the process is that looks. A time before the last step's counts as that: clocks
// of replicas differ, and none of them takes back what another has seen. With an error
// nothing has changed.
func Step(t *plan.Terms, s State, e Event, now time.Time) (State, []Effect, error) {
	m := begin(t, s, now)
	if err := m.take(e); err != nil {
		return s, nil, err
	}
	m.advance()
	return m.s, m.effects, nil
}

func begin(t *plan.Terms, s State, now time.Time) *step {
	if now.Before(s.At) {
		now = s.At
	}
	m := &step{t: t, s: s.clone(), now: now}
	m.s.At = now
	m.advance()
	return m
}

func (m *step) say(e Effect) { m.effects = append(m.effects, e) }

func (m *step) take(e Event) error {
	switch e.(type) {
	case Tick, Shut, Verified, Entered, Strayed, Measured, Leave, Revoked:
		if m.s.Phase.Over() {
			return nil // late news of what is over
		}
	default:
		if m.s.Phase.Over() {
			return ErrOver.With("the deployment is %s", m.s.Phase)
		}
	}
	switch e := e.(type) {
	case Start:
		return m.start()
	case Attach:
		return m.attach(e)
	case Renew:
		if err := m.proves(e.By); err != nil {
			return err
		}
		m.renew()
	case OpenBatch:
		return m.open(e)
	case Report:
		return m.report(e)
	case Finish:
		return m.finish(e)
	case AgentAborts:
		if err := m.proves(e.By); err != nil {
			return err
		}
		return m.abort(e.Why)
	case AgentRollsBack:
		if err := m.proves(e.By); err != nil {
			return err
		}
		return m.rollback(e.Why)
	case Abort:
		return m.abort(e.Why)
	case Rollback:
		return m.rollback(e.Why)
	case Leave:
		if m.proves(e.By) == nil {
			m.release("it left", "the agent left while the batch was open")
		}
	case Revoked:
		if m.s.Holder == e.Run {
			m.release(e.Why, e.Why)
		}
	case Approved:
		return m.approved(e)
	case Denied:
		return m.denied(e)
	case Stop:
		m.hold(Stopped, e.Why)
		m.closeOpen("the deployment was stopped")
	case Resume:
		return m.resume(e)
	case Shut:
		m.shut(e)
	case Verified:
		m.verified(e)
	case Entered:
		m.entered(e)
	case Strayed:
		m.hold(Drift, e.Why)
	case Measured:
		m.measured(e)
	}
	return nil
}

func (m *step) move(to Phase, why string) {
	if m.s.Phase == to {
		return
	}
	m.say(PhaseMoved{m.s.Phase, to, why})
	m.s.Phase, m.s.Since = to, m.now
	if to.Over() {
		m.s.Why = why
		m.leaveOpen()
		if m.s.Holder != "" {
			m.say(LeaseOver{m.s.Holder, "the deployment has ended"})
		}
		m.s.Holder, m.s.Lease, m.s.Holds, m.s.Ending = "", time.Time{}, []Hold{}, ""
	}
}

func (m *step) moveBatch(b *Batch, to BatchPhase, why string) {
	m.say(BatchMoved{b.Number, b.Phase, to, why})
	b.Phase, b.Why = to, why
}

// hold keeps the deployment from going on. The first reason of a kind stays.
func (m *step) hold(code, why string) {
	if m.s.held(code) {
		return
	}
	m.s.Holds = append(m.s.Holds, Hold{code, why, m.now})
	m.say(HoldSet{code, why})
}

func (m *step) unhold(code, why string) {
	if !m.s.held(code) {
		return
	}
	m.s.Holds = slices.DeleteFunc(m.s.Holds, func(h Hold) bool { return h.Code == code })
	m.say(HoldEnded{code, why})
}

func (m *step) start() error {
	if m.s.Phase != Planned {
		return nil
	}
	if len(m.t.Approvals) > 0 {
		m.move(AwaitingApproval, "")
		return nil
	}
	m.move(Active, "nobody need approve it")
	return nil
}

// attach gives the run the lease. A run that has it keeps its epoch, so that a call
// whose answer was lost can be made again.
func (m *step) attach(e Attach) error {
	switch m.s.Holder {
	case e.Run:
	case "":
		m.s.Epoch++
		m.s.Holder = e.Run
		m.say(LeaseTaken{e.Run, m.s.Epoch})
		m.unhold(LeaseLost, "a run attached")
	default:
		return ErrLeased.With("run %s has the lease until %s", m.s.Holder, m.s.Lease.Format(time.RFC3339))
	}
	m.renew()
	return nil
}

func (m *step) renew() { m.s.Lease = m.now.Add(m.t.LeaseFor()) }

// proves refuses an agent that does not have the lease in its present epoch.
func (m *step) proves(by By) error { return m.s.proves(by) }

func (s *State) proves(by By) error {
	if by.Run == "" || s.Holder != by.Run || s.Epoch != by.Epoch {
		return ErrStale
	}
	return nil
}

// release takes the lease from whoever has it. From now on the epoch is another, and
// who had it is a stranger. An open batch closes: nobody is there to report on it.
func (m *step) release(why, held string) {
	m.say(LeaseOver{m.s.Holder, why})
	m.s.Holder, m.s.Lease = "", time.Time{}
	m.s.Epoch++
	if b := m.s.Current(); b != nil && b.Phase == Open {
		m.hold(LeaseLost, held)
		m.closeBatch(b, held)
	}
}

// blocked says why the deployment does not open batches or hand out certificates now.
func (s *State) blocked() error {
	switch {
	case s.Phase == Planned || s.Phase == AwaitingApproval:
		return ErrAwaiting
	case len(s.Holds) > 0:
		return ErrHeld.With("the deployment is held: %s", s.Holds[0].Why)
	case s.Ending != "":
		how := string(s.Ending)
		if s.Ending == RollingBack {
			how = "rolled back"
		}
		return ErrBatchState.With("the deployment is about to be %s", how)
	case s.Phase != Active && s.Phase != RollingBack:
		return ErrBatchState.With("the deployment is %s", s.Phase)
	}
	return nil
}

// Overridden reports whether freezes do not hold at the time.
func (s *State) Overridden(at time.Time) bool { return at.Before(s.Unfroze) }

// frozen refuses what a freeze forbids. It does not forbid a rollback, which puts back
// what was there before.
func (m *step) frozen(b *Batch) error {
	if f := m.t.FrozenAt(m.now); f != nil && !b.Rollback && !m.s.Overridden(m.now) {
		return ErrFrozen.With("nothing is deployed in the freeze %q", f.Name)
	}
	return nil
}

func (m *step) open(e OpenBatch) error {
	if err := m.proves(e.By); err != nil {
		return err
	}
	if err := m.s.blocked(); err != nil {
		return err
	}
	b := m.s.Batch(e.Batch)
	switch {
	case b == nil:
		return ErrNoBatch
	case b.Phase == Open && b.Epoch == e.Epoch: // said before, and the answer was lost
		m.renew()
		return nil
	case b.Rollback != (m.s.Phase == RollingBack):
		return ErrBatchState.With("the deployment is %s, and batch %d is not a part of that", m.s.Phase, b.Number)
	}
	for _, before := range m.s.Batches[:e.Batch-1] {
		if !b.Rollback && before.Phase != Passed {
			return ErrBatchBefore.With("batch %d is %s", before.Number, before.Phase)
		}
	}
	if b.Phase != Pending && !(b.Phase == Inconclusive && b.Partial) {
		return ErrBatchState.With("batch %d is %s", b.Number, b.Phase)
	}
	if err := m.frozen(b); err != nil {
		return err
	}
	if b.Openings >= MaxOpenings {
		return ErrOpenings
	}
	b.Openings++
	b.Epoch, b.Opened, b.Partial = m.s.Epoch, m.now, false
	b.Closed, b.Shut, b.Sealed, b.Gated = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	for i := range b.Hosts {
		// What was reported before the batch was lost stands.
		if h := &b.Hosts[i]; h.Result == "" || h.Result == Missing {
			h.Phase, h.Opened, h.Result, h.Why, h.Verified = HostOpen, true, "", "", time.Time{}
		}
	}
	m.moveBatch(b, Open, "")
	m.renew()
	return nil
}

func (m *step) report(e Report) error {
	if err := m.proves(e.By); err != nil {
		return err
	}
	b := m.s.Batch(e.Batch)
	switch {
	case b == nil:
		return ErrNoBatch
	case b.Phase != Open || b.Epoch != e.Epoch:
		return ErrBatchState.With("batch %d is %s", b.Number, b.Phase)
	}
	news := map[string]Result{}
	for id, r := range e.Results {
		h := b.host(id)
		switch {
		case h == nil:
			return ErrOtherBatch
		case r != OK && r != Fail && r != Skipped:
			return ErrResult
		case h.Result == r:
			continue
		case h.Result != "":
			return ErrReported.With("host %s has been reported as %s", id, h.Result)
		}
		news[id] = r
	}
	for id, r := range news {
		h := b.host(id)
		h.Result, h.Phase = r, HostDeployed
		if r == Fail {
			m.s.Spent++
		}
	}
	if len(news) > 0 {
		m.say(HostsReported{b.Number, news})
	}
	m.renew()
	if e.Done {
		m.closeBatch(b, "the agent is done with it")
	}
	return nil
}

func (m *step) finish(e Finish) error {
	if err := m.proves(e.By); err != nil {
		return err
	}
	if b := m.s.Next(); b != nil || m.s.Current() != nil {
		return ErrBatchesLeft
	}
	m.release("it finished", "")
	return nil
}

func (m *step) closeOpen(why string) {
	if b := m.s.Current(); b != nil && b.Phase == Open {
		m.closeBatch(b, why)
	}
}

// closeBatch ends what is open. What nobody reported is missing.
func (m *step) closeBatch(b *Batch, why string) {
	b.Closed = m.now
	for i := range b.Hosts {
		h := &b.Hosts[i]
		if h.Result == "" {
			h.Result, b.Partial = Missing, true
		}
		if h.Phase == HostOpen || h.Phase == HostDeployed {
			h.Phase = HostVerifying
		}
	}
	m.moveBatch(b, Closing, why)
}

// unjudged ends a batch that was on its way to a verdict.
func (m *step) unjudged(why string) {
	if b := m.s.Current(); b != nil && (b.Phase == Soaking || b.Phase == Gating) {
		m.moveBatch(b, Inconclusive, why)
	}
}

func (m *step) abort(why string) error {
	m.s.Ending, m.s.Why = Aborted, why
	m.closeOpen("the deployment is aborted")
	m.unjudged("the deployment was aborted before")
	return nil
}

func (m *step) rollback(why string) error {
	if !m.wayBack() {
		return ErrNoWayBack
	}
	m.s.Ending, m.s.Why = RollingBack, why
	m.closeOpen("the deployment is rolled back")
	m.unjudged("the deployment was rolled back before")
	return nil
}

// wayBack reports whether something was opened, an artifact was verified before it, and
// no rollback has been begun.
func (m *step) wayBack() bool {
	if m.t.Previous == "" || m.s.Phase == RollingBack || m.s.Ending != "" {
		return false
	}
	return len(m.opened()) > 0
}

// opened are the hosts that were opened, as they stand.
func (m *step) opened() (list []Host) {
	for _, h := range m.s.Last() {
		if h.Opened {
			list = append(list, *h)
		}
	}
	return list
}
