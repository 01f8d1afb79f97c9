package agents_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/agents"
	"sallyport/internal/agenttest"
)

func TestReplayedToken(t *testing.T) {
	t.Parallel()
	for _, p := range []policy.AgentProvider{policy.GitHub, policy.GitLab, policy.SPIFFE} { // bound, jti, no jti
		k := newKit(t, p)
		j := k.job()
		token := j.Token(t, k.issuers[p])
		call := j.First(t, "POST", opening, body, token)
		run, err := k.Redeem(t.Context(), token, call, nothing)
		must(t, err)
		// The very call, by whoever saw it, and the same token signed anew.
		_, err = k.Redeem(t.Context(), token, call, nothing)
		k.refused(err, agents.ErrTokenRedeemed)
		_, err = k.redeem(j, token)
		k.refused(err, agents.ErrTokenRedeemed)
		// Neither harms the run: its own answer may have got lost.
		if again, err := k.Authenticate(t.Context(), j.Call(t, "POST", opening, body)); err != nil || again.ID != run.ID {
			t.Errorf("%s: %v", p, err)
		}
		if k.runs() != 1 || len(k.leaves("agent.token_shared")) != 0 {
			t.Errorf("%s: %d runs", p, k.runs())
		}
	}
}

// The thief is first; when the job comes, both are out, and everybody hears of it.
func TestStolenTokenRedeemedFirstWithAnotherKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	var told []string
	k.OnRevoke(func(ctx context.Context, tx pgx.Tx, run agents.Run) error {
		told = append(told, run.ID)
		return nil
	})
	job, thief := k.job(), k.job()
	thief.Source = "198.51.100.66"
	token := job.Token(t, k.issuers[policy.GitLab])
	stolen, err := k.redeem(thief, token)
	must(t, err)
	if _, err := k.Authenticate(t.Context(), thief.Call(t, "POST", opening, nil)); err != nil {
		t.Fatal(err)
	}
	_, err = k.redeem(job, token)
	k.refused(err, agents.ErrTokenShared)
	_, err = k.Authenticate(t.Context(), thief.Call(t, "POST", opening, nil))
	k.refused(err, agents.ErrRunOver, "second key")
	_, err = k.Authenticate(t.Context(), job.Call(t, "POST", opening, nil))
	k.refused(err, agents.ErrRunOver)
	if len(told) != 1 || told[0] != stolen.ID {
		t.Errorf("what was stopped: %v", told)
	}
	alarms := k.leaves("agent.token_shared")
	if len(alarms) != 1 || !strings.Contains(alarms[0], `"first_source":"198.51.100.66"`) || !strings.Contains(alarms[0], `"source":"192.0.2.7"`) ||
		!strings.Contains(alarms[0], `"revoked":true`) {
		t.Errorf("alarms: %s", alarms)
	}
	if revoked := k.leaves("agent.revoked"); len(revoked) != 1 || !strings.Contains(revoked[0], stolen.ID) {
		t.Errorf("revoked: %s", revoked)
	}
	// Further attempts are refused, and no further alarms.
	_, err = k.redeem(job, token)
	k.refused(err, agents.ErrTokenShared)
	_, err = k.redeem(k.job(), token)
	k.refused(err, agents.ErrTokenShared)
	_, err = k.redeem(thief, token)
	k.refused(err, agents.ErrTokenRedeemed)
	if n := len(k.leaves("agent.token_shared")); n != 1 {
		t.Errorf("%d alarms", n)
	}
}

// The job is first, and the thief too late, also for the token's time: he is noticed.
func TestStolenTokenShownAfterItsTime(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j := k.job()
	token := j.Token(t, k.issuers[policy.GitLab])
	if _, err := k.redeem(j, token); err != nil {
		t.Fatal(err)
	}
	k.clock.Advance(2 * time.Hour)
	_, err := k.redeem(k.job(), token)
	k.refused(err, agents.ErrTokenShared)
	if len(k.leaves("agent.token_shared")) != 1 {
		t.Error("no alarm")
	}
}

// A token that the issuer bound is worth nothing to a thief, neither before nor after
// the job, and he cannot end the job's run with it.
func TestStolenTokenThatIsBoundToTheKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	job, thief := k.job(), k.job()
	token := job.Token(t, k.issuers[policy.GitHub])
	_, err := k.redeem(thief, token)
	k.refused(err, agents.ErrNotBound)
	thief.Nonce = job.Nonce // which stands in the call that he saw
	_, err = k.redeem(thief, token)
	k.refused(err, agents.ErrNotBound)

	run, err := k.redeem(job, token)
	must(t, err)
	_, err = k.redeem(thief, token)
	k.refused(err, agents.ErrTokenShared)
	if alarms := k.leaves("agent.token_shared"); len(alarms) != 1 || !strings.Contains(alarms[0], `"revoked":false`) {
		t.Errorf("alarms: %s", alarms)
	}
	if again, err := k.Authenticate(t.Context(), job.Call(t, "POST", opening, nil)); err != nil || again.ID != run.ID {
		t.Errorf("the job is out: %v", err)
	}
	// The right key with another nonce than the token's.
	late := k.job()
	token = late.Token(t, k.issuers[policy.GitHub])
	late.Nonce = k.job().Nonce
	_, err = k.redeem(late, token)
	k.refused(err, agents.ErrNotBound)
}

