package reconcile

import (
	"maps"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/audit/event"
	"sallyport/evidence/populations"
)

// request is what is remembered of one until it is over.
type request struct {
	id      string
	event   *populations.Event // request.created
	terms   grant.Terms
	text    []byte
	hash    string
	bad     bool // the terms cannot be read
	earlier *request
	// followers are how many remembered requests extend it.
	followers int

	decisions []decision
	start     *event.GrantStarted
	startedIn *populations.Event
	end       time.Time // when the grant was ended; zero: not yet
	byTime    bool      // it ended because its time was up
	closed    time.Time

	key     string // that the grant is bound to
	issued  int
	hosts   map[string]int // certificates by host, if it is for single use
	waiting []*issued      // certificates that came before the grant's start
}

type decision struct {
	id       string
	evidence grant.Evidence
	void     bool
}

// over reports whether the request is over for so long that nothing more is heard of it.
func (r *request) over(now time.Time) bool {
	end := r.terms.ApproveBy
	switch {
	case !r.closed.IsZero():
		end = r.closed
	case !r.end.IsZero():
		end = r.end
	case r.start != nil:
		end = r.start.EndsAt
	}
	return now.After(end.Add(grace))
}

func (g *Engine) created(e *populations.Event, d event.RequestCreated) {
	id := e.Subject.RequestID
	if _, twice := g.requests[id]; twice {
		g.report(RequestAltered, e, g.requests[id].event.Index, "the request is made a second time")
		return
	}
	r := &request{id: id, event: brief(e), text: []byte(d.Terms), hash: d.TermsHash}
	g.requests[id] = r
	var err error
	if r.terms, err = grant.ParseTerms(r.text); err != nil || grant.Hash(r.text) != d.TermsHash || r.terms.RequestID != id ||
		r.terms.Person.ID != e.Actor.ID {
		r.bad = true
		g.report(RequestAltered, e, -1, "its terms cannot be read, or are of another request or person, or not what their hash says")
		return
	}
	if !tellsTerms(d, r.terms) {
		g.report(RequestAltered, e, -1, "the event says otherwise than the terms in it")
	}
	r.key = r.terms.PublicKey
	g.checkVersion(e, r.terms)
	if r.terms.Extends != "" {
		if r.earlier = g.requests[r.terms.Extends]; r.earlier != nil {
			r.earlier.followers++
		}
	}
}

// brief is an event without its data, to be remembered.
func brief(e *populations.Event) *populations.Event {
	b := *e
	b.Data, b.Known = nil, nil
	return &b
}

func (g *Engine) decided(e *populations.Event, d event.RequestDecided, idToken string) {
	r := g.requests[e.Subject.RequestID]
	if r == nil {
		if !g.beforePack(e, "the request") {
			g.report(DecisionAltered, e, -1, "the log has no open request that it is about")
		}
		return
	}
	text := []byte(d.Evidence)
	if grant.Hash(text) != d.EvidenceHash || d.TermsHash != r.hash {
		g.report(DecisionAltered, e, r.event.Index, "its statement is not what its hash says, or it is about other terms")
		return
	}
	s, err := grant.ParseStatement(text)
	if err != nil || s.Approver.ID != e.Actor.ID || !tellsDecision(d, s) {
		g.report(DecisionAltered, e, r.event.Index, "its statement cannot be read, or the event says otherwise than the statement")
		return
	}
	ev := g.evidence(e, idToken)
	if s.OnBehalfOf != nil {
		if l, ok := g.lent[s.OnBehalfOf.Delegation]; ok {
			ev.Delegation = []byte(l.note)
		}
	}
	if s.Verdict == api.Approve {
		r.decisions = append(r.decisions, decision{id: d.DecisionID, evidence: ev})
	}
}

