package machine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

var start = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC) // a Monday

const (
	digest   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	previous = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
)

func hostID(n int) string { return fmt.Sprintf("host-%012d", n) }

// terms draws a plan of a few small batches.
func terms(t *rapid.T) *plan.Terms {
	out := &plan.Terms{Format: plan.Format, DeploymentID: "dep-000000000000", Digest: digest, Login: "deploy", Command: "/bin/deploy {digest}",
		RollbackCommand: "/bin/deploy {digest}", SourceAddress: []string{"192.0.2.0/24"}, Lifetime: "5m", Uses: 1, Lease: "10m", OpenFor: "30m", VerifyWithin: "10m",
		Failures: rapid.IntRange(0, 2).Draw(t, "failures"), OnFailure: rapid.SampledFrom([]string{"hold", "abort", "rollback"}).Draw(t, "on failure"),
		Freezes: []plan.Freeze{}, Approvals: []grant.TermsStage{}, Override: []grant.TermsStage{}}
	if rapid.Bool().Draw(t, "way back") {
		out.Previous = previous
	}
	if rapid.Bool().Draw(t, "approvals") {
		out.Approvals = []grant.TermsStage{{Slots: []grant.TermsSlot{{Groups: []string{"leads"}, Count: 1}}}}
	}
	if rapid.Bool().Draw(t, "freezes") {
		from := start.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "freeze")) * time.Minute)
		out.Freezes = []plan.Freeze{{Name: "once", From: from, Until: from.Add(20 * time.Minute)}}
	}
	n := 0
	for i := range rapid.IntRange(1, 3).Draw(t, "batches") {
		b := plan.Batch{Number: i + 1, Soak: rapid.SampledFrom([]string{"", "5m", "1h"}).Draw(t, "soak"), Gates: []plan.Gate{}}
		for range rapid.IntRange(1, 3).Draw(t, "hosts") {
			b.Hosts = append(b.Hosts, plan.Host{ID: hostID(n), Name: fmt.Sprint("h", n)})
			n++
		}
		for _, g := range []plan.Gate{
			{Name: "reported", Kind: policy.ReportedGate, OK: 1},
			{Name: "http", Kind: policy.HTTPGate, Every: "30s", Times: 2, Failures: 1, Within: "15m"},
			{Name: "people", Kind: policy.ApprovalGate, Within: "1h", Stages: []grant.TermsStage{{Slots: []grant.TermsSlot{{Groups: []string{"leads"}, Count: 1}}}}},
		} {
			if rapid.Bool().Draw(t, g.Name) {
				b.Gates = append(b.Gates, g)
			}
		}
		out.Batches = append(out.Batches, b)
	}
	return out
}

// sensible draws something that brings the deployment on.
func sensible(t *rapid.T, p *plan.Terms, s machine.State, now time.Time) machine.Event {
	b, next := s.Current(), s.Next()
	some := func(list []machine.Host, phase machine.HostPhase) string {
		for _, h := range list {
			if h.Phase == phase {
				return h.ID
			}
		}
		return list[0].ID
	}
	verified := func(host string) machine.Event {
		return machine.Verified{Host: host, Sealed: rapid.IntRange(0, 19).Draw(t, "sealed") > 0, At: now, Why: "it looks so"}
	}
	switch {
	case s.Phase == machine.AwaitingApproval:
		return machine.Approved{Subject: machine.Subject{Kind: machine.ToStart}}
	case b != nil && b.Phase == machine.Closing:
		return machine.Shut{Batch: b.Number}
	case b != nil && b.Phase == machine.Sealing:
		return verified(some(b.Hosts, machine.HostVerifying))
	case b != nil && b.Phase == machine.Gating:
		for _, g := range b.Gates {
			if g.Verdict == machine.Waiting && g.Name == "people" {
				return machine.Approved{Subject: machine.Subject{Kind: machine.ToPass, Batch: b.Number, Gate: g.Name}}
			}
		}
		return machine.Measured{Batch: b.Number, Gate: "http", Outcome: rapid.SampledFrom([]machine.Verdict{machine.Pass, machine.Pass, machine.Pass, machine.NoPass, machine.Unclear}).Draw(t, "measured"), Why: "seen"}
	case s.Phase == machine.Verifying:
		for _, h := range s.Last() {
			if !h.Verified.After(s.Since) {
				return verified(h.ID)
			}
		}
	case s.Holder == "":
		return machine.Attach{Run: "run-a"}
	case b != nil && b.Phase == machine.Open:
		results := map[string]machine.Result{}
		for _, h := range b.Hosts {
			if h.Result == "" {
				results[h.ID] = rapid.SampledFrom([]machine.Result{machine.OK, machine.OK, machine.OK, machine.OK, machine.Fail}).Draw(t, "result")
			}
		}
		return machine.Report{By: machine.By{Run: s.Holder, Epoch: s.Epoch}, Batch: b.Number, Results: results}
	case len(s.Holds) > 0:
		return machine.Resume{}
	case b == nil && next != nil:
		return machine.OpenBatch{By: machine.By{Run: s.Holder, Epoch: s.Epoch}, Batch: next.Number}
	}
	return machine.Tick{}
}

