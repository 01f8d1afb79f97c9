package machine

import (
	"fmt"
	"time"

	"sallyport/approvals/policy"
)

// advance does all that follows by itself, or by the clock.
func (m *step) advance() {
	for m.once() {
	}
}

// once does one thing of that, and reports whether there was one.
func (m *step) once() bool {
	s := &m.s
	if s.Phase.Over() {
		return false
	}
	if s.Holder != "" && !m.now.Before(s.Lease) {
		m.release("its time passed", fmt.Sprintf("run %s was not heard of in time while the batch was open", s.Holder))
		return true
	}
	if b := s.Current(); b != nil {
		if m.batch(b) {
			return true
		}
		if b.Phase == Open || b.Phase == Closing || b.Phase == Sealing {
			return m.sync()
		}
	}
	if s.Ending != "" {
		m.end()
		return true
	}
	switch s.Phase {
	case Active, Held:
		if m.sync() {
			return true
		}
		if s.Phase == Active && s.passed(false) {
			m.move(Verifying, "every batch has passed")
			return true
		}
	case RollingBack:
		last := s.Batches[len(s.Batches)-1]
		switch {
		case last.Phase == Passed:
			m.s.Digest = m.t.Previous
			m.move(RolledBack, s.Why)
			return true
		case last.Phase == Failed:
			m.move(RollbackFailed, last.Why)
			return true
		}
	case Verifying:
		return m.verifying()
	}
	return false
}

// sync makes the phase say whether the deployment is held.
func (m *step) sync() bool {
	switch held := len(m.s.Holds) > 0; {
	case m.s.Phase == Active && held:
		m.move(Held, m.s.Holds[0].Why)
	case m.s.Phase == Held && !held:
		m.move(Active, "nothing holds it any more")
	default:
		return false
	}
	return true
}

// passed reports whether all batches have, of the deployment or of its rollback.
func (s *State) passed(rollback bool) bool {
	for _, b := range s.Batches {
		if b.Rollback == rollback && b.Phase != Passed {
			return false
		}
	}
	return true
}

// batch moves the current batch on, as far as it does by itself.
func (m *step) batch(b *Batch) bool {
	switch b.Phase {
	case Open:
		switch {
		case m.s.Spent > m.t.Failures && !b.Rollback:
			m.closeBatch(b, "the failure budget is spent")
		case !m.now.Before(b.Opened.Add(m.t.OpenTime())):
			m.closeBatch(b, "it was open for as long as it may be")
		case b.reported():
			m.closeBatch(b, "every host is reported")
		default:
			return false
		}
		return true
	case Sealing:
		if !m.now.Before(b.Shut.Add(m.t.VerifyTime())) {
			m.giveUp(b)
		}
		if b.verifying() {
			return false
		}
		m.sealed(b)
		return true
	case Soaking:
		if b.Rollback || !m.now.Before(b.Sealed.Add(m.t.Batches[b.Number-1].SoakTime())) {
			m.gating(b, "")
			return true
		}
	case Gating:
		return m.gates(b)
	}
	return false
}

func (b *Batch) reported() bool {
	for _, h := range b.Hosts {
		if h.Result == "" {
			return false
		}
	}
	return true
}

// giveUp puts in quarantine what has not shown that it is sealed.
func (m *step) giveUp(b *Batch) {
	for i := range b.Hosts {
		if h := &b.Hosts[i]; h.Phase == HostVerifying {
			h.Phase, h.Why = HostQuarantined, "it has not shown in time that it is sealed"
			m.s.Spent++
			m.say(HostMoved{b.Number, h.ID, h.Phase, h.Why})
		}
	}
}

// sealed is what follows when no host of the batch is open any more.
func (m *step) sealed(b *Batch) {
	b.Sealed = m.now
	bad, failed := 0, 0
	for _, h := range b.Hosts {
		if h.Phase != HostSealed {
			bad++
		}
		if h.Phase == HostDrifted || h.Result == Fail {
			failed++
		}
	}
	switch {
	case m.s.Ending != "":
		m.moveBatch(b, Inconclusive, "the deployment ends before it is judged")
	case b.Rollback && (bad > 0 || failed > 0):
		m.fail(b, fmt.Sprintf("%s, %d failed", unsealed(bad), failed))
	case b.Partial && b.Openings >= MaxOpenings:
		m.fail(b, "it was lost too often")
	case b.Rollback && b.Partial, b.Partial && m.s.Spent <= m.t.Failures && !drifted(b):
		m.moveBatch(b, Inconclusive, "some of its hosts were not reported")
	case b.Rollback:
		m.moveBatch(b, Passed, "")
	case drifted(b):
		m.fail(b, "a host has drifted")
	case m.s.Spent > m.t.Failures:
		m.fail(b, fmt.Sprintf("%s failed over all batches, and %d may", hosts(m.s.Spent, "has", "have"), m.t.Failures))
	default:
		m.moveBatch(b, Soaking, "")
	}
}

func unsealed(n int) string { return hosts(n, "is", "are") + " not sealed" }

// hosts is so many, with the verb in their number.
func hosts(n int, one, many string) string {
	if n == 1 {
		return "1 host " + one
	}
	return fmt.Sprintf("%d hosts %s", n, many)
}

func drifted(b *Batch) bool {
	for _, h := range b.Hosts {
		if h.Phase == HostDrifted {
			return true
		}
	}
	return false
}

