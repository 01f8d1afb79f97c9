package rollout_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
)

// In every state, and between any two steps, the broker can die and another go on: what
// was not committed never was, what was is done to its end, and nothing is done twice
// that counts. Each call here is made by a process of its own, which may fail before it
// commits; answers may be lost, so that calls are made again.
func TestARestartInEveryState(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var config rollout.Config
	s.house.open(func(c *rollout.Config) { config = *c })
	seen := map[string]bool{}
	digest := one
	rapid.Check(t, func(rt *rapid.T) {
		fresh := func() *process {
			c := config
			if rapid.IntRange(0, 3).Draw(rt, "dies") == 0 {
				c.Fault = func() error { return errors.New("killed before the commit") }
			}
			p := *s.process
			var err error
			p.Service, err = rollout.New(c)
			must(t, err)
			return &p
		}
		bad := rapid.IntRange(0, 3).Draw(rt, "drift") == 0
		j := s.deploy("github-edge", "edge", digest)
		if digest == one {
			digest = two
		} else {
			digest = one
		}
		for range 600 {
			j.p = s.process
			d := j.state()
			seen[d.State] = true
			for _, b := range d.Batches {
				seen["batch "+b.State] = true
			}
			if over(d.State) {
				break
			}
			j.p = fresh()
			j.epoch = d.Epoch
			current := -1
			for i, b := range d.Batches {
				if b.State == "open" || b.State == "closing" || b.State == "sealing" || b.State == "soaking" || b.State == "gating" {
					current = i
				}
			}
			host := d.Batches[0].Hosts[0]
			s.house.shown.says(func(f *shown) {
				delete(f.postures, host.ID)
				if bad && current == 0 && d.Batches[0].State == "gating" {
					f.postures[host.ID] = gates.Posture{State: gates.Sealed, Ports: []int{6379}}
				}
			})
			switch rapid.IntRange(0, 5).Draw(rt, "who acts") {
			case 0, 1:
				j.p.Keep(t.Context())
				s.clock.Advance(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
			case 2:
				s.house.clock.Advance(time.Duration(rapid.IntRange(0, 4).Draw(rt, "minutes")) * time.Minute)
			default:
				switch {
				case d.Holder != j.run.ID:
					j.p.tryOpen(j.run, "edge", d.Digest)
				case current >= 0 && d.Batches[current].State == "open":
					results := map[string]string{}
					for _, h := range d.Batches[current].Hosts {
						if h.Result == "" {
							j.cert(current+1, h.Name)
							results[h.Name] = "ok"
						}
					}
					j.report(current+1, results)
				case len(d.Blockers) > 0 && d.Blockers[0].Code == machine.BatchFailed:
					j.p.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "abort", Reason: "it failed"})
				case len(d.Blockers) > 0 && d.Blockers[0].Code == machine.GatesUnclear:
					j.p.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "resume", Reason: "again"})
				case current < 0 && d.Next > 0:
					j.batch(d.Next)
				}
			}
		}
		j.p = s.process
		d := j.state()
		if !over(d.State) {
			t.Fatalf("it does not end: %s, %+v", d.State, d.Batches)
		}
		for _, b := range d.Batches {
			for _, h := range b.Hosts {
				if h.State != "sealed" && h.State != "quarantined" && h.State != "drifted" {
					t.Fatalf("in the end host %s is %s", h.Name, h.State)
				}
			}
		}
		if n := s.count(`SELECT count(*) FROM deployment_hosts WHERE released_at IS NULL`); n != 0 {
			t.Fatalf("%d hosts are locked", n)
		}
	})
	for _, state := range []string{"active", "held", "verifying", "complete", "rolling_back", "rolled_back", "batch open", "batch closing", "batch sealing", "batch gating", "batch passed", "batch failed", "batch inconclusive"} {
		if !seen[state] {
			t.Errorf("nothing was restarted in the state %s", state)
		}
	}
	s.check()
}

func over(state string) bool { return machine.Phase(state).Over() }
