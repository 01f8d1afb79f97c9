package agents_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/internal/agenttest"
)

// A job of every provider is let in by a token of its true shape, and known again.
func TestJobsOfEveryProviderAreAdmitted(t *testing.T) {
	t.Parallel()
	k := newKit(t, agenttest.Providers()...)
	for _, p := range agenttest.Providers() {
		j, run := k.admitted(p)
		if run.Entry != string(p) || run.Provider != p || run.Issuer != k.issuers[p].URL || run.Subject == "" ||
			!run.Expires.Equal(start.Add(time.Hour)) || len(run.Claims) == 0 {
			t.Errorf("%s: the run is %+v", p, run)
		}
		k.clock.Advance(30 * time.Minute)
		again, err := k.Authenticate(t.Context(), j.Call(t, "POST", opening+"/dep-1/batches/1", nil))
		if err != nil || again.ID != run.ID || again.Fingerprint != run.Fingerprint || again.Claims["sub"] != run.Claims["sub"] {
			t.Errorf("%s: known again as %+v, %v", p, again, err)
		}
		k.clock.Advance(-30 * time.Minute)
	}
	events := k.leaves("agent.admitted")
	if len(events) != len(agenttest.Providers()) {
		t.Fatalf("%d events", len(events))
	}
	for _, want := range []string{`"kind":"agent","id":"run-`, `"repository":"acme/web"`, `"run_id":"22259804324"`, `"binding":"audience"`} {
		if !strings.Contains(events[len(events)-1], want) {
			t.Errorf("the event lacks %s: %s", want, events[len(events)-1])
		}
	}
}

func TestWhatFailsInTheTransactionLeavesTheTokenUnused(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j := k.job()
	token := j.Token(t, k.issuers[policy.GitLab])
	frozen := errors.New("frozen")
	_, err := k.Redeem(t.Context(), token, j.First(t, "POST", opening, body, token), func(ctx context.Context, tx pgx.Tx, run agents.Run) error {
		return frozen
	})
	if !errors.Is(err, frozen) || k.runs() != 0 || len(k.leaves("agent.admitted")) != 0 || len(k.leaves("agent.refused")) != 0 {
		t.Fatalf("%v, and %d runs", err, k.runs())
	}
	if _, err := k.redeem(j, token); err != nil {
		t.Errorf("the token cannot be used any more: %v", err)
	}
}

// The state change of the caller sees the run, and is committed with it.
func TestRunAndStateChangeAreOne(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	j := k.job()
	token := j.Token(t, k.issuers[policy.GitHub])
	run, err := k.Redeem(t.Context(), token, j.First(t, "POST", opening, body, token), func(ctx context.Context, tx pgx.Tx, run agents.Run) error {
		_, err := tx.Exec(ctx, `INSERT INTO agent_calls (run_id, nonce, at) VALUES ($1, 'x', $2)`, run.ID, run.Created)
		return err
	})
	must(t, err)
	got, err := k.Get(t.Context(), run.ID)
	if err != nil || got.Fingerprint != run.Fingerprint || got.Actor().ID != run.ID {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := k.Get(t.Context(), "run-000000000000"); !errors.Is(err, agents.ErrNoRun) {
		t.Errorf("a run that is not there: %v", err)
	}
}
