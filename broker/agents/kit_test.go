package agents_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/broker/agents"
	"sallyport/broker/agents/jwks"
	"sallyport/internal/agenttest"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// start has a fraction of a second, because tokens and calls have none.
var start = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

const url = "https://broker.example.com"

// kit is a service with issuers whom its policy trusts.
type kit struct {
	*agents.Service
	t       testing.TB
	db      *pgtest.DB
	log     *audit.Log
	clock   *clock.Manual
	issuers map[policy.AgentProvider]*agenttest.Issuer
	policy  atomic.Pointer[policy.Policy]
}

const noAgents = `
sallyport: 1
rules:
  - {name: web, who: [engineers], where: "*", logins: [web], duration: {max: 1h}, automatic: true}
agents:
`

// newKit trusts issuers of the providers, with an entry each, named after them.
func newKit(t testing.TB, providers ...policy.AgentProvider) *kit {
	t.Helper()
	k := &kit{t: t, db: pgtest.New(t), clock: clock.NewManual(start), issuers: map[policy.AgentProvider]*agenttest.Issuer{}}
	var all []*agenttest.Issuer
	text := noAgents
	for _, p := range providers {
		i := agenttest.New(t, p, k.clock)
		k.issuers[p] = i
		all = append(all, i)
		text += i.Entry(string(p))
	}
	k.log = audittest.Open(t, k.db.Pool, k.clock)
	k.inForce(text)
	keys, err := jwks.New(jwks.Config{Clock: k.clock, Roots: agenttest.Roots(all...)})
	must(t, err)
	k.Service, err = agents.New(agents.Config{Pool: k.db.Pool, Log: k.log, Clock: k.clock, Keys: keys, URL: url,
		Policy: func(context.Context) (*policy.Policy, error) {
			if p := k.policy.Load(); p != nil {
				return p, nil
			}
			return nil, errors.New("no policy")
		}})
	must(t, err)
	return k
}

// inForce puts another policy in force.
func (k *kit) inForce(text string) {
	k.t.Helper()
	p, err := policy.Parse([]byte(text))
	must(k.t, err)
	p.Version = 1
	if before := k.policy.Load(); before != nil {
		p.Version = before.Version + 1
	}
	k.policy.Store(p)
}

func (k *kit) job() *agenttest.Job { return agenttest.NewJob(k.t, url, k.clock) }

const opening = "/api/v1/deployments"

var body = []byte(`{"service":"web"}`)

// redeem shows the token with the job's first call.
func (k *kit) redeem(j *agenttest.Job, token string) (agents.Run, error) {
	k.t.Helper()
	return k.Redeem(k.t.Context(), token, j.First(k.t, "POST", opening, body, token), nothing)
}

func nothing(context.Context, pgx.Tx, agents.Run) error { return nil }

// admitted is a new job of the provider that was let in.
func (k *kit) admitted(p policy.AgentProvider) (*agenttest.Job, agents.Run) {
	k.t.Helper()
	j := k.job()
	run, err := k.redeem(j, j.Token(k.t, k.issuers[p]))
	must(k.t, err)
	return j, run
}

// leaves are the events of a type, newest first.
func (k *kit) leaves(eventType string) []string {
	k.t.Helper()
	return audittest.Leaves(k.t, k.log, k.clock.Now(), eventType)
}

// refused wants an error, and no run but those that there were.
func (k *kit) refused(err, want error, says ...string) {
	k.t.Helper()
	if !errors.Is(err, want) {
		k.t.Errorf("error %v, want %v", err, want)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			k.t.Errorf("the refusal %q does not say %q", err, s)
		}
	}
}

func (k *kit) runs() int {
	k.t.Helper()
	var n int
	must(k.t, k.db.Pool.QueryRow(k.t.Context(), `SELECT count(*) FROM agent_runs`).Scan(&n))
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