// evidence is the statement that an event records, with what proves it.
func (g *Engine) evidence(e *populations.Event, idToken string) grant.Evidence {
	s, _ := e.Statement()
	ev := grant.Evidence{Statement: []byte(s.Text), Hash: s.Hash, Taken: e.Time}
	if s.IDTokenHash != "" {
		if grant.Hash([]byte(idToken)) != s.IDTokenHash {
			g.report(EvidenceMissing, e, -1, "the ID token by which the provider signed the statement is not kept")
			idToken = ""
		}
		ev.Proof.IDToken = idToken
	}
	if s.KeysHash != "" {
		if n, ok := g.notes[s.KeysHash]; ok {
			ev.Proof.Keys = []byte(n.note)
		} else if !g.beforePack(e, "the note about the provider's keys") {
			g.report(EvidenceMissing, e, -1, "the log has no note about the provider's keys of that time")
		}
	}
	return ev
}

// anchor is what proofs are believed by.
func (g *Engine) anchor() evidence.Anchor { return evidence.Anchor{LogKey: g.cfg.LogKey} }

func (g *Engine) voided(e *populations.Event, d event.DecisionVoided) {
	if r := g.requests[e.Subject.RequestID]; r != nil {
		for i := range r.decisions {
			if r.decisions[i].id == d.DecisionID {
				r.decisions[i].void = true
			}
		}
	}
}

func (g *Engine) closed(e *populations.Event) {
	if r := g.requests[e.Subject.RequestID]; r != nil {
		r.closed = e.Time
	}
}

func (g *Engine) started(e *populations.Event, d event.GrantStarted) {
	r := g.requests[e.Subject.RequestID]
	if r == nil {
		if !g.beforePack(e, "the request") {
			g.report(GrantWithoutQuorum, e, -1, "the log has no open request that it is about")
		}
		return
	}
	if r.start != nil {
		g.report(GrantWithoutQuorum, e, r.startedIn.Index, "the grant starts a second time")
		return
	}
	r.start, r.startedIn = &d, brief(e)
	waiting := r.waiting
	r.waiting = nil
	for _, c := range waiting {
		g.checkIssued(r, c)
	}
}

func (g *Engine) ended(e *populations.Event, d event.GrantEnded) {
	if r := g.requests[e.Subject.RequestID]; r != nil && r.end.IsZero() {
		r.end, r.byTime = e.Time, d.Reason == "time"
		if r.byTime && r.start != nil {
			r.end = r.start.EndsAt
		}
	}
}

// forget checks what has not been, and lets go of a request.
func (g *Engine) forget(r *request) {
	for _, c := range r.waiting {
		g.report(CertOutsideGrant, c.e, r.event.Index, "the log has no start of the grant")
	}
	r.waiting = nil
	if r.start != nil && r.issued == 0 {
		gr := g.grant(r, r.start.StartsAt)
		if why := g.allowed(r, gr, r.start.StartsAt); why != "" {
			g.report(GrantWithoutQuorum, r.startedIn, r.event.Index, "%s", why)
		}
	}
	if r.earlier != nil {
		r.earlier.followers--
	}
	delete(g.requests, r.id)
}

// grant is the request's grant as the log has it at the time.
func (g *Engine) grant(r *request, at time.Time) grant.Grant {
	out := grant.Grant{
		RequestID: r.id, State: api.Requested, Person: r.terms.Person, Terms: r.terms, TermsText: r.text, TermsHash: r.hash,
		Key: r.key, Anchor: g.anchor(),
	}
	for _, d := range r.decisions {
		if !d.void {
			out.Decisions = append(out.Decisions, d.evidence)
		}
	}
	if r.start != nil {
		out.State, out.StartsAt, out.EndsAt = api.Active, r.start.StartsAt, r.start.EndsAt
		if r.issued == 0 {
			out.State = api.Approved
		}
		if !r.end.IsZero() && !r.byTime && r.end.Before(out.EndsAt) {
			out.EndsAt = r.end
		}
	}
	if r.earlier != nil {
		before := g.grant(r.earlier, at)
		before.State = api.Active
		out.Earlier = &before
	}
	return out
}

// hashes are those of the decisions that count, as events name them.
func hashes(gr grant.Grant) []string {
	out := make([]string, len(gr.Decisions))
	for i, d := range gr.Decisions {
		out[i] = d.Hash
	}
	return out
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
