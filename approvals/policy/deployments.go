package policy

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// Limits on the deployments of a document.
const (
	MaxDeployments      = 500
	MaxBatches          = 100 // entries of a plan; the last is repeated
	MaxGates            = 20  // of one batch, those of all batches included
	MaxFreezes          = 50
	MaxDeploymentTests  = 100
	MaxDeployedHosts    = 2000 // an event names them all
	MaxGatePorts        = 100
	MaxUses             = 100
	MaxTrustEntries     = 50   // that may make one kind of deployment
	MaxCommand          = 1000 // bytes of a forced command
	MaxQuery            = 2000 // bytes of a Prometheus query
	MaxSoak             = 30 * 24 * time.Hour
	MinOpenFor          = time.Minute
	MaxOpenFor          = 4 * time.Hour
	MinLease            = time.Minute
	MaxLease            = time.Hour
	MaxAgentCertificate = 5 * time.Minute // lifetime, whatever the document says
	MinGateEvery        = 5 * time.Second
	MaxGateWithin       = 7 * 24 * time.Hour
	MaxGateTimes        = 1000
)

// What a deployment that is silent gives.
const (
	DefaultOpenFor      = 30 * time.Minute
	DefaultVerifyWithin = 10 * time.Minute
	DefaultLease        = 10 * time.Minute
	DefaultGateEvery    = 30 * time.Second
	DefaultGateWithin   = 15 * time.Minute
)

// Deployment says which agents may deploy a service where, by which plan, and with
// what credentials. An agent can narrow the plan, and nothing else.
type Deployment struct {
	Name        string
	Description string
	Service     string
	Environment string
	Agents      []string // names of trust entries
	Where       labels.Selector
	Login       string
	// Command is the only one that a certificate runs. {digest} in it stands for the
	// artifact that the deployment is of, so that an agent cannot choose another.
	Command         string
	RollbackCommand string // the same for a rollback, to the digest that was there before

	CertificateLifetime time.Duration
	SourceAddress       []string // CIDRs that certificates are good from; never empty
	Uses                int      // sessions that a certificate opens
	Lease               time.Duration

	Plan     Rollout
	Freezes  []Freeze
	Stages   []Stage  // who must approve before it starts; empty: nobody
	Override []Stage  // who can let it go on in a freeze; empty: nobody can
	Proof             // of what people decide: the start, gates, overrides
	Control  []string // groups that may stop, resume, abort and roll back, as operators may
}

// Rollout is how a deployment goes from host to host.
type Rollout struct {
	Canary       *Batch // first, by itself; nil: none
	Batches      []Batch
	OpenFor      time.Duration // the longest that a batch is open
	VerifyWithin time.Duration // the longest until a host that was closed has shown that it is sealed
	Failures     Share         // hosts on which it may fail, over all batches
	OnFailure    OnFailure
}

// Batch is hosts that are open together.
type Batch struct {
	Hosts Share
	Soak  time.Duration
	Gates []Gate // those of all batches included
}

// OnFailure is what follows when a batch has failed.
type OnFailure string

// What can follow.
const (
	HoldOnFailure     OnFailure = "hold" // somebody decides
	AbortOnFailure    OnFailure = "abort"
	RollbackOnFailure OnFailure = "rollback" // or hold, where there is nothing to go back to
)

// Share is a number of hosts, or a percentage of them.
type Share struct{ Count, Percent int }

// Of is how many of so many hosts it is, rounded down.
func (s Share) Of(total int) int {
	if s.Percent > 0 {
		return total * s.Percent / 100
	}
	return min(s.Count, total)
}

