// Package plan is what a deployment may do, frozen when it is opened: which hosts in
// which batches, with which credentials, what must hold between batches, and when
// nothing may be deployed. The policy makes the plan; the agent that opens the
// deployment can narrow it, and nothing else. Like the terms of a request it is a
// canonical text whose hash stands in everything that follows.
//
// The package is pure, for the broker and for whoever verifies its log.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/remember"
)

// Format names the form of Terms.
const Format = "sallyport.deployment/1"

// MaxReason is how many characters people's words about a deployment may have.
const MaxReason = 2000

// Terms are what a deployment is held to. Nothing in them can change.
type Terms struct {
	Format       string    `json:"format"` // Format
	DeploymentID string    `json:"deployment_id"`
	Entry        string    `json:"entry"` // of the policy's deployments
	Service      string    `json:"service"`
	Environment  string    `json:"environment"`
	Digest       string    `json:"digest"`             // of the artifact
	Previous     string    `json:"previous,omitempty"` // the digest that was verified last, to which a rollback goes
	Agent        Agent     `json:"agent"`              // that opened it
	Time         time.Time `json:"time"`

	PolicyVersion int64  `json:"policy_version,string"`
	PolicyHash    string `json:"policy_hash"`

	Login           string   `json:"login"`
	Command         string   `json:"command"` // as certificates have it
	RollbackCommand string   `json:"rollback_command,omitempty"`
	SourceAddress   []string `json:"source_address"`
	Lifetime        string   `json:"lifetime"`
	Uses            int      `json:"uses"`
	Lease           string   `json:"lease"`

	Batches      []Batch `json:"batches"`
	OpenFor      string  `json:"open_for"`
	VerifyWithin string  `json:"verify_within"`
	Failures     int     `json:"failures"` // hosts
	OnFailure    string  `json:"on_failure"`

	Assurance string   `json:"assurance"` // of what people decide: session or provider
	MaxAge    string   `json:"max_age,omitempty"`
	ACRValues []string `json:"acr_values,omitempty"`

	Control   []string           `json:"control"` // groups, besides operators
	Freezes   []Freeze           `json:"freezes"`
	Approvals []grant.TermsStage `json:"approvals"`
	Override  []grant.TermsStage `json:"override"`
}

// Agent is who opened it: a run of a pipeline, admitted by a trust entry.
type Agent struct {
	Run       string `json:"run"`
	Entry     string `json:"entry"`
	Issuer    string `json:"issuer"`
	Subject   string `json:"subject"`
	TokenHash string `json:"token_hash"` // SHA-256, hex
	// Claims are what the token says, as far as the trust entry goes by it.
	Claims map[string]string `json:"claims"`
}

// Batch is hosts that are open together, from 1.
type Batch struct {
	Number int    `json:"number"`
	Canary bool   `json:"canary,omitempty"`
	Hosts  []Host `json:"hosts"`
	Soak   string `json:"soak"`
	Gates  []Gate `json:"gates"`
}

// Host is one host of a plan.
type Host struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Gate is a condition after a batch (policy.Gate). What does not apply to its kind is
// empty.
type Gate struct {
	Name     string             `json:"name"`
	Kind     policy.GateKind    `json:"kind"`
	OK       int                `json:"ok,omitempty"` // reported: hosts that must be ok
	URL      string             `json:"url,omitempty"`
	Status   int                `json:"status,omitempty"`
	Contains string             `json:"contains,omitempty"`
	Reach    []string           `json:"reach,omitempty"`
	Query    string             `json:"query,omitempty"`
	Is       string             `json:"is,omitempty"`
	Ports    []int              `json:"ports,omitempty"`
	Stages   []grant.TermsStage `json:"stages,omitempty"`
	Every    string             `json:"every,omitempty"`
	Times    int                `json:"times,omitempty"`
	Failures int                `json:"failures,omitempty"`
	Within   string             `json:"within,omitempty"`
}

// Freeze is a time in which nothing is deployed.
type Freeze struct {
	Name  string    `json:"name"`
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Zone  string    `json:"zone,omitempty"`
	Times []Hours   `json:"times,omitempty"`
}

