package approvals

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Refusals about versions of the policy.
var (
	ErrPolicyReaders = refusal.New(refusal.Denied, "policy-readers-only",
		"only operators and auditors read the policy", "what you may ask for is listed by: sally hosts")
	ErrPolicyOperators = refusal.New(refusal.Denied, "policy-operators-only",
		"only operators propose and decide on policies", "ask somebody in a group that the policy's roles name under operator")
	ErrUnknownVersion = refusal.New(refusal.NotFound, "unknown-policy-version",
		"the policy has no such version", "list them: sally policy versions")
	ErrUnknownProposal = refusal.New(refusal.NotFound, "unknown-proposal",
		"there is no such proposal", "list them: sally policy proposals")
	ErrBadPolicy = refusal.New(refusal.Invalid, "bad-policy",
		"the document is not a policy", "sallyportd policy check FILE shows the place").On("document")
	ErrSamePolicy = refusal.New(refusal.Conflict, "same-policy",
		"the document is the one that is in force", "change something, or leave it").On("document")
	ErrLockOut = refusal.New(refusal.Conflict, "policy-lock-out",
		"under this policy nobody could change the policy again",
		"name a group under roles.operator of which at least two people have signed in; to move to a new group, name both groups first").On("document")
	ErrTooManyProposals = refusal.New(refusal.TooMany, "too-many-proposals",
		"you have too many open proposals", "withdraw those that you no longer want: sally policy proposals")
	ErrOwnProposal = refusal.New(refusal.Denied, "own-proposal",
		"nobody decides on their own proposal", "another operator has to; withdraw it if you no longer want it")
	ErrNotAuthor = refusal.New(refusal.Denied, "not-author",
		"only its author withdraws a proposal", "deny it instead")
	ErrProposalClosed = refusal.New(refusal.Conflict, "proposal-closed",
		"the proposal is no longer open", "look at it again; its document can be proposed anew")
	ErrStaleProposal = refusal.New(refusal.Conflict, "stale-proposal",
		"another version has come into force since, so what would change is not what the proposal shows",
		"its author proposes the document anew, with the changes made since: sally policy propose FILE")
	ErrOtherProposal = refusal.New(refusal.Conflict, "other-proposal",
		"the decision is about another proposal than this one", "read the proposal again and decide on what it says").On("statement_hash")
	ErrForgedProposal = refusal.New(refusal.Denied, "forged-proposal",
		"the proposal in the database is not one that the broker took",
		"tell an auditor: somebody has written to the database by hand")
)

// Limits on proposals.
const (
	// MaxProposals is how many open ones one person may have.
	MaxProposals = 20
	// minOperators is how many people a policy change takes.
	minOperators = 2
)

// draft is a document that may be proposed.
type draft struct {
	base, next *policy.Policy
	groups     []string // of the author, that make them an operator
}

// draft checks what can be proposed:
//
//  1. the caller is an operator under the version in force;
//  2. the document is a policy, passes its own tests, and shows all that it says;
//  3. it is not the one in force;
//  4. two people could change it again.
func (s *Service) draft(ctx context.Context, c identity.Caller, in api.PolicyInput) (draft, error) {
	base, err := s.current(ctx)
	if err != nil {
		return draft{}, err
	}
	d := draft{base: base, groups: operatorGroups(base, c.Person)}
	if len(d.groups) == 0 {
		return d, ErrPolicyOperators
	}
	if err := text("comment", in.Comment, maxReason); err != nil {
		return d, err
	}
	if d.next, err = readDocument([]byte(in.Document)); err != nil {
		return d, err
	}
	if d.next.Hash == base.Hash {
		return d, ErrSamePolicy
	}
	return d, s.checkLockOut(ctx, s.cfg.Pool, d.next)
}

// readDocument reads a document that somebody else will approve by reading it: so
// it must not have characters that are not seen, or that make the lines look
// otherwise than they are.
func readDocument(document []byte) (*policy.Policy, error) {
	p, err := policy.Parse(document)
	if err != nil {
		return nil, ErrBadPolicy.With("the document is not a policy: %s", err.Error())
	}
	lines := 1
	for i, r := range string(document) {
		switch {
		case r == '\n':
			lines++
		case r == '\r' && !bytes.HasPrefix(document[i:], []byte("\r\n")), hidden(r), strings.ContainsRune(marks, r):
			return nil, ErrBadPolicy.With("line %d has a character that cannot be seen, %U", lines, r).
				Hinting("leave it out: whoever approves the document must see all of it")
		}
	}
	return p, nil
}

// checkLockOut refuses a policy that too few people who are known could change.
func (s *Service) checkLockOut(ctx context.Context, db counter, p *policy.Policy) error {
	groups := p.Roles[api.Operator]
	if len(groups) == 0 {
		return ErrLockOut
	}
	operators, err := s.cfg.People.CountPresent(ctx, db, groups)
	if err != nil {
		return err
	}
	if operators < minOperators {
		return ErrLockOut.With("under this policy only %d of the people who have signed in would be an operator; to change it again takes %d",
			operators, minOperators)
	}
	return nil
}

