package pages

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/rollout"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

var errNoSuchDeployment = refusal.New(refusal.NotFound, "unknown-deployment", "there is no such deployment", "the list shows those you may see")

// yard is the house's face that has deployments.
type yard struct{ *house }

// batch makes one of so many hosts, all of them as the first.
func made(n, from, hosts int, state string, host api.DeploymentHost, gates ...api.DeploymentGate) api.DeploymentBatch {
	b := api.DeploymentBatch{Number: n, Canary: n == 1, State: state, Gates: gates}
	for i := range hosts {
		h := host
		h.ID, h.Name = fmt.Sprintf("host-7k3m9q2x%04d", from+i), fmt.Sprintf("redis-%02d.eu-west", from+i)
		b.Hosts = append(b.Hosts, h)
	}
	return b
}

var (
	waitingHost = api.DeploymentHost{State: "sealed"}
	openHost    = api.DeploymentHost{State: "open"}
	sealedHost  = api.DeploymentHost{State: "sealed", Result: "ok"}
)

// roll adds deployments in many states.
func (h *house) roll() *house {
	now := h.clock.Now()
	ago := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	gates := func(verdict string) []api.DeploymentGate {
		list := []api.DeploymentGate{
			{Name: "all-ok", Kind: "reported", Verdict: "pass", Asks: "6 of 6 hosts reported ok", Why: "6 of 6 hosts are ok, and 6 must be", At: ago(9 * time.Minute)},
			{Name: "errors", Kind: "prometheus", Verdict: verdict, Times: 10, Passes: 7, Failures: 1, Asks: `sum(rate(errors_total{job="redis"}[5m])) is < 0.01, by https://prometheus.example.com`, Why: "0.0034 is < 0.01", At: ago(20 * time.Second), By: ago(-40 * time.Minute)},
			{Name: "dba", Kind: "approval", Verdict: verdict, Asks: "people approve", Needs: []string{"1 from approvers"}, By: ago(-7 * 24 * time.Hour)},
		}
		if verdict == "pending" {
			for i := range list {
				list[i] = api.DeploymentGate{Name: list[i].Name, Kind: list[i].Kind, Verdict: "waiting", Asks: list[i].Asks, Needs: list[i].Needs, Times: list[i].Times}
			}
		}
		if verdict == "pass" {
			list[1].Passes, list[1].By, list[2].By = 10, nil, nil
		}
		return list
	}
	add := func(state, service string, opened time.Duration, change func(*api.DeploymentAccount)) *api.DeploymentAccount {
		a := api.DeploymentAccount{Deployment: api.Deployment{ID: fmt.Sprintf("dep-%012d", len(h.deployed)+1), Service: service, Environment: "prod", State: state,
			Digest: "sha256:" + strings.Repeat("9f86d081", 8), Previous: "sha256:" + strings.Repeat("2c26b46b", 8), Entry: service + "-prod", Policy: 3,
			TermsHash: strings.Repeat("0123456789abcdef", 4), OpenedBy: "run-4f8k2m9qhx1z", OpenedAt: now.Add(-opened), Epoch: 2, Holder: "run-7k3m9q2x4f00",
			Claims: map[string]string{"repository": "acme/redis", "sha": strings.Repeat("714a629c", 5), "run_id": "22259804324", "ref": "refs/heads/main",
				"workflow": "deploy", "actor": "octo", "environment": "production", "event_name": "push"}, LeaseUntil: ago(-5 * time.Minute), Budget: 1, Blockers: []api.Blocker{}},
			Agent: "github-redis", Issuer: "https://token.actions.githubusercontent.com", Subject: "repo:acme/redis:environment:production",
			Login: "deploy", Command: "/usr/local/bin/deploy-redis sha256:" + strings.Repeat("9f86d081", 8), Sources: []string{"192.0.2.0/24"}, Lifetime: "5m0s", Uses: 1, OnFailure: "rollback"}
		a.Batches = []api.DeploymentBatch{made(1, 1, 1, "pending", waitingHost, gates("pending")...), made(2, 2, 6, "pending", waitingHost, gates("pending")...), made(3, 8, 60, "pending", waitingHost, gates("pending")...)}
		change(&a)
		h.deployed = append(h.deployed, &a)
		return &a
	}
	canary := made(1, 1, 1, "passed", sealedHost, gates("pass")...)
	open := add("active", "redis", 50*time.Hour, func(a *api.DeploymentAccount) {
		b := made(2, 2, 6, "open", openHost, gates("pending")...)
		b.Hosts[0].State, b.Hosts[0].Result = "deployed", "ok"
		b.Hosts[1].State, b.Hosts[1].Result = "deployed", "ok"
		b.Hosts[2].Result, b.Hosts[2].State = "failed", "deployed"
		b.OpenedAt, b.Until = ago(4*time.Minute), ago(-26*time.Minute)
		a.Batches[0], a.Batches[1], a.Spent = canary, b, 1
		for i, x := range b.Hosts[:4] {
			a.Certificates = append(a.Certificates, api.DeploymentCertificate{Serial: uint64(2050 + i), HostID: x.ID, Batch: 2, Epoch: 2, Run: a.Holder, Uses: 1, IssuedAt: now.Add(-4 * time.Minute), ValidBefore: now.Add(time.Minute)})
			s := api.Session{ID: fmt.Sprintf("ses-00000000001%d", i), HostID: x.ID, Host: x.Name, Deployment: a.ID, Serial: uint64(2050 + i), Login: "deploy", Client: "192.0.2.9", StartedAt: ago(3 * time.Minute)}
			if i < 3 {
				s.EndedAt, s.EndReason = ago(2*time.Minute), "closed"
			}
			a.Sessions = append(a.Sessions, s)
		}
	})
	add("active", "api", 3*time.Hour, func(a *api.DeploymentAccount) {
		a.Batches[0] = canary
		a.Batches[1] = made(2, 2, 6, "soaking", sealedHost, gates("pending")...)
		a.Batches[1].SealedAt, a.Batches[1].Until = ago(time.Hour), ago(-23*time.Hour)
		a.Holder = ""
		a.Deployment.Blockers = []api.Blocker{{Code: "batch-before", Why: "batch 2 is soaking"}}
	})
	add("active", "search", 5*time.Hour, func(a *api.DeploymentAccount) {
		a.Batches[0] = canary
		a.Batches[1] = made(2, 2, 6, "gating", sealedHost, gates("waiting")...)
		a.Questions = []api.DeploymentQuestion{{About: "gate", Batch: 2, Gate: "dba", Slots: []api.Slot{{Stage: 1, Groups: []string{"approvers"}, Count: 1}}}}
	})
	add("awaiting_approval", "billing", 12*time.Minute, func(a *api.DeploymentAccount) {
		a.Questions = []api.DeploymentQuestion{{About: "start", Slots: []api.Slot{{Stage: 1, Groups: []string{"approvers"}, Count: 1}, {Stage: 1, Groups: []string{"security"}, Count: 1, Filled: 1}}}}
		a.Decisions = []api.DeploymentSaid{{ID: ids.New(ids.Decision), About: "start", Verdict: api.Approve, Person: h.person("security"), Comment: "Scanned; nothing new in it.", At: now.Add(-3 * time.Minute)}}
		a.Deployment.Blockers = []api.Blocker{{Code: "deployment-awaiting-approval", Why: "the deployment has not been approved yet"}}
	})
	add("held", "mail", 26*time.Hour, func(a *api.DeploymentAccount) {
		a.Batches[0] = made(1, 1, 1, "failed", api.DeploymentHost{State: "drifted", Result: "ok", Why: "check keys fails: a stray key <i>"}, gates("fail")...)
		a.Batches[0].Why = "a host has drifted"
		a.Holder, a.Previous, a.Spent = "", "", 2
		a.Deployment.Blockers = []api.Blocker{{Code: "batch-failed", Why: "batch 1 failed: a host has drifted", Hint: "abort the deployment or roll it back"},
			{Code: "deployment-frozen", Why: `nothing is deployed in the freeze "weekend"`, Hint: "wait until the freeze ends, or ask those who may override it", Until: ago(-9 * time.Hour)}}
		a.Questions = []api.DeploymentQuestion{{About: "override", Slots: []api.Slot{{Stage: 1, Groups: []string{"security"}, Count: 1}}}}
	})
	over := func(state, service string, opened time.Duration, change func(*api.DeploymentAccount)) {
		add(state, service, opened, func(a *api.DeploymentAccount) {
			a.Batches = []api.DeploymentBatch{canary, made(2, 2, 6, "passed", sealedHost, gates("pass")...), made(3, 8, 60, "passed", sealedHost, gates("pass")...)}
			a.EndedAt, a.Holder = ago(opened-2*time.Hour), ""
			change(a)
		})
	}
	over("complete", "redis", 9*24*time.Hour, func(a *api.DeploymentAccount) {
		a.Batches[2] = made(3, 8, 60, "passed", sealedHost, gates("pass")...)
		a.Batches[2].Hosts[7].State, a.Batches[2].Hosts[7].Why = "verifying", "somebody was on it after the end, and it has not shown since that it is sealed"
		x := a.Batches[2].Hosts[7]
		a.Visits = []api.DeploymentVisit{{HostID: x.ID, Host: x.Name, RequestID: "req-4f8k2m9qhx1z", Login: "dba", At: now.Add(-time.Hour), EndedAt: ago(50 * time.Minute)},
			{HostID: x.ID, Host: x.Name, Login: "root", At: now.Add(-2 * time.Hour)}}
	})
	over("rollback_failed", "api", 11*24*time.Hour, func(a *api.DeploymentAccount) {
		a.Why = "1 host is not sealed, 1 failed"
		a.Batches = a.Batches[:2]
		a.Batches[1] = made(2, 2, 6, "failed", sealedHost, gates("fail")...)
		a.Batches[1].Why = "gate errors: 0.21 is not < 0.01"
		back := made(3, 1, 7, "failed", sealedHost)
		back.Rollback, back.Gates = true, nil
		back.Hosts[4].State, back.Hosts[4].Why = "quarantined", "it has not shown in time that it is sealed"
		back.Hosts[5].Result = "failed"
		back.Why = "1 host is not sealed, 1 failed"
		a.Batches = append(a.Batches, back)
	})
	over("aborted", "billing", 20*24*time.Hour, func(a *api.DeploymentAccount) { a.Why = "it was denied: not before the audit" })

	agent := identity.Caller{}
	for _, d := range []event.Data{
		event.DeploymentOpened{DeploymentID: open.ID, Service: "redis", Environment: "prod", Digest: open.Digest, Batches: []string{"1", "6", "60"}},
		event.DeploymentLeased{DeploymentID: open.ID, Run: open.OpenedBy, Epoch: 1},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "pending", State: "open"},
		event.BatchReported{DeploymentID: open.ID, Batch: 1, OK: []string{canary.Hosts[0].ID}},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "open", State: "closing", Reason: "every host is reported"},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "closing", State: "sealing"},
		event.BatchVerified{DeploymentID: open.ID, Batch: 1, State: "sealed"},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "sealing", State: "soaking"},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "soaking", State: "gating"},
		event.GateDecided{DeploymentID: open.ID, Batch: 1, Gate: "all-ok", Verdict: "pass", Reason: "1 of 1 hosts are ok, and 1 must be"},
		event.GateDecided{DeploymentID: open.ID, Batch: 1, Gate: "errors", Verdict: "pass", Reason: "0.0021 is < 0.01"},
		event.BatchMoved{DeploymentID: open.ID, Batch: 1, Epoch: 1, Before: "gating", State: "passed"},
		event.DeploymentLeased{DeploymentID: open.ID, Run: open.Holder, Epoch: 2},
		event.BatchMoved{DeploymentID: open.ID, Batch: 2, Epoch: 2, Before: "pending", State: "open"},
	} {
		h.write(agent, "", d)
	}
	return h
}