// event draws anything that can happen, sensible or not.
func event(t *rapid.T, p *plan.Terms, s machine.State, now time.Time) machine.Event {
	if rapid.IntRange(0, 3).Draw(t, "sensible") > 0 {
		return sensible(t, p, s, now)
	}
	run := rapid.SampledFrom([]string{"run-a", "run-b"}).Draw(t, "run")
	by := machine.By{Run: run, Epoch: s.Epoch - int64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "epochs ago"))}
	if rapid.Bool().Draw(t, "the holder") {
		by.Run = s.Holder
	}
	batch := rapid.IntRange(0, len(s.Batches)+1).Draw(t, "batch")
	if next := s.Next(); next != nil && rapid.Bool().Draw(t, "the next") {
		batch = next.Number
	}
	if current := s.Current(); current != nil && rapid.IntRange(0, 3).Draw(t, "the current") > 0 {
		batch = current.Number
	}
	host := hostID(rapid.IntRange(0, 9).Draw(t, "host"))
	gate := rapid.SampledFrom([]string{"reported", "http", "people", "none"}).Draw(t, "gate")
	subject := machine.Subject{Kind: rapid.SampledFrom([]machine.SubjectKind{machine.ToStart, machine.ToPass, machine.ToOverride}).Draw(t, "subject"), Batch: batch, Gate: gate}
	switch rapid.IntRange(0, 22).Draw(t, "what") {
	case 0:
		return machine.Attach{Run: run}
	case 1, 2, 3:
		return machine.OpenBatch{By: by, Batch: batch}
	case 4, 5, 6:
		results := map[string]machine.Result{}
		if b := s.Batch(batch); b != nil {
			for _, h := range b.Hosts {
				if rapid.IntRange(0, 3).Draw(t, "reported") > 0 {
					results[h.ID] = rapid.SampledFrom([]machine.Result{machine.OK, machine.OK, machine.OK, machine.Fail, machine.Skipped, machine.Missing}).Draw(t, "result")
				}
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "another host") == 0 {
			results[host] = machine.OK
		}
		return machine.Report{By: by, Batch: batch, Results: results, Done: rapid.IntRange(0, 4).Draw(t, "done") == 0}
	case 7:
		return machine.Finish{By: by}
	case 8:
		return rapid.SampledFrom([]machine.Event{machine.Renew{By: by}, machine.AgentAborts{By: by}, machine.AgentRollsBack{By: by}, machine.Abort{}, machine.Rollback{},
			machine.Leave{By: by}, machine.Revoked{Run: run}, machine.Stop{}}).Draw(t, "drastic")
	case 9:
		return machine.Start{}
	case 10:
		return machine.Approved{Subject: subject, Until: now.Add(time.Hour)}
	case 11:
		return machine.Denied{Subject: subject}
	case 12, 13:
		return machine.Resume{}
	case 14, 15:
		return machine.Shut{Batch: batch}
	case 16, 17, 18:
		return machine.Verified{Host: host, Sealed: rapid.IntRange(0, 9).Draw(t, "sealed") > 0, At: now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "minutes ago")) * time.Minute)}
	case 19, 20:
		return machine.Entered{Host: host, At: now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "entered minutes ago")) * time.Minute), Why: "somebody was on it"}
	case 21:
		return machine.Measured{Batch: batch, Gate: gate, Outcome: rapid.SampledFrom([]machine.Verdict{machine.Pass, machine.Pass, machine.NoPass, machine.Unclear}).Draw(t, "outcome")}
	}
	return machine.Tick{}
}

