package machine

import (
	"time"

	"sallyport/broker/rollout/plan"
)

// MayMint says whether the agent may have a certificate for the host of the batch at the
// time, and what it may be. It changes nothing.
func MayMint(t *plan.Terms, s State, by By, batch int, host string, now time.Time) (Mint, error) {
	return begin(t, s, now).mayMint(by, batch, host)
}

// WatchEvery is how often hosts are looked at while none is open.
const WatchEvery = time.Minute

// Task is something to do outside, which a step is then told of. Doing one twice is
// harmless.
type Task interface{ task() }

// The tasks.
type (
	// ShutHosts ends certificates and sessions of the batch's hosts; then Shut.
	ShutHosts struct {
		Batch int
		Hosts []string
	}
	// VerifyHosts asks who came to hosts, and what they have shown since; then Entered and
	// Verified, for each that has.
	VerifyHosts struct {
		Hosts []string
		Since time.Time
	}
	// Measure looks at a gate; then Measured.
	Measure struct {
		Batch int
		Gate  string
		Hosts []string // of the batch
		Since time.Time
	}
)

func (ShutHosts) task()   {}
func (VerifyHosts) task() {}
func (Measure) task()     {}

// Due are the tasks that the state asks for at the time.
func Due(t *plan.Terms, s State, now time.Time) (tasks []Task) {
	if s.Phase.Over() {
		return nil
	}
	if b := s.Current(); b != nil {
		var all, verifying []string
		for _, h := range b.Hosts {
			all = append(all, h.ID)
			if h.Phase == HostVerifying {
				verifying = append(verifying, h.ID)
			}
		}
		switch b.Phase {
		case Closing:
			tasks = append(tasks, ShutHosts{b.Number, all})
		case Sealing:
			tasks = append(tasks, VerifyHosts{verifying, b.Shut})
		case Soaking:
			tasks = append(tasks, VerifyHosts{s.hosts(), b.Sealed})
		case Gating:
			tasks = append(tasks, VerifyHosts{s.hosts(), b.Sealed})
			for _, g := range b.Gates {
				if terms := t.Gate(b.Number, g.Name); terms != nil && terms.Kind.Measured() && g.Verdict == Waiting && !now.Before(g.Next) {
					tasks = append(tasks, Measure{b.Number, g.Name, all, b.Sealed})
				}
			}
		}
	}
	if s.idle() {
		tasks = append(tasks, VerifyHosts{Hosts: s.hosts()})
	}
	if s.Phase == Verifying {
		var list []string
		for _, h := range s.Last() {
			if !h.Verified.After(s.Since) && h.Phase != HostDrifted {
				list = append(list, h.ID)
			}
		}
		tasks = append(tasks, VerifyHosts{list, s.Since})
	}
	return tasks
}

// hosts are all of the deployment: what is sealed must stay so.
func (s *State) hosts() (list []string) {
	for _, h := range s.Last() {
		list = append(list, h.ID)
	}
	return list
}

// idle reports whether the deployment goes on, and no batch is under way.
func (s *State) idle() bool { return (s.Phase == Active || s.Phase == Held) && s.Current() == nil }

// Soon is how long the broker waits before it does again what has not been done yet.
const Soon = 2 * time.Second

// Wake is when somebody must look at the deployment again; zero: when something happens.
func Wake(t *plan.Terms, s State) (at time.Time) {
	if s.Phase.Over() {
		return time.Time{}
	}
	earliest := func(next time.Time) {
		if at.IsZero() || next.Before(at) {
			at = next
		}
	}
	if s.Holder != "" {
		earliest(s.Lease)
	}
	if s.Phase == Verifying {
		earliest(s.At.Add(Soon))
	}
	if s.idle() {
		earliest(s.At.Add(WatchEvery))
	}
	b := s.Current()
	if b == nil {
		return at
	}
	switch b.Phase {
	case Open:
		earliest(b.Opened.Add(t.OpenTime()))
	case Closing:
		earliest(s.At) // nothing is there to wait for
	case Sealing:
		earliest(s.At.Add(Soon))
	case Soaking:
		earliest(b.Sealed.Add(t.Batches[b.Number-1].SoakTime()))
		earliest(s.At.Add(WatchEvery))
	case Gating:
		earliest(s.At.Add(WatchEvery))
		for _, g := range b.Gates {
			terms := t.Gate(b.Number, g.Name)
			if g.Verdict != Waiting || terms == nil {
				continue
			}
			if within := terms.WithinTime(); within > 0 {
				earliest(b.Gated.Add(within))
			}
			if terms.Kind.Measured() {
				earliest(g.Next)
			}
		}
	}
	return at
}
