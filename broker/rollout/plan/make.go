package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/internal/refusal"
)

// Refusals of a deployment by its plan.
var (
	ErrDigest = refusal.New(refusal.Invalid, "bad-digest",
		"an artifact is named by its SHA-256", "write sha256: and 64 hexadecimal digits").On("digest")
	ErrNoHosts = refusal.New(refusal.Conflict, "no-hosts",
		"no registered host fits the policy's labels for this deployment", "register the hosts, or correct their labels")
	ErrTooManyHosts = refusal.New(refusal.Invalid, "too-many-deployed-hosts",
		"the deployment would be of more hosts than one may have", "let the policy's entry select fewer")
	ErrNarrow = refusal.New(refusal.Denied, "plan-not-narrower",
		"a deployment can narrow the policy's plan, and nothing else", "ask for fewer hosts, smaller batches or longer soaks").On("narrow")
)

// Narrow is what an agent can make smaller than the policy has it. Zero fields leave
// the plan as it is.
type Narrow struct {
	Hosts []string      // names or ids, a part of those that the entry selects
	Batch int           // hosts of each batch at most
	Soak  time.Duration // after each batch at least
}

// Opening is what is known when a deployment is opened.
type Opening struct {
	ID       string
	Entry    *policy.Deployment
	Policy   *policy.Policy
	Digest   string
	Previous string // digest verified last, or empty
	Agent    Agent
	Hosts    []Host // that the entry selects
	Narrow   Narrow
	Now      time.Time
}

// Make freezes the plan:
//
//  1. the digest names one artifact, exactly;
//  2. the hosts are those that the entry selects, or the part of them that the agent
//     names, in the order of their names;
//  3. the canary is a batch of its own, and percentages are of the hosts that are left
//     after rule 2;
//  4. batches are at most as large, and soaks at least as long, as the policy has them.
func Make(o Opening) (*Terms, error) {
	d := o.Entry
	if !ValidDigest(o.Digest) {
		return nil, ErrDigest
	}
	hosts, err := o.hosts()
	if err != nil {
		return nil, err
	}
	t := &Terms{
		Format: Format, DeploymentID: o.ID, Entry: d.Name, Service: d.Service, Environment: d.Environment,
		Digest: o.Digest, Previous: o.Previous, Agent: o.Agent, Time: o.Now.UTC(),
		PolicyVersion: o.Policy.Version, PolicyHash: o.Policy.Hash,
		Login: d.Login, Command: d.Command, RollbackCommand: d.RollbackCommand,
		SourceAddress: slices.Clone(d.SourceAddress), Lifetime: grant.Short(d.CertificateLifetime), Uses: d.Uses, Lease: grant.Short(d.Lease),
		OpenFor: grant.Short(d.Plan.OpenFor), VerifyWithin: grant.Short(d.Plan.VerifyWithin),
		Failures: d.Plan.Failures.Of(len(hosts)), OnFailure: string(d.Plan.OnFailure),
		Assurance: string(d.Assurance), ACRValues: slices.Clone(d.ACRValues),
		Control: append([]string{}, d.Control...), Freezes: []Freeze{}, Approvals: stages(d.Stages), Override: stages(d.Override),
	}
	if d.MaxAge > 0 {
		t.MaxAge = grant.Short(d.MaxAge)
	}
	for _, f := range d.Freezes {
		t.Freezes = append(t.Freezes, freeze(f))
	}
	for i, size := range o.sizes(len(hosts)) {
		from := d.Plan.Batch(i)
		b := Batch{Number: i + 1, Canary: d.Plan.Canary != nil && i == 0, Hosts: hosts[:size],
			Soak: grant.Short(max(from.Soak, o.Narrow.Soak)), Gates: []Gate{}}
		for _, g := range from.Gates {
			b.Gates = append(b.Gates, gate(g, size))
		}
		t.Batches, hosts = append(t.Batches, b), hosts[size:]
	}
	return t, t.check()
}