// Whatever happens in whatever order, by whomever and at whatever times, a deployment
// holds to its promises; and from wherever it is, it can be brought to an end.
func TestDeploymentsKeepTheirPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := terms(t)
		m := &model{t: t, p: p, now: start, s: machine.New(p, start)}
		m.step(machine.Start{})
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.now = m.now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 30, 60, 600, 3600, -120}).Draw(t, "seconds")) * time.Second)
			m.step(event(t, p, m.s, m.now))
			m.mint()
		}
		m.end()
	})
}

type model struct {
	t   *rapid.T
	p   *plan.Terms
	now time.Time
	s   machine.State
}

// step takes one event and checks what must hold of every step.
func (m *model) step(e machine.Event) error {
	t, before := m.t, m.s
	kept, _ := json.Marshal(before)
	after, effects, err := machine.Step(m.p, before, e, m.now)
	if again, _ := json.Marshal(before); string(kept) != string(again) {
		t.Fatalf("%T changed the state that it was given", e)
	}
	if err != nil {
		if len(effects) != 0 || !reflect.DeepEqual(after, before) {
			t.Fatalf("%T was refused and did something", e)
		}
		return err
	}
	// A process that dies reads the state back.
	text, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	var read machine.State
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(read); string(again) != string(text) {
		t.Fatalf("the state does not survive a restart:\n%s\n%s", text, again)
	}
	m.s = read
	m.invariants(before, effects)
	m.fenced(before, e)
	return nil
}

