package rollout_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

// A run that lost its lease is a stranger, however late it comes back and whatever it
// asks for; what it had open closes, and another run goes on.
func TestAttackStaleRunner(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	d, err := j.batch(1)
	must(t, err)
	host := d.Batches[0].Hosts[0].Name
	s.clock.Advance(10 * time.Minute) // nobody has looked since
	_, err = j.cert(1, host)
	refused(t, err, machine.ErrStale)
	_, err = j.report(1, map[string]string{host: "ok"})
	refused(t, err, machine.ErrStale)
	_, err = j.batch(1)
	refused(t, err, machine.ErrStale)
	s.until(j.id, 1, "inconclusive")
	if d := j.state(); d.State != "held" || d.Blockers[0].Code != machine.LeaseLost || s.count(`SELECT count(*) FROM deployment_hosts WHERE open_until IS NOT NULL`) != 0 {
		t.Errorf("after the lease was lost: %+v", d)
	}
	second := s.deploy("github-api", "api", one)
	for name, try := range map[string]func() error{
		"batch":       func() error { _, err := j.batch(1); return err },
		"abort":       func() error { _, err := s.Abort(t.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch}); return err },
		"rollback":    func() error { _, err := s.Rollback(t.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch}); return err },
		"finish":      func() error { _, err := s.Finish(t.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch}); return err },
		"new epoch":   func() error { stolen := *j; stolen.epoch = second.epoch; _, err := stolen.batch(1); return err },
		"older epoch": func() error { mine := *second; mine.epoch--; _, err := mine.batch(1); return err },
	} {
		if err := try(); !errors.Is(err, machine.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	second.deployBatch(1)
	s.until(j.id, 1, "passed")
	if n := len(s.events("deployment.refused")); n < 9 {
		t.Errorf("%d refusals are in the log", n)
	}
	s.check()
}

func TestAttackBatchTwoBeforeOne(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	for _, n := range []int{2, 3} {
		_, err := j.batch(n)
		refused(t, err, machine.ErrBatchBefore)
		_, err = j.cert(n, "api-05")
		refused(t, err, machine.ErrBatchState)
	}
	for _, n := range []int{0, 4, -1, 1 << 40} {
		_, err := j.batch(n)
		refused(t, err, machine.ErrNoBatch)
		_, err = j.cert(n, "api-05")
		refused(t, err, machine.ErrNoBatch)
	}
	if n := s.count(`SELECT count(*) FROM deployment_certificates`); n != 0 {
		t.Errorf("%d certificates", n)
	}
	s.check()
}

func TestAttackCertificateForAHostOfAnotherBatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	for _, host := range []string{"api-02", s.ids["api-02"], "db-01", s.ids["db-01"], "", "*", "host-000000000000"} {
		_, err := j.cert(1, host)
		refused(t, err, machine.ErrOtherBatch)
	}
	_, err = j.cert(2, "api-02")
	refused(t, err, machine.ErrBatchState)
	// Nor does an agent of another trust entry know of it.
	_, err = s.Certificate(t.Context(), s.run("github-db"), j.id, api.AgentCertificateInput{Epoch: j.epoch, Batch: 1, Host: "api-01"})
	refused(t, err, rollout.ErrUnknown)
	_, err = s.tryOpen(s.run("github-db"), "api", one)
	refused(t, err, rollout.ErrNotAllowed)
	// And of a host that has been reported there is no more.
	_, err = j.cert(1, "api-01")
	must(t, err)
	must(t, func() error { _, err := j.report(1, map[string]string{"api-01": "ok"}); return err }())
	_, err = j.cert(1, "api-01")
	if !errors.Is(err, machine.ErrBatchState) && !errors.Is(err, machine.ErrReported) {
		t.Errorf("a certificate for a host that was reported: %v", err)
	}
	s.check()
}

