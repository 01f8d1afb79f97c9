package reconcile

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/evidence/populations"
)

// batch is the batch of an event. A rollback's is made when it is opened.
func (g *Engine) batch(e *populations.Event, x *deployment, n int) *batch {
	if n < 1 || n > len(x.batches) {
		g.report(DeploymentAltered, e, x.event.Index, "deployment %s has no batch %d", x.id, n)
		return nil
	}
	return x.batches[n-1]
}

// index is that of the entry that opened the batch last.
func (b *batch) index(x *deployment) int64 {
	if b.opening != nil {
		return b.opening.event.Index
	}
	return x.event.Index
}

func (b *batch) host(id string) *target {
	if i := slices.IndexFunc(b.hosts, func(h *target) bool { return h.id == id }); i >= 0 {
		return b.hosts[i]
	}
	return nil
}

func (g *Engine) batchMoved(e *populations.Event, d event.BatchMoved) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	if d.Rollback && d.State == string(machine.Open) && d.Batch == len(x.batches)+1 {
		x.batches = append(x.batches, x.backBatch(e))
	}
	b := g.batch(e, x, d.Batch)
	if b == nil {
		return
	}
	if d.Before != string(b.phase) || d.Rollback != b.rollback {
		g.report(DeploymentAltered, e, b.index(x), "batch %d was %s before, and not %s", b.number, b.phase, d.Before)
	}
	to := machine.BatchPhase(d.State)
	if b.phase == machine.Open && to != machine.Open {
		g.close(b, e.Time)
	}
	switch to {
	case machine.Open:
		g.batchOpened(e, x, b, d.Epoch)
	case machine.Soaking:
		b.soaking = e.Time
	case machine.Gating:
		b.judged(x, e.Time)
	case machine.Passed:
		if b.fault == "" {
			b.fault = x.unpassed(b)
		}
	}
	b.phase = to
}

// backBatch is that of a rollback: the hosts that were opened, and no others.
func (x *deployment) backBatch(e *populations.Event) *batch {
	b := &batch{number: len(x.batches) + 1, rollback: true, phase: machine.Pending}
	for _, id := range e.Hosts() {
		b.hosts = append(b.hosts, &target{id: id})
	}
	return b
}

// batchOpened checks that the batch could be opened, and opens its hosts.
func (g *Engine) batchOpened(e *populations.Event, x *deployment, b *batch, epoch uint64) {
	if !b.rollback {
		g.begins(e, x)
	}
	if why := x.early(b); why != "" {
		g.report(BatchEarly, e, x.event.Index, "batch %d of deployment %s: %s", b.number, x.id, why)
	}
	if b.rollback {
		g.rollsBack(e, x)
	}
	if why := g.frozen(x, b, e.Time, true); why != "" {
		g.report(DeploymentInFreeze, e, x.event.Index, "batch %d of deployment %s was opened in %s", b.number, x.id, why)
	}
	if why := x.others(b, e.Hosts()); why != "" {
		g.report(DeploymentAltered, e, x.event.Index, "batch %d of deployment %s: %s", b.number, x.id, why)
	}
	if epoch != x.epoch || x.run == "" || e.Actor.ID != x.run {
		g.report(DeploymentAltered, e, x.event.Index, "batch %d of deployment %s is opened by %s in epoch %d, and %s has the lease of epoch %d",
			b.number, x.id, or(e.Actor.ID, "the broker"), epoch, or(x.run, "nobody"), x.epoch)
	}
	g.close(b, e.Time)
	o := &opening{deployment: x, batch: b, epoch: epoch, event: brief(e)}
	b.opening, b.fault, b.verdicts = o, "", nil
	b.soaking, b.gating = time.Time{}, time.Time{}
	for _, h := range b.hosts {
		if h.result != "" && h.result != machine.Missing {
			continue // what was reported before the batch was lost stands
		}
		if h.first == nil {
			h.first = o.event
		}
		h.epochs = append(h.epochs, strconv.FormatUint(epoch, 10))
		h.open, h.awaits, h.result, h.state = true, true, "", ""
		g.open[h.id] = append(g.open[h.id], o)
	}
}

// blocked says why the deployment does not go on with the batch now; "" if it does.
func (x *deployment) blocked(b *batch) string {
	want := machine.Active
	if b.rollback {
		want = machine.RollingBack
	}
	switch {
	case x.phase != want:
		return "the deployment was " + string(x.phase)
	case len(x.holds) > 0:
		return "the deployment was held: " + sorted(x.holds)[0]
	}
	return ""
}

// early says why the batch could not be opened yet.
func (x *deployment) early(b *batch) string {
	if why := x.blocked(b); why != "" {
		return why
	}
	if b.phase != machine.Pending && b.phase != machine.Inconclusive {
		return "it was " + string(b.phase)
	}
	for _, before := range x.batches[:b.number-1] {
		if b.rollback {
			switch before.phase {
			case machine.Open, machine.Closing, machine.Sealing, machine.Soaking, machine.Gating:
				return fmt.Sprintf("batch %d was %s", before.number, before.phase)
			}
		} else if why := x.lacks(before); why != "" {
			return why
		}
	}
	return ""
}

// others says which hosts are not those that the batch can have.
func (x *deployment) others(b *batch, hosts []string) string {
	if !b.rollback {
		if len(hosts) != len(b.hosts) || slices.ContainsFunc(hosts, func(id string) bool { return b.host(id) == nil }) {
			return "its hosts are not those of the plan"
		}
		return ""
	}
	for _, id := range hosts {
		if !slices.ContainsFunc(x.batches, func(o *batch) bool { h := o.host(id); return !o.rollback && h != nil && h.first != nil }) {
			return "host " + id + " is put back, and was never opened"
		}
	}
	return ""
}

