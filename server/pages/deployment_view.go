package pages

import (
	"slices"
	"strconv"
	"time"

	"sallyport/api"
)

// number reads a field of a form; 0, if it is none.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// deploymentView is a deployment as pages draw it.
type deploymentView struct {
	api.Deployment
	Now time.Time
}

func (p *Pages) deploymentView(d api.Deployment) deploymentView {
	return deploymentView{d, p.cfg.Clock.Now()}
}

func (p *Pages) deploymentViews(list []api.Deployment) []deploymentView {
	views := make([]deploymentView, len(list))
	for i, d := range list {
		views[i] = p.deploymentView(d)
	}
	return views
}

// Version changes whenever anything of the deployment does but its lease, which every
// call of the agent renews.
func (v deploymentView) Version() string {
	v.LeaseUntil = nil
	return version(v.Deployment)
}

// Ended reports whether nothing can follow.
func (v deploymentView) Ended() bool { return v.EndedAt != nil }

// Can reports whether the viewer may do the action.
func (v deploymentView) Can(action string) bool { return slices.Contains(v.Actions, action) }

// Controls reports whether the viewer may stop it, and so on.
func (v deploymentView) Controls() bool { return v.Can("stop") }

// Resumable reports whether something holds it that a person can end.
func (v deploymentView) Resumable() bool {
	return v.blocked("stopped", "host-drifted", "gates-unclear")
}

// Stopped reports whether somebody has stopped it.
func (v deploymentView) Stopped() bool { return v.blocked("stopped") }

// Failed reports whether a batch has, and somebody must end it.
func (v deploymentView) Failed() bool { return v.blocked("batch-failed") }

// Frozen reports whether a freeze holds it.
func (v deploymentView) Frozen() bool { return v.blocked("deployment-frozen") }

func (v deploymentView) blocked(codes ...string) bool {
	return slices.ContainsFunc(v.Deployment.Blockers, func(b api.Blocker) bool { return slices.Contains(codes, b.Code) })
}

// Blockers are what keeps it from going on beyond what its headline says.
func (v deploymentView) Blockers() (list []api.Blocker) {
	for _, b := range v.Deployment.Blockers {
		if b.Code != "batch-before" && b.Code != "deployment-awaiting-approval" {
			list = append(list, b)
		}
	}
	return list
}

// Line is the plan as a line of batches.
func (v deploymentView) Line() []batchView {
	list := make([]batchView, len(v.Batches))
	for i, b := range v.Batches {
		list[i] = batchView{b, v.Now, v.Deployment.State}
	}
	return list
}

// Opened reports whether any of its batches ever was.
func (v deploymentView) Opened() bool {
	return slices.ContainsFunc(v.Batches, func(b api.DeploymentBatch) bool { return b.OpenedAt != nil })
}

// Urgent reports whether it does not go on by itself.
func (v deploymentView) Urgent() bool {
	return v.State == "held" || v.State == "awaiting_approval" || len(v.Unsealed()) > 0
}

// Current is the batch between being opened and its end; nil, if there is none.
func (v deploymentView) Current() *batchView {
	for _, b := range v.Line() {
		if slices.Contains([]string{"open", "closing", "sealing", "soaking", "gating"}, b.State) {
			return &b
		}
	}
	return nil
}

// Hosts is how many hosts the plan has.
func (v deploymentView) Hosts() (n int) {
	for _, b := range v.Batches {
		if !b.Rollback {
			n += len(b.Hosts)
		}
	}
	return n
}

// Passed is how many batches have passed.
func (v deploymentView) Passed() (n int) {
	for _, b := range v.Batches {
		if b.State == "passed" {
			n++
		}
	}
	return n
}

// Sum counts the hosts by what they look like, each by the batch that it was in last.
func (v deploymentView) Sum() []cellCount {
	last := map[string]cell{}
	var order []string
	for _, b := range v.Line() {
		for _, c := range b.Cells() {
			if _, seen := last[c.ID]; !seen {
				order = append(order, c.ID)
			}
			last[c.ID] = c
		}
	}
	count := map[string]int{}
	for _, id := range order {
		count[last[id].Look]++
	}
	return counted(count)
}