// sees has the rule that everybody but engineers sees deployments.
func (y yard) sees(c identity.Caller) bool { return c.Subject != "engineer" }

func (y yard) Sees(_ context.Context, c identity.Caller) (bool, error) { return y.sees(c), nil }

func (y yard) of(c identity.Caller, a *api.DeploymentAccount) api.DeploymentAccount {
	out := *a
	if a.EndedAt == nil && c.Has(api.Operator) {
		out.Actions = []string{"stop", "resume", "abort", "rollback"}
	}
	out.Questions = slices.Clone(a.Questions)
	for i, q := range out.Questions {
		mine := slices.ContainsFunc(q.Slots, func(s api.Slot) bool { return slices.Contains(s.Groups, c.Groups[0]) && s.Filled < s.Count })
		out.Questions[i].MayApprove, out.Questions[i].MayDeny = mine, mine
		if !mine {
			out.Questions[i].Why = "you are in no group whose approval is waited for"
		}
	}
	return out
}

func (y yard) List(_ context.Context, c identity.Caller, f rollout.Filter) (api.Page[api.Deployment], error) {
	y.saw(f)
	page := api.Page[api.Deployment]{}
	for _, a := range y.deployed {
		if y.sees(c) && (f.Service == "" || a.Service == f.Service) && (f.State == "" || a.State == f.State) && (!f.Running || a.EndedAt == nil) && (!f.Over || a.EndedAt != nil) {
			page.Items = append(page.Items, y.of(c, a).Deployment)
		}
	}
	if f.Over && f.Cursor == "" {
		page.Next = "dep-older"
	}
	return page, nil
}