// gating begins to judge the batch, or begins again.
func (m *step) gating(b *Batch, why string) {
	b.Gated, b.Gates = m.now, nil
	m.moveBatch(b, Gating, why)
	ok := 0
	for _, h := range b.Hosts {
		if h.Result == OK {
			ok++
		}
	}
	for _, t := range m.t.Batches[b.Number-1].Gates {
		b.Gates = append(b.Gates, Gate{Name: t.Name, Verdict: Waiting, Next: m.now})
		g := &b.Gates[len(b.Gates)-1]
		if t.Kind == policy.ReportedGate {
			v, why := Pass, fmt.Sprintf("%d of %d hosts are ok, and %d must be", ok, len(b.Hosts), t.OK)
			if ok < t.OK {
				v = NoPass
			}
			m.decide(b, g, v, why)
		}
	}
}

// gates gives the batch its verdict when there is one: that of all gates, or of the
// first that does not pass.
func (m *step) gates(b *Batch) bool {
	waiting, unclear := false, ""
	for i := range b.Gates {
		g := &b.Gates[i]
		if within := m.t.Gate(b.Number, g.Name).WithinTime(); g.Verdict == Waiting && within > 0 && !m.now.Before(b.Gated.Add(within)) {
			why := "it did not pass in time"
			if g.Why != "" {
				why += "; last: " + g.Why
			}
			m.decide(b, g, Unclear, why)
		}
		switch g.Verdict {
		case NoPass:
			m.fail(b, fmt.Sprintf("gate %s: %s", g.Name, g.Why))
			return true
		case Waiting:
			waiting = true
		case Unclear:
			unclear = fmt.Sprintf("gate %s: %s", g.Name, g.Why)
		}
	}
	switch {
	case waiting || unclear == "" && b.verifying():
		return false
	case unclear != "":
		m.moveBatch(b, Inconclusive, unclear)
		m.hold(GatesUnclear, unclear)
	default:
		m.moveBatch(b, Passed, "")
	}
	return true
}

// end ends the deployment, or begins its rollback, now that no batch is open.
func (m *step) end() {
	ending := m.s.Ending
	m.s.Ending = ""
	switch {
	case ending == RollingBack:
		back := Batch{Number: len(m.s.Batches) + 1, Rollback: true, Phase: Pending}
		for _, h := range m.opened() {
			back.Hosts = append(back.Hosts, Host{ID: h.ID, Phase: h.Phase, Verified: h.Verified, Entered: h.Entered, Why: h.Why})
		}
		m.s.Batches = append(m.s.Batches, back)
		for _, code := range []string{BatchFailed, GatesUnclear, Drift, LeaseLost} {
			m.unhold(code, "the deployment is rolled back")
		}
		m.move(RollingBack, m.s.Why)
	case m.s.Phase == RollingBack:
		m.move(RollbackFailed, m.s.Why)
	default:
		m.move(Aborted, m.s.Why)
	}
}

// verifying waits until every host has shown once more that it is sealed: after the phase
// began, with which all of them were sealed anew.
func (m *step) verifying() bool {
	late := !m.now.Before(m.s.Since.Add(m.t.VerifyTime()))
	bad := 0
	for _, h := range m.s.Last() {
		switch {
		case h.Phase == HostSealed && h.Verified.After(m.s.Since):
		case h.Phase == HostDrifted:
			bad++
		case !late:
			return false
		default:
			if bad++; h.Phase == HostSealed || h.Phase == HostVerifying {
				h.Phase, h.Why = HostQuarantined, "it has not shown in time that it is sealed"
				m.say(HostMoved{0, h.ID, h.Phase, h.Why})
			}
		}
	}
	why := unsealed(bad)
	switch {
	case bad == 0:
		m.move(Complete, "every host is sealed and verified")
	case m.t.OnFailure == "rollback" && m.wayBack():
		m.s.Ending, m.s.Why = RollingBack, why
	default:
		m.move(Aborted, why)
	}
	return true
}

// Mint is what a certificate may be.
type Mint struct {
	Until    time.Time // it ends with the batch, the lease, or before a freeze, whichever is first
	Closes   time.Time // when the batch closes at the latest, and what the certificate opened ends
	Rollback bool
}

// mayMint says whether the agent may have a certificate for the host now, and until when
// one may be good: it never outlives what it depends on, even if nobody revokes it.
func (m *step) mayMint(by By, batch int, host string) (Mint, error) {
	if m.s.Phase.Over() {
		return Mint{}, ErrOver.With("the deployment is %s", m.s.Phase)
	}
	if err := m.proves(by); err != nil {
		return Mint{}, err
	}
	if err := m.s.blocked(); err != nil {
		return Mint{}, err
	}
	b := m.s.Batch(batch)
	switch {
	case b == nil:
		return Mint{}, ErrNoBatch
	case b.Phase != Open || b.Epoch != by.Epoch:
		return Mint{}, ErrBatchState.With("batch %d is %s", b.Number, b.Phase)
	}
	if err := m.frozen(b); err != nil {
		return Mint{}, err
	}
	switch h := b.host(host); {
	case h == nil:
		return Mint{}, ErrOtherBatch
	case h.Phase != HostOpen:
		return Mint{}, ErrReported.With("host %s has been reported as %s", host, h.Result)
	}
	closes := b.Opened.Add(m.t.OpenTime())
	until := closes
	if m.s.Lease.Before(until) {
		until = m.s.Lease
	}
	if f := m.t.FrozenAt(m.now); f != nil && !b.Rollback && m.s.Unfroze.Before(until) {
		until = m.s.Unfroze
	}
	if f := m.t.NextFreeze(m.now, policy.MaxAgentCertificate); !f.IsZero() && !b.Rollback && !m.s.Overridden(f) && f.Before(until) {
		until = f
	}
	return Mint{until, closes, b.Rollback}, nil
}
