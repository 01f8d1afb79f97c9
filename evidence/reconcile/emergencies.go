package reconcile

import (
	"sallyport/approvals/grant"
	"sallyport/audit/event"
	"sallyport/evidence/populations"
)

// emergency is one that waits for its review.
type emergency struct {
	e     *populations.Event
	d     event.EmergencyStarted
	terms grant.Terms
	hash  string
}

func (g *Engine) opened(e *populations.Event, d event.EmergencyStarted) {
	r := g.requests[e.Subject.RequestID]
	if r == nil || r.bad || r.terms.Emergency == nil || r.hash != d.TermsHash {
		if r != nil || !g.beforePack(e, "the request") {
			g.report(RequestAltered, e, -1, "the log has no such emergency's request")
		}
		return
	}
	if !d.Drill {
		if other, waits := g.unreviewed[e.Actor.ID]; waits {
			g.report(EmergencySecond, e, g.emergencies[other].e.Index, "emergency %s of the same person had not been reviewed", other)
		}
		g.unreviewed[e.Actor.ID] = r.id
	}
	g.emergencies[r.id] = &emergency{brief(e), d, r.terms, r.hash}
}

func (g *Engine) reviewed(e *populations.Event, d event.ReviewGiven, idToken string) {
	m := g.emergencies[e.Subject.RequestID]
	if m == nil {
		if !g.beforePack(e, "the emergency") {
			g.report(ReviewInvalid, e, -1, "the log has no emergency that waits for it")
		}
		return
	}
	s, err := grant.CheckReview(m.terms, m.hash, g.evidence(e, idToken), g.anchor())
	if err == nil && (s.Reviewer.ID != e.Actor.ID || !tellsReview(d, s)) {
		g.report(ReviewInvalid, e, m.e.Index, "the event says otherwise than the statement")
		return
	}
	if err != nil {
		g.report(ReviewInvalid, e, m.e.Index, "%s", why(err))
		return // it still waits
	}
	if s.Late && (g.in(m.e.Time) || g.in(e.Time)) {
		g.say(Exception{Code: EmergencyLate, Index: m.e.Index, Related: e.Index, Time: m.e.Time, Request: m.e.Subject.RequestID,
			Person: m.e.Actor.ID, Detail: "it was to be reviewed by " + populations.Time(m.d.ReviewBy) + ", and was at " + populations.Time(s.Time)})
	}
	g.done(m)
}

func (g *Engine) done(m *emergency) {
	delete(g.emergencies, m.e.Subject.RequestID)
	if g.unreviewed[m.e.Actor.ID] == m.e.Subject.RequestID {
		delete(g.unreviewed, m.e.Actor.ID)
	}
}

// stillOpen reports an emergency that has no review at the end of the log, if it
// should have one by then.
func (g *Engine) stillOpen(m *emergency) {
	if g.now.Before(m.d.ReviewBy) || !g.in(m.e.Time) && !g.in(m.d.ReviewBy) {
		return
	}
	g.say(Exception{Code: EmergencyUnreviewed, Index: m.e.Index, Related: -1, Time: m.e.Time, Request: m.e.Subject.RequestID,
		Person: m.e.Actor.ID, Detail: "it was to be reviewed by " + populations.Time(m.d.ReviewBy) + ", and was not by " + populations.Time(g.now)})
}
