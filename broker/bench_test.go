package broker_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// perGrant keeps below the limit of certificates.
const perGrant = broker.MaxCertificates - 1

// BenchmarkIssue issues certificates to people with a grant each, on PostgreSQL
// with fsync, and reports certificates per second and the 99th percentile of how
// long one takes.
func BenchmarkIssue(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			_, db := pgtest.NewCluster(b, true)
			s := &scene{t: b, process: newHouse(b, db, clock.System).open()}
			s.fill()
			work := make([]*worker, callers)
			for i := range work {
				n := b.N / callers
				if i < b.N%callers {
					n++
				}
				work[i] = s.worker(fmt.Sprint("engineer ", i), n)
			}
			b.ResetTimer()
			var all sync.WaitGroup
			for _, w := range work {
				all.Go(w.run)
			}
			all.Wait()
			b.StopTimer()
			var took []time.Duration
			for _, w := range work {
				took = append(took, w.took...)
			}
			slices.Sort(took)
			b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "certs/s")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// worker is one person who asks for one certificate after the other.
type worker struct {
	s      *scene
	caller identity.Caller
	ids    []string // of grants
	in     []api.CertificateInput
	n      int
	took   []time.Duration
}

func (s *scene) worker(name string, n int) *worker {
	w := &worker{s: s, caller: s.person(name, "engineers"), n: n, took: make([]time.Duration, 0, n)}
	as := *s
	as.engineer = w.caller
	key := newKey(s.t)
	for i := 0; i < n; i += perGrant {
		r := as.grant("dba", "db-1")
		w.ids, w.in = append(w.ids, r.ID), append(w.in, input(s.t, key, r.ID))
	}
	return w
}

func (w *worker) run() {
	for i := range w.n {
		began := time.Now()
		if _, err := w.s.Issue(w.s.t.Context(), w.caller, w.ids[i/perGrant], w.in[i/perGrant]); err != nil {
			w.s.t.Error(err)
			return
		}
		w.took = append(w.took, time.Since(began))
	}
}
