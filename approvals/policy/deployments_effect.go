package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// DeploymentChange is an entry of deployments that is new, that is gone, or that says
// something else.
type DeploymentChange struct {
	Name        string
	Was, Now    *Deployment // nil: the version does not have it
	Differences []Difference
	Hosts       []int // that it is of, or was, if it is gone
}

// deploymentChanges are in the order of the new document, those that it dropped behind.
// An entry is the same as the one with its name.
func deploymentChanges(was, now *Policy, hosts []Place) []DeploymentChange {
	var out []DeploymentChange
	for i := range now.Deployments {
		d := &now.Deployments[i]
		before := was.Deployment(d.Name)
		if differ := deploymentDifferences(before, d); len(differ) > 0 {
			out = append(out, DeploymentChange{d.Name, before, d, differ, d.of(hosts)})
		}
	}
	for i := range was.Deployments {
		if d := &was.Deployments[i]; now.Deployment(d.Name) == nil {
			out = append(out, DeploymentChange{d.Name, d, nil, deploymentDifferences(d, nil), d.of(hosts)})
		}
	}
	return out
}

// of are the hosts that the entry is of.
func (d *Deployment) of(hosts []Place) (places []int) {
	for i, h := range hosts {
		if d.Where.Matches(labels.Set(h.Labels)) {
			places = append(places, i)
		}
	}
	return places
}

// deploymentDifferences compares two versions of an entry, either of which may be nil.
func deploymentDifferences(was, now *Deployment) []Difference {
	return differ(was.facts(), now.facts())
}

// facts are all that the entry says in words, but for its name, description and tests;
// none of no entry. A silent one has the facts of its defaults.
func (d *Deployment) facts() []Fact {
	if d == nil {
		return nil
	}
	facts := []Fact{
		{"service", d.Service},
		{"environment", d.Environment},
		{"agents", sorted(d.Agents)},
		{"where", d.Where.String()},
		{"login", d.Login},
		{"command", d.Command},
		{"rollback_command", d.RollbackCommand},
		{"certificate.lifetime", length(d.CertificateLifetime)},
		{"certificate.source_address", sorted(d.SourceAddress)},
		{"certificate.uses", fmt.Sprint(d.Uses)},
		{"lease", length(d.Lease)},
	}
	facts = append(facts, d.Plan.facts()...)
	for _, f := range d.Freezes {
		facts = append(facts, Fact{"freeze " + f.Name, f.words()})
	}
	return append(facts,
		Fact{"approvals", needs(d.Stages)},
		Fact{"override", needs(d.Override)},
		Fact{"assurance", string(d.Assurance)},
		Fact{"max_age", length(d.MaxAge)},
		Fact{"acr_values", joined(d.ACRValues)},
		Fact{"control", sorted(d.Control)})
}

func (r Rollout) facts() []Fact {
	facts := []Fact{}
	batches := make([]string, len(r.Batches))
	for i, b := range r.Batches {
		batches[i] = b.words()
	}
	every := r.Batches
	if r.Canary != nil {
		facts = append(facts, Fact{"plan.canary", r.Canary.words()})
		every = append(slices.Clone(every), *r.Canary)
	}
	facts = append(facts,
		Fact{"plan.batches", strings.Join(batches, ", then ")},
		Fact{"plan.open_for", length(r.OpenFor)},
		Fact{"plan.verify_within", length(r.VerifyWithin)},
		Fact{"plan.failures", r.Failures.words()},
		Fact{"plan.on_failure", string(r.OnFailure)})
	// What is a gate of all batches is told once.
	common := map[Fact]bool{}
	for _, g := range every[0].Gates {
		if f := g.fact(); !slices.ContainsFunc(every, func(b Batch) bool { return !slices.ContainsFunc(b.Gates, func(h Gate) bool { return h.fact() == f }) }) {
			common[f] = true
			facts = append(facts, f)
		}
	}
	own := func(where string, b Batch) {
		for _, g := range b.Gates {
			if f := g.fact(); !common[f] {
				facts = append(facts, Fact{where + " " + f.Key, f.Value})
			}
		}
	}
	if r.Canary != nil {
		own("canary", *r.Canary)
	}
	for i, b := range r.Batches {
		own(fmt.Sprintf("batch %d", i+1), b)
	}
	return facts
}

func (b Batch) words() string {
	if b.Soak == 0 {
		return b.Hosts.words()
	}
	return b.Hosts.words() + " and " + length(b.Soak) + " of soak"
}

// words are a share: "25%", "1 host".
func (s Share) words() string {
	switch {
	case s.Percent > 0:
		return fmt.Sprintf("%d%%", s.Percent)
	case s.Count == 1:
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", s.Count)
}

func (g Gate) fact() Fact { return Fact{"gate " + g.Name, g.words()} }

// words are all that a gate says but its name.
func (g Gate) words() string {
	said := string(g.Kind)
	reach := ""
	if len(g.Reach) > 0 {
		reach = ", reaching " + strings.Trim(fmt.Sprint(g.Reach), "[]")
	}
	switch g.Kind {
	case ReportedGate:
		said += " ok by " + g.OK.words()
	case HTTPGate:
		said += fmt.Sprintf(" %s answers %d", g.URL, g.Status)
		if g.Contains != "" {
			said += fmt.Sprintf(" with %q", g.Contains)
		}
		said += reach
	case PrometheusGate:
		said += fmt.Sprintf(" %s at %s is %s %v%s", g.Query, g.URL, g.Is.Op, g.Is.Value, reach)
	case PostureGate:
		if said += " sealed"; len(g.Ports) > 0 {
			said += " but for " + strings.Trim(fmt.Sprint(slices.Sorted(slices.Values(g.Ports))), "[]")
		}
	case ApprovalGate:
		said += " of " + needs(g.Stages)
	}
	if g.Every > 0 {
		said += fmt.Sprintf(", every %s, %d times in a row, failing at most %d times", length(g.Every), g.Times, g.Failures)
	}
	if g.Within > 0 {
		said += ", within " + length(g.Within)
	}
	return said
}

func (f Freeze) words() string {
	if f.During != nil {
		return f.During.words()
	}
	return fmt.Sprintf("from %s until %s", f.From.UTC().Format(time.RFC3339), f.Until.UTC().Format(time.RFC3339))
}
