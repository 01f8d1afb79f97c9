package grant

import (
	"bytes"
	"time"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
)

// Check verifies by itself that the grant is allowed at the time. It is pure,
// and it trusts no column but the texts: the others can take away from what the
// texts allow, and never add. The rules:
//
//  1. The request is approved or active.
//  2. The terms' hash fits their bytes, which are canonical and name this request
//     and this person.
//  3. Every decision's hash fits its bytes, which are canonical. It approves these
//     terms and no others, was given between the asking and approve_by, not before
//     the one ahead of it, by a person who is not the requester, and whom no other
//     decision names (P5), nor the one for whom they gave it, if a delegation let
//     them (checkDelegation); and it is proved as strongly as the terms want it,
//     which package evidence says.
//  4. The decisions make the quorum of the terms, by the groups that the approvers
//     had then; or the terms say that the rule is automatic and names no approvers;
//     or they are an emergency's, with all that makes one and without decisions.
//  5. The grant started when the last decision was given, or at the terms' start,
//     and does not last longer than the terms say (P3).
//  6. The time is in the grant, its end excluded; and if the terms want a first
//     use by some time, there was one or that time has not come.
//  7. A key that the terms name is the one that the grant is bound to (P4).
//  8. If the terms extend an earlier grant, that one is there, was allowed by the
//     same rules, and allows what follows it (checkChain).
//
// The refusals are ErrNoGrant, ErrNotStarted and ErrGrantEnded where nothing is
// wrong but the moment, and ErrEvidence for everything else.
func (g Grant) Check(now time.Time) error {
	switch g.State {
	case api.Approved, api.Active:
	case api.Ended:
		return ErrGrantEnded
	default:
		return ErrNoGrant.With("the request is %s", g.State)
	}
	t, err := g.checkTerms()
	if err != nil {
		return err
	}
	approved, err := g.checkDecisions(t)
	if err != nil {
		return err
	}
	if t.PublicKey != "" && t.PublicKey != g.Key {
		return ErrEvidence.With("the grant is bound to another key than the terms name")
	}
	if err := g.checkChain(t); err != nil {
		return err
	}
	return g.checkTime(t, approved, now)
}

func (g Grant) checkTerms() (Terms, error) {
	if Hash(g.TermsText) != g.TermsHash {
		return Terms{}, ErrEvidence.With("the terms' hash does not fit the terms")
	}
	t, err := ParseTerms(g.TermsText)
	if err != nil {
		return Terms{}, ErrEvidence.With("the terms cannot be read").Because(err)
	}
	if text, err := g.Terms.Encode(); err != nil || !bytes.Equal(text, g.TermsText) {
		return Terms{}, ErrEvidence.With("the grant's terms are not those of its text")
	}
	if t.RequestID != g.RequestID || t.Person != g.Person || !ids.Valid(ids.Person, t.Person.ID) {
		return Terms{}, ErrEvidence.With("the terms are of another request or person")
	}
	return t, nil
}

// checkDecisions returns when the approval was complete.
func (g Grant) checkDecisions(t Terms) (time.Time, error) {
	if t.Emergency != nil {
		return g.checkEmergency(t)
	}
	if t.Rule.Automatic {
		if len(t.Rule.Stages) > 0 || len(g.Decisions) > 0 {
			return time.Time{}, ErrEvidence.With("the rule is automatic, but there are approvers")
		}
		return t.CreatedAt, nil
	}
	last := t.CreatedAt
	want, err := t.Assured()
	if err != nil {
		return last, ErrEvidence.Because(err)
	}
	behind := map[StatementApprover]bool{}
	var approvals []policy.Approval
	for _, e := range g.Decisions {
		if Hash(e.Statement) != e.Hash {
			return last, ErrEvidence.With("a decision's hash does not fit the decision")
		}
		d, err := ParseStatement(e.Statement)
		if err != nil {
			return last, ErrEvidence.With("a decision cannot be read").Because(err)
		}
		switch {
		case d.RequestID != t.RequestID || d.TermsHash != g.TermsHash || d.PolicyHash != t.PolicyHash:
			return last, ErrEvidence.With("a decision is about other terms")
		case d.Verdict != api.Approve:
			return last, ErrEvidence.With("a decision does not approve")
		case d.Time.Before(t.CreatedAt) || e.Taken.Before(last) || !e.Taken.Before(t.ApproveBy):
			return last, ErrEvidence.With("a decision was given out of its time")
		}
		for _, p := range d.Behind() {
			same, byID := StatementApprover{Issuer: p.Issuer, Subject: p.Subject}, StatementApprover{ID: p.ID}
			switch {
			case !ids.Valid(ids.Person, p.ID):
				return last, ErrEvidence.With("a decision is not a person's")
			case t.Person.Is(p.ID, p.Issuer, p.Subject):
				return last, ErrEvidence.With("a decision is the requester's own")
			case behind[same] || behind[byID]:
				return last, ErrEvidence.With("two decisions are one person's")
			}
			behind[same], behind[byID] = true, true
		}
		if err := d.checkDelegation(t, e, g.Anchor); err != nil {
			return last, err
		}
		if err := d.Said().Proved(want, e, g.Anchor); err != nil {
			return last, ErrEvidence.With("a decision is not proved").Because(err)
		}
		approvals = append(approvals, d.Approval())
		last = e.Taken
	}
	if !policy.Quorum(t.Stages(), approvals).Complete {
		return last, ErrEvidence.With("the approvals that the terms need are not there")
	}
	return last, nil
}

func (g Grant) checkTime(t Terms, approved, now time.Time) error {
	w, err := t.Window(approved)
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if !g.StartsAt.Equal(w.Start) || g.EndsAt.After(w.End) {
		return ErrEvidence.With("the grant's time is not what was approved")
	}
	switch {
	case now.Before(w.Start):
		return ErrNotStarted.With("the grant starts at %s", w.Start.Format(time.RFC3339))
	case !now.Before(g.EndsAt):
		return ErrGrantEnded
	case g.State == api.Approved && !w.UseBy.IsZero() && !now.Before(w.UseBy):
		return ErrGrantEnded.With("the grant was not used in time")
	}
	return nil
}