// Unsealed are the hosts that are not proved to be sealed though no batch is open for
// them, by the batch that they were in last.
func (v deploymentView) Unsealed() []cell { return v.last("drifted", "quarantined") }

// Unproved are likewise the hosts of a deployment that is over, with those that must show
// once more that they are sealed.
func (v deploymentView) Unproved() []cell { return v.last("drifted", "quarantined", "verifying") }

func (v deploymentView) last(states ...string) (list []cell) {
	seen := map[string]bool{}
	for _, b := range slices.Backward(v.Line()) {
		for _, c := range b.Cells() {
			if !seen[c.ID] && slices.Contains(states, c.State) {
				list = append(list, c)
			}
			seen[c.ID] = true
		}
	}
	return list
}

// questionView is a question with its slots as pages draw them.
type questionView struct {
	api.DeploymentQuestion
	TermsHash string
	Sure      []slotView
}

// Asked are the questions that people are asked now; going on in a freeze only in one.
func (d deploymentPage) Asked() (list []questionView) {
	for _, q := range d.Account.Questions {
		if q.About != "override" || d.Frozen() {
			list = append(list, questionView{q, d.TermsHash, slotViews(q.Slots)})
		}
	}
	return list
}

// Mine are those that the viewer may answer.
func (d deploymentPage) Mine() []questionView {
	return slices.DeleteFunc(d.Asked(), func(q questionView) bool { return !q.MayApprove && !q.MayDeny })
}

// hostRow is one host with what agents had there.
type hostRow struct {
	cell
	Certificates []api.DeploymentCertificate
	Sessions     []api.Session
}

// agentsView is what agents had on the hosts of one batch.
type agentsView struct {
	Number int
	Name   string
	Now    bool // somebody looks at it: it is under way, or has failed
	Rows   []hostRow
	// Certificates, Sessions and so on are how many there were.
	Certificates, Sessions, Open, Alarms int
}

// maxHostRows is how many hosts of a batch are listed with what agents had there.
const maxHostRows = 200

// Shown are the hosts that the page lists, and Cut how many it does not.
func (v agentsView) Shown() []hostRow { return v.Rows[:min(len(v.Rows), maxHostRows)] }

// Cut is described at Shown.
func (v agentsView) Cut() int { return max(0, len(v.Rows)-maxHostRows) }

// place is a host in a batch: in a rollback it is opened once more.
type place struct {
	host  string
	batch int
}

// Agents are the batches that were opened, the newest first, with what agents had on
// their hosts. A session belongs to the batch of its certificate.
func (d deploymentPage) Agents() (list []agentsView) {
	certificates, past, batchOf := map[place][]api.DeploymentCertificate{}, map[place][]api.Session{}, map[uint64]int{}
	for _, c := range d.Account.Certificates {
		at := place{c.HostID, c.Batch}
		certificates[at], batchOf[c.Serial] = append(certificates[at], c), c.Batch
	}
	for _, s := range d.Account.Sessions {
		at := place{s.HostID, batchOf[s.Serial]}
		past[at] = append(past[at], s)
	}
	for _, b := range slices.Backward(d.Line()) {
		if b.State == "pending" {
			continue
		}
		v := agentsView{Number: b.Number, Name: b.Name(), Now: b.State != "passed"}
		for _, c := range b.Cells() {
			row := hostRow{c, certificates[place{c.ID, b.Number}], past[place{c.ID, b.Number}]}
			v.Rows = append(v.Rows, row)
			v.Certificates += len(row.Certificates)
			v.Sessions += len(row.Sessions)
			for _, s := range row.Sessions {
				if s.EndedAt == nil {
					v.Open++
				}
				if s.Alarm != "" {
					v.Alarms++
				}
			}
		}
		list = append(list, v)
	}
	return list
}

// recentEvents are how many events the page shows before the others are asked for.
const recentEvents = 12

// Recent are the newest events, and Earlier the others.
func (d deploymentPage) Recent() []api.Event { return d.Events[:min(len(d.Events), recentEvents)] }

// Earlier is described at Recent.
func (d deploymentPage) Earlier() []api.Event { return d.Events[min(len(d.Events), recentEvents):] }
