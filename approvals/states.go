package approvals

import (
	"fmt"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// request is a row of requests with its decisions, and what they mean. Its
// methods are the whole life of a request:
//
//	requested → approved | denied | cancelled | expired
//	approved → active | ended        active → ended
type request struct {
	id, personID, hostID string
	created              time.Time
	terms                Terms
	termsText            []byte
	termsHash            string

	state    api.State
	starts   *time.Time
	ends     *time.Time
	useBy    *time.Time
	endsWhy  string // the end reason
	key      string
	decision []decision // in the order in which they were taken
	review   *review    // of an emergency; nil while it waits
	next     string     // id of the request that extends this one, if that counts

	broken error // the texts cannot be read: somebody wrote them by hand
}

// decision is a row of decisions.
type decision struct {
	kept
	id        string
	statement Statement
	lent      []byte // the note of the delegation that it rests on, if it was read too
	void      bool   // counts no more: the approver was removed before it had opened anything
}

// newRequest is a request that nobody has decided on.
func newRequest(t Terms) (*request, error) {
	text, err := t.Encode()
	if err != nil {
		return nil, fmt.Errorf("encoding terms: %w", err)
	}
	return &request{
		id: t.RequestID, personID: t.Person.ID, hostID: t.Host.ID, created: t.CreatedAt,
		terms: t, termsText: text, termsHash: hash(text),
		state: api.Requested, key: t.PublicKey,
	}, nil
}

// settle does what time has brought about by now, and returns the event of it,
// or nil if there is nothing to do. Whoever reads a request settles it first, so
// that nobody ever sees a state that the clock has overtaken; the job of jobs.go
// also keeps the result.
func (r *request) settle(now time.Time) event.Data {
	due := func(t *time.Time) bool { return t != nil && !now.Before(*t) }
	switch {
	case r.state == api.Requested && due(&r.terms.ApproveBy):
		return r.close(api.Expired)
	case r.state == api.Approved && due(r.useBy):
		return r.end("unused", *r.useBy)
	case (r.state == api.Approved || r.state == api.Active) && due(r.ends):
		return r.end("time", *r.ends)
	}
	return nil
}

// close ends an undecided request without a grant.
func (r *request) close(to api.State) event.Data {
	r.state = to
	return event.RequestClosed{State: string(to)}
}

// grant starts the grant; its clock runs from now, or from the terms' start (P3).
func (r *request) grant(now time.Time) (event.Data, error) {
	w, err := r.terms.Window(now)
	if err != nil {
		return nil, err
	}
	r.state, r.starts, r.ends = api.Approved, &w.Start, &w.End
	if !w.UseBy.IsZero() {
		r.useBy = &w.UseBy
	}
	evidence := []string{}
	for _, d := range r.decision {
		if !d.void {
			evidence = append(evidence, d.hash)
		}
	}
	return event.GrantStarted{
		TermsHash: r.termsHash, Automatic: r.terms.Rule.Automatic, Decisions: evidence,
		StartsAt: w.Start, EndsAt: w.End,
		Emergency: r.terms.Emergency != nil, Drill: r.terms.Drill(), Extends: r.terms.Extends,
	}, nil
}

// end ends the grant.
func (r *request) end(why string, at time.Time) event.Data {
	r.state, r.endsWhy, r.ends = api.Ended, why, &at
	return event.GrantEnded{Reason: why}
}

// lastTime is when the request was last decided on, or made.
func (r *request) lastTime() time.Time {
	if n := len(r.decision); n > 0 {
		return r.decision[n-1].taken
	}
	return r.terms.CreatedAt
}

// granted reports whether there is a grant that has not ended.
func (r *request) granted() bool { return r.state == api.Approved || r.state == api.Active }

// approvals are the decisions that approve and count, in the words of the quorum.
func (r *request) approvals() []policy.Approval {
	var out []policy.Approval
	for _, d := range r.decision {
		if d.statement.Verdict == api.Approve && !d.void {
			out = append(out, d.statement.Approval())
		}
	}
	return out
}

// waitingGroups are the groups of which one more person could fill a place now.
// Somebody in several groups fills a place if a member of one of them does.
func (r *request) waitingGroups() []string {
	out := []string{}
	if r.state != api.Requested {
		return out
	}
	stages, given := r.terms.Stages(), r.approvals()
	for _, g := range r.terms.Groups() {
		if policy.MayFill(stages, given, policy.Approval{Groups: []string{g}}) {
			out = append(out, g)
		}
	}
	return out
}

// visible reports whether the caller may know of the request (P10): its
// requester, members of groups that decide on it or are told of an emergency,
// auditors and operators.
func (r *request) visible(c identity.Caller) bool {
	return r.personID == c.ID || c.Has(api.Auditor) || c.Has(api.Operator) ||
		slices.ContainsFunc(r.terms.Readers(), func(g string) bool { return slices.Contains(c.Groups, g) })
}

// mayCancel says why the person cannot cancel the settled request, or nil.
func (r *request) mayCancel(p identity.Person) error {
	switch {
	case r.personID != p.ID:
		return ErrNotRequester
	case r.state != api.Requested:
		return ErrClosed.With("the request is %s", r.state)
	}
	return nil
}

// mayFinish says why the person cannot finish the settled request's grant, or nil.
func (r *request) mayFinish(p identity.Person) error {
	switch {
	case r.personID != p.ID:
		return ErrNotRequester
	case r.state == api.Ended:
		return ErrGrantEnded
	case !r.granted():
		return ErrNoGrant.With("the request is %s", r.state)
	}
	return nil
}

// mayConnect says why the person gets no certificate under the settled request, or nil.
func (r *request) mayConnect(p identity.Person, now time.Time) error {
	if err := r.mayFinish(p); err != nil {
		return err
	}
	if now.Before(*r.starts) {
		return ErrNotStarted.With("the grant starts at %s", r.starts.Format(time.RFC3339))
	}
	return nil
}
