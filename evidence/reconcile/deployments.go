package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/evidence/populations"
)

// Deployments are followed event by event: what each did is held against the policy
// that it was opened under, and against what had happened by then. Words of the events
// that say that something is so (active, passed, complete) count for nothing by
// themselves.

// deployment is what is remembered of one until a day after its end, when no host
// reports a session of it any more.
type deployment struct {
	id     string
	event  *populations.Event // deployment.opened; the first about it, if partial
	opened event.DeploymentOpened
	trust  string // entry of the policy that admitted its run, if the log has that
	issuer string
	hosts  []string // in the order of the batches
	entry  *policy.Deployment
	// partial: it was opened before the pack's first entry. Nothing of it can be checked.
	partial bool

	phase     machine.Phase
	reason    string // of the phase
	digest    string // that is there at the end
	ended     time.Time
	verifying time.Time // when every host was to show once more that it is sealed
	unsealed  []string
	began     bool // its start has been checked
	// unverified: nothing shows that its previous artifact was ever verified.
	unverified, rolledBack bool

	run       string // that has the lease
	epoch     uint64
	runs      []string // that had it after the first
	holds     map[string]bool
	held      []string // codes, once each
	batches   []*batch // by number, from 1
	decisions []said
	overrides []override
	lifted    time.Time // end of the last override, as events say
	emergency bool      // something was done in a freeze, by an override
}

// batch is one batch, as it stands.
type batch struct {
	number   int
	rollback bool
	phase    machine.BatchPhase
	hosts    []*target
	opening  *opening // the last; nil: never opened
	soaking  time.Time
	gating   time.Time
	verdicts []verdict
	fault    string // why it could not pass; "" if it could
}

// opening is one time in which a batch is open.
type opening struct {
	deployment *deployment
	batch      *batch
	epoch      uint64
	event      *populations.Event
	closed     time.Time // zero: it is open
}

// target is a host of a batch.
type target struct {
	id, name string
	first    *populations.Event // batch.moved, that opened it first; nil: none did
	epochs   []string
	closed   time.Time
	open     bool // since its last opening it was neither reported nor closed
	awaits   bool // since its last opening it has not shown that it is sealed
	failed   bool // it was reported so, or not found sealed, before its batch was judged
	result   machine.Result
	state    machine.HostPhase // as it was found last; "": it was not
	at       time.Time         // when it was
	why      string
	serials  []string
	sessions []string
}

// verdict is what came of a gate.
type verdict struct {
	gate, verdict, reason string
	at                    time.Time
}

func (x *deployment) over() bool { return x.phase.Over() }

// deployment is the one that an event is about; nil, if it cannot be checked, which is
// then reported.
func (g *Engine) deployment(e *populations.Event, id string) *deployment {
	x := g.deployments[id]
	switch {
	case x == nil && g.beforePack(e, "the opening of deployment "+id):
		x = &deployment{id: id, event: brief(e), partial: true}
		g.deployments[id] = x
		g.ending = append(g.ending, ended{id, e.Time})
	case x == nil:
		g.report(DeploymentAltered, e, -1, "the log has no open deployment %s", id)
	case x.partial:
	case x.over():
		g.report(DeploymentAltered, e, x.event.Index, "deployment %s had ended by then", id)
	default:
		return x
	}
	return nil
}

func (g *Engine) deploymentOpened(e *populations.Event, d event.DeploymentOpened) {
	if x := g.deployments[d.DeploymentID]; x != nil {
		g.report(DeploymentAltered, e, x.event.Index, "deployment %s is opened a second time", x.id)
		return
	}
	x := &deployment{id: d.DeploymentID, event: brief(e), opened: d, hosts: e.Hosts(), phase: machine.Planned, digest: d.Digest, holds: map[string]bool{}}
	g.deployments[x.id] = x
	sizes, ok := batchSizes(d.Batches, len(x.hosts))
	if !ok {
		g.report(DeploymentAltered, e, -1, "its batches are not of the hosts that it names")
		sizes = []int{len(x.hosts)}
	}
	if r := g.runs[e.Actor.ID]; r != nil {
		x.trust, x.issuer = r.entry, r.issuer
	}
	rest := x.hosts
	for i, n := range sizes {
		b := &batch{number: i + 1, phase: machine.Pending}
		for _, id := range rest[:n] {
			b.hosts = append(b.hosts, &target{id: id})
		}
		x.batches, rest = append(x.batches, b), rest[n:]
	}
	var err error
	if x.entry, err = g.entryOf(e, d); err == nil {
		err = g.withinPolicy(e, x, sizes)
	}
	if err != nil {
		g.report(DeploymentOutsidePolicy, e, -1, "%s", err)
	}
	verified, known := g.verified[place{d.Service, d.Environment}]
	x.unverified = d.Previous != "" && d.Previous != verified && (known || g.cfg.First == 0)
}

