package audit_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

// BenchmarkRecord measures events from Record to their place in the log, on a
// PostgreSQL with fsync on. Compare runs on one machine only; p99 is beside the mean.
func BenchmarkRecord(b *testing.B) {
	benchmark(b, func(l *audit.Log) func(context.Context, event.Event) error {
		return func(ctx context.Context, e event.Event) error {
			_, err := l.Record(ctx, e)
			return err
		}
	})
}

// BenchmarkAppend measures the same by the lane, with rows that cost nothing.
func BenchmarkAppend(b *testing.B) {
	benchmark(b, func(l *audit.Log) func(context.Context, event.Event) error {
		lane := audit.NewLane(l, func(rows []int) audit.Writing { return nothing(len(rows)) })
		return func(ctx context.Context, e event.Event) error {
			_, err := lane.Append(ctx, e, 0)
			return err
		}
	})
}

// nothing is the writing of so many rows that write nothing.
type nothing int

func (nothing) Look(*pgx.Batch)            {}
func (n nothing) Write(*pgx.Batch) []error { return make([]error, n) }

func benchmark(b *testing.B, way func(*audit.Log) func(context.Context, event.Event) error) {
	_, db := pgtest.NewCluster(b, true)
	cfg, err := pgxpool.ParseConfig(db.URL)
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = 32
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	k := newKeys(b, "log.example.com")
	l := open(b, config(pool, k))
	record := way(l)
	run(b, l)
	certificate := event.CertificateIssued{Serial: 1, KeyID: "req-4f8k2m9qhx1z:per-4f8k2m9qhx1z", Login: "dba", Host: "db-1",
		Principal: "dba@host-7k3m9q2x4f8h", PreCertificate: make([]byte, 400), Decisions: []string{"ab", "cd"}}
	subject := event.Subject{RequestID: "req-4f8k2m9qhx1z", PersonID: "per-4f8k2m9qhx1z", HostID: "host-7k3m9q2x4f8h"}

	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			took := make([][]time.Duration, callers)
			var wg sync.WaitGroup
			b.ResetTimer()
			for c := range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						begin := time.Now()
						e := event.New(begin, event.Actor{Kind: event.Person, ID: "per-4f8k2m9qhx1z"}, "192.0.2.1", subject, certificate)
						if err := record(b.Context(), e); err != nil {
							b.Error(err)
							return
						}
						took[c] = append(took[c], time.Since(begin))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			p99 := all[int(math.Ceil(0.99*float64(len(all))))-1]
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
		})
	}
	checkAll(b, pool, k)
}
