package rollout_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/machine"
	"sallyport/internal/pgtest"
)

// Of two deployments that want the same hosts at the same instant, in two processes, one
// has all of them and the other none.
func TestAttackTwoDeploymentsAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	other := s.house.open()
	for range 5 {
		api, db := s.run("github-api"), other.run("github-db")
		first, then := make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.tryOpen(api, "api", one); first <- err }()
		go func() { _, err := other.tryOpen(db, "db", two); then <- err }()
		errs := []error{<-first, <-then}
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, rollout.ErrHostBusy):
				t.Errorf("refused with %v", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d of two deployments have the hosts: %v", won, errs)
		}
		if n := s.count(`SELECT count(*) FROM (SELECT host_id FROM deployment_hosts WHERE released_at IS NULL GROUP BY host_id HAVING count(*) > 1) AS twice`); n != 0 {
			t.Fatalf("%d hosts are in two deployments", n)
		}
		var id string
		must(t, s.pool.QueryRow(t.Context(), `SELECT id FROM deployments WHERE ended_at IS NULL`).Scan(&id))
		_, err := s.Control(t.Context(), s.operator, id, controlAbort)
		must(t, err)
		s.until(id, 0, "aborted")
	}
	s.check()
}

// Whoever asks for certificates as fast as they can while the batch closes gets none that
// the closing does not end: in the log each lies before it, and the sealing is younger.
func TestAttackCertificatesWhileTheBatchCloses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	s.until(j.id, 1, "passed")
	j.again()
	d, err := j.batch(2)
	must(t, err)
	var all sync.WaitGroup
	issued := make(chan struct{}, 1)
	for _, h := range d.Batches[1].Hosts {
		for range 3 {
			all.Go(func() {
				for {
					_, err := j.cert(2, h.Name)
					switch {
					case err == nil:
						select {
						case issued <- struct{}{}:
						default:
						}
					case errors.Is(err, rollout.ErrTooManyCertificates), errors.Is(err, machine.ErrBatchState), errors.Is(err, machine.ErrHeld):
						return
					default:
						t.Errorf("refused with %v", err)
						return
					}
				}
			})
		}
	}
	<-issued
	_, err = s.Control(t.Context(), s.oncall, j.id, controlStop)
	must(t, err)
	all.Wait()
	s.until(j.id, 2, "inconclusive")
	if n := s.count(`
		SELECT count(*) FROM deployment_certificates AS c WHERE NOT EXISTS (SELECT FROM revocations AS r
			WHERE r.what = 'sealed' AND r.deployment_id = c.deployment_id AND r.host_id = c.host_id AND r.at >= c.issued_at)`); n != 0 {
		t.Errorf("%d certificates outlive their batch", n)
	}
	s.check()
}

// The database is killed with a batch open, and comes back: while it is gone nobody gets
// anything, and then the deployment goes on where it was.
func TestAttackDatabaseLostAndBack(t *testing.T) {
	t.Parallel()
	var restart func(context.Context) error
	var kill func()
	s := newSceneIn(t, func(h *house) {
		c, db := pgtest.NewCluster(t, true)
		h.db, restart, kill = db, c.Restart, c.Kill
	})
	j := s.deploy("github-edge", "edge", one)
	must(t, second(j.batch(1)))
	canary := j.state().Batches[0].Hosts[0].Name
	must(t, second(j.cert(1, canary)))
	kill()
	for what, err := range map[string]error{"certificate": second(j.cert(1, canary)), "report": second(j.report(1, map[string]string{canary: "ok"})),
		"batch": second(j.batch(1)), "open": second(s.tryOpen(j.run, "edge", one)), "keep": s.Keep(t.Context())} {
		if err == nil {
			t.Errorf("%s: without a database", what)
		}
	}
	must(t, restart(t.Context()))
	s.eventually(func() bool { return s.pool.Ping(t.Context()) == nil })
	s.eventually(func() bool { return second(j.cert(1, canary)) == nil })
	s.eventually(func() bool { return second(j.report(1, map[string]string{canary: "ok"})) == nil })
	s.until(j.id, 1, "passed")
	j.again()
	j.deployBatch(2)
	s.until(j.id, 0, "complete")
	s.check()
}

// A freeze that nobody overrode holds, whatever somebody wrote into the database.
func TestAttackOverrideThatNobodyGave(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.clock.Advance(5*time.Hour + time.Minute) // 18:01 in Berlin
	j := s.deploy("github-api", "api", one)
	refused(t, second(j.batch(1)), machine.ErrFrozen)
	admin, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
	must(t, err)
	defer admin.Close(context.Background())
	until := s.clock.Now().Add(time.Hour)
	forge := func() {
		t.Helper()
		_, err = admin.Exec(t.Context(), `UPDATE deployments SET state = jsonb_set(state, '{unfroze}', to_jsonb($1::text))`, until.Format(time.RFC3339Nano))
		must(t, err)
	}
	forge()
	refused(t, second(j.batch(1)), rollout.ErrEvidence)
	// Nor does one that ended serve for another.
	_, err = admin.Exec(t.Context(), `UPDATE deployments SET state = state - 'unfroze'`)
	must(t, err)
	short := s.clock.Now().Add(2 * time.Minute)
	for _, who := range []identity.Caller{s.lead, s.security} {
		_, err := s.Decide(t.Context(), who, j.id, override(short))
		must(t, err)
	}
	must(t, second(j.batch(1)))
	s.clock.Advance(3 * time.Minute)
	refused(t, second(j.cert(1, "api-01")), machine.ErrFrozen)
	forge()
	refused(t, second(j.cert(1, "api-01")), rollout.ErrEvidence)
	if n := len(s.events("deployment.unfrozen")); n != 1 {
		t.Errorf("%d overrides are in the log", n)
	}
}

func override(until time.Time) api.DeploymentDecisionInput {
	return api.DeploymentDecisionInput{About: "override", Verdict: api.Approve, Comment: "customers cannot sign in", Until: &until}
}

var (
	controlAbort = api.ControlInput{Action: "abort", Reason: "another day"}
	controlStop  = api.ControlInput{Action: "stop", Reason: "errors everywhere"}
)