// fenced: what an agent does succeeds only with the lease, in its epoch.
func (m *model) fenced(before machine.State, e machine.Event) {
	var by machine.By
	switch e := e.(type) {
	case machine.Renew:
		by = e.By
	case machine.OpenBatch:
		by = e.By
	case machine.Report:
		by = e.By
	case machine.Finish:
		by = e.By
	case machine.AgentAborts:
		by = e.By
	case machine.AgentRollsBack:
		by = e.By
	default:
		return
	}
	if by.Run != before.Holder || by.Epoch != before.Epoch || !later(m.now, before.At).Before(before.Lease) {
		m.t.Fatalf("%T by %+v was taken; run %q has epoch %d until %s, and it is %s", e, by, before.Holder, before.Epoch, before.Lease, m.now)
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (m *model) invariants(before machine.State, effects []machine.Effect) {
	t, s := m.t, m.s
	current := 0
	for i, b := range s.Batches {
		if b.Number != i+1 {
			t.Fatalf("batch %d stands at %d", b.Number, i)
		}
		switch b.Phase {
		case machine.Open, machine.Closing, machine.Sealing, machine.Soaking, machine.Gating:
			current++
		}
		for _, h := range b.Hosts {
			if (h.Phase == machine.HostOpen || h.Phase == machine.HostDeployed) && b.Phase != machine.Open {
				t.Fatalf("host %s is %s in batch %d, which is %s", h.ID, h.Phase, b.Number, b.Phase)
			}
			if h.Phase == machine.HostVerifying && b.Phase != machine.Closing && b.Phase != machine.Sealing && (h.Entered.IsZero() || b.Phase == machine.Passed && before.Batches[i].Phase == machine.Gating) {
				t.Fatalf("host %s is not sealed in batch %d, which is %s", h.ID, b.Number, b.Phase)
			}
			if h.Phase == machine.HostDrifted && b.Phase == machine.Soaking {
				t.Fatalf("host %s is %s and nothing comes of it", h.ID, h.Phase)
			}
		}
		if b.Phase == machine.Passed {
			for _, g := range b.Gates {
				if g.Verdict != machine.Pass {
					t.Fatalf("batch %d passed with gate %s: %s", b.Number, g.Name, g.Verdict)
				}
			}
			if !b.Rollback && len(b.Gates) != len(m.p.Batches[i].Gates) {
				t.Fatalf("batch %d passed without its gates", b.Number)
			}
			if soak := m.p.Batches; !b.Rollback && b.Gated.Before(b.Sealed.Add(soak[i].SoakTime())) {
				t.Fatalf("batch %d soaked from %s to %s only", b.Number, b.Sealed, b.Gated)
			}
			if b.Partial {
				t.Fatalf("batch %d passed with hosts that nobody reported", b.Number)
			}
		}
	}
	if current > 1 {
		t.Fatalf("%d batches are under way", current)
	}
	if s.Spent < before.Spent || s.At.Before(before.At) || s.Epoch < before.Epoch {
		t.Fatal("the budget, the time or the epoch went back")
	}
	if before.Phase.Over() && len(effects) > 0 {
		t.Fatalf("after the end came %+v", effects)
	}
	if s.Phase.Over() {
		for _, h := range s.Last() {
			if h.Phase != machine.HostSealed && h.Phase != machine.HostDrifted && h.Phase != machine.HostQuarantined {
				t.Fatalf("the deployment is %s and host %s is %s", s.Phase, h.ID, h.Phase)
			}
			if h.Phase != machine.HostSealed && (h.Why == "" && h.Phase == machine.HostQuarantined || s.Phase == machine.Complete) {
				t.Fatalf("the deployment is %s and host %s is %s: %q", s.Phase, h.ID, h.Phase, h.Why)
			}
		}
		if s.Holder != "" || len(s.Holds) != 0 {
			t.Fatal("what is over is held or leased")
		}
	}
	if s.Phase == machine.Complete {
		for _, b := range s.Batches {
			if b.Phase != machine.Passed || b.Rollback {
				t.Fatalf("complete with batch %d %s", b.Number, b.Phase)
			}
		}
	}
	m.effects(before, effects)
}

// effects: what happened on the way, which the state alone does not show.
func (m *model) effects(before machine.State, effects []machine.Effect) {
	t, now := m.t, m.s.At
	for _, e := range effects {
		if h, moved := e.(machine.HostMoved); moved && (h.To == machine.HostDrifted || h.To == machine.HostQuarantined) && m.s.Spent == 0 &&
			m.s.Phase != machine.Verifying && !m.s.Phase.Over() && len(m.s.Holds) == 0 && m.s.Phase != machine.RollingBack && m.s.Ending == "" {
			t.Fatalf("host %s is %s and nothing comes of it", h.Host, h.To)
		}
		e, ok := e.(machine.BatchMoved)
		if !ok {
			continue
		}
		b := m.s.Batches[e.Batch-1]
		switch e.To {
		case machine.Open:
			for _, earlier := range m.s.Batches[:e.Batch-1] {
				if !b.Rollback && earlier.Phase != machine.Passed {
					t.Fatalf("batch %d opened while %d is %s", e.Batch, earlier.Number, earlier.Phase)
				}
			}
			if !b.Rollback && (m.s.Spent > m.p.Failures || m.p.FrozenAt(now) != nil && !m.s.Overridden(now)) {
				t.Fatalf("batch %d opened with %d failures, at %s", e.Batch, m.s.Spent, now)
			}
			if len(before.Holds) > 0 {
				t.Fatal("a batch opened in a deployment that is held")
			}
		case machine.Soaking:
			if e.From != machine.Sealing {
				t.Fatalf("batch %d soaks after %s", e.Batch, e.From)
			}
		case machine.Gating:
			if e.From != machine.Soaking && e.From != machine.Inconclusive {
				t.Fatalf("batch %d is judged after %s", e.Batch, e.From)
			}
		case machine.Passed:
			if e.From != machine.Gating && !b.Rollback {
				t.Fatalf("batch %d passed after %s", e.Batch, e.From)
			}
		}
	}
}

// mint asks for certificates of every kind, and checks those that would be given.
func (m *model) mint() {
	for _, epoch := range []int64{m.s.Epoch, m.s.Epoch - 1} {
		for n := range len(m.s.Batches) + 2 {
			for h := range 10 {
				by := machine.By{Run: m.s.Holder, Epoch: epoch}
				mint, err := machine.MayMint(m.p, m.s, by, n, hostID(h), m.now)
				if err != nil {
					continue
				}
				b, now := m.s.Batch(n), later(m.now, m.s.At)
				if epoch != m.s.Epoch || m.s.Holder == "" || !now.Before(m.s.Lease) || b == nil || b.Phase != machine.Open || b.Epoch != epoch || len(m.s.Holds) > 0 {
					m.t.Fatalf("a certificate of batch %d, epoch %d, in %+v", n, epoch, m.s)
				}
				if !strings.Contains(fmt.Sprint(b.Hosts), hostID(h)) {
					m.t.Fatalf("a certificate for host %d, which is not in batch %d", h, n)
				}
				if mint.Until.After(m.s.Lease) || mint.Until.After(b.Opened.Add(m.p.OpenTime())) {
					m.t.Fatal("a certificate outlives its lease or its batch")
				}
				if f := m.p.FrozenAt(now); f != nil && !b.Rollback && (!m.s.Overridden(now) || mint.Until.After(m.s.Unfroze)) {
					m.t.Fatal("a certificate in a freeze")
				}
				if last := mint.Until.Add(-time.Second); last.Before(now.Add(policy.MaxAgentCertificate)) && m.p.FrozenAt(last) != nil && !b.Rollback && !m.s.Overridden(last) {
					m.t.Fatal("a certificate that is good in a freeze")
				}
			}
		}
	}
}

// end brings the deployment to an end, doing what everybody should.
func (m *model) end() {
	m.now = later(m.now, m.s.At).Add(time.Hour) // freezes are over
	for range 400 {
		if m.s.Phase.Over() {
			return
		}
		for _, task := range machine.Due(m.p, m.s, m.now) {
			switch task := task.(type) {
			case machine.ShutHosts:
				m.must(machine.Shut{Batch: task.Batch})
			case machine.VerifyHosts:
				for _, h := range task.Hosts {
					m.must(machine.Verified{Host: h, Sealed: true, At: m.now})
				}
			case machine.Measure:
				m.must(machine.Measured{Batch: task.Batch, Gate: task.Gate, Outcome: machine.Pass})
			}
		}
		by := machine.By{Run: "run-c", Epoch: m.s.Epoch}
		switch b := m.s.Next(); {
		case m.s.Phase.Over():
			return
		case m.s.Phase == machine.AwaitingApproval:
			m.must(machine.Approved{Subject: machine.Subject{Kind: machine.ToStart}})
		case m.s.Holder != "run-c":
			if err := m.step(machine.Attach{Run: "run-c"}); err != nil && !errors.Is(err, machine.ErrLeased) {
				m.t.Fatal(err)
			}
		case m.s.Current() != nil && m.s.Current().Phase == machine.Open:
			results := map[string]machine.Result{}
			for _, h := range m.s.Current().Hosts {
				if h.Result == "" {
					results[h.ID] = machine.OK
				}
			}
			m.must(machine.Report{By: by, Batch: m.s.Current().Number, Results: results})
		case m.s.Current() != nil && m.s.Current().Phase == machine.Gating:
			m.step(machine.Approved{Subject: machine.Subject{Kind: machine.ToPass, Batch: m.s.Current().Number, Gate: "people"}})
		case len(m.s.Holds) > 0:
			if m.step(machine.Resume{}) != nil {
				m.must(machine.Abort{Why: "it cannot go on"})
			}
		case m.s.Current() == nil && b != nil:
			if err := m.step(machine.OpenBatch{By: by, Batch: b.Number}); err != nil {
				m.must(machine.Abort{Why: err.Error()})
			}
		}
		wake := machine.Wake(m.p, m.s)
		if later(m.now.Add(30*time.Second), wake) == wake && m.s.Current() != nil && m.s.Current().Phase == machine.Soaking {
			m.now = m.s.At.Add(machine.WatchEvery)
		} else {
			m.now = m.now.Add(30 * time.Second)
		}
		m.step(machine.Tick{})
	}
	m.t.Fatalf("it does not end: %+v", m.s)
}

func (m *model) must(e machine.Event) {
	if err := m.step(e); err != nil && !errors.Is(err, machine.ErrOver) {
		m.t.Fatalf("%T: %v", e, err)
	}
}
