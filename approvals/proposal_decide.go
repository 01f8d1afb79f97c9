package approvals

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// DecideProposal takes another operator's verdict. An approval brings the document
// into force, as soon as the log has the event; a denial closes the proposal. The
// rules:
//
//  1. the caller is an operator under the version in force, not under the one
//     proposed, and is not the author (P5);
//  2. the proposal is open, and is the one that the caller saw;
//  3. an approval is of a proposal for the version in force, whose document this
//     process reads and finds fit, as when it was proposed.
//
// Proposals are decided one at a time. A refused decision is an event.
func (s *Service) DecideProposal(ctx context.Context, c identity.Caller, id string, in api.PolicyDecisionInput) (api.PolicyProposal, error) {
	if in.Verdict != api.Approve && in.Verdict != api.Deny {
		return api.PolicyProposal{}, ErrBadVerdict
	}
	in.Comment = trim(in.Comment)
	if err := text("comment", in.Comment, maxReason); err != nil {
		return api.PolicyProposal{}, err
	}
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	var activated []uuid.UUID
	err = s.onProposal(ctx, c, id, func(tx pgx.Tx, p *proposal, head *policy.Policy) (events []event.Event, err error) {
		if err := p.mayDecide(c.Person, in.Verdict, head); err != nil {
			return nil, err
		}
		if in.Statement != "" && in.Statement != p.hash {
			return nil, ErrOtherProposal
		}
		var next *policy.Policy
		if in.Verdict == api.Approve {
			if next, err = readDocument(p.document); err != nil {
				return nil, err
			}
			if err := s.checkLockOut(ctx, tx, next); err != nil {
				return nil, err
			}
		}
		decided, st, err := s.decideProposal(ctx, tx, c, p, head, in)
		if err != nil || next == nil {
			return []event.Event{decided}, err
		}
		e, err := s.activate(ctx, tx, c, p, head, next, st)
		activated = append(activated, e.ID)
		return []event.Event{decided, e}, err
	})
	if err != nil {
		return api.PolicyProposal{}, s.refusedPolicy(ctx, c, string(in.Verdict), id, err)
	}
	if len(activated) > 0 {
		// If the log is late, so is the version; the approval stands.
		_, err := s.cfg.Log.Wait(ctx, activated...)
		if err == nil {
			err = s.look(ctx)
		}
		if err != nil {
			s.cfg.Logger.Warn("a version was approved and is not in force here yet", "proposal", id, "error", err)
		}
	}
	return s.Proposal(ctx, c, id)
}

// decideProposal keeps the verdict.
func (s *Service) decideProposal(ctx context.Context, tx pgx.Tx, c identity.Caller, p *proposal, head *policy.Policy, in api.PolicyDecisionInput) (event.Event, PolicyStatement, error) {
	at := s.cfg.Clock.Now()
	if at.Before(p.created) { // replicas' clocks differ a little
		at = p.created
	}
	st := PolicyStatement{
		Format: PolicyDecisionFormat, ProposalID: p.id, ProposalHash: p.hash, DocumentHash: p.statement.DocumentHash,
		PolicyHash: head.Hash, Verdict: in.Verdict, Approver: statementPerson(c), Groups: operatorGroups(head, c.Person),
		Comment: in.Comment, Time: at, Random: random128(), Assurance: evidence.Session, SignIn: signInOf(c),
	}
	text, err := st.Encode()
	if err != nil {
		return event.Event{}, st, err
	}
	id := ids.New(ids.Decision)
	if err := s.insertPolicyDecision(ctx, tx, id, p, st, text); err != nil {
		return event.Event{}, st, err
	}
	return p.event(at, c, event.PolicyDecided{
		ProposalID: p.id, DecisionID: id, Verdict: string(in.Verdict), Comment: in.Comment, ProposalHash: p.hash,
		Groups: st.Groups, Evidence: string(text), EvidenceHash: hash(text),
	}, head), st, p.close(ctx, tx, verdictState(in.Verdict))
}