// Hours are a stretch of some days, in seconds since midnight on the wall of the zone.
type Hours struct {
	Days     []time.Weekday `json:"days"` // 0 is Sunday
	From, To int
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ValidDigest reports whether the text names an artifact: "sha256:" and 64 hex digits.
// Nothing else gets into a command.
func ValidDigest(s string) bool { return digestForm.MatchString(s) }

// Encode returns the canonical bytes.
func (t Terms) Encode() ([]byte, error) { return grant.Canonical(t) }

// Hash is the SHA-256 of canonical bytes, in hex.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// parsed are terms that were read before: those of a thousand hosts take milliseconds, and
// each certificate asks for them twice.
var parsed = remember.Memory[*Terms]{Size: 32}

// Parse reads canonical terms, and nothing that Encode would not have produced or that
// no policy could have made. Whoever gets them must not change them.
func Parse(text []byte) (*Terms, error) {
	key := remember.Of(text)
	if t, known := parsed.Get(key); known {
		return t, nil
	}
	var t Terms
	if err := grant.ParseCanonical(text, &t); err != nil {
		return nil, fmt.Errorf("reading a deployment's terms: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("reading a deployment's terms: %w", err)
	}
	parsed.Put(key, &t)
	return &t, nil
}

// check refuses terms that the machine could not go by.
func (t *Terms) check() error {
	switch {
	case t.Format != Format:
		return fmt.Errorf("format %q is not %q", t.Format, Format)
	case !ids.Valid(ids.Deployment, t.DeploymentID):
		return fmt.Errorf("%q is no deployment's id", t.DeploymentID)
	case !ValidDigest(t.Digest) || t.Previous != "" && !ValidDigest(t.Previous):
		return fmt.Errorf("a digest is not one")
	case len(t.Batches) == 0:
		return fmt.Errorf("there are no batches")
	case t.Uses < 1 || t.Failures < 0 || len(t.SourceAddress) == 0:
		return fmt.Errorf("a number is out of its limits")
	case t.Assurance != evidence.Session && t.Assurance != evidence.Provider:
		return fmt.Errorf("there is no assurance %q", t.Assurance)
	}
	times := []string{t.Lifetime, t.Lease, t.OpenFor, t.VerifyWithin, t.MaxAge}
	seen := map[string]bool{}
	for i, b := range t.Batches {
		if b.Number != i+1 || len(b.Hosts) == 0 {
			return fmt.Errorf("batch %d is out of place or empty", b.Number)
		}
		for _, h := range b.Hosts {
			if !ids.Valid(ids.Host, h.ID) || seen[h.ID] {
				return fmt.Errorf("host %q is no host, or stands twice", h.ID)
			}
			seen[h.ID] = true
		}
		times = append(times, b.Soak)
		for _, g := range b.Gates {
			times = append(times, g.Within, g.Every)
		}
	}
	for _, s := range times {
		if _, err := time.ParseDuration(s); s != "" && err != nil {
			return fmt.Errorf("%q is no duration", s)
		}
	}
	for _, f := range t.Freezes {
		if _, err := time.LoadLocation(f.Zone); err != nil {
			return fmt.Errorf("the zone of freeze %q: %w", f.Name, err)
		}
	}
	return nil
}

// duration reads what check has read before.
func duration(s string) time.Duration {
	d, _ := time.ParseDuration(s) // empty: none
	return d
}

// LifetimeFor is how long a certificate lives, and so on: the terms' durations.
func (t *Terms) LifetimeFor() time.Duration {
	return min(duration(t.Lifetime), policy.MaxAgentCertificate)
}
func (t *Terms) LeaseFor() time.Duration   { return duration(t.Lease) }
func (t *Terms) OpenTime() time.Duration   { return duration(t.OpenFor) }
func (t *Terms) VerifyTime() time.Duration { return duration(t.VerifyWithin) }
func (t *Terms) MaxAgeFor() time.Duration  { return duration(t.MaxAge) }
func (b *Batch) SoakTime() time.Duration   { return duration(b.Soak) }
func (g *Gate) EveryTime() time.Duration   { return duration(g.Every) }
func (g *Gate) WithinTime() time.Duration  { return duration(g.Within) }

// Hosts are all of them, in the order of the batches.
func (t *Terms) Hosts() (all []Host) {
	for _, b := range t.Batches {
		all = append(all, b.Hosts...)
	}
	return all
}

// HostIDs are the ids of a batch's hosts.
func (b *Batch) HostIDs() []string {
	list := make([]string, len(b.Hosts))
	for i, h := range b.Hosts {
		list[i] = h.ID
	}
	return list
}

// Gate is the gate of the batch with the name, or nil.
func (t *Terms) Gate(batch int, name string) *Gate {
	if batch < 1 || batch > len(t.Batches) {
		return nil
	}
	gates := t.Batches[batch-1].Gates
	i := slices.IndexFunc(gates, func(g Gate) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &gates[i]
}

// FrozenAt is the first freeze that holds at the time, or nil.
func (t *Terms) FrozenAt(at time.Time) *Freeze {
	for i := range t.Freezes {
		if t.Freezes[i].Contains(at) {
			return &t.Freezes[i]
		}
	}
	return nil
}

// Contains reports whether the freeze holds at the time.
func (f Freeze) Contains(at time.Time) bool {
	if len(f.Times) == 0 {
		return policy.Freeze{From: f.From, Until: f.Until}.Contains(at)
	}
	zone, err := time.LoadLocation(f.Zone)
	if err != nil {
		return true // what nobody can read may be now
	}
	s := policy.Schedule{Zone: zone}
	for _, h := range f.Times {
		s.Times = append(s.Times, policy.Hours{Days: h.Days, From: time.Duration(h.From) * time.Second, To: time.Duration(h.To) * time.Second})
	}
	return s.Contains(at)
}

// NextFreeze is when the next freeze begins, at most so far ahead; zero, if none does.
// Freezes begin on whole minutes.
func (t *Terms) NextFreeze(at time.Time, ahead time.Duration) time.Time {
	for next := at.Truncate(time.Minute).Add(time.Minute); next.Before(at.Add(ahead)); next = next.Add(time.Minute) {
		if t.FrozenAt(next) != nil {
			return next
		}
	}
	return time.Time{}
}

// CommandFor is the forced command of a certificate: the policy's, with the digest.
func (t *Terms) CommandFor(rollback bool) string {
	if rollback {
		return strings.ReplaceAll(t.RollbackCommand, "{digest}", t.Previous)
	}
	return strings.ReplaceAll(t.Command, "{digest}", t.Digest)
}

// Groups are all groups that the terms name, each once.
func (t *Terms) Groups() []string {
	all := slices.Clone(t.Control)
	add := func(list []grant.TermsStage) {
		for _, s := range list {
			for _, slot := range s.Slots {
				all = append(all, slot.Groups...)
			}
		}
	}
	add(t.Approvals)
	add(t.Override)
	for _, b := range t.Batches {
		for _, g := range b.Gates {
			add(g.Stages)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