// batchSizes reads how many hosts each batch has.
func batchSizes(texts []string, hosts int) (sizes []int, ok bool) {
	for _, s := range texts {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > hosts {
			return nil, false
		}
		sizes, hosts = append(sizes, n), hosts-n
	}
	return sizes, hosts == 0 && len(sizes) > 0
}

// entryOf is the entry of the policy that was in force when the deployment was opened.
func (g *Engine) entryOf(e *populations.Event, d event.DeploymentOpened) (*policy.Deployment, error) {
	if e.Policy == nil {
		return nil, errors.New("the event does not say under which policy")
	}
	p, err := g.policies.find(g, grant.Terms{PolicyVersion: e.Policy.Version, PolicyHash: e.Policy.Hash})
	if err != nil {
		return nil, err
	}
	entry := p.Deployment(d.Entry)
	if entry == nil || entry.Service != d.Service || entry.Environment != d.Environment {
		return nil, fmt.Errorf("the policy has no entry %q for %s in %s", d.Entry, d.Service, d.Environment)
	}
	alone := *entry // and not the whole document
	return &alone, nil
}

// withinPolicy holds what was opened against the policy: an agent narrows the plan, and
// chooses nothing else (plan.Make).
func (g *Engine) withinPolicy(e *populations.Event, x *deployment, sizes []int) error {
	v := g.policies.versions[e.Policy.Version]
	d, entry := x.opened, x.entry
	switch {
	case !v.to.IsZero() && e.Time.After(v.to.Add(maxStale)):
		return fmt.Errorf("version %d of the policy was in force until %s", e.Policy.Version, populations.Time(v.to))
	case !plan.ValidDigest(d.Digest):
		return errors.New("its digest names no artifact")
	case d.Login != entry.Login || d.Command != x.terms().CommandFor(false):
		return errors.New("its login or command is not the policy's")
	}
	for i, n := range sizes {
		if most := max(entry.Plan.Batch(i).Hosts.Of(len(x.hosts)), 1); n > most {
			return fmt.Errorf("batch %d has %d hosts, and the policy lets it have %d", i+1, n, most)
		}
	}
	if r, ok := g.runs[e.Actor.ID]; ok && !slices.Contains(entry.Agents, r.entry) {
		return fmt.Errorf("the policy does not let agents of %s deploy it", r.entry)
	}
	return nil
}

// terms are those parts of the deployment's terms that commands are made from.
func (x *deployment) terms() *plan.Terms {
	return &plan.Terms{Command: x.entry.Command, RollbackCommand: x.entry.RollbackCommand, Digest: x.opened.Digest, Previous: x.opened.Previous}
}

func (g *Engine) deploymentMoved(e *populations.Event, d event.DeploymentMoved) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	if d.Before != string(x.phase) {
		g.report(DeploymentAltered, e, x.event.Index, "it was %s before, and not %s", x.phase, d.Before)
	}
	x.phase, x.reason, x.digest = machine.Phase(d.State), d.Reason, d.Digest
	switch {
	case x.phase == machine.Active:
		g.begins(e, x)
	case x.phase == machine.Verifying:
		x.verifying = e.Time
		g.allPassed(e, x)
	case x.phase == machine.Complete && x.verifying.IsZero():
		g.allPassed(e, x)
	case x.phase == machine.RollingBack:
		g.rollsBack(e, x)
	}
	if x.over() {
		g.ends(e, x, d.Unsealed)
	}
}

// begins checks, once, that the start was approved.
func (g *Engine) begins(e *populations.Event, x *deployment) {
	if x.began {
		return
	}
	x.began = true
	if x.entry == nil || len(x.entry.Stages) == 0 {
		return
	}
	if why := x.filled("start", x.entry.Stages, true); why != "" {
		g.report(DeploymentUnapproved, e, x.event.Index, "the start of deployment %s: %s", x.id, why)
	}
}

