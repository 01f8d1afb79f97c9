package api

import "time"

// MaxPolicyBody is how many bytes the body of a proposal may have: a document of
// 4 MiB, and what JSON adds to it.
const MaxPolicyBody = 8 << 20

// PolicyVersion is one version of the policy: an immutable document, and who
// brought it into force.
type PolicyVersion struct {
	PolicyRef
	InForce     bool      `json:"in_force"`
	ActivatedAt time.Time `json:"activated_at"`
	Rules       int       `json:"rules,omitempty" doc:"How many; only when one version is asked for"`
	Bytes       int       `json:"bytes" doc:"Length of the document"`
	Proposal    string    `json:"proposal_id,omitempty" doc:"Absent: the version came from the broker's own file"`
	Author      *Person   `json:"author,omitempty"`
	Approver    *Person   `json:"approver,omitempty"`
	Comment     string    `json:"comment,omitempty" doc:"The author's"`
	Document    string    `json:"document,omitempty" doc:"Only when one version is asked for"`
}

// ProposalState is how far a proposal has come.
type ProposalState string

// The states of a proposal. One that is open is stale once another version has
// come into force than the one it was made for: it can no longer be approved.
const (
	ProposalOpen      ProposalState = "open"
	ProposalStale     ProposalState = "stale"
	ProposalApproved  ProposalState = "approved"
	ProposalDenied    ProposalState = "denied"
	ProposalWithdrawn ProposalState = "withdrawn"
)

// PolicyProposal is a document that an operator wants to be the next version.
type PolicyProposal struct {
	ID        string         `json:"id,omitempty" example:"pol-4f8k2m9qhx1z" doc:"Absent with dry_run: nothing was proposed"`
	State     ProposalState  `json:"state" enum:"open,stale,approved,denied,withdrawn"`
	Author    Person         `json:"author"`
	Comment   string         `json:"comment,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	Base      PolicyRef      `json:"base" doc:"The version that was in force when it was made"`
	Hash      string         `json:"hash" doc:"SHA-256 of the document, hex"`
	Statement string         `json:"statement_hash,omitempty" doc:"SHA-256 of the canonical proposal, which the approver approves"`
	Decision  *PolicyVerdict `json:"decision,omitempty"`
	Assurance string         `json:"assurance,omitempty" enum:"session,provider" doc:"What proves a decision on it now: the broker's word, or the identity provider's signature; the version in force says which"`
	Version   int64          `json:"version,string,omitempty" doc:"That it became"`
	Actions   []Action       `json:"actions" doc:"What the caller can do: approve, deny, withdraw"`

	// Only when one proposal is asked for.
	Document string        `json:"document,omitempty"`
	Diff     *PolicyDiff   `json:"diff,omitempty"`
	Effect   *PolicyEffect `json:"effect,omitempty"`
}

// PolicyVerdict is what another operator said to a proposal.
type PolicyVerdict struct {
	ID       string    `json:"id"`
	Approver Person    `json:"approver"`
	Verdict  Verdict   `json:"verdict"`
	Comment  string    `json:"comment,omitempty"`
	At       time.Time `json:"at"`

	Evidence DecisionEvidence `json:"evidence" doc:"What proves that the approver said it"`
}

// PolicyDiff is how a document differs from the version before.
type PolicyDiff struct {
	Text      string `json:"text" doc:"Unified diff"`
	Truncated bool   `json:"truncated,omitempty" doc:"The text is only the beginning of the diff"`
	Hash      string `json:"hash" doc:"SHA-256 of the whole diff, hex; it stands in the log"`
	Added     int    `json:"added" doc:"Lines"`
	Removed   int    `json:"removed" doc:"Lines"`
}

// PolicyEffect is what a document changes for the people who have signed in and
// the hosts that are registered, now.
type PolicyEffect struct {
	Summary     []string           `json:"summary" doc:"The same in sentences, the most important first"`
	Roles       []RoleEffect       `json:"roles"`
	Rules       []RuleEffect       `json:"rules"`
	Deployments []DeploymentEffect `json:"deployments"`
	Reach       []AccessEffect     `json:"reach" doc:"Each: all of these people, on all of these hosts; the widest first"`
	More        int                `json:"more,omitempty" doc:"How many entries of rules, deployments and reach were left out"`
	People      int                `json:"people" doc:"Compared"`
	Hosts       int                `json:"hosts" doc:"Compared"`
}

// RoleEffect is a role that other groups have.
type RoleEffect struct {
	Role   Role     `json:"role"`
	Was    []string `json:"was" doc:"Groups"`
	Now    []string `json:"now" doc:"Groups"`
	Gains  Sample   `json:"gains" doc:"People"`
	Loses  Sample   `json:"loses" doc:"People"`
	Effect string   `json:"effect" doc:"In a sentence"`
}

// RuleEffect is a rule that is new, is gone, or says something else.
type RuleEffect struct {
	Rule        string           `json:"rule"`
	Change      string           `json:"change" enum:"added,removed,changed"`
	Differences []RuleDifference `json:"differences"`
}

// DeploymentEffect is an entry of deployments that is new, is gone, or says something
// else.
type DeploymentEffect struct {
	Entry       string           `json:"entry"`
	Change      string           `json:"change" enum:"added,removed,changed"`
	Hosts       Sample           `json:"hosts" doc:"That it is of now"`
	Differences []RuleDifference `json:"differences"`
	Effect      string           `json:"effect" doc:"In a sentence"`
}

// RuleDifference is one thing that a rule, or a deployment, gives or wants differently.
type RuleDifference struct {
	Key string `json:"key" example:"approvals" doc:"As in the document"`
	Was string `json:"was"`
	Now string `json:"now"`
}

// AccessEffect is what becomes of some people on some hosts.
type AccessEffect struct {
	Change string `json:"change" enum:"gains,changes,loses" doc:"changes: on other terms than before"`
	Login  string `json:"login"`
	Was    string `json:"was,omitempty" doc:"The rule that decided"`
	Now    string `json:"now,omitempty" doc:"The rule that decides"`
	People Sample `json:"people"`
	Hosts  Sample `json:"hosts"`
	Effect string `json:"effect" doc:"In a sentence"`
}

// Sample is how many there are, and the names of a few of them.
type Sample struct {
	Count int      `json:"count"`
	Names []string `json:"names"`
}

// PolicyInput proposes a document.
type PolicyInput struct {
	Document string `json:"document" minLength:"1" maxLength:"4194304" doc:"The whole policy, YAML"`
	Comment  string `json:"comment,omitempty" maxLength:"2000" doc:"What it is for, for whoever decides on it"`
}

// PolicyDecisionInput is what another operator says to a proposal.
type PolicyDecisionInput struct {
	Verdict   Verdict `json:"verdict" enum:"approve,deny"`
	Comment   string  `json:"comment,omitempty" maxLength:"2000"`
	Statement string  `json:"statement_hash,omitempty" maxLength:"64" doc:"The proposal that the approver saw; refused if it is another"`
}
