package rollout

import (
	"cmp"
	"maps"
	"slices"

	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
)

// say puts into the log what a step did, in the order in which it did that. Hosts of
// which the same was found one after the other are one event.
func (c *change) say(effects []machine.Effect) {
	type found struct {
		batch   int
		to, why string
	}
	hosts := map[found][]string{}
	var order []found
	flush := func() {
		for _, f := range order {
			c.add(event.BatchVerified{DeploymentID: c.id, Batch: f.batch, State: f.to, Reason: f.why}, hosts[f]...)
		}
		clear(hosts)
		order = nil
	}
	for _, e := range effects {
		if _, more := e.(machine.HostMoved); !more {
			flush()
		}
		switch e := e.(type) {
		case machine.PhaseMoved:
			moved := event.DeploymentMoved{DeploymentID: c.id, Before: string(e.From), State: string(e.To), Digest: c.state.Digest, Reason: e.Why}
			if e.To.Over() {
				moved.Unsealed = c.unsealed()
			}
			c.add(moved, c.all()...)
			c.verifying = c.verifying || e.To == machine.Verifying
		case machine.HoldSet:
			c.add(event.DeploymentHeld{DeploymentID: c.id, Code: e.Code, Reason: e.Why}, c.all()...)
		case machine.HoldEnded:
			c.add(event.DeploymentResumed{DeploymentID: c.id, Code: e.Code, Reason: e.Why}, c.all()...)
		case machine.LeaseTaken:
			c.add(event.DeploymentLeased{DeploymentID: c.id, Run: e.Run, Epoch: uint64(e.Epoch)}, c.all()...)
		case machine.LeaseOver:
			c.add(event.DeploymentReleased{DeploymentID: c.id, Run: e.Run, Reason: e.Why}, c.all()...)
		case machine.BatchMoved:
			b := c.state.Batch(e.Batch)
			c.add(event.BatchMoved{DeploymentID: c.id, Batch: e.Batch, Rollback: b.Rollback, Epoch: uint64(b.Epoch),
				Before: string(e.From), State: string(e.To), Reason: e.Why}, hostsOf(b)...)
		case machine.HostsReported:
			c.reported(e)
		case machine.HostMoved:
			f := found{e.Batch, string(e.To), e.Why}
			if hosts[f] == nil {
				order = append(order, f)
			}
			hosts[f] = append(hosts[f], e.Host)
		case machine.GateDecided:
			c.add(event.GateDecided{DeploymentID: c.id, Batch: e.Batch, Gate: e.Gate, Verdict: string(e.Verdict), Failures: e.Failures,
				Reason: e.Why}, hostsOf(c.state.Batch(e.Batch))...)
		}
	}
	flush()
}

func (c *change) reported(e machine.HostsReported) {
	data := event.BatchReported{DeploymentID: c.id, Batch: e.Batch, OK: []string{}, Failed: []string{}, Skipped: []string{}}
	for _, id := range slices.Sorted(maps.Keys(e.Results)) {
		switch e.Results[id] {
		case machine.OK:
			data.OK = append(data.OK, id)
		case machine.Fail:
			data.Failed = append(data.Failed, id)
		case machine.Skipped:
			data.Skipped = append(data.Skipped, id)
		}
	}
	c.add(data, slices.Sorted(maps.Keys(e.Results))...)
}

// add is an event of the change about the hosts. What names nobody who caused it, or
// what an agent cannot cause, is the broker's own doing.
func (c *change) add(data event.Data, hosts ...string) {
	about := event.Subject{}
	if len(hosts) > 0 {
		about.HostID = hosts[0]
	}
	if len(hosts) > 1 {
		about.HostIDs = hosts
	}
	c.events = append(c.events, event.New(c.now, c.actor, c.source, about, data).Under(c.policy))
}

// all are the deployment's hosts.
func (c *change) all() []string {
	var list []string
	for _, h := range c.terms.Hosts() {
		list = append(list, h.ID)
	}
	return list
}

func hostsOf(b *machine.Batch) []string {
	list := make([]string, len(b.Hosts))
	for i, h := range b.Hosts {
		list[i] = h.ID
	}
	return list
}

// unsealed are the hosts that are not proved to be sealed, with how they stand.
func (c *change) unsealed() []string {
	var list []string
	for _, h := range c.state.Last() {
		if h.Phase != machine.HostSealed {
			list = append(list, h.ID+" "+string(h.Phase))
		}
	}
	slices.SortFunc(list, cmp.Compare[string])
	return list
}
