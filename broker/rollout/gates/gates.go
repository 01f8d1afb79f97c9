// Package gates looks at what a gate between two batches is about: an HTTP answer, a
// query of Prometheus, or what hosts report of themselves. It says pass, fail or
// inconclusive, and what it saw; what follows is for package machine to decide.
//
// What cannot be seen is inconclusive: no data, NaN, an answer that is no answer, a host
// that has reported nothing since it was sealed. Nothing inconclusive ever passes.
//
// The URLs are the policy's, which operators write. Even so the broker is not made to
// call whatever a name points to: the address that is dialled must be public, or in a
// block that the gate names; redirects are not followed, and answers are read up to a
// limit and never shown.
package gates

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/approvals/policy"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

// Limits of one measurement.
const (
	MaxAnswer = 64 << 10 // bytes of an answer that are read
	Timeout   = 10 * time.Second
	MaxAtOnce = 16 // hosts that are asked at the same time
)

// Posture is what a host has shown of itself last.
type Posture struct {
	State PostureState
	At    time.Time // when it was received
	Why   string    // it has drifted
	Ports []int     // on which something listens, beside sshd; nil: it cannot tell
}

// PostureState is what is known of a host.
type PostureState string

// The states.
const (
	Sealed  PostureState = "sealed"
	Drifted PostureState = "drifted"
	Unknown PostureState = "unknown"
)

// Prober measures gates.
type Prober struct {
	transport func(reach []netip.Prefix) *http.Transport
}

// NewProber returns a prober. Roots trusts further certificates; nil: the system's.
func NewProber(c Config) *Prober {
	return &Prober{transport: c.transport}
}

// About is what a measurement is about.
type About struct {
	Service, Environment, Deployment string
	Batch                            int
	Hosts                            []plan.Host
	Sealed                           time.Time // since when the batch is
	Postures                         map[string]Posture
}

// Measure looks at the gate once.
func (p *Prober) Measure(ctx context.Context, g plan.Gate, about About) (machine.Verdict, string) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var reach []netip.Prefix
	for _, s := range g.Reach {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return machine.Unclear, "the gate's terms cannot be read"
		}
		reach = append(reach, prefix)
	}
	switch g.Kind {
	case policy.HTTPGate:
		return p.http(ctx, g, about, reach)
	case policy.PrometheusGate:
		return p.prometheus(ctx, g, about, reach)
	case policy.PostureGate:
		return postures(g, about)
	}
	return machine.Unclear, fmt.Sprintf("nobody knows how to measure %q", g.Kind)
}

// postures asks what the hosts have shown since they were sealed: that they still are,
// and that nothing listens but what may.
func postures(g plan.Gate, about About) (machine.Verdict, string) {
	waiting := 0
	for _, h := range about.Hosts {
		got, ok := about.Postures[h.ID]
		switch {
		case !ok || got.State == Unknown || got.At.Before(about.Sealed) || got.State == Sealed && got.Ports == nil:
			waiting++
			continue
		case got.State != Sealed:
			return machine.NoPass, h.Name + " is " + string(got.State) + ": " + got.Why
		}
		for _, port := range got.Ports {
			if !slices.Contains(g.Ports, port) {
				return machine.NoPass, fmt.Sprintf("something listens on port %d of %s", port, h.Name)
			}
		}
	}
	if waiting > 0 {
		return machine.Unclear, fmt.Sprintf("%d of %d hosts have not reported since they were sealed", waiting, len(about.Hosts))
	}
	return machine.Pass, hosts(len(about.Hosts), "is", "are") + " sealed, and nothing listens but what may"
}

// hosts is so many, with what is said of them in their number.
func hosts(n int, one, many string) string {
	if n == 1 {
		return "1 host " + one
	}
	return fmt.Sprintf("%d hosts %s", n, many)
}

// fill puts what is meant into a query. It comes from the policy and from ids, whose
// characters end no string of PromQL.
func fill(text string, about About) string {
	return strings.NewReplacer("{service}", about.Service, "{environment}", about.Environment,
		"{deployment}", about.Deployment, "{batch}", strconv.Itoa(about.Batch)).Replace(text)
}