// counter is a pool or a transaction.
type counter interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// operatorGroups are those of the person's groups that make them an operator.
func operatorGroups(p *policy.Policy, person identity.Person) []string {
	groups := []string{}
	for _, g := range p.Roles[api.Operator] {
		if slices.Contains(person.Groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// callerNow is the caller with their groups as they are known now.
func (s *Service) callerNow(ctx context.Context, c identity.Caller) (identity.Caller, error) {
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return c, err
	}
	c.Person = person
	return c, nil
}

// PreviewPolicy says how the document differs from the version in force and what
// it changes, and proposes nothing. Operators only, as with Propose.
func (s *Service) PreviewPolicy(ctx context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error) {
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	d, err := s.draft(ctx, c, in)
	if err != nil {
		return api.PolicyProposal{}, s.refusedPolicy(ctx, c, "propose", "", err)
	}
	out := api.PolicyProposal{
		State: api.ProposalOpen, Author: named(c.Person), Comment: in.Comment, CreatedAt: s.cfg.Clock.Now(),
		Base: api.PolicyRef{Version: d.base.Version, Hash: d.base.Hash}, Hash: d.next.Hash, Actions: []api.Action{},
		Document: in.Document, Diff: shownDiff(policyDiff(d.base, d.next)),
	}
	out.Effect, err = s.effect(ctx, d.base, d.next)
	return out, err
}

// Propose proposes a document as the next version. It changes nothing until
// another operator approves it.
func (s *Service) Propose(ctx context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error) {
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	in.Comment = trim(in.Comment)
	d, err := s.draft(ctx, c, in)
	var p *proposal
	if err == nil {
		p, err = s.propose(ctx, c, d, in)
	}
	if err != nil {
		return api.PolicyProposal{}, s.refusedPolicy(ctx, c, "propose", "", err)
	}
	s.cfg.Log.Kick()
	return s.Proposal(ctx, c, p.id)
}

func (s *Service) propose(ctx context.Context, c identity.Caller, d draft, in api.PolicyInput) (*proposal, error) {
	now := s.cfg.Clock.Now()
	p := &proposal{
		id: ids.New(ids.Proposal), authorID: c.ID, base: d.base.Version, document: d.next.Text, created: now, state: proposalOpen,
		statement: ProposalStatement{
			Format: ProposalFormat, DocumentHash: d.next.Hash, BaseVersion: d.base.Version, BaseHash: d.base.Hash,
			Author: statementPerson(c), Groups: d.groups, Comment: in.Comment, Time: now, Random: random128(),
			Assurance: evidence.Session, SignIn: signInOf(c),
		},
	}
	p.statement.ProposalID = p.id
	var err error
	if p.text, err = p.statement.Encode(); err != nil {
		return nil, err
	}
	p.hash = hash(p.text)
	if p.note, err = s.cfg.Log.Vouch(grant.ProposalKind, p.hash); err != nil {
		return nil, err
	}
	e := c.Event(now, event.Subject{}, event.PolicyProposed{
		ProposalID: p.id, Proposal: string(p.text), ProposalHash: p.hash, DocumentHash: d.next.Hash,
		DiffHash: hash([]byte(policyDiff(d.base, d.next))), Rules: len(d.next.Rules), Bytes: len(d.next.Text), Comment: in.Comment,
	}).Under(ref(d.base))
	return p, pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		if err := s.cfg.People.HoldPresent(ctx, tx, c.ID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('proposals of ' || $1, 0))`, c.ID); err != nil {
			return err
		}
		var open int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM policy_proposals WHERE author_id = $1 AND state = 'open'`, c.ID).Scan(&open); err != nil {
			return fmt.Errorf("counting proposals: %w", err)
		}
		if open >= MaxProposals {
			return ErrTooManyProposals.With("you have %d open proposals, and no more are allowed", open)
		}
		if err := p.insert(ctx, tx); err != nil {
			return err
		}
		if err := s.tellProposed(ctx, tx, p, d.base); err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, e)
	})
}

// event is an event about the proposal, under the version in force.
func (p *proposal) event(at time.Time, c identity.Caller, data event.Data, head *policy.Policy) event.Event {
	return c.Event(at, event.Subject{PersonID: p.authorID}, data).Under(ref(head))
}

// refusedPolicy records what was refused, and returns it.
func (s *Service) refusedPolicy(ctx context.Context, c identity.Caller, action, id string, err error) error {
	r := refusal.As(err)
	if r == nil || r.Kind != refusal.Denied && r.Kind != refusal.Conflict {
		return err
	}
	if !ids.Valid(ids.Proposal, id) {
		id = ""
	}
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.PolicyRefused{ProposalID: id, Action: action, Code: r.Code, Reason: r.Detail}).Under(ref(s.Policy())))
	return err
}

func ref(p *policy.Policy) event.PolicyRef { return event.PolicyRef{Version: p.Version, Hash: p.Hash} }

func statementPerson(c identity.Caller) StatementApprover {
	return StatementApprover{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject}
}

func signInOf(c identity.Caller) *StatementSignIn {
	return &StatementSignIn{AuthTime: c.AuthTime, AMR: append([]string{}, c.AMR...), ACR: c.ACR}
}

// random128 is 128 random bits, hex: with them in a statement, its hash tells
// nothing about the rest.
func random128() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	return hex.EncodeToString(b[:])
}