// Of many who show one token at once, with keys of their own, at most one gets in, and
// not for long.
func TestRaceForAToken(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	token := k.job().Token(t, k.issuers[policy.GitLab])
	const racers = 8
	jobs := make([]*agenttest.Job, racers)
	errs := make([]error, racers)
	var all sync.WaitGroup
	for i := range jobs {
		jobs[i] = k.job()
		call := jobs[i].First(t, "POST", opening, body, token)
		all.Go(func() { _, errs[i] = k.Redeem(t.Context(), token, call, nothing) })
	}
	all.Wait()
	in := 0
	for i, err := range errs {
		if err == nil {
			in++
		} else if !errors.Is(err, agents.ErrTokenShared) {
			t.Errorf("racer %d: %v", i, err)
		}
		_, err := k.Authenticate(t.Context(), jobs[i].Call(t, "POST", opening, nil))
		k.refused(err, agents.ErrRunOver)
	}
	if in != 1 || k.runs() != 1 || len(k.leaves("agent.revoked")) != 1 {
		t.Errorf("%d got in, %d runs", in, k.runs())
	}
}

// One key for all jobs is one that is kept somewhere.
func TestKeyOfAnotherRun(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	_, err := k.redeem(j, j.Token(t, k.issuers[policy.GitLab]))
	k.refused(err, agents.ErrKeyReused)
}

