package notify

import (
	"fmt"
	"time"

	"sallyport/api"
)

// proposed is the headline about a proposal of a policy.
func (m Message) proposed() string {
	p := m.Proposal
	if p == nil {
		return "Policy proposal"
	}
	who := oneLine(p.Author.Name, 60)
	switch {
	case m.Kind == ProposalWaiting:
		return fmt.Sprintf("%s proposes to change the policy", who)
	case p.State == api.ProposalApproved:
		return fmt.Sprintf("The policy changed: what %s proposed was approved", who)
	case p.State == api.ProposalWithdrawn:
		return fmt.Sprintf("Withdrawn: the policy that %s proposed", who)
	}
	return fmt.Sprintf("Denied: the policy that %s proposed", who)
}

// proposalFacts are what a message says of a proposal. What it changes stands on
// its page: it depends on who there is when somebody looks.
func (m Message) proposalFacts() []fact {
	p := m.Proposal
	if p == nil {
		return nil
	}
	facts := []fact{{"Who", address(p.Author)}, {"Comment", p.Comment}, {"Follows", fmt.Sprintf("version %d", p.Base.Version)}, {"Document", p.Hash}}
	if d := p.Decision; d != nil {
		facts = append(facts, fact{"Decided by", address(d.Approver)}, fact{"Answer", d.Comment})
	}
	if p.Version != 0 {
		facts = append(facts, fact{"In force as", fmt.Sprintf("version %d", p.Version)})
	}
	return facts
}

// PayloadProposal is a proposal as webhooks tell it.
type PayloadProposal struct {
	ID        string            `json:"id"`
	State     api.ProposalState `json:"state"`
	Author    api.Person        `json:"author"`
	Comment   string            `json:"comment,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	Base      api.PolicyRef     `json:"base"` // the version that it follows
	Hash      string            `json:"hash"` // SHA-256 of the document, hex
	Version   int64             `json:"version,string,omitempty"`
	Decision  *PayloadSaid      `json:"decision,omitempty"`
}

func (m Message) proposalPayload() *PayloadProposal {
	p := m.Proposal
	if p == nil {
		return nil
	}
	out := &PayloadProposal{ID: p.ID, State: p.State, Author: p.Author, Comment: p.Comment, CreatedAt: p.CreatedAt,
		Base: p.Base, Hash: p.Hash, Version: p.Version}
	if d := p.Decision; d != nil {
		out.Decision = &PayloadSaid{Approver: d.Approver, Verdict: d.Verdict, Comment: d.Comment, At: d.At}
	}
	return out
}