// close ends the batch's opening, if it is open.
func (g *Engine) close(b *batch, at time.Time) {
	o := b.opening
	if o == nil || !o.closed.IsZero() {
		return
	}
	o.closed = at
	for _, h := range b.hosts {
		if h.open && h.result == "" {
			h.result = machine.Missing
		}
		if h.awaits {
			h.closed = at
		}
		h.open = false
		if g.open[h.id] = slices.DeleteFunc(g.open[h.id], func(of *opening) bool { return of == o }); len(g.open[h.id]) == 0 {
			delete(g.open, h.id)
		}
	}
}

func (g *Engine) batchReported(e *populations.Event, d event.BatchReported) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	b := g.batch(e, x, d.Batch)
	if b == nil {
		return
	}
	for _, of := range []struct {
		result machine.Result
		ids    []string
	}{{machine.OK, d.OK}, {machine.Fail, d.Failed}, {machine.Skipped, d.Skipped}} {
		for _, id := range of.ids {
			h := b.host(id)
			if h == nil || !h.open || e.Actor.ID != x.run {
				continue // it says nothing of what the agent has done there
			}
			h.result, h.open = of.result, false
			h.failed = h.failed || of.result == machine.Fail
		}
	}
}

func (g *Engine) batchVerified(e *populations.Event, d event.BatchVerified) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	for _, id := range e.Hosts() {
		for _, b := range slices.Backward(x.batches) {
			h := b.host(id)
			if h == nil || d.Batch != 0 && d.Batch != b.number {
				continue
			}
			if b.opening != nil && b.opening.closed.IsZero() {
				break // what is open cannot be sealed
			}
			if d.State == string(machine.HostSealed) && e.Actor.Kind != event.Broker {
				break // hosts show that to the broker, and to nobody else
			}
			h.state, h.at, h.why = machine.HostPhase(d.State), e.Time, d.Reason
			if h.awaits = false; h.state != machine.HostSealed && b.phase != machine.Passed {
				h.failed = true
			}
			break
		}
	}
}

// judged is when the batch's soak ends: it must have been long enough, since every host
// had shown that it is sealed.
func (b *batch) judged(x *deployment, at time.Time) {
	b.verdicts = nil
	again := !b.gating.IsZero()
	b.gating = at
	if again || b.rollback {
		return
	}
	from := b.soaking
	for _, h := range b.hosts {
		switch {
		case h.awaits && b.fault == "":
			b.fault = fmt.Sprintf("host %s had not shown that it is sealed", h.id)
		case h.at.After(from):
			from = h.at
		}
	}
	if b.fault == "" && x.entry != nil {
		if soak := x.entry.Plan.Batch(b.number - 1).Soak; from.IsZero() || at.Sub(from) < soak {
			b.fault = fmt.Sprintf("batch %d soaked for less than %s", b.number, soak)
		}
	}
}

// unpassed says why a batch that is said to have passed has not.
func (x *deployment) unpassed(b *batch) string {
	failed, ok := 0, 0
	for _, h := range b.hosts {
		if h.awaits || h.first == nil {
			return fmt.Sprintf("host %s of batch %d had not shown that it is sealed", h.id, b.number)
		}
		if h.result == machine.OK {
			ok++
		}
	}
	if b.rollback || x.entry == nil {
		return ""
	}
	if b.gating.IsZero() {
		return fmt.Sprintf("batch %d was not judged", b.number)
	}
	for _, gate := range x.entry.Plan.Batch(b.number - 1).Gates {
		at := slices.IndexFunc(b.verdicts, func(v verdict) bool { return v.gate == gate.Name })
		switch {
		case at < 0 || b.verdicts[at].verdict != string(machine.Pass):
			return fmt.Sprintf("batch %d had not passed its gate %s", b.number, gate.Name)
		case gate.Kind == policy.ReportedGate && ok < needed(gate.OK, len(b.hosts)):
			return fmt.Sprintf("gate %s: %d of %d hosts of batch %d were reported ok", gate.Name, ok, len(b.hosts), b.number)
		case gate.Kind == policy.ApprovalGate:
			about := fmt.Sprintf("gate/%d/%d/%s", b.number, b.gating.UnixMicro(), gate.Name)
			if why := x.filled(about, gate.Stages, true); why != "" {
				return fmt.Sprintf("gate %s after batch %d: %s", gate.Name, b.number, why)
			}
		}
	}
	for _, of := range x.batches[:b.number] {
		for _, h := range of.hosts {
			if h.failed {
				failed++
			}
		}
	}
	if may := x.entry.Plan.Failures.Of(len(x.hosts)); failed > may {
		return fmt.Sprintf("%d hosts had failed, and %d may", failed, may)
	}
	return ""
}

// needed is how many of so many hosts must be ok; percentages are rounded up.
func needed(s policy.Share, hosts int) int {
	if s.Percent > 0 {
		return (hosts*s.Percent + 99) / 100
	}
	return s.Of(hosts)
}

// lacks says why the batch has not passed; "" if it has.
func (x *deployment) lacks(b *batch) string {
	switch {
	case b.phase != machine.Passed:
		return fmt.Sprintf("batch %d was %s", b.number, b.phase)
	default:
		return b.fault
	}
}

func (g *Engine) gateDecided(e *populations.Event, d event.GateDecided) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	if b := g.batch(e, x, d.Batch); b != nil {
		b.verdicts = slices.DeleteFunc(b.verdicts, func(v verdict) bool { return v.gate == d.Gate })
		b.verdicts = append(b.verdicts, verdict{d.Gate, d.Verdict, d.Reason, e.Time})
	}
}
