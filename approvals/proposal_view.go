package approvals

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

const (
	defaultVersions = 50
	maxVersions     = 200
	maxDiff         = 256 << 10 // bytes that are shown
)

// readsPolicy refuses whoever may not read the policy, which is an event (P10).
func (s *Service) readsPolicy(ctx context.Context, c identity.Caller, action string) error {
	if c.Has(api.Operator) || c.Has(api.Auditor) {
		return nil
	}
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.AccessRefused{Action: action, Code: ErrPolicyReaders.Code, Reason: ErrPolicyReaders.Detail}))
	return ErrPolicyReaders
}

// OnlyPolicyOperators lets those pass who may propose; so that nobody else's
// documents are even read.
func (s *Service) OnlyPolicyOperators(ctx context.Context, c identity.Caller, action string) error {
	if c.Has(api.Operator) {
		return nil
	}
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.AccessRefused{Action: action, Code: ErrPolicyOperators.Code, Reason: ErrPolicyOperators.Detail}))
	return ErrPolicyOperators
}

// PolicyInForce is the version in force with its document. Operators and auditors
// only, as is everything that reads the policy.
func (s *Service) PolicyInForce(ctx context.Context, c identity.Caller) (api.PolicyVersion, error) {
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return api.PolicyVersion{}, err
	}
	p, err := s.current(ctx)
	if err != nil {
		return api.PolicyVersion{}, err
	}
	return s.PolicyVersion(ctx, c, p.Version)
}

// PolicyVersion is one version with its document, or ErrUnknownVersion.
func (s *Service) PolicyVersion(ctx context.Context, c identity.Caller, n int64) (api.PolicyVersion, error) {
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return api.PolicyVersion{}, err
	}
	list, err := s.versions(ctx, `WHERE v.version = $1`, n)
	if err != nil {
		return api.PolicyVersion{}, err
	}
	if len(list) == 0 {
		return api.PolicyVersion{}, ErrUnknownVersion
	}
	out := list[0]
	document, err := s.versionDocument(ctx, n, out.Hash)
	if err != nil {
		return api.PolicyVersion{}, err
	}
	out.Document = string(document)
	if p, err := policy.Parse(document); err == nil { // one of an older format is still shown
		out.Rules = len(p.Rules)
	}
	return out, nil
}

func (s *Service) versionDocument(ctx context.Context, n int64, want string) ([]byte, error) {
	document, err := oneRow(ctx, s.cfg.Pool, pgx.RowTo[[]byte], `SELECT document FROM policy_versions WHERE version = $1`, n)
	if err != nil {
		return nil, fmt.Errorf("reading version %d of the policy: %w", n, err)
	}
	if hash(document) != want {
		return nil, ErrForgedProposal.Because(fmt.Errorf("version %d is not the one that was proposed for", n))
	}
	return document, nil
}

// PolicyVersions lists versions, newest first. The cursor is the last page's next;
// the limit is at most 200, and 0 means 50.
func (s *Service) PolicyVersions(ctx context.Context, c identity.Caller, cursor string, limit int) (api.Page[api.PolicyVersion], error) {
	page := api.Page[api.PolicyVersion]{Items: []api.PolicyVersion{}}
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return page, err
	}
	if limit == 0 {
		limit = defaultVersions
	}
	before, err := int64(1<<62), error(nil)
	if cursor != "" {
		before, err = strconv.ParseInt(cursor, 10, 64)
	}
	if err != nil || limit < 1 || limit > maxVersions {
		return page, ErrBadFilter
	}
	list, err := s.versions(ctx, `WHERE v.version < $1 ORDER BY v.version DESC LIMIT $2`, before, limit+1)
	if err != nil {
		return page, err
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = strconv.FormatInt(list[limit-1].Version, 10)
	}
	page.Items = append(page.Items, list...)
	return page, nil
}

