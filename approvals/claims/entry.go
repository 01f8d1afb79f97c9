package claims

import "strings"

// Provider is a kind of issuer: it says what a token's claims mean.
type Provider string

// The kinds of issuers.
const (
	GitHub     Provider = "github"
	GitLab     Provider = "gitlab"
	Buildkite  Provider = "buildkite"
	CircleCI   Provider = "circleci"
	Kubernetes Provider = "kubernetes"
	SPIFFE     Provider = "spiffe"
	Generic    Provider = "generic"
)

// Entry is what a trust entry of the policy wants tokens to say.
type Entry struct {
	Provider Provider
	Demands  []Demand // in the order of the format
}

// Demand is a claim that a token must have, with one of the values. A claim that is a
// list must have one of them in it.
type Demand struct {
	Key      string   // of the document, such as repository_id
	Path     []string // of the claim: its name, and within an object that of its part
	Identity bool     // it names the workload for good
	Values   []string
}

// Claim is the claim's name as people write it.
func (d Demand) Claim() string { return strings.Join(d.Path, ".") }
