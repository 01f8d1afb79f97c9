package rollout_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
	"sallyport/internal/ids"
)

// visit is a session of a person on the host, as the host tells it.
func (s *scene) visit(host string) {
	s.t.Helper()
	now := s.clock.Now()
	_, err := s.pool.Exec(s.t.Context(), `
		INSERT INTO host_sessions (id, host_id, host_session, serial, login, client, started_at, ended_at, end_reason, alarm, reported_at)
		VALUES ($1, $2, md5($1), 7, 'deploy', '192.0.2.7', $3, $3, 'closed', '', $3)`, ids.New(ids.Session), host, now)
	must(s.t, err)
}

// keepFor lets time pass while the broker looks.
func (s *scene) keepFor(d time.Duration) {
	s.t.Helper()
	for end := s.clock.Now().Add(d); s.clock.Now().Before(end); s.clock.Advance(20 * time.Second) {
		must(s.t, s.Keep(s.t.Context()))
	}
}

// Somebody who comes to the canary while it is judged puts it in question: it does not
// pass before it has shown once more that it is sealed.
func TestAPersonsSessionReopensTheQuestion(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	s.until(j.id, 1, "soaking")
	canary := j.state().Batches[0].Hosts[0]
	s.clock.Advance(time.Second)
	s.visit(canary.ID)
	s.house.shown.set(canary.ID, gates.Posture{State: gates.Unknown})
	s.keepFor(30 * time.Minute)
	d, err := s.View(t.Context(), s.oncall, j.id)
	must(t, err)
	if h := d.Batches[0].Hosts[0]; d.Batches[0].State != "gating" || h.State != "verifying" || !strings.Contains(h.Why, "somebody was on it") {
		t.Errorf("batch 1 is %s, its host %s: %q", d.Batches[0].State, h.State, h.Why)
	}
	if len(d.Visits) != 1 || d.Visits[0].Host != canary.Name || d.Visits[0].EndedAt == nil {
		t.Errorf("who came: %+v", d.Visits)
	}
	if d := j.state(); len(d.Visits) != 0 {
		t.Error("agents are told who comes to hosts")
	}
	s.house.shown.set(canary.ID, gates.Posture{State: gates.Sealed})
	s.until(j.id, 1, "passed")
	var states []string
	for _, e := range s.events("batch.verified") {
		states = append(states, e.Data.(event.BatchVerified).State)
	}
	if got := strings.Join(states, " "); got != "sealed verifying sealed" {
		t.Errorf("in the log the host was %s", got)
	}
	s.check()
}

// And what such a person leaves open fails the batch.
func TestAttackCanaryAdjustedByAPerson(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	s.until(j.id, 1, "soaking")
	canary := j.state().Batches[0].Hosts[0]
	s.clock.Advance(time.Second)
	s.visit(canary.ID)
	s.house.shown.set(canary.ID, gates.Posture{State: gates.Drifted, Why: "a key in /root/.ssh/authorized_keys"})
	if d := s.until(j.id, 1, "failed"); d.Batches[0].Hosts[0].State != "drifted" || d.State != "held" {
		t.Errorf("a canary with a stray key: %+v", d.Batches[0])
	}
	s.check()
}

// A deployment that is complete says so of a host until it shows again that it is sealed.
func TestAVisitAfterTheEndIsShown(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-wide", "wide", one)
	j.deployBatch(1)
	d := s.until(j.id, 0, "complete")
	host := d.Batches[0].Hosts[1]
	see := func(want string) api.Deployment {
		t.Helper()
		d, err := s.View(t.Context(), s.auditor, j.id)
		must(t, err)
		if got := d.Batches[0].Hosts[1].State; got != want || d.Batches[0].Hosts[0].State != "sealed" || d.State != "complete" {
			t.Errorf("the host is shown as %s, not %s", got, want)
		}
		return d
	}
	s.clock.Advance(time.Hour)
	s.visit(host.ID)
	s.house.shown.set(host.ID, gates.Posture{State: gates.Unknown})
	if d := see("verifying"); len(d.Visits) != 1 {
		t.Errorf("who came: %+v", d.Visits)
	}
	s.house.shown.set(host.ID, gates.Posture{State: gates.Drifted, Why: "port 2222"})
	see("drifted")
	s.house.shown.set(host.ID, gates.Posture{State: gates.Sealed})
	see("sealed")
	// One that ends before it has opened the host does not take it away; the next does, and
	// what comes after that is that one's.
	visits := func(j *job, want int) {
		t.Helper()
		if d, err := s.View(t.Context(), s.auditor, j.id); err != nil || len(d.Visits) != want {
			t.Errorf("%s has visits %+v, want %d, %v", j.id, d.Visits, want, err)
		}
	}
	s.clock.Advance(time.Hour)
	short := s.deploy("github-wide", "wide", two)
	s.clock.Advance(time.Minute)
	s.visit(host.ID)
	visits(short, 1)
	_, err := s.Control(t.Context(), s.operator, short.id, api.ControlInput{Action: "abort", Reason: "not today"})
	must(t, err)
	visits(short, 0)
	visits(j, 2)
	s.clock.Advance(time.Hour)
	next := s.deploy("github-wide", "wide", two)
	next.deployBatch(1)
	s.until(next.id, 0, "complete")
	s.clock.Advance(time.Minute)
	s.visit(host.ID)
	visits(next, 1)
	visits(short, 0)
	visits(j, 2)
}

