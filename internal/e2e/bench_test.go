package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// callers are how many people ask for certificates at once, one after the other.
var callers = []int{1, 16, 64, 256}

// measureFor is how long one way is measured at one number of callers.
const measureFor = 1500 * time.Millisecond

// BenchmarkCertificates prints how fast certificates come, on a PostgreSQL with
// fsync on: by a bare group commit, which is the least that any log of this kind
// must do, by the broker called in this process, and over HTTP from one and from
// two `sallyportd serve`. The ways take turns in each round, so that a noisy
// machine is noisy for all of them. What to compare between two runs are ratios
// and CPU time, not rates.
//
//	go test -run '^$' -bench . -benchtime 3x ./internal/e2e	three rounds
func BenchmarkCertificates(b *testing.B) {
	h := newBench(b)
	ways := []way{
		{"bare group commit", h.bare(), nil, 0},
		{"broker, in process", h.inProcess, nil, 0},
		{"HTTP, one broker", h.overHTTP, h.brokers[:1], 1},
		{"HTTP, two brokers", h.overHTTP, h.brokers, 2},
	}
	results := map[int]map[string][]result{}
	for b.Loop() {
		for _, n := range callers {
			people := h.people(n)
			for _, w := range ways {
				if results[n] == nil {
					results[n] = map[string][]result{}
				}
				results[n][w.name] = append(results[n][w.name], h.measure(w, people))
			}
		}
	}
	each := h.each()

	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "\nMedians of %d rounds on %d cores\t\t\t\t\tµs of CPU each\t\t\n", b.N, runtime.NumCPU())
	fmt.Fprintln(out, "way\tcallers\tcerts/s\tof bare\tp99 ms\tSallyport\tPostgreSQL\t")
	for _, n := range callers {
		for _, w := range ways {
			all := results[n][w.name]
			rate := median(all, func(r result) float64 { return r.rate })
			p99 := median(all, func(r result) float64 { return r.p99 })
			of := make([]float64, len(all)) // paired: in the same round
			for i, r := range all {
				of[i] = r.rate / results[n][ways[0].name][i].rate
			}
			fmt.Fprintf(out, "%s\t%d\t%.0f\t%.0f %%\t%.1f\t%.0f\t%.0f\t\n", w.name, n, rate,
				100*median(of, func(f float64) float64 { return f }), p99,
				median(all, func(r result) float64 { return r.cpu }), median(all, func(r result) float64 { return r.dbCPU }))
		}
	}
	out.Flush()
	for _, n := range callers {
		all := results[n]["HTTP, two brokers"]
		fmt.Printf("HTTP, two brokers, %d callers: %.0f allocations of %.0f KB each\n", n,
			median(all, func(r result) float64 { return r.objects }), median(all, func(r result) float64 { return r.bytes })/1024)
	}
	b.ReportMetric(0, "ns/op") // of a round: says nothing
	fmt.Printf("\none certificate in process, alone in its batch: %s\n", each)
	fmt.Printf("sallyportd serve: ready after %s (median of %d), RSS %d MB at start, %d MB after the load\n\n",
		median(h.starts, func(s start) time.Duration { return s.took }).Round(time.Millisecond), len(h.starts),
		median(h.starts, func(s start) int64 { return s.rss })>>20, rss(b, h.brokers[0].pid)>>20)
}

// way is one way to get certificates.
type way struct {
	name    string
	issue   func(ctx context.Context, p *asker, via int) error
	brokers []process // that do it; none: this process does
	via     int       // over how many brokers the callers spread
}

// result is one measurement.
type result struct {
	rate, p99  float64 // per second; ms
	cpu, dbCPU float64 // µs for each certificate

	objects, bytes float64 // that the brokers allocated for each
}

// measure lets everybody ask for one certificate after the other.
func (h *bench) measure(w way, people []*asker) result {
	pids := []int{os.Getpid()}
	if w.brokers != nil {
		pids = nil
		for _, p := range w.brokers {
			pids = append(pids, p.pid)
		}
	}
	allocated := func() (objects, bytes float64) {
		for _, p := range w.brokers {
			o, b := h.allocated(p)
			objects, bytes = objects+o, bytes+b
		}
		return objects, bytes
	}
	took := make([][]time.Duration, len(people))
	objects, bytes := allocated()
	cpu, dbCPU := cpuOf(h.t, pids...), h.postgresCPU()
	began := time.Now()
	var all sync.WaitGroup
	for i, p := range people {
		all.Go(func() {
			for p.left = perGrant; p.left > 0 && time.Since(began) < measureFor; p.left-- {
				start := time.Now()
				if err := w.issue(h.t.Context(), p, i%max(w.via, 1)); err != nil {
					h.t.Errorf("%s: %v", w.name, err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	cpu, dbCPU = cpuOf(h.t, pids...)-cpu, h.postgresCPU()-dbCPU
	objectsNow, bytesNow := allocated()
	each := slices.Sorted(slices.Values(slices.Concat(took...)))
	n := len(each)
	if n == 0 {
		h.t.Fatalf("%s: no certificates", w.name)
	}
	return result{
		rate: float64(n) / elapsed.Seconds(), p99: each[int(math.Ceil(0.99*float64(n)))-1].Seconds() * 1000,
		cpu: float64(cpu.Microseconds()) / float64(n), dbCPU: float64(dbCPU.Microseconds()) / float64(n),
		objects: (objectsNow - objects) / float64(n), bytes: (bytesNow - bytes) / float64(n),
	}
}

// each says what one certificate asks of the database and of Go's heap.
func (h *bench) each() string {
	const n = 200
	p := h.people(1)[0]
	var before, after runtime.MemStats
	h.trace.count(true)
	runtime.ReadMemStats(&before)
	for range n {
		if err := h.inProcess(h.t.Context(), p, 0); err != nil {
			h.t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	counts := h.trace.count(false)
	var each []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		each = append(each, fmt.Sprintf("%.1f %s", float64(counts[what])/n, what))
	}
	return fmt.Sprintf("%s, %d allocations of %d KB", strings.Join(each, ", "),
		(after.Mallocs-before.Mallocs)/n, (after.TotalAlloc-before.TotalAlloc)/n>>10)
}

func median[T any, V cmp.Ordered](of []T, value func(T) V) V {
	values := make([]V, len(of))
	for i, o := range of {
		values[i] = value(o)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
