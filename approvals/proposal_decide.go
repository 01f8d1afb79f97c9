package approvals

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// errSignedPolicy names the way where the version in force wants the provider's
// signature.
var errSignedPolicy = ErrProviderEvidence.With("decisions on the policy are signed by the identity provider, so they are given in a browser").
	Hinting("open the proposal's page and decide there, or run: sally policy approve")

// DecideProposal takes another operator's verdict. An approval brings the document
// into force, as soon as the log has the event; a denial closes the proposal. The
// rules:
//
//  1. the caller is an operator under the version in force, not under the one
//     proposed, and is not the author (P5);
//  2. the proposal is open, and is the one that the caller saw;
//  3. an approval is of a proposal for the version in force, whose document this
//     process reads and finds fit, as when it was proposed;
//  4. the version in force takes the broker's own word for it (assurance session).
//     Under others the answer is ErrProviderEvidence, and DraftPolicyDecision and
//     Complete are the way.
//
// Proposals are decided one at a time. A refused decision is an event.
func (s *Service) DecideProposal(ctx context.Context, c identity.Caller, id string, in api.PolicyDecisionInput) (api.PolicyProposal, error) {
	if err := checkPolicyDecision(&in); err != nil {
		return api.PolicyProposal{}, err
	}
	c, err := s.takePolicyDecision(ctx, c, id, in.Verdict, func(_ pgx.Tx, c identity.Caller, p *proposal, head *policy.Policy, at time.Time) (policyDecision, []event.Event, error) {
		if in.Statement != "" && in.Statement != p.hash {
			return policyDecision{}, nil, ErrOtherProposal
		}
		if head.Assurance == policy.Provider {
			return policyDecision{}, nil, errSignedPolicy
		}
		st := p.newDecision(head, c.Person, in, at)
		st.SignIn = signInOf(c)
		k, err := keep(st, at)
		return policyDecision{k, st}, nil, err
	})
	if err != nil {
		return api.PolicyProposal{}, err
	}
	return s.Proposal(ctx, c, id)
}

func checkPolicyDecision(in *api.PolicyDecisionInput) error {
	if in.Verdict != api.Approve && in.Verdict != api.Deny {
		return ErrBadVerdict
	}
	in.Comment = trim(in.Comment)
	return text("comment", in.Comment, maxReason)
}

// newDecision is what the person says to the proposal, not proved in any way yet.
// head is the version in force.
func (p *proposal) newDecision(head *policy.Policy, by identity.Person, in api.PolicyDecisionInput, at time.Time) PolicyStatement {
	return PolicyStatement{
		Format: PolicyDecisionFormat, ProposalID: p.id, ProposalHash: p.hash, DocumentHash: p.statement.DocumentHash,
		PolicyHash: head.Hash, Verdict: in.Verdict, Approver: approver(by), Groups: operatorGroups(head, by),
		Comment: in.Comment, Time: at, Random: random128(), Assurance: string(head.Assurance),
	}
}

// preparePolicy makes the decision on a locked proposal that the caller, as they
// are known now, may decide on, to be taken at the time; and the events that come
// before its own.
type preparePolicy func(tx pgx.Tx, c identity.Caller, p *proposal, head *policy.Policy, at time.Time) (policyDecision, []event.Event, error)

// takePolicyDecision takes one decision, and returns the caller as they are known now.
func (s *Service) takePolicyDecision(ctx context.Context, c identity.Caller, id string, v api.Verdict, prepare preparePolicy) (identity.Caller, error) {
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return c, err
	}
	var activated []uuid.UUID
	err = s.onProposal(ctx, c, id, func(tx pgx.Tx, p *proposal, head *policy.Policy) ([]event.Event, error) {
		next, err := s.decidable(ctx, tx, p, c.Person, v, head)
		if err != nil {
			return nil, err
		}
		d, events, err := prepare(tx, c, p, head, notBefore(s.cfg.Clock.Now(), p.created))
		if err != nil {
			return nil, err
		}
		if err := s.checkProof(ctx, tx, grant.PolicyAssured(head), d.statement.Said(), d.kept); err != nil {
			return nil, err
		}
		decided, err := s.decideProposal(ctx, tx, c, p, head, d)
		if events = append(events, decided); err != nil || next == nil {
			return events, err
		}
		e, err := s.activate(ctx, tx, c, p, head, next, d)
		activated = append(activated, e.ID)
		return append(events, e), err
	})
	if errors.Is(err, ErrProviderEvidence) {
		return c, err // which refuses nothing, but names the way
	}
	if err != nil {
		return c, s.refusedPolicy(ctx, c, string(v), id, err)
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
	return c, nil
}

