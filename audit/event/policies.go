package event

import "fmt"

// Versions of the policy. The event's policy is the version that was in force,
// except in PolicyActivated, where it is the new one.

// PolicyProposed records that an operator proposed another document.
type PolicyProposed struct {
	ProposalID   string `json:"proposal_id"`       // of the proposal
	Proposal     string `json:"proposal"`          // the canonical statement, exactly
	ProposalHash string `json:"proposal_hash"`     // SHA-256 of it, hex
	DocumentHash string `json:"document_hash"`     // SHA-256, hex
	DiffHash     string `json:"diff_hash"`         // SHA-256 of the unified diff from the version in force, hex
	Rules        int    `json:"rules"`             // how many the document has
	Bytes        int    `json:"bytes"`             // length of the document
	Comment      string `json:"comment,omitempty"` // in the author's words
}

func (PolicyProposed) EventType() (string, int) { return "policy.proposed", 1 }
func (d PolicyProposed) Summary() string {
	return fmt.Sprintf("proposed a policy with %d rules (%s)", d.Rules, d.ProposalID)
}

// PolicyDecided records what another operator said to a proposal.
type PolicyDecided struct {
	ProposalID   string   `json:"proposal_id"`       // of the proposal
	DecisionID   string   `json:"decision_id"`       // of the decision
	Verdict      string   `json:"verdict"`           // approve or deny
	Comment      string   `json:"comment,omitempty"` // in the approver's words
	ProposalHash string   `json:"proposal_hash"`     // SHA-256 of its canonical statement, hex
	Groups       []string `json:"groups"`            // of the approver, that made them an operator
	Evidence     string   `json:"evidence"`          // the canonical statement, exactly
	EvidenceHash string   `json:"evidence_hash"`     // SHA-256 of it, hex
	// What proves it: see package approvals/evidence.
	Assurance   string `json:"assurance,omitempty"`     // session or provider
	IDTokenHash string `json:"id_token_hash,omitempty"` // SHA-256 of the ID token, hex
	KeysHash    string `json:"keys_hash,omitempty"`     // of the note in provider.keys_seen that the token verifies with
}

func (PolicyDecided) EventType() (string, int) { return "policy.decided", 1 }
func (d PolicyDecided) Summary() string {
	if d.Verdict == "deny" {
		return "denied the policy proposed as " + d.ProposalID
	}
	return "approved the policy proposed as " + d.ProposalID
}

// PolicyWithdrawn records that its author took a proposal back.
type PolicyWithdrawn struct {
	ProposalID   string `json:"proposal_id"`   // of the proposal
	ProposalHash string `json:"proposal_hash"` // SHA-256 of its canonical statement, hex
}

func (PolicyWithdrawn) EventType() (string, int) { return "policy.withdrawn", 1 }
func (d PolicyWithdrawn) Summary() string        { return "withdrew the policy proposed as " + d.ProposalID }

// PolicyRefused records a proposal, or something done to one, that was not
// accepted, such as the approval of one's own.
type PolicyRefused struct {
	ProposalID string `json:"proposal_id,omitempty"` // of the proposal
	Action     string `json:"action"`                // propose, approve, deny or withdraw
	Code       string `json:"code"`                  // the refusal's code, as in docs/problems.md
	Reason     string `json:"reason"`                // why, in words for people
}

func (PolicyRefused) EventType() (string, int) { return "policy.refused", 1 }
func (d PolicyRefused) Summary() string {
	return "could not " + d.Action + " a policy: " + d.Reason
}

// PolicyActivated records that a version of the policy came into force. A version
// without a proposal came from the broker's own file.
type PolicyActivated struct {
	Rules int `json:"rules"` // how many the document has
	Bytes int `json:"bytes"` // length of the document, whose hash the event's policy names

	ProposalID   string `json:"proposal_id,omitempty"`   // of the proposal, if there was one
	ProposalHash string `json:"proposal_hash,omitempty"` // SHA-256 of its canonical statement, hex
	EvidenceHash string `json:"evidence_hash,omitempty"` // of the approval's statement
	DiffHash     string `json:"diff_hash,omitempty"`     // SHA-256 of the unified diff from the version before, hex
	Author       string `json:"author,omitempty"`        // id of the person who proposed it
	Approver     string `json:"approver,omitempty"`      // id of the person who approved it
}

func (PolicyActivated) EventType() (string, int) { return "policy.activated", 1 }
func (d PolicyActivated) Summary() string {
	said := fmt.Sprintf("put a policy with %d rules into force", d.Rules)
	if d.ProposalID != "" {
		said += " (" + d.ProposalID + ")"
	}
	return said
}