func (y yard) Services(context.Context, identity.Caller) ([]string, error) {
	return []string{"api", "billing", "mail", "redis", "search"}, nil
}

func (y yard) find(c identity.Caller, id string) (*api.DeploymentAccount, error) {
	for _, a := range y.deployed {
		if a.ID == id && y.sees(c) {
			return a, nil
		}
	}
	return nil, errNoSuchDeployment
}

func (y yard) Account(_ context.Context, c identity.Caller, id string) (api.DeploymentAccount, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	a, err := y.find(c, id)
	if err != nil {
		return api.DeploymentAccount{}, err
	}
	return y.of(c, a), nil
}

func (y yard) Told(_ context.Context, c identity.Caller, id string) (events []api.Event, all bool, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, e := range slices.Backward(y.leaves) {
		if shown := e.API(false); shown.Data["deployment_id"] == id {
			events = append(events, shown)
		}
	}
	return events, true, nil
}

func (y yard) Waiting(_ context.Context, c identity.Caller) (list []api.Deployment, err error) {
	for _, a := range y.deployed {
		if slices.ContainsFunc(y.of(c, a).Questions, func(q api.DeploymentQuestion) bool { return q.MayApprove && q.About != "override" }) {
			list = append(list, a.Deployment)
		}
	}
	return list, nil
}

