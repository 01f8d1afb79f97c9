package rollout_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/broker/agents/jwks"
	"sallyport/broker/rollout"
	"sallyport/internal/agenttest"
	"sallyport/internal/pgtest"
)

// trips counts the round trips to the database.
type trips struct{ atomic.Int64 }

func (t *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.Add(1)
	return ctx
}
func (t *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (t *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	t.Add(1)
	return ctx
}
func (t *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (t *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// BenchmarkThousandHosts opens a batch of 1,000 hosts, and gets a certificate for each, 32
// at a time, on a PostgreSQL with fsync on: how long both take together, how long one call
// takes, and what it costs.
func BenchmarkThousandHosts(b *testing.B) {
	_, db := pgtest.NewCluster(b, true)
	s := newSceneOn(b, db)
	for i := range 1000 {
		s.host(fmt.Sprintf("db-%04d", i+10), "db")
	}
	var open, reporting time.Duration
	var calls []time.Duration
	var asked, took int64
	for b.Loop() {
		b.StopTimer()
		j := s.deploy("github-wide", "wide", one)
		b.StartTimer()
		began := time.Now()
		d, err := j.batch(1)
		must(b, err)
		open += time.Since(began)
		hosts := d.Batches[0].Hosts
		before := s.house.trips.Load()
		each := make([]time.Duration, len(hosts))
		var all sync.WaitGroup
		slots := make(chan struct{}, 32)
		for i, h := range hosts {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				began := time.Now()
				if _, err := j.cert(1, h.ID); err != nil {
					b.Error(err)
				}
				each[i] = time.Since(began)
			})
		}
		all.Wait()
		b.StopTimer()
		took += s.house.trips.Load() - before
		asked += int64(len(hosts))
		calls = append(calls, each...)
		results := map[string]string{}
		for _, h := range hosts {
			results[h.ID] = "ok"
		}
		began = time.Now()
		_, err = j.report(1, results)
		must(b, err)
		reporting += time.Since(began)
		_, err = s.Abort(b.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch, Reason: "it is only measured"})
		must(b, err)
		s.until(j.id, 0, "aborted")
		b.StartTimer()
	}
	b.ReportMetric(float64(open.Milliseconds())/float64(b.N), "ms-to-open")
	b.ReportMetric(float64(reporting.Milliseconds())/float64(b.N), "ms-to-report")
	spread(b, calls, "ms/cert")
	b.ReportMetric(float64(took)/float64(asked), "trips/cert")
}

// BenchmarkTokenToCertificate is a job that deploys to two hosts, from the call that shows
// its token to a certificate: it is admitted, opens the deployment and its batch, and asks.
func BenchmarkTokenToCertificate(b *testing.B) {
	_, db := pgtest.NewCluster(b, true)
	s := newSceneOn(b, db)
	issuer := agenttest.New(b, policy.GitHub, s.clock)
	trusted, err := policy.Parse([]byte("sallyport: 1\nrules: [{name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}]\nagents:\n" +
		issuer.Entry("github-wide")))
	must(b, err)
	trusted.Version = 1
	keys, err := jwks.New(jwks.Config{Clock: s.clock, Roots: agenttest.Roots(issuer)})
	must(b, err)
	const url = "https://broker.example.com"
	admission, err := agents.New(agents.Config{Pool: s.pool, Log: s.log, Clock: s.clock, Keys: keys, URL: url,
		Policy: func(context.Context) (*policy.Policy, error) { return trusted, nil }})
	must(b, err)
	in := api.DeploymentInput{Service: "wide", Environment: "prod", Digest: one}
	var each []time.Duration
	for b.Loop() {
		b.StopTimer()
		s.clock.Advance(time.Second) // so that there are not too many at once
		a := agenttest.NewJob(b, url, s.clock)
		token := a.Token(b, issuer)
		call := a.First(b, "POST", "/api/v1/deployments", []byte("{}"), token)
		b.StartTimer()
		began := time.Now()
		d, err := s.OpenBy(b.Context(), admission, call, token, in)
		must(b, err)
		found, err := admission.Authenticate(b.Context(), a.Call(b, "POST", "/api/v1/deployments", nil))
		must(b, err)
		j := &job{p: s.process, run: rollout.RunOf(found, "192.0.2.9"), id: d.ID, epoch: d.Epoch}
		d, err = j.batch(1)
		must(b, err)
		_, err = admission.Authenticate(b.Context(), a.Call(b, "POST", "/api/v1/deployments", nil))
		must(b, err)
		_, err = j.cert(1, d.Batches[0].Hosts[0].ID)
		must(b, err)
		each = append(each, time.Since(began))
		b.StopTimer()
		_, err = s.Abort(b.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch, Reason: "it is only measured"})
		must(b, err)
		s.until(j.id, 0, "aborted")
		b.StartTimer()
	}
	spread(b, each, "ms")
}

// spread reports the median and what one in a hundred exceeds.
func spread(b *testing.B, each []time.Duration, unit string) {
	slices.Sort(each)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(each[len(each)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-%s", p, unit))
	}
}