// A freeze that begins while a batch is open stops what would be issued next, and what
// was issued before ends by then; the next batch waits, unless people let it go on.
func TestAttackFreezeStartsMidBatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.clock.Advance(4*time.Hour + 58*time.Minute) // 17:58 in Berlin
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	got, err := j.cert(1, "api-01")
	must(t, err)
	if freeze := start.Truncate(time.Hour).Add(5 * time.Hour); got.ValidBefore.After(freeze) {
		t.Errorf("a certificate is good until %s, in the freeze", got.ValidBefore)
	}
	s.clock.Advance(3 * time.Minute)
	_, err = j.cert(1, "api-01")
	refused(t, err, machine.ErrFrozen)
	_, err = j.report(1, map[string]string{"api-01": "ok"})
	must(t, err)
	s.until(j.id, 1, "passed")
	j.again()
	_, err = j.batch(2)
	refused(t, err, machine.ErrFrozen)

	until := s.clock.Now().Add(30 * time.Minute)
	say := func(c identity.Caller, why string, until *time.Time) error {
		_, err := s.Decide(t.Context(), c, j.id, api.DeploymentDecisionInput{About: "override", Verdict: api.Approve, Comment: why, Until: until})
		return err
	}
	refused(t, say(s.lead, "", &until), rollout.ErrReason)
	refused(t, say(s.lead, "a fix", nil), rollout.ErrUntil)
	long := s.clock.Now().Add(25 * time.Hour)
	refused(t, say(s.lead, "a fix", &long), rollout.ErrUntil)
	refused(t, say(s.security, "a fix", &until), rollout.ErrNotApprover) // the second stage
	refused(t, say(s.oncall, "a fix", &until), rollout.ErrNotApprover)   // who may stop it, no more
	must(t, say(s.lead, "customers cannot sign in", &until))
	_, err = j.batch(2)
	refused(t, err, machine.ErrFrozen)
	later := until.Add(time.Hour)
	must(t, say(s.security, "agreed", &later)) // the earlier of the two counts
	d, err := j.batch(2)
	must(t, err)
	got, err = j.cert(2, d.Batches[1].Hosts[0].Name)
	must(t, err)
	s.clock.Advance(until.Sub(s.clock.Now()))
	j.again()
	_, err = j.cert(2, d.Batches[1].Hosts[1].Name)
	if !errors.Is(err, machine.ErrFrozen) && !errors.Is(err, machine.ErrBatchState) {
		t.Errorf("after the override: %v", err)
	}
	if list := s.events("deployment.unfrozen"); len(list) != 1 || len(list[0].Data.(event.DeploymentUnfrozen).Decisions) != 2 {
		t.Errorf("the override in the log: %+v", list)
	}
	s.check()
}

// A gate that passes and fails in turns does not pass: failures add up, and passes count
// in a row.
func TestAttackGateFlapping(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-edge", "edge", one)
	canary := j.state().Batches[0].Hosts[0].ID
	j.deployBatch(1)
	s.until(j.id, 1, "gating")
	for i := range 6 {
		bad := gates.Posture{State: gates.Sealed, Ports: []int{443, 6379}}
		if i%2 == 0 {
			bad.Ports = []int{443}
		}
		s.house.shown.set(canary, bad)
		must(t, s.Keep(t.Context()))
		s.clock.Advance(30 * time.Second)
	}
	if d := s.until(j.id, 1, "failed"); d.State != "held" { // there is nothing to roll back to
		t.Errorf("a gate that flaps: %s", d.State)
	}
	s.check()
}

// Hosts that show nothing are never taken for sealed: they end in quarantine, by name.
func TestAttackSilentHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.house.shown.says(func(f *shown) { f.silent = true })
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	d := s.until(j.id, 1, "failed")
	if h := d.Batches[0].Hosts[0]; h.State != "quarantined" || h.Why == "" || d.Spent != 1 {
		t.Errorf("a host that shows nothing: %+v, %d spent", h, d.Spent)
	}
	_, err := s.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "abort", Reason: "it cannot be verified"})
	must(t, err)
	s.until(j.id, 0, "aborted")
	moved := s.events("deployment.moved")
	if last := moved[len(moved)-1].Data.(event.DeploymentMoved); len(last.Unsealed) != 1 {
		t.Errorf("the end names %q", last.Unsealed)
	}
	s.check()
}

// A stop closes what is open at once, and nothing is issued until somebody resumes.
func TestAttackStopMidBatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	_, err = s.Control(t.Context(), s.engineer, j.id, api.ControlInput{Action: "stop", Reason: "I do not like it"})
	refused(t, err, rollout.ErrUnknown)
	_, err = s.Control(t.Context(), s.lead, j.id, api.ControlInput{Action: "stop", Reason: "I do not like it"})
	refused(t, err, rollout.ErrNotYours)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "stop"})
	refused(t, err, rollout.ErrReason)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "stop", Reason: "errors everywhere"})
	must(t, err)
	_, err = j.cert(1, "api-01")
	refused(t, err, machine.ErrHeld)
	_, err = j.report(1, map[string]string{"api-01": "ok"})
	refused(t, err, machine.ErrBatchState)
	s.until(j.id, 1, "inconclusive")
	_, err = j.batch(1)
	refused(t, err, machine.ErrHeld)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "resume", Reason: "it was the network"})
	must(t, err)
	j.deployBatch(1)
	s.until(j.id, 1, "passed")
	s.check()
}

// A run that is revoked loses its lease in the same transaction.
func TestAttackRevokedRun(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	must(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		return s.RunRevoked(t.Context(), tx, j.run.ID, "its token was seen with two keys")
	}))
	_, err = j.cert(1, "api-01")
	refused(t, err, machine.ErrStale)
	if d := s.until(j.id, 1, "inconclusive"); d.State != "held" || d.Blockers[0].Why != "its token was seen with two keys" {
		t.Errorf("after the revocation: %+v", d.Blockers)
	}
	s.check()
}