// activate makes the approved document the next version.
func (s *Service) activate(ctx context.Context, tx pgx.Tx, c identity.Caller, p *proposal, head, next *policy.Policy, st PolicyStatement) (event.Event, error) {
	text, err := st.Encode()
	if err != nil {
		return event.Event{}, err
	}
	n, err := nextVersion(ctx, tx)
	if err != nil {
		return event.Event{}, err
	}
	if err := insertVersion(ctx, tx, n, next, st.Time); err != nil {
		return event.Event{}, err
	}
	e := p.event(st.Time, c, event.PolicyActivated{
		Rules: len(next.Rules), Bytes: len(next.Text), ProposalID: p.id, ProposalHash: p.hash, EvidenceHash: hash(text),
		DiffHash: hash([]byte(policyDiff(head, next))), Author: p.authorID, Approver: c.ID,
	}, head).Under(event.PolicyRef{Version: n, Hash: next.Hash})
	return e, s.insertActivation(ctx, tx, Activation{
		Format: ActivationFormat, Version: n, Hash: next.Hash, ProposalHash: p.hash, DecisionHash: hash(text),
		EventID: e.ID.String(), Time: st.Time,
	}, p.id)
}

// Withdraw takes back the caller's own open proposal.
func (s *Service) Withdraw(ctx context.Context, c identity.Caller, id string) (api.PolicyProposal, error) {
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	err = s.onProposal(ctx, c, id, func(tx pgx.Tx, p *proposal, head *policy.Policy) ([]event.Event, error) {
		if err := p.mayWithdraw(c.Person); err != nil {
			return nil, err
		}
		return []event.Event{p.event(s.cfg.Clock.Now(), c, event.PolicyWithdrawn{ProposalID: p.id, ProposalHash: p.hash}, head)},
			p.close(ctx, tx, proposalWithdrawn)
	})
	if err != nil {
		return api.PolicyProposal{}, s.refusedPolicy(ctx, c, "withdraw", id, err)
	}
	return s.Proposal(ctx, c, id)
}

// onProposal lets act change a locked proposal, and keeps what came of it. head is
// the version that the next one follows; nobody else makes one meanwhile. act uses
// no connection but the transaction's: those who wait for the lock may have all
// others.
func (s *Service) onProposal(ctx context.Context, c identity.Caller, id string, act func(pgx.Tx, *proposal, *policy.Policy) ([]event.Event, error)) error {
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		if err := lockVersions(ctx, tx); err != nil {
			return err
		}
		head, err := s.head(ctx, tx)
		if err != nil {
			return err
		}
		if head == nil {
			return ErrPolicyUnknown
		}
		if len(operatorGroups(head, c.Person)) == 0 {
			return ErrPolicyOperators
		}
		if err := s.cfg.People.HoldPresent(ctx, tx, c.ID); err != nil {
			return err
		}
		p, err := s.findProposal(ctx, tx, id, true)
		if err != nil {
			return err
		}
		events, err := act(tx, p, head)
		if err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, events...)
	})
	if err == nil {
		s.cfg.Log.Kick()
	}
	return err
}

// mayDecide says why the person cannot give the verdict, or nil. head is the
// version in force.
func (p *proposal) mayDecide(person identity.Person, v api.Verdict, head *policy.Policy) error {
	self := StatementApprover{ID: person.ID, Issuer: person.Issuer, Subject: person.Subject}
	switch {
	case len(operatorGroups(head, person)) == 0:
		return ErrPolicyOperators
	case p.authorID == person.ID || sameStatementPerson(p.statement.Author, self):
		return ErrOwnProposal
	case p.state != proposalOpen:
		return ErrProposalClosed.With("the proposal is %s", p.state)
	case v == api.Approve && (p.base != head.Version || p.statement.BaseHash != head.Hash):
		return ErrStaleProposal
	}
	return nil
}

// mayWithdraw says why the person cannot withdraw the proposal, or nil.
func (p *proposal) mayWithdraw(person identity.Person) error {
	switch {
	case p.authorID != person.ID:
		return ErrNotAuthor
	case p.state != proposalOpen:
		return ErrProposalClosed.With("the proposal is %s", p.state)
	}
	return nil
}
