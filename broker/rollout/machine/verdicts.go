package machine

import (
	"fmt"
	"slices"
	"time"
)

func (m *step) approved(e Approved) error {
	switch e.Subject.Kind {
	case ToStart:
		if m.s.Phase != AwaitingApproval {
			return ErrSubject
		}
		m.move(Active, "it was approved")
		return nil
	case ToOverride:
		if !e.Until.After(m.now) || e.Until.After(m.now.Add(MaxOverride)) {
			return ErrSubject.With("a freeze is overridden for at most %s", MaxOverride)
		}
		m.s.Unfroze = e.Until
		m.say(Unfrozen{e.Until})
		return nil
	}
	return m.judgedBy(e.Subject, Pass, "it was approved")
}

func (m *step) denied(e Denied) error {
	switch e.Subject.Kind {
	case ToStart:
		if m.s.Phase != AwaitingApproval {
			return ErrSubject
		}
		return m.abort("it was denied: " + e.Why)
	case ToOverride:
		return nil // it stays as it is
	}
	return m.judgedBy(e.Subject, NoPass, "it was denied: "+e.Why)
}

// judgedBy is people's verdict on a gate.
func (m *step) judgedBy(of Subject, v Verdict, why string) error {
	b := m.s.Batch(of.Batch)
	if b == nil || b.Phase != Gating {
		return ErrSubject
	}
	g := b.gate(of.Gate)
	if g == nil || g.Verdict != Waiting || len(m.t.Gate(of.Batch, of.Gate).Stages) == 0 {
		return ErrSubject
	}
	m.decide(b, g, v, why)
	return nil
}

func (m *step) resume(e Resume) error {
	ended := false
	for _, code := range []string{Stopped, Drift, GatesUnclear} {
		ended = ended || m.s.held(code)
		if code == GatesUnclear && m.s.held(code) {
			for i := range m.s.Batches {
				if b := &m.s.Batches[i]; b.Phase == Inconclusive && !b.Partial {
					m.gating(b, e.Why)
				}
			}
		}
		m.unhold(code, e.Why)
	}
	if !ended {
		return ErrNothingHeld
	}
	return nil
}

func (m *step) shut(e Shut) {
	if b := m.s.Batch(e.Batch); b != nil && b.Phase == Closing {
		b.Shut = m.now
		m.moveBatch(b, Sealing, "")
	}
}

// verified takes what a host has shown. Only what it showed after its certificates and
// sessions had ended, and after the last person came to it, proves that it is sealed.
func (m *step) verified(e Verified) {
	if b := m.s.Current(); b != nil {
		if h := b.host(e.Host); h != nil {
			m.verifiedNow(b, h, e)
			return
		}
	}
	for i := range m.s.Batches {
		b := &m.s.Batches[i]
		h := b.host(e.Host)
		if h == nil || !m.isLast(h) || e.At.Before(b.Sealed) || e.At.Before(h.Entered) {
			continue
		}
		doubted := h.Phase == HostSealed || h.Phase == HostVerifying
		switch {
		case m.s.Phase == Verifying:
			if !e.At.Before(m.s.Since) && m.now.After(m.s.Since) && !h.Verified.After(m.s.Since) {
				m.found(b, h, e)
			}
		case e.Sealed && (h.Phase == HostVerifying || h.Phase == HostDrifted):
			m.found(b, h, e)
		case !e.Sealed && doubted && (b.Phase == Passed || b.Phase == Pending && m.s.Phase != RollingBack && m.s.Ending == ""):
			m.found(b, h, e)
			m.hold(Drift, "host "+e.Host+" has drifted: "+e.Why)
		}
	}
}

