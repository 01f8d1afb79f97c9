package event

import (
	"fmt"
	"time"
)

// Deploy agents: jobs that a workload's token proves. The actor's id is the run's.

// AgentAdmitted records that a token was taken: its job is a deploy agent from now on,
// by one key, until the run ends.
type AgentAdmitted struct {
	RunID     string            `json:"run_id"`     // of the run, which is the actor
	Entry     string            `json:"entry"`      // of the policy that trusts it
	EntryHash string            `json:"entry_hash"` // SHA-256 of what that entry trusts, hex
	Provider  string            `json:"provider"`   // github, gitlab, buildkite, circleci, kubernetes, spiffe or generic
	Issuer    string            `json:"issuer"`     // of the token
	Subject   string            `json:"subject"`    // of the token
	Claims    map[string]string `json:"claims"`     // of the token: those that the entry goes by, and what ran
	TokenID   string            `json:"token_id"`   // that can be taken once: jti, or the SHA-256 of what is signed
	TokenHash string            `json:"token_hash"` // SHA-256 of the token, hex
	SignedBy  string            `json:"signed_by"`  // id of the issuer's key
	Binding   string            `json:"binding"`    // audience (the issuer signed the key's hash) or proof (the first key counts)
	Key       string            `json:"key"`        // of the run; fingerprint, SHA256:…
	ExpiresAt time.Time         `json:"expires_at"` // when the run ends
}

func (AgentAdmitted) EventType() (string, int) { return "agent.admitted", 1 }
func (d AgentAdmitted) Summary() string {
	return fmt.Sprintf("came as a deploy agent under %s, until %s", d.Entry, d.ExpiresAt.Format("15:04:05 MST"))
}

// AgentRefused records a token, or a call of an agent, that was not taken.
type AgentRefused struct {
	RunID    string   `json:"run_id,omitempty"`  // of the run, if it is known
	Issuer   string   `json:"issuer,omitempty"`  // as the token says, if it could be read
	Subject  string   `json:"subject,omitempty"` // as the token says, likewise
	Verified bool     `json:"verified"`          // the issuer has signed the token
	Entry    string   `json:"entry,omitempty"`   // of the policy, that comes nearest
	Unmet    []string `json:"unmet,omitempty"`   // claims that it wants otherwise
	Key      string   `json:"key,omitempty"`     // of the caller, if it could be read; fingerprint, SHA256:…
	Code     string   `json:"code"`              // the refusal's code, as in docs/problems.md
	Reason   string   `json:"reason"`            // why, in words for people
}

func (AgentRefused) EventType() (string, int) { return "agent.refused", 1 }
func (d AgentRefused) Summary() string        { return "was refused as a deploy agent: " + d.Reason }

// AgentTokenShared records that a token was shown with a second key: one of the two who
// showed it stole it. If nobody can say which, neither is let go on.
type AgentTokenShared struct {
	RunID       string    `json:"run_id"`       // of the run that the first one began
	Entry       string    `json:"entry"`        // of the policy that trusts the token
	Issuer      string    `json:"issuer"`       // of the token
	Subject     string    `json:"subject"`      // of the token
	TokenHash   string    `json:"token_hash"`   // SHA-256 of the token as it was shown now, hex
	FirstKey    string    `json:"first_key"`    // fingerprint, SHA256:…
	FirstSource string    `json:"first_source"` // IP address that the first call came from
	FirstAt     time.Time `json:"first_at"`     // when that was
	SecondKey   string    `json:"second_key"`   // fingerprint, SHA256:…
	Revoked     bool      `json:"revoked"`      // the run is over; it goes on if the issuer itself signed the first key's hash
}

func (AgentTokenShared) EventType() (string, int) { return "agent.token_shared", 1 }
func (d AgentTokenShared) Summary() string {
	return fmt.Sprintf("showed a token of %s with a second key: it was stolen from one of the two", d.Subject)
}

// AgentRevoked records that a run was ended before its time.
type AgentRevoked struct {
	RunID  string `json:"run_id"` // of the run
	Entry  string `json:"entry"`  // of the policy, that it came by
	Key    string `json:"key"`    // of the run; fingerprint, SHA256:…
	Reason string `json:"reason"` // why, in words for people
}

func (AgentRevoked) EventType() (string, int) { return "agent.revoked", 1 }
func (d AgentRevoked) Summary() string {
	return fmt.Sprintf("revoked the run %s of %s: %s", d.RunID, d.Entry, d.Reason)
}