func (y yard) CountWaiting(ctx context.Context, c identity.Caller) (int, error) {
	list, err := y.Waiting(ctx, c)
	return len(list), err
}

func (y yard) OfHost(_ context.Context, c identity.Caller, hostID string) (*api.Deployment, error) {
	if len(y.deployed) == 0 || !y.sees(c) {
		return nil, nil
	}
	d := y.deployed[0].Deployment
	d.Batches = slices.Clone(d.Batches)
	d.Batches[1].Hosts = slices.Clone(d.Batches[1].Hosts)
	d.Batches[1].Hosts[0].ID = hostID
	return &d, nil
}

func (y yard) Control(_ context.Context, c identity.Caller, id string, in api.ControlInput) (api.Deployment, error) {
	if err := y.saw(in); err != nil {
		return api.Deployment{}, err
	}
	if strings.TrimSpace(in.Reason) == "" {
		return api.Deployment{}, rollout.ErrReason
	}
	a, err := y.find(c, id)
	if err != nil {
		return api.Deployment{}, err
	}
	a.State = cmp.Or(map[string]string{"stop": "held", "abort": "aborted"}[in.Action], a.State)
	if in.Action == "stop" {
		a.Deployment.Blockers = append(a.Deployment.Blockers, api.Blocker{Code: "stopped", Why: in.Reason, Hint: "somebody who controls it resumes it, aborts it or rolls it back"})
	}
	return a.Deployment, nil
}

func (y yard) DraftDecision(_ context.Context, _ identity.Caller, _ approvals.Browser, _ string, in api.DeploymentDecisionInput) (approvals.Draft, error) {
	return approvals.Draft{}, y.saw(in)
}

func (y yard) Decide(_ context.Context, c identity.Caller, id string, in api.DeploymentDecisionInput) (api.Deployment, error) {
	if err := y.saw(in); err != nil {
		return api.Deployment{}, err
	}
	a, err := y.find(c, id)
	if err != nil {
		return api.Deployment{}, err
	}
	if a.Assurance == evidence.Provider {
		return api.Deployment{}, approvals.ErrProviderEvidence
	}
	if in.TermsHash != a.TermsHash {
		return api.Deployment{}, rollout.ErrOtherTerms
	}
	a.Decisions, a.Questions = append(a.Decisions, api.DeploymentSaid{About: in.About, Gate: in.Gate, Batch: in.Batch, Verdict: in.Verdict, Person: c.API(), Comment: in.Comment, At: y.clock.Now()}), nil
	return a.Deployment, nil
}