// notBefore is the time, or the other if that is later: replicas' clocks differ a
// little.
func notBefore(at, other time.Time) time.Time {
	if at.Before(other) {
		return other
	}
	return at
}

// decidable refuses a verdict that the person cannot give, and returns the policy
// that comes into force by it; nil, if none does.
func (s *Service) decidable(ctx context.Context, db counter, p *proposal, by identity.Person, v api.Verdict, head *policy.Policy) (next *policy.Policy, err error) {
	if err := p.mayDecide(by, v, head); err != nil || v != api.Approve {
		return nil, err
	}
	if next, err = readDocument(p.document); err != nil {
		return nil, err
	}
	return next, s.checkLockOut(ctx, db, next)
}

// decideProposal keeps the decision.
func (s *Service) decideProposal(ctx context.Context, tx pgx.Tx, c identity.Caller, p *proposal, head *policy.Policy, d policyDecision) (event.Event, error) {
	id := ids.New(ids.Decision)
	if err := s.insertPolicyDecision(ctx, tx, id, p, d); err != nil {
		return event.Event{}, err
	}
	if err := p.close(ctx, tx, verdictState(d.statement.Verdict)); err != nil {
		return event.Event{}, err
	}
	return p.event(d.taken, c, event.PolicyDecided{
		ProposalID: p.id, DecisionID: id, Verdict: string(d.statement.Verdict), Comment: d.statement.Comment, ProposalHash: p.hash,
		Groups: d.statement.Groups, Evidence: string(d.text), EvidenceHash: d.hash,
		Assurance: d.statement.Assurance, IDTokenHash: d.idTokenHash(), KeysHash: d.keysHash,
	}, head), s.tellProposalClosed(ctx, tx, p, head, d.taken, c.ID)
}

// activate makes the approved document the next version.
func (s *Service) activate(ctx context.Context, tx pgx.Tx, c identity.Caller, p *proposal, head, next *policy.Policy, d policyDecision) (event.Event, error) {
	n, err := nextVersion(ctx, tx)
	if err != nil {
		return event.Event{}, err
	}
	if err := insertVersion(ctx, tx, n, next, d.taken); err != nil {
		return event.Event{}, err
	}
	e := p.event(d.taken, c, event.PolicyActivated{
		Rules: len(next.Rules), Bytes: len(next.Text), ProposalID: p.id, ProposalHash: p.hash, EvidenceHash: d.hash,
		DiffHash: hash([]byte(policyDiff(head, next))), Author: p.authorID, Approver: c.ID,
	}, head).Under(event.PolicyRef{Version: n, Hash: next.Hash})
	return e, s.insertActivation(ctx, tx, Activation{
		Format: ActivationFormat, Version: n, Hash: next.Hash, ProposalHash: p.hash, DecisionHash: d.hash,
		EventID: e.ID.String(), Time: d.taken,
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
		now := s.cfg.Clock.Now()
		if err := p.close(ctx, tx, proposalWithdrawn); err != nil {
			return nil, err
		}
		return []event.Event{p.event(now, c, event.PolicyWithdrawn{ProposalID: p.id, ProposalHash: p.hash}, head)},
			s.tellProposalClosed(ctx, tx, p, head, now, c.ID)
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
	case p.authorID == person.ID || grant.SamePerson(p.statement.Author, self):
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