// hosts are those of the deployment, in the order of their names.
func (o Opening) hosts() ([]Host, error) {
	all := slices.SortedFunc(slices.Values(o.Hosts), func(a, b Host) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	if o.Narrow.Batch < 0 || o.Narrow.Soak < 0 || o.Narrow.Soak > policy.MaxSoak {
		return nil, ErrNarrow
	}
	if len(o.Narrow.Hosts) > 0 {
		for i, name := range o.Narrow.Hosts {
			if slices.Index(o.Narrow.Hosts, name) != i || !slices.ContainsFunc(all, func(h Host) bool { return h.ID == name || h.Name == name }) {
				return nil, ErrNarrow.With("%q is none of the hosts of %s, or stands twice", name, o.Entry.Name)
			}
		}
		all = slices.DeleteFunc(all, func(h Host) bool {
			return !slices.Contains(o.Narrow.Hosts, h.ID) && !slices.Contains(o.Narrow.Hosts, h.Name)
		})
	}
	switch {
	case len(all) == 0:
		return nil, ErrNoHosts
	case len(all) > policy.MaxDeployedHosts:
		return nil, ErrTooManyHosts.With("%d hosts are more than %d", len(all), policy.MaxDeployedHosts)
	}
	return all, nil
}

// sizes are how many hosts each batch has.
func (o Opening) sizes(total int) []int {
	if o.Narrow.Batch == 0 {
		return o.Entry.Plan.Split(total)
	}
	var sizes []int
	for i, left := 0, total; left > 0; i++ {
		n := min(max(o.Entry.Plan.Batch(i).Hosts.Of(total), 1), o.Narrow.Batch, left)
		sizes, left = append(sizes, n), left-n
	}
	return sizes
}

func stages(list []policy.Stage) []grant.TermsStage {
	out := []grant.TermsStage{}
	for _, s := range list {
		var st grant.TermsStage
		for _, slot := range s.Slots {
			st.Slots = append(st.Slots, grant.TermsSlot(slot))
		}
		out = append(out, st)
	}
	return out
}

// Stages are frozen stages in the words of the quorum.
func Stages(list []grant.TermsStage) []policy.Stage {
	var out []policy.Stage
	for _, s := range list {
		var st policy.Stage
		for _, slot := range s.Slots {
			st.Slots = append(st.Slots, policy.Slot(slot))
		}
		out = append(out, st)
	}
	return out
}

func gate(g policy.Gate, hosts int) Gate {
	out := Gate{Name: g.Name, Kind: g.Kind, URL: g.URL, Status: g.Status, Contains: g.Contains, Query: g.Query,
		Ports: slices.Clone(g.Ports), Times: g.Times, Failures: g.Failures}
	if g.Kind == policy.ReportedGate {
		out.OK = g.OK.Of(hosts)
		if g.OK.Percent > 0 { // 90% of 3 are 3: less would not be 90%
			out.OK = (hosts*g.OK.Percent + 99) / 100
		}
	}
	for _, p := range g.Reach {
		out.Reach = append(out.Reach, p.String())
	}
	if g.Kind == policy.PrometheusGate {
		out.Is = fmt.Sprintf("%s %g", g.Is.Op, g.Is.Value)
	}
	if len(g.Stages) > 0 {
		out.Stages = stages(g.Stages)
	}
	if g.Every > 0 {
		out.Every = grant.Short(g.Every)
	}
	if g.Within > 0 {
		out.Within = grant.Short(g.Within)
	}
	return out
}

func freeze(f policy.Freeze) Freeze {
	out := Freeze{Name: f.Name, From: f.From, Until: f.Until}
	if f.During == nil {
		return out
	}
	out.Zone = f.During.Zone.String()
	for _, h := range f.During.Times {
		out.Times = append(out.Times, Hours{Days: slices.Clone(h.Days), From: int(h.From / time.Second), To: int(h.To / time.Second)})
	}
	return out
}
