package reconcile

import (
	"errors"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/evidence/populations"
)

// maxParsed is how many documents are kept parsed: one may be four megabytes.
const maxParsed = 4

// maxStale is how long after a new version a broker may still decide by the last
// one (approvals looks every few seconds), and how far replicas' clocks may differ.
const maxStale = time.Minute

// policies are the versions that the log put into force.
type policies struct {
	versions  map[int64]version
	current   int64
	proposals map[string]proposal
	parsed    []*policy.Policy // newest use last
}

type version struct {
	hash     string
	index    int64
	from, to time.Time // to is zero while it is in force
}

type proposal struct {
	index      int64
	author     string
	text, hash string
	decision   grant.Evidence
	decidedBy  string
	decided    bool
}

func newPolicies() policies {
	return policies{versions: map[int64]version{}, proposals: map[string]proposal{}}
}

// errNoDocument says that a policy's text is not kept.
var errNoDocument = errors.New("the text of the policy that it names is not kept")

// document is the parsed policy with the hash.
func (p *policies) document(g *Engine, hash string) (*policy.Policy, error) {
	for i, d := range p.parsed {
		if d.Hash == hash {
			p.parsed = append(slices.Delete(p.parsed, i, i+1), d)
			return d, nil
		}
	}
	text, err := g.cfg.Document(hash)
	if err != nil || grant.Hash(text) != hash {
		return nil, errNoDocument
	}
	d, err := policy.Parse(slices.Clone(text))
	if err != nil {
		return nil, errors.New("the text of the policy that it names cannot be read")
	}
	if p.parsed = append(p.parsed, d); len(p.parsed) > maxParsed {
		p.parsed = slices.Delete(p.parsed, 0, 1)
	}
	return d, nil
}

// find is the version that terms name, if the log put it into force.
func (p *policies) find(g *Engine, t grant.Terms) (*policy.Policy, error) {
	v, ok := p.versions[t.PolicyVersion]
	switch {
	case !ok && g.cfg.First > 0: // it came into force before the pack; its hash is in the terms
	case !ok || v.hash != t.PolicyHash:
		return nil, errors.New("the terms name a version of the policy that never was in force")
	}
	d, err := p.document(g, t.PolicyHash)
	if err != nil {
		return nil, err
	}
	numbered := *d
	numbered.Version = t.PolicyVersion
	return &numbered, nil
}

// checkVersion holds the version that terms were made under against the one in
// force.
func (g *Engine) checkVersion(e *populations.Event, t grant.Terms) {
	v, ok := g.policies.versions[t.PolicyVersion]
	switch {
	case !ok && g.cfg.First > 0:
	case !ok || v.hash != t.PolicyHash:
		g.report(RequestOtherPolicy, e, -1, "version %d of the policy, as the terms name it, never was in force", t.PolicyVersion)
	case !v.to.IsZero() && e.Time.After(v.to.Add(maxStale)):
		g.report(RequestOtherPolicy, e, v.index, "version %d of the policy was in force until %s", t.PolicyVersion, populations.Time(v.to))
	}
}

func (g *Engine) proposed(e *populations.Event, d event.PolicyProposed) {
	if grant.Hash([]byte(d.Proposal)) == d.ProposalHash {
		g.policies.proposals[d.ProposalID] = proposal{index: e.Index, author: e.Actor.ID, text: d.Proposal, hash: d.ProposalHash}
	}
}

func (g *Engine) policyDecided(e *populations.Event, d event.PolicyDecided, idToken string) {
	p, ok := g.policies.proposals[d.ProposalID]
	if !ok {
		if !g.beforePack(e, "the proposal") {
			g.report(DecisionAltered, e, -1, "the log has no open proposal that it is about")
		}
		return
	}
	var s grant.PolicyStatement
	if err := grant.ParseCanonical([]byte(d.Evidence), &s); err != nil || grant.Hash([]byte(d.Evidence)) != d.EvidenceHash ||
		s.ProposalHash != p.hash || s.Approver.ID != e.Actor.ID || !tellsPolicyDecision(d, s) {
		g.report(DecisionAltered, e, p.index, "its statement cannot be read, or the event says otherwise than the statement")
		return
	}
	if s.Verdict != api.Approve {
		delete(g.policies.proposals, d.ProposalID)
		return
	}
	p.decision, p.decidedBy, p.decided = g.evidence(e, idToken), e.Actor.ID, true
	g.policies.proposals[d.ProposalID] = p
}

// activated checks how a version came into force (grant.CheckApproval): by a
// proposal that another operator approved; or from the broker's own file, which may
// only be while nobody could have proposed one.
func (g *Engine) activated(e *populations.Event, d event.PolicyActivated) {
	if e.Policy == nil {
		g.report(PolicyWithoutQuorum, e, -1, "the event does not say which version")
		return
	}
	n, hash := e.Policy.Version, e.Policy.Hash
	before, had := g.policies.versions[g.policies.current]
	if v, again := g.policies.versions[n]; again && v.hash != hash {
		g.report(PolicyVersionReused, e, v.index, "version %d came into force before", n)
	}
	if _, err := g.policies.document(g, hash); err != nil {
		g.report(EvidenceMissing, e, -1, "%s", err)
	}
	if d.ProposalID == "" {
		g.fromFile(e, before, had)
	} else {
		g.fromProposal(e, d, before, had)
		delete(g.policies.proposals, d.ProposalID)
	}
	if had {
		before.to = e.Time
		g.policies.versions[g.policies.current] = before
	}
	g.policies.versions[n] = version{hash: hash, index: e.Index, from: e.Time}
	g.policies.current = n
}

func (g *Engine) fromFile(e *populations.Event, before version, had bool) {
	switch {
	case !had: // the first one, or the first in this pack
		if g.cfg.First > 0 {
			g.beforePack(e, "the version before")
		}
	default:
		base, err := g.policies.document(g, before.hash)
		if err == nil && len(base.Roles[api.Operator]) > 0 {
			g.report(PolicyFromFile, e, before.index, "the version before named operators, who could have proposed and approved it")
		}
	}
}

func (g *Engine) fromProposal(e *populations.Event, d event.PolicyActivated, before version, had bool) {
	p, ok := g.policies.proposals[d.ProposalID]
	switch {
	case d.Author != "" && d.Author == d.Approver, ok && p.decided && p.author == p.decidedBy:
		g.report(PolicyByAuthor, e, p.index, "%s proposed it and approved it", d.Author)
		return
	case (!ok || !had) && g.beforePack(e, "its proposal, or the version before"):
		return
	case !ok || !p.decided || p.hash != d.ProposalHash:
		g.report(PolicyWithoutQuorum, e, -1, "the log has no approved proposal of it")
		return
	case !had:
		g.report(PolicyWithoutQuorum, e, p.index, "the log has no version before it, under which it could have been proposed")
		return
	}
	base, err := g.policies.document(g, before.hash)
	if err != nil {
		g.report(PolicyWithoutQuorum, e, p.index, "the version before cannot be read")
		return
	}
	a := grant.Activation{Version: e.Policy.Version, Hash: e.Policy.Hash, ProposalHash: d.ProposalHash, Time: e.Time}
	switch err := grant.CheckApproval(a, []byte(p.text), p.decision, base.Text, g.anchor()); {
	case errors.Is(err, grant.ErrAuthorApproved):
		g.report(PolicyByAuthor, e, p.index, "%s", err)
	case err != nil:
		g.report(PolicyWithoutQuorum, e, p.index, "%s", err)
	}
}