// allPassed checks that every batch has passed.
func (g *Engine) allPassed(e *populations.Event, x *deployment) {
	for _, b := range x.batches {
		if why := x.lacks(b); why != "" && !b.rollback {
			g.report(BatchEarly, e, b.index(x), "deployment %s is %s: %s", x.id, x.phase, why)
			return
		}
	}
}

// rollsBack checks, once, that what the deployment goes back to was verified.
func (g *Engine) rollsBack(e *populations.Event, x *deployment) {
	if x.rolledBack {
		return
	}
	x.rolledBack = true
	switch {
	case x.opened.Previous == "":
		g.report(RollbackUnverified, e, x.event.Index, "nothing had been verified before to which deployment %s could go back", x.id)
	case x.unverified:
		g.report(RollbackUnverified, e, x.event.Index, "the log does not say that %s was verified on %s in %s when deployment %s was opened",
			x.opened.Previous, x.opened.Service, x.opened.Environment, x.id)
	}
}

// ends checks that every host that was opened has shown since that it is sealed; in the
// end of a deployment that is complete, once more.
func (g *Engine) ends(e *populations.Event, x *deployment, named []string) {
	var open []string
	for _, h := range x.last() {
		switch {
		case x.phase != machine.Complete && h.first == nil:
		case h.first == nil:
			open = append(open, h.id+" was never opened")
		case h.awaits || h.state == "":
			open = append(open, h.id+" has not shown that it is sealed")
		case h.state != machine.HostSealed:
			open = append(open, h.id+" is "+string(h.state))
		case x.phase == machine.Complete && h.at.Before(x.verifying):
			open = append(open, h.id+" was not verified at the end")
		}
	}
	x.unsealed, x.ended = open, e.Time
	if len(open) > 0 {
		said := strings.Join(open[:min(len(open), 10)], ", ")
		if len(open) > 10 {
			said += fmt.Sprintf(" and %d more", len(open)-10)
		}
		if len(named) == 0 {
			said += "; the event names none of them"
		}
		g.report(DeploymentUnsealed, e, x.event.Index, "deployment %s is %s: %s", x.id, x.phase, said)
	} else if x.phase == machine.Complete {
		g.verified[place{x.opened.Service, x.opened.Environment}] = x.opened.Digest
	}
	for _, b := range x.batches {
		g.close(b, e.Time)
	}
	g.ending = append(g.ending, ended{x.id, e.Time})
}

// last is each host by the batch that it was in last.
func (x *deployment) last() (list []*target) {
	at := map[string]int{}
	for _, b := range x.batches {
		for _, h := range b.hosts {
			if i, seen := at[h.id]; seen {
				list[i] = h
				continue
			}
			at[h.id] = len(list)
			list = append(list, h)
		}
	}
	return list
}

func (g *Engine) deploymentLeased(e *populations.Event, d event.DeploymentLeased) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	if x.run != "" || d.Run != e.Actor.ID || d.Epoch <= x.epoch {
		g.report(DeploymentAltered, e, x.event.Index, "run %s takes the lease of epoch %d, and %s has that of %d", d.Run, d.Epoch, or(x.run, "nobody"), x.epoch)
	}
	x.run, x.epoch = d.Run, d.Epoch
	if d.Run != x.event.Actor.ID && !slices.Contains(x.runs, d.Run) {
		x.runs = append(x.runs, d.Run)
	}
}

func (g *Engine) deploymentReleased(e *populations.Event, d event.DeploymentReleased) {
	// It is the last that is heard of a deployment, after its end.
	if x := g.deployments[d.DeploymentID]; x != nil && !x.partial {
		x.run = ""
	} else {
		g.deployment(e, d.DeploymentID)
	}
}

func (g *Engine) deploymentHeld(e *populations.Event, id, code string, held bool) {
	x := g.deployment(e, id)
	if x == nil {
		return
	}
	if x.holds[code] = held; !held {
		delete(x.holds, code)
	} else if !slices.Contains(x.held, code) {
		x.held = append(x.held, code)
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// place is where a service's artifact is verified.
type place struct{ service, environment string }