// A replica whose clock is wrong neither ends a lease nor shortens a soak: all go by the
// database's. And where one clock is given, time does not go back.
func TestAttackClockSkew(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	wrong := s.house.open(func(c *rollout.Config) { c.Clock = clock.NewManual(start.Add(-time.Hour)) })
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	s.clock.Advance(5 * time.Minute)
	_, err = j.report(1, nil) // renews the lease, and is the last step
	must(t, err)
	late := *j
	late.p = wrong
	got, err := late.cert(1, "api-01")
	must(t, err)
	if got.ValidAfter.Before(start.Add(3 * time.Minute)) {
		t.Errorf("a certificate was backdated to %s by a clock that is behind", got.ValidAfter)
	}
	s.clock.Advance(10 * time.Minute)
	_, err = j.batch(1)
	refused(t, err, machine.ErrStale)
	s.until(j.id, 1, "inconclusive")
	_, err = late.cert(1, "api-01") // to its clock, the lease had an hour left
	refused(t, err, machine.ErrStale)

	shared := s.house.open(func(c *rollout.Config) { c.Clock = nil })
	d, err := shared.View(t.Context(), s.auditor, j.id)
	must(t, err)
	if d.State != "held" {
		t.Errorf("by the database's clock it is %s", d.State)
	}
}

// Somebody who can write the database says that it was approved, that a batch is open, or
// that the terms are others: no certificate comes of it.
func TestAttackSuperuser(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	admin, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
	must(t, err)
	defer admin.Close(context.Background())
	forge := func(id, path, value string) {
		t.Helper()
		_, err := admin.Exec(t.Context(), `UPDATE deployments SET state = jsonb_set(state, $2::text[], $3::jsonb) WHERE id = $1`, id, path, value)
		must(t, err)
	}
	j := s.deploy("github-db", "db", one)
	forge(j.id, "{phase}", `"active"`)
	_, err = j.batch(1)
	refused(t, err, rollout.ErrEvidence)
	forge(j.id, "{batches,0,phase}", `"open"`)
	forge(j.id, "{batches,0,epoch}", `"1"`)
	forge(j.id, "{batches,0,opened}", `"2026-03-02T12:00:00Z"`)
	forge(j.id, "{batches,0,hosts,0,phase}", `"open"`)
	_, err = j.cert(1, j.state().Batches[0].Hosts[0].Name)
	refused(t, err, rollout.ErrUnlogged)
	if r := refusal.As(err); r == nil || r.Kind != refusal.Unavailable {
		t.Errorf("it is the caller's fault: %v", err)
	}
	// A decision that nobody made.
	_, err = admin.Exec(t.Context(), `
		INSERT INTO deployment_decisions (id, deployment_id, position, about, person_id, statement, statement_hash, note, decided_at)
		VALUES ('dec-000000000000', $1, 1, 'start', $2, '{}', encode(sha256('{}'), 'hex'), '', now())`, j.id, s.lead.ID)
	must(t, err)
	forge(j.id, "{batches,0,phase}", `"pending"`)
	_, err = j.batch(1)
	refused(t, err, rollout.ErrEvidence)
	// Other terms.
	for _, sql := range []string{
		`UPDATE deployments SET terms = replace(convert_from(terms, 'UTF8'), '/usr/local/bin/deploy-db', '/bin/sh')::bytea`,
		`DELETE FROM deployments`, `UPDATE deployment_decisions SET person_id = person_id`, `TRUNCATE deployment_certificates`,
		`UPDATE deployment_hosts SET batch = 2`, `UPDATE deployments SET epoch = -1`,
	} {
		if _, err := admin.Exec(t.Context(), sql); err == nil {
			t.Errorf("the database let its owner do: %s", sql)
		}
	}
	if n := s.count(`SELECT count(*) FROM deployment_certificates`); n != 0 {
		t.Errorf("%d certificates", n)
	}
}

// P1: whichever step of the log fails, there is no certificate.
func TestP1_NoAuditNoAgentCredential(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := j.batch(1)
	must(t, err)
	for _, step := range []string{"lock", "append", "commit"} {
		fail := func(at string) error {
			if at == step {
				return errors.New("injected")
			}
			return nil
		}
		s.house.fault.Store(&fail)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		got, err := s.Certificate(ctx, j.run, j.id, api.AgentCertificateInput{Epoch: j.epoch, Batch: 1, Host: "api-01"})
		cancel()
		if err == nil || got.Certificate.Certificate != "" {
			t.Errorf("at %s: a certificate without its event", step)
		}
	}
	s.house.fault.Store(nil)
	_, err = j.cert(1, "api-01")
	must(t, err)
	s.check()
}