// A page of deployments is as each of them is shown, and is read with as many queries
// whether there are two of them or twenty.
func TestAPageOfDeploymentsTakesFewQueries(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	list := func() (items []api.Deployment, queries int64) {
		t.Helper()
		before := s.house.trips.Load()
		page, err := s.List(t.Context(), s.auditor, rollout.Filter{})
		must(t, err)
		return page.Items, s.house.trips.Load() - before
	}
	once := func() {
		t.Helper()
		j := s.deploy("github-wide", "wide", one)
		j.deployBatch(1)
		d := s.until(j.id, 0, "complete")
		s.clock.Advance(time.Minute)
		s.visit(d.Batches[0].Hosts[0].ID)
		s.clock.Advance(time.Minute)
	}
	once()
	once()
	_, few := list()
	for range 18 {
		once()
	}
	all, many := list()
	if len(all) != 20 || many > few+2 { // the pool asks a connection that was idle whether it still is one
		t.Errorf("%d deployments take %d queries, 2 take %d", len(all), many, few)
	}
	for _, d := range all {
		alone, err := s.View(t.Context(), s.auditor, d.ID)
		must(t, err)
		if !reflect.DeepEqual(d, alone) || len(d.Visits) != 1 {
			t.Errorf("in the list it is %+v\nalone %+v", d, alone)
		}
	}
	t.Logf("20 deployments take %d queries", many)
}

// A host of the service that can be opened holds its deployments until somebody has looked
// at it, whether it is a part of them or not, and whether it was found before or later.
func TestDriftHoldsTheServicesDeployments(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	held := func(j *job, host string) {
		t.Helper()
		_, err := j.batch(1)
		refused(t, err, machine.ErrHeld)
		if d := j.state(); d.State != "held" || d.Blockers[0].Code != machine.Drift || !strings.Contains(d.Blockers[0].Why, s.ids[host]) {
			t.Errorf("%s with blockers %+v", d.State, d.Blockers)
		}
		_, err = s.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "resume", Reason: "it is the backup's port"})
		must(t, err)
	}
	s.house.shown.set(s.ids["db-02"], gates.Posture{State: gates.Drifted, Why: "port 2222"})
	// Of another host of the service.
	j := s.deploy("github-wide", "wide", one, func(in *api.DeploymentInput) { in.Narrow.Hosts = []string{"db-01"} })
	held(j, "db-02")
	j.deployBatch(1)
	s.until(j.id, 0, "complete")
	// Of its own.
	j = s.deploy("github-wide", "wide", one)
	held(j, "db-02")
	s.keepFor(5 * time.Minute) // that it is so still, somebody has looked at
	j.again()
	s.house.shown.set(s.ids["db-02"], gates.Posture{State: gates.Sealed})
	j.deployBatch(1)
	s.until(j.id, 0, "complete")
	// And found while it is under way, on a host whose turn has not come.
	j = s.deploy("github-api", "api", two)
	last := j.state().Batches[2].Hosts[0]
	j.deployBatch(1)
	s.until(j.id, 1, "soaking")
	s.house.shown.set(last.ID, gates.Posture{State: gates.Drifted, Why: "a getty"})
	s.until(j.id, 1, "passed")
	j.again()
	_, err := j.batch(2)
	refused(t, err, machine.ErrHeld)
	_, err = s.tryOpen(s.run("github-api"), "api", one)
	refused(t, err, rollout.ErrOtherRunning)
	s.check()
}
