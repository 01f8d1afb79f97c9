package pack_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/cosignature"
	"sallyport/audit/vouch"
	"sallyport/evidence/pack"
)

var benchEvents = flag.Int("pack-events", 50_000, "how many events the pack of BenchmarkPack has")

// BenchmarkPack writes and verifies a pack of a log of so many events, which is kept
// in files so that the memory seen is the pack's. The goal is a million in under 60 s
// and 256 MB: go test ./evidence/pack -bench Pack -benchtime 1x -args -pack-events 1000000
func BenchmarkPack(b *testing.B) {
	src, order, trust := recorded(b, *benchEvents)
	path := filepath.Join(b.TempDir(), "pack.zip")
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			f, err := os.Create(path)
			must(b, err)
			peak := watch()
			_, err = pack.Write(context.Background(), f, order, src)
			must(b, err)
			b.ReportMetric(peak(), "peak-MB")
			must(b, f.Close())
		}
		info, err := os.Stat(path)
		must(b, err)
		b.ReportMetric(float64(info.Size())/1e6, "zip-MB")
		b.ReportMetric(float64(len(src.at))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			f, err := os.Open(path)
			must(b, err)
			info, err := f.Stat()
			must(b, err)
			peak := watch()
			v, err := pack.Verify(context.Background(), f, info.Size(), pack.Options{Trust: trust})
			must(b, err)
			b.ReportMetric(peak(), "peak-MB")
			if !v.OK || v.Found() > 0 {
				b.Fatalf("%v\n%s", v.Exceptions, failed(v))
			}
			must(b, f.Close())
		}
		b.ReportMetric(float64(len(src.at))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

// watch samples the heap until it is asked for the most that it saw, in megabytes.
func watch() (peak func() float64) {
	runtime.GC()
	debug.FreeOSMemory()
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if now := m.HeapInuse + m.StackInuse; now > most.Load() {
				most.Store(now)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 {
		close(stop)
		<-done
		return float64(most.Load()) / 1e6
	}
}

// tape is a source whose log is in files.
type tape struct {
	leaves, hashes *os.File
	at             []int64 // where each leaf ends
	texts          map[string][]byte
	tokens         map[string]string
	vouch          func(kind, text string) ([]byte, error)
}

// recorded makes a history of so many events, and forgets all but its tape.
func recorded(b *testing.B, events int) (*tape, pack.Order, *cosignature.Policy) {
	b.Helper()
	w := newWorld(b)
	dir := b.TempDir()
	signer := w.Signer // and nothing else of the history
	s := &tape{texts: map[string][]byte{}, tokens: map[string]string{},
		vouch: func(kind, text string) ([]byte, error) { return vouch.Sign(kind, text, signer) }}
	var err error
	s.leaves, err = os.Create(filepath.Join(dir, "leaves"))
	must(b, err)
	s.hashes, err = os.Create(filepath.Join(dir, "hashes"))
	must(b, err)
	for len(w.Leaves) < events {
		w.Access(w.erin, w.liam, "databases", fmt.Sprintf("db-%d", len(w.Leaves)%100))
		if len(w.Leaves)%1000 < 5 {
			w.Emergency(w.erin, "databases", "db-1").Review(w.sam)
		}
	}
	order := w.order()
	order.Dir = dir
	end := int64(0)
	for _, leaf := range w.Leaves {
		_, err := s.leaves.Write(leaf)
		must(b, err)
		end += int64(len(leaf))
		s.at = append(s.at, end)
	}
	n := tlog.StoredHashCount(int64(len(w.Leaves)))
	for i := int64(0); i < n; i += 1024 {
		var indexes []int64
		for j := i; j < min(i+1024, n); j++ {
			indexes = append(indexes, j)
		}
		hashes, err := w.Hashes(context.Background()).ReadHashes(indexes)
		must(b, err)
		for _, h := range hashes {
			_, err := s.hashes.Write(h[:])
			must(b, err)
		}
	}
	text, _ := w.Document(w.Policy.Hash)
	s.texts[w.Policy.Hash] = text
	b.Logf("%d events of %d bytes", len(s.at), end/int64(len(s.at)))
	return s, order, w.trust()
}

func (s *tape) Scan(_ context.Context, from, to int64, each func(int64, []byte) error) error {
	for i := from; i < to; i++ {
		start := int64(0)
		if i > 0 {
			start = s.at[i-1]
		}
		leaf := make([]byte, s.at[i]-start)
		if _, err := s.leaves.ReadAt(leaf, start); err != nil {
			return err
		}
		if err := each(i, leaf); err != nil {
			return err
		}
	}
	return nil
}

func (s *tape) LeafHashes(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	var indexes []int64
	for i := from; i < to; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	return s.Hashes(ctx).ReadHashes(indexes)
}

func (s *tape) Hashes(context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			if _, err := s.hashes.ReadAt(out[i][:], index*tlog.HashSize); err != nil && err != io.EOF {
				return nil, err
			}
		}
		return out, nil
	})
}

func (s *tape) Policy(_ context.Context, hash string) ([]byte, error) {
	if text, ok := s.texts[hash]; ok {
		return text, nil
	}
	return nil, pack.ErrNotKept
}

func (s *tape) IDTokens(context.Context, []string) (map[string]string, error) { return s.tokens, nil }

func (s *tape) Vouch(kind, text string) ([]byte, error) { return s.vouch(kind, text) }
