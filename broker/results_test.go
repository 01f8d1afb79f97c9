package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/audit/event"
)

// writer keeps what results write, and fails as long as it is told to.
type writer struct {
	mu      sync.Mutex
	written []event.Event
	calls   int
	failing error
	hold    chan struct{} // if set, every write waits for it
}

func (w *writer) write(ctx context.Context, events []event.Event) error {
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.failing != nil {
		return w.failing
	}
	w.written = append(w.written, events...)
	return nil
}

func (w *writer) fail(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.failing = err }

// said is a process's log.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.text.Write(p) }
func (s *said) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.text.String() }

func newResults(w *writer) (*results, *said) {
	log := &said{}
	return &results{write: w.write, logger: slog.New(slog.NewTextHandler(log, nil))}, log
}

func some(n int) []event.Event {
	list := make([]event.Event, n)
	for i := range list {
		list[i] = event.New(time.Unix(int64(i), 0), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.CertificateSigned{Serial: uint64(i)})
	}
	return list
}

func TestResultsAreWrittenInOrderAndTogether(t *testing.T) {
	t.Parallel()
	w := &writer{hold: make(chan struct{})}
	r, _ := newResults(w)
	want := some(2*resultsBatch + 3)
	for _, e := range want {
		r.add(e)
	}
	close(w.hold)
	if err := r.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.written) != len(want) || w.calls > 4 { // the first may have gone alone
		t.Fatalf("%d of %d results in %d writes", len(w.written), len(want), w.calls)
	}
	for i, e := range w.written {
		if e.ID != want[i].ID {
			t.Fatalf("result %d is another", i)
		}
	}
}

func TestResultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	w := &writer{failing: errors.New("the database is gone")}
	r, log := newResults(w)
	for _, e := range some(3) {
		r.add(e)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "tried again"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody said that it failed")
		}
	}
	w.fail(nil)
	if err := r.settle(t.Context()); err != nil || len(w.written) != 3 {
		t.Errorf("%d results, %v", len(w.written), err)
	}
}

// Whatever cannot be kept is told of, never dropped in silence.
func TestResultsThatAreLostAreTold(t *testing.T) {
	t.Parallel()
	w := &writer{hold: make(chan struct{})}
	r, log := newResults(w)
	for _, e := range some(maxResults + 7) {
		r.add(e)
	}
	close(w.hold)
	if err := r.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.written) != maxResults || !strings.Contains(log.String(), "results=7") {
		t.Errorf("%d results written, and the log says %s", len(w.written), log)
	}

	w = &writer{failing: errors.New("the database is gone")}
	r, log = newResults(w)
	for _, e := range some(5) {
		r.add(e)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.settle(over); err == nil || !strings.Contains(log.String(), "results=5") {
		t.Errorf("%v, and the log says %s", err, log)
	}
	r.add(some(1)[0])
	if !strings.Contains(log.String(), "results=1") {
		t.Errorf("after the end, the log says %s", log)
	}
}

func TestResultsFromManyAtOnce(t *testing.T) {
	t.Parallel()
	w := &writer{}
	r, _ := newResults(w)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for _, e := range some(100) {
				r.add(e)
			}
		})
	}
	all.Wait()
	if err := r.settle(t.Context()); err != nil || len(w.written) != 3200 {
		t.Errorf("%d results, %v", len(w.written), err)
	}
}