// versions reads versions that were in force, without their documents. A row that
// no broker put into force is none.
func (s *Service) versions(ctx context.Context, where string, args ...any) ([]api.PolicyVersion, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT v.version, v.hash, v.activated_at, octet_length(v.document), coalesce(p.id, ''),
			coalesce(p.author_id, ''), coalesce(d.approver_id, ''), p.statement
		FROM policy_versions AS v
		LEFT JOIN policy_activations AS a USING (version)
		LEFT JOIN policy_proposals AS p ON p.id = a.proposal_id
		LEFT JOIN policy_decisions AS d ON d.proposal_id = p.id `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading versions of the policy: %w", err)
	}
	var people []string
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v api.PolicyVersion, err error) {
		var author, approver string
		var statement []byte
		err = row.Scan(&v.Version, &v.Hash, &v.ActivatedAt, &v.Bytes, &v.Proposal, &author, &approver, &statement)
		v.ActivatedAt = v.ActivatedAt.UTC()
		if err == nil && statement != nil {
			var st ProposalStatement
			err = grant.ParseCanonical(statement, &st)
			v.Author, v.Approver, v.Comment = &api.Person{ID: author}, &api.Person{ID: approver}, st.Comment
			people = append(people, author, approver)
		}
		return v, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading versions of the policy: %w", err)
	}
	names, err := s.names(ctx, people)
	if err != nil {
		return nil, err
	}
	force := s.Policy()
	for i := range list {
		v := &list[i]
		v.InForce = v.Version == force.Version
		if v.Author != nil {
			*v.Author, *v.Approver = names[v.Author.ID], names[v.Approver.ID]
		}
	}
	return list, nil
}

// names are people by id, as others see them.
func (s *Service) names(ctx context.Context, ids []string) (map[string]api.Person, error) {
	out := map[string]api.Person{}
	if len(ids) == 0 {
		return out, nil
	}
	found, err := s.cfg.People.People(ctx, ids)
	for _, p := range found {
		out[p.ID] = named(p)
	}
	return out, err
}

// Proposal is one proposal with its document, and what it changes.
func (s *Service) Proposal(ctx context.Context, c identity.Caller, id string) (api.PolicyProposal, error) {
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return api.PolicyProposal{}, err
	}
	p, err := s.findProposal(ctx, s.cfg.Pool, id, false)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	list, err := s.showProposals(ctx, c, []*proposal{p})
	if err != nil {
		return api.PolicyProposal{}, err
	}
	out := list[0]
	out.Document = string(p.document)
	document, err := s.versionDocument(ctx, p.base, p.statement.BaseHash)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	was, err := policy.Parse(document)
	if err != nil {
		return out, nil // of an older format: nothing more can be said about it
	}
	now, err := policy.Parse(p.document)
	if err != nil {
		return out, nil
	}
	was.Version = p.base
	out.Diff = shownDiff(policyDiff(was, now))
	out.Effect, err = s.effect(ctx, was, now)
	return out, err
}

// ProposalClosed reports whether nobody can decide on the proposal any more, or
// needs to. Whoever waits for it asks again and again, and this reads little.
func (s *Service) ProposalClosed(ctx context.Context, c identity.Caller, id string) (bool, error) {
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return false, err
	}
	closed, err := oneRow(ctx, s.cfg.Pool, pgx.RowTo[bool], `SELECT state <> 'open' FROM policy_proposals WHERE id = $1`, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, ErrUnknownProposal
	}
	if err != nil {
		return false, fmt.Errorf("reading proposal %s: %w", id, err)
	}
	return closed, nil
}

// Proposals lists proposals, newest first; only open ones, if so wanted. The
// cursor is the last page's next; the limit is at most 200, and 0 means 50.
func (s *Service) Proposals(ctx context.Context, c identity.Caller, open bool, cursor string, limit int) (api.Page[api.PolicyProposal], error) {
	page := api.Page[api.PolicyProposal]{Items: []api.PolicyProposal{}}
	if err := s.readsPolicy(ctx, c, "policy.read"); err != nil {
		return page, err
	}
	if limit == 0 {
		limit = defaultVersions
	}
	after, err := base64.RawURLEncoding.DecodeString(cursor)
	last := string(after)
	if err != nil || last != "" && !ids.Valid(ids.Proposal, last) || limit < 1 || limit > maxVersions {
		return page, ErrBadFilter
	}
	rows, err := s.cfg.Pool.Query(ctx, selectProposals+`
		WHERE (NOT $1 OR p.state = 'open')
			AND ($2 = '' OR (p.created_at, p.id) < (SELECT created_at, id FROM policy_proposals WHERE id = $2))
		ORDER BY p.created_at DESC, p.id DESC LIMIT $3`, open, last, limit+1)
	if err != nil {
		return page, fmt.Errorf("reading proposals: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanProposal)
	if err != nil {
		return page, fmt.Errorf("reading proposals: %w", err)
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(list[limit-1].id))
	}
	page.Items, err = s.showProposals(ctx, c, list)
	return page, err
}

// showProposals turns proposals into what the caller sees in lists.
func (s *Service) showProposals(ctx context.Context, c identity.Caller, list []*proposal) ([]api.PolicyProposal, error) {
	var people []string
	for _, p := range list {
		people = append(people, p.authorID, p.decision.statement.Approver.ID)
	}
	names, err := s.names(ctx, people)
	if err != nil {
		return nil, err
	}
	force := s.Policy()
	out := make([]api.PolicyProposal, len(list))
	for i, p := range list {
		out[i] = api.PolicyProposal{
			ID: p.id, State: api.ProposalState(p.state), Author: names[p.authorID], Comment: p.statement.Comment,
			CreatedAt: p.created, Base: api.PolicyRef{Version: p.base, Hash: p.statement.BaseHash},
			Hash: p.statement.DocumentHash, Statement: p.hash, Version: p.version, Assurance: string(force.Assurance),
			Actions: []api.Action{
				action("approve", p.mayDecide(c.Person, api.Approve, force)),
				action("deny", p.mayDecide(c.Person, api.Deny, force)),
				action("withdraw", p.mayWithdraw(c.Person)),
			},
		}
		if p.state == proposalOpen && p.base != force.Version {
			out[i].State = api.ProposalStale
		}
		if p.decisionID != "" {
			d := p.decision
			out[i].Decision = &api.PolicyVerdict{ID: p.decisionID, Approver: names[d.statement.Approver.ID],
				Verdict: d.statement.Verdict, Comment: d.statement.Comment, At: d.taken, Evidence: d.shown(d.statement.Said())}
		}
	}
	return out, nil
}

// policyDiff is the diff that the log names by its hash. Both sides have names
// that anybody can repeat who has the two documents.
func policyDiff(was, now *policy.Policy) string {
	return policy.Diff("policy "+was.Hash, was.Text, "policy "+now.Hash, now.Text)
}

func shownDiff(text string) *api.PolicyDiff {
	d := &api.PolicyDiff{Text: text, Hash: hash([]byte(text))}
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		case strings.HasPrefix(line, "+"):
			d.Added++
		case strings.HasPrefix(line, "-"):
			d.Removed++
		}
	}
	if len(text) > maxDiff {
		d.Text, d.Truncated = text[:strings.LastIndex(text[:maxDiff], "\n")+1], true
	}
	return d
}