// verifiedNow takes it of a host of the batch that is under way.
func (m *step) verifiedNow(b *Batch, h *Host, e Verified) {
	judged := (b.Phase == Soaking || b.Phase == Gating) && !e.At.Before(b.Sealed) && !e.At.Before(h.Entered)
	switch {
	case b.Phase == Sealing && h.Phase == HostVerifying && !e.At.Before(b.Shut):
		m.found(b, h, e)
		if !e.Sealed {
			m.s.Spent++
		}
	case judged && !e.Sealed && (h.Phase == HostSealed || h.Phase == HostVerifying):
		m.found(b, h, e)
		m.s.Spent++
		m.fail(b, "host "+e.Host+" has drifted: "+e.Why)
	case judged && e.Sealed && h.Phase == HostVerifying:
		m.found(b, h, e)
	}
}

// entered puts in question what is known of a host that was sealed: it must show that it
// is, once more, and until then the batch that it is in does not pass.
func (m *step) entered(e Entered) {
	for i := range m.s.Batches {
		b := &m.s.Batches[i]
		h := b.host(e.Host)
		if h == nil || !h.Opened || b.Sealed.IsZero() || !m.isLast(h) || !e.At.After(h.Entered) || e.At.Before(b.Opened) {
			continue
		}
		if h.Entered = e.At; h.Phase == HostSealed {
			h.Phase, h.Verified, h.Why = HostVerifying, time.Time{}, e.Why
			m.say(HostMoved{b.Number, h.ID, h.Phase, h.Why})
		}
	}
}

// verifying reports whether a host of the batch has something to show still.
func (b *Batch) verifying() bool {
	return slices.ContainsFunc(b.Hosts, func(h Host) bool { return h.Phase == HostVerifying })
}

// leaveOpen names what is in question when nobody will look any more.
func (m *step) leaveOpen() {
	for _, h := range m.s.Last() {
		if h.Phase == HostVerifying {
			h.Phase, h.Why = HostQuarantined, "it has not shown that it is sealed: "+h.Why
			m.say(HostMoved{0, h.ID, h.Phase, h.Why})
		}
	}
}

func (m *step) isLast(h *Host) bool { return slices.Contains(m.s.Last(), h) }

func (m *step) found(b *Batch, h *Host, e Verified) {
	to := HostDrifted
	if e.Sealed {
		to, h.Verified = HostSealed, m.now
	}
	h.Phase, h.Why = to, e.Why
	m.say(HostMoved{b.Number, h.ID, to, e.Why})
}

// measured takes what a gate saw. Passes count in a row; failures add up, so that a
// gate that flaps fails; what is inconclusive only breaks the row.
func (m *step) measured(e Measured) {
	b := m.s.Batch(e.Batch)
	if b == nil || b.Phase != Gating {
		return
	}
	g, terms := b.gate(e.Gate), m.t.Gate(e.Batch, e.Gate)
	if g == nil || terms == nil || g.Verdict != Waiting || !terms.Kind.Measured() || m.now.Before(g.Next) {
		return
	}
	g.Next, g.Why = m.now.Add(terms.EveryTime()), e.Why
	switch e.Outcome {
	case Pass:
		if g.Passes++; g.Passes >= terms.Times {
			m.decide(b, g, Pass, e.Why)
		}
	case NoPass:
		g.Passes = 0
		if g.Failures++; g.Failures > terms.Failures {
			m.decide(b, g, NoPass, e.Why)
		}
	default:
		g.Passes = 0
	}
}

func (m *step) decide(b *Batch, g *Gate, v Verdict, why string) {
	g.Verdict, g.Why = v, why
	m.say(GateDecided{b.Number, g.Name, v, why, g.Failures})
}

// fail ends a batch that has failed, and says what follows by the policy.
func (m *step) fail(b *Batch, why string) {
	m.moveBatch(b, Failed, why)
	if m.s.Ending != "" || b.Rollback {
		return
	}
	why = fmt.Sprintf("batch %d failed: %s", b.Number, why)
	switch {
	case m.t.OnFailure == "rollback" && m.wayBack():
		m.s.Ending, m.s.Why = RollingBack, why
	case m.t.OnFailure == "abort":
		m.s.Ending, m.s.Why = Aborted, why
	default:
		m.hold(BatchFailed, why)
	}
}
