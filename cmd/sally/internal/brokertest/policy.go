package brokertest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"sallyport/api"
)

// Document is the policy that the broker begins with.
const Document = "sallyport: 1\nrules: []\n"

// policy answers the calls about the policy. Olga Operator proposes; Alex Approver
// may decide; whatever a document says, it makes two approvals of one.
func (b *Broker) policy(handle func(string, func(http.ResponseWriter, *http.Request, string))) {
	b.versions = []api.PolicyVersion{{PolicyRef: api.PolicyRef{Version: 1, Hash: strings.Repeat("a1", 32)}, InForce: true,
		ActivatedAt: time.Now().UTC(), Document: Document}}
	force := func() api.PolicyVersion { return b.versions[len(b.versions)-1] }
	readers := func(f func(http.ResponseWriter, *http.Request, string)) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, r *http.Request, who string) {
			if who == "engineer" {
				refuse(w, 403, "policy-readers-only", "only operators and auditors read the policy", "see: sally hosts")
				return
			}
			f(w, r, who)
		}
	}
	handle("GET /policy", readers(func(w http.ResponseWriter, r *http.Request, who string) { answer(w, 200, force()) }))
	handle("GET /policy/versions", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		answer(w, 200, api.Page[api.PolicyVersion]{Items: b.versions})
	}))
	handle("GET /policy/versions/{n}", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		if r.PathValue("n") != "1" {
			refuse(w, 404, "unknown-policy-version", "the policy has no such version", "sally policy versions")
			return
		}
		answer(w, 200, b.versions[0])
	}))
	handle("GET /policy/proposals", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		list := []api.PolicyProposal{}
		for _, p := range b.proposals {
			list = append(list, *p)
		}
		answer(w, 200, api.Page[api.PolicyProposal]{Items: list})
	}))
	handle("POST /policy/proposals", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		var in api.PolicyInput
		if json.NewDecoder(r.Body).Decode(&in) != nil || !strings.HasPrefix(in.Document, "sallyport: 1") {
			refuse(w, 422, "bad-policy", "the document is not a policy: line 1, column 1: what is this", "sallyportd policy check FILE shows the place")
			return
		}
		p := &api.PolicyProposal{State: api.ProposalOpen, Author: people[who], Comment: in.Comment, CreatedAt: time.Now().UTC(),
			Base: force().PolicyRef, Statement: strings.Repeat("5", 64), Document: in.Document, Actions: []api.Action{},
			Diff:   &api.PolicyDiff{Text: "--- was\n+++ is\n@@ -1,2 +1,2 @@\n-one\n+two\x1b[2K\n", Added: 1, Removed: 1},
			Effect: &api.PolicyEffect{Summary: []string{"3 people gain root on 12 hosts", "rule x changes approvals from 1 from a to 2 from a"}, People: 7, Hosts: 40}}
		if r.FormValue("dry_run") == "true" {
			answer(w, 200, p)
			return
		}
		p.ID = "pol-00000000000" + string(rune('1'+len(b.proposals)))
		b.proposals = append(b.proposals, p)
		answer(w, 201, p)
	}))
	handle("GET /policy/proposals/{id}", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		if p := b.proposed(w, r); p != nil {
			seen := *p
			for _, name := range []string{"approve", "deny"} {
				a := api.Action{Name: name, Allowed: who != "operator"}
				if !a.Allowed {
					a.Why = "nobody decides on their own proposal"
				}
				seen.Actions = append(seen.Actions, a)
			}
			answer(w, 200, seen)
		}
	}))
	handle("POST /policy/proposals/{id}/decisions", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		p := b.proposed(w, r)
		var in api.PolicyDecisionInput
		if p == nil || json.NewDecoder(r.Body).Decode(&in) != nil {
			return
		}
		switch {
		case who == "operator":
			refuse(w, 403, "own-proposal", "nobody decides on their own proposal", "another operator has to")
			return
		case in.Statement != p.Statement:
			refuse(w, 409, "other-proposal", "the decision is about another proposal than this one", "look again")
			return
		case b.Signed:
			b.onPage(w, "/policy/proposals/"+p.ID+"/decide", string(in.Verdict), in.Comment)
			return
		}
		b.takePolicy(p, who, in)
		answer(w, 200, p)
	}))
	handle("POST /policy/proposals/{id}/withdraw", readers(func(w http.ResponseWriter, r *http.Request, who string) {
		if p := b.proposed(w, r); p != nil {
			p.State = api.ProposalWithdrawn
			answer(w, 200, p)
		}
	}))
}

func (b *Broker) proposed(w http.ResponseWriter, r *http.Request) *api.PolicyProposal {
	for _, p := range b.proposals {
		if p.ID == r.PathValue("id") {
			return p
		}
	}
	refuse(w, 404, "unknown-proposal", "there is no such proposal", "sally policy proposals")
	return nil
}

// decidePolicyInBrowser is what the approver's browser does on the page, all at once.
func (b *Broker) decidePolicyInBrowser(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	if p := b.proposed(w, r); p != nil && b.Signed {
		in := api.PolicyDecisionInput{Verdict: api.Verdict(r.FormValue("verdict")), Comment: r.FormValue("comment")}
		if b.InBrowser != "" {
			in.Verdict = b.InBrowser
		}
		b.takePolicy(p, "approver", in)
	}
}

// takePolicy takes a decision on a proposal.
func (b *Broker) takePolicy(p *api.PolicyProposal, who string, in api.PolicyDecisionInput) {
	p.Decision = &api.PolicyVerdict{Approver: people[who], Verdict: in.Verdict, Comment: in.Comment, At: time.Now().UTC()}
	p.State = api.ProposalDenied
	if in.Verdict == api.Approve {
		p.State, p.Version = api.ProposalApproved, b.versions[len(b.versions)-1].Version+1
		author, approver := p.Author, people[who]
		b.versions[len(b.versions)-1].InForce = false
		b.versions = append(b.versions, api.PolicyVersion{PolicyRef: api.PolicyRef{Version: p.Version, Hash: strings.Repeat("b2", 32)}, InForce: true,
			ActivatedAt: time.Now().UTC(), Document: p.Document, Author: &author, Approver: &approver, Comment: p.Comment})
	}
}