// Split is how many hosts each batch has, the canary first, if there is one. Percentages
// are of all hosts; every batch has at least one, and the last entry is repeated until
// none is left.
func (r Rollout) Split(total int) []int {
	var sizes []int
	take := func(s Share) {
		n := min(max(s.Of(total), 1), total-sum(sizes))
		sizes = append(sizes, n)
	}
	if r.Canary != nil && total > 0 {
		take(r.Canary.Hosts)
	}
	for i := 0; sum(sizes) < total; i = min(i+1, len(r.Batches)-1) {
		take(r.Batches[i].Hosts)
	}
	return sizes
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// Batch is the entry of the plan that the batch, counted from 0, goes by.
func (r Rollout) Batch(i int) Batch {
	if r.Canary != nil {
		if i == 0 {
			return *r.Canary
		}
		i--
	}
	return r.Batches[min(i, len(r.Batches)-1)]
}

// GateKind is what a gate looks at.
type GateKind string

// The kinds of gates.
const (
	ReportedGate   GateKind = "reported"   // what the agent reported of the batch's hosts
	HTTPGate       GateKind = "http"       // an answer
	PrometheusGate GateKind = "prometheus" // a query's result
	PostureGate    GateKind = "posture"    // what the hosts report of themselves
	ApprovalGate   GateKind = "approval"   // people
)

// Gate is a condition between a batch and the next.
type Gate struct {
	Name string
	Kind GateKind

	OK       Share          // reported: hosts that must be ok
	URL      string         // http, prometheus; {host} in it stands for each host's name
	Status   int            // http
	Contains string         // http: what the answer must contain; empty: anything
	Reach    []netip.Prefix // http, prometheus: addresses that may be dialled besides public ones
	Query    string         // prometheus; {service}, {environment}, {deployment} and {batch} stand for what they say
	Is       Comparison     // prometheus: what every sample must be
	Ports    []int          // posture: TCP and UDP ports that may be open besides sshd's
	Stages   []Stage        // approval

	// Of gates that are measured: how often, how many times in a row it must pass, how
	// often it may fail, and when it must have passed.
	Every    time.Duration
	Times    int
	Failures int
	Within   time.Duration
}

// Measured reports whether somebody must go and look, again and again.
func (k GateKind) Measured() bool { return k == HTTPGate || k == PrometheusGate || k == PostureGate }

// Comparison is such as "< 0.01".
type Comparison struct {
	Op    string // <, <=, >, >=, ==, !=
	Value float64
}

// Holds reports whether the value compares as it must. NaN never does.
func (c Comparison) Holds(v float64) bool {
	if v != v {
		return false
	}
	switch c.Op {
	case "<":
		return v < c.Value
	case "<=":
		return v <= c.Value
	case ">":
		return v > c.Value
	case ">=":
		return v >= c.Value
	case "==":
		return v == c.Value
	case "!=":
		return v != c.Value
	}
	return false
}

// Freeze is a time in which nothing is deployed: once, or at times of the week.
type Freeze struct {
	Name        string
	From, Until time.Time // once; zero: During
	During      *Schedule
}

// Contains reports whether the freeze holds at the time.
func (f Freeze) Contains(t time.Time) bool {
	if f.During != nil {
		return f.During.Contains(t)
	}
	return !t.Before(f.From) && t.Before(f.Until)
}

// FrozenAt is the first freeze that holds at the time, or nil.
func (d *Deployment) FrozenAt(t time.Time) *Freeze {
	for i, f := range d.Freezes {
		if f.Contains(t) {
			return &d.Freezes[i]
		}
	}
	return nil
}

// Deployment is the entry with the name, or nil.
func (p *Policy) Deployment(name string) *Deployment {
	for i := range p.Deployments {
		if p.Deployments[i].Name == name {
			return &p.Deployments[i]
		}
	}
	return nil
}

// DeploymentFor is the entry by which an agent of the trust entry deploys the service
// in the environment, or nil.
func (p *Policy) DeploymentFor(trust, service, environment string) *Deployment {
	for i, d := range p.Deployments {
		if d.Service == service && d.Environment == environment && contains(d.Agents, trust) {
			return &p.Deployments[i]
		}
	}
	return nil
}

func contains(list []string, s string) bool { return overlap(list, []string{s}) }
