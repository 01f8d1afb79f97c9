package together_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/together"
)

// oracle answers questions one by one, when it is told to.
type oracle struct {
	put    chan []string // keys of each question
	answer chan error
}

func newOracle() (*oracle, *together.Questions[string, string]) {
	o := &oracle{make(chan []string), make(chan error)}
	return o, together.New(func(_ context.Context, about []string) (map[string]string, error) {
		o.put <- about
		err := <-o.answer
		found := map[string]string{}
		for _, key := range about {
			if key != "nobody" {
				found[key] = "of " + key
			}
		}
		return found, err
	})
}

// asks asks for each of the keys at the same time, and waits until they are.
func asks(t *testing.T, q *together.Questions[string, string], keys ...string) (done func() []error) {
	t.Helper()
	errs := make([]error, len(keys))
	var all sync.WaitGroup
	for i, key := range keys {
		all.Go(func() {
			found, ok, err := q.Ask(t.Context(), key)
			errs[i] = err
			if err == nil && (ok != (key != "nobody") || ok && found != "of "+key) {
				t.Errorf("%s: %q, %t", key, found, ok)
			}
		})
	}
	return func() []error { all.Wait(); return errs }
}

func TestWhoAsksMeanwhileIsAnsweredTogether(t *testing.T) {
	t.Parallel()
	o, q := newOracle()
	first := asks(t, q, "a")
	if about := <-o.put; !slices.Equal(about, []string{"a"}) {
		t.Errorf("the first question is about %v", about)
	}
	second := asks(t, q, "b", "c", "nobody")
	waitFor(t, q, 3)
	o.answer <- nil
	first()
	about := <-o.put
	if slices.Sort(about); !slices.Equal(about, []string{"b", "c", "nobody"}) {
		t.Errorf("the second question is about %v", about)
	}
	o.answer <- nil
	second()
}

// What is being asked just now may have been answered already, by what was. Who comes
// later wants what is: they get another question, even about the same.
func TestWhoAsksLaterIsNotToldWhatWas(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	looked, hand := make(chan struct{}, 1), make(chan struct{})
	q := together.New(func(_ context.Context, about []string) (map[string]bool, error) {
		good := !revoked.Load()
		looked <- struct{}{}
		<-hand
		return map[string]bool{about[0]: good}, nil
	})
	answers := make(chan bool)
	ask := func() {
		good, _, err := q.Ask(t.Context(), "grant")
		if err != nil {
			t.Error(err)
		}
		answers <- good
	}
	go ask()
	<-looked
	revoked.Store(true)
	go ask() // while the first has not been told yet
	waitFor(t, q, 1)
	hand <- struct{}{}
	if !<-answers {
		t.Error("who came before the revocation was told of it by a question that was put before")
	}
	<-looked
	hand <- struct{}{}
	if <-answers {
		t.Error("who came after the revocation was told that the grant is good")
	}
}

// The same for many at once, who may not be told a lower number than there was when
// they asked.
func TestNobodyIsToldWhatWasBeforeTheyAsked(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	q := together.New(func(_ context.Context, about []int) (map[int]int64, error) {
		found, is := map[int]int64{}, now.Load()
		for _, key := range about {
			found[key] = is
		}
		return found, nil
	})
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for range 2000 {
				least := now.Add(1)
				if told, ok, err := q.Ask(t.Context(), i%5); !ok || err != nil || told < least {
					t.Errorf("told %d, %t, %v; it was %d when they asked", told, ok, err, least)
				}
			}
		})
	}
	all.Wait()
}

func TestAFailureIsThatOfOneQuestion(t *testing.T) {
	t.Parallel()
	o, q := newOracle()
	first := asks(t, q, "a")
	<-o.put
	second := asks(t, q, "b", "c")
	waitFor(t, q, 2)
	no := errors.New("no")
	o.answer <- no
	if errs := first(); !errors.Is(errs[0], no) {
		t.Errorf("the first: %v", errs)
	}
	<-o.put
	o.answer <- nil
	if errs := second(); errs[0] != nil || errs[1] != nil {
		t.Errorf("the second: %v", errs)
	}
}

func TestWhoHangsUpTakesNobodyWithThem(t *testing.T) {
	t.Parallel()
	o, q := newOracle()
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, _, err := q.Ask(ctx, "a")
		gone <- err
	}()
	<-o.put
	hangUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who hung up: %v", err)
	}
	other := asks(t, q, "b")
	o.answer <- nil
	<-o.put
	o.answer <- nil
	other()
}

func TestOneQuestionIsAboutSoMany(t *testing.T) {
	t.Parallel()
	o, q := newOracle()
	first := asks(t, q, "first")
	<-o.put
	var keys []string
	for i := range together.Most + 10 {
		keys = append(keys, strconv.Itoa(i))
	}
	rest := asks(t, q, keys...)
	waitFor(t, q, len(keys))
	o.answer <- nil
	first()
	for _, want := range []int{together.Most, 10} {
		if about := <-o.put; len(about) != want {
			t.Errorf("a question about %d, want %d", len(about), want)
		}
		o.answer <- nil
	}
	rest()
}

func TestAPanicIsAFailure(t *testing.T) {
	t.Parallel()
	q := together.New(func(_ context.Context, about []string) (map[string]string, error) {
		if slices.Contains(about, "bad") {
			panic("no such thing")
		}
		return map[string]string{"good": "is"}, nil
	})
	if _, ok, err := q.Ask(t.Context(), "bad"); ok || err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("%t, %v", ok, err)
	}
	if found, ok, err := q.Ask(t.Context(), "good"); found != "is" || !ok || err != nil {
		t.Errorf("the next question: %q, %t, %v", found, ok, err)
	}
}

// waitFor returns when so many wait for a question that has not been put yet.
func waitFor[V any](t *testing.T, q *together.Questions[string, V], many int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); q.Waiting() != many; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", q.Waiting(), many)
		}
	}
}