func TestReplayedCall(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	call := j.Call(t, "POST", opening+"/dep-1/abort", []byte(`{}`))
	if _, err := k.Authenticate(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	_, err := k.Authenticate(t.Context(), call)
	k.refused(err, agents.ErrReplayed)
	k.clock.Advance(agents.Skew + time.Second)
	_, err = k.Authenticate(t.Context(), call)
	k.refused(err, agents.ErrProof, "1m0s")
	// It is remembered for longer than it is good, and then forgotten.
	if _, err := k.Authenticate(t.Context(), j.Call(t, "GET", opening+"/dep-1", nil)); err != nil {
		t.Fatal(err)
	}
	k.clock.Advance(10 * time.Minute)
	k.admitted(policy.GitLab)
	var left int
	must(t, k.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM agent_calls`).Scan(&left))
	if left != 0 {
		t.Errorf("%d calls are remembered for ever", left)
	}
}

func TestOneNonceOfManyAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	call := j.Call(t, "POST", opening+"/dep-1/batches/1", nil)
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = k.Authenticate(t.Context(), call) })
	}
	all.Wait()
	taken := 0
	for _, err := range errs {
		if err == nil {
			taken++
		} else if !errors.Is(err, agents.ErrReplayed) {
			t.Error(err)
		}
	}
	if taken != 1 {
		t.Errorf("the call counted %d times", taken)
	}
}

// A call is good as it was signed: for nothing else, and by nobody else.
func TestCallThatWasChanged(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	other := k.job()
	stale := func(d time.Duration) func(*agents.Call) {
		return func(c *agents.Call) { c.Time = start.Add(d).Format("2006-01-02T15:04:05Z") }
	}
	for what, change := range map[string]func(*agents.Call){
		"another method":    func(c *agents.Call) { c.Method = "DELETE" },
		"another address":   func(c *agents.Call) { c.URL += "/batches/2" },
		"another query":     func(c *agents.Call) { c.URL += "?wait=1" },
		"another broker":    func(c *agents.Call) { c.URL = strings.Replace(c.URL, "broker", "evil", 1) },
		"another body":      func(c *agents.Call) { c.Body = []byte(`{"host":"db-1"}`) },
		"no body":           func(c *agents.Call) { c.Body = nil },
		"another nonce":     func(c *agents.Call) { c.Nonce = other.Nonce },
		"another time":      stale(time.Second),
		"another key":       func(c *agents.Call) { c.Key = other.First(t, "GET", "/", nil, "").Key },
		"no signature":      func(c *agents.Call) { c.Signature = "" },
		"no base64":         func(c *agents.Call) { c.Signature = "-----" + c.Signature },
		"an armor":          func(c *agents.Call) { c.Signature = "\n" + c.Signature },
		"a short nonce":     func(c *agents.Call) { c.Nonce = c.Nonce[:22] },
		"a nonce of spaces": func(c *agents.Call) { c.Nonce = strings.Repeat(" ", 43) },
		"a time in words":   func(c *agents.Call) { c.Time = "now" },
		"a time elsewhere":  func(c *agents.Call) { c.Time = "2026-03-01T13:00:00+01:00" },
	} {
		call := j.Call(t, "POST", opening+"/dep-1", []byte(`{}`))
		change(&call)
		if _, err := k.Authenticate(t.Context(), call); !errors.Is(err, agents.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(k.leaves("agent.refused")); n != 16 {
		t.Errorf("%d of 16 attempts are in the log", n)
	}
	for what, change := range map[string]func(*agents.Call){
		"too long ago": stale(-62 * time.Second), "too far in the future": stale(62 * time.Second), "for ever": stale(87600 * time.Hour),
	} {
		call := j.Call(t, "POST", opening+"/dep-1", []byte(`{}`))
		change(&call)
		if _, err := k.Authenticate(t.Context(), j.Resign(t, call, "")); !errors.Is(err, agents.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, d := range []time.Duration{-59 * time.Second, 59 * time.Second} {
		call := j.Call(t, "POST", opening+"/dep-1", []byte(`{}`))
		stale(d)(&call)
		if _, err := k.Authenticate(t.Context(), j.Resign(t, call, "")); err != nil {
			t.Errorf("a clock that is %s off: %v", d, err)
		}
	}
	call := j.Call(t, "POST", opening, nil)
	call.Key = "ssh-rsa AAAA"
	if _, err := k.Authenticate(t.Context(), call); err == nil {
		t.Error("an unreadable key is taken")
	}
	// The first call's signature is for that token, and a later call's for none.
	token := other.Token(t, k.issuers[policy.GitLab])
	_, err := k.Redeem(t.Context(), token, other.First(t, "POST", opening, body, "another"), nothing)
	k.refused(err, agents.ErrProof)
	_, err = k.Redeem(t.Context(), token, other.Call(t, "POST", opening, body), nothing)
	k.refused(err, agents.ErrProof)
	_, err = k.Authenticate(t.Context(), other.First(t, "POST", opening, body, token))
	k.refused(err, agents.ErrProof)
}

func TestRunsEnd(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, run := k.admitted(policy.GitLab)
	k.clock.Advance(time.Hour - time.Millisecond)
	if _, err := k.Authenticate(t.Context(), j.Call(t, "GET", opening, nil)); err != nil {
		t.Error(err)
	}
	k.clock.Advance(time.Millisecond)
	_, err := k.Authenticate(t.Context(), j.Call(t, "GET", opening, nil))
	k.refused(err, agents.ErrRunOver, "time is up")

	j, run = k.admitted(policy.GitLab)
	operator := agents.Revoker{Actor: event.Actor{Kind: event.Person, ID: "per-000000000001", Name: "Olga"}, Source: "192.0.2.1", Policy: run.Policy}
	for range 2 {
		must(t, pgx.BeginFunc(t.Context(), k.db.Pool, func(tx pgx.Tx) error {
			return k.Revoke(t.Context(), tx, operator, run.ID, "the runner is infected")
		}))
	}
	_, err = k.Authenticate(t.Context(), j.Call(t, "GET", opening, nil))
	k.refused(err, agents.ErrRunOver, "infected")
	if n := len(k.leaves("agent.revoked")); n != 1 {
		t.Errorf("%d events", n)
	}
	must(t, pgx.BeginFunc(t.Context(), k.db.Pool, func(tx pgx.Tx) error {
		err := k.Revoke(t.Context(), tx, operator, "run-000000000000", "x")
		k.refused(err, agents.ErrNoRun)
		return nil
	}))
}

// What the policy trusts no longer is out at its next call, and so is what it trusts in
// another way; what else it says does not matter.
func TestPolicyThatTrustsNoMore(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	i := k.issuers[policy.GitHub]
	j, _ := k.admitted(policy.GitHub)
	call := func() error {
		_, err := k.Authenticate(t.Context(), j.Call(t, "GET", opening, nil))
		return err
	}
	k.inForce(noAgents + i.Entry("first") + i.Entry("github", "description: as before"))
	must(t, call())
	k.inForce(noAgents + strings.Replace(i.Entry("github"), "[production]", "[production, staging]", 1))
	k.refused(call(), agents.ErrUntrusted, "changed")
	k.inForce(noAgents + i.Entry("renamed"))
	k.refused(call(), agents.ErrUntrusted, "changed")
	k.inForce(noAgents + i.Entry("github"))
	must(t, call())
	k.policy.Store(nil)
	if call() == nil {
		t.Error("nobody knows the policy, and the call is taken")
	}
}

// Store down: nobody is admitted, and nobody known.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	next := k.job()
	k.db.Pool.Close()
	if _, err := k.redeem(next, next.Token(t, k.issuers[policy.GitLab])); err == nil {
		t.Error("admitted without a database")
	}
	if _, err := k.Authenticate(t.Context(), j.Call(t, "GET", opening, nil)); err == nil {
		t.Error("known without a database")
	}
}

func TestManyTokensFromOneAddress(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	var err error
	for range 61 {
		_, err = k.redeem(k.job(), "x.y.z")
	}
	k.refused(err, agents.ErrTooMany)
	j := k.job()
	j.Source = "192.0.2.8"
	if _, err := k.redeem(j, j.Token(t, k.issuers[policy.GitLab])); err != nil {
		t.Errorf("another address: %v", err)
	}
	if n := len(k.leaves("agent.refused")); n != 20 {
		t.Errorf("%d attempts fill the log", n)
	}
}
