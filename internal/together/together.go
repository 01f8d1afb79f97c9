// Package together answers many who ask at the same time with one question. Under load
// most of what a question costs is the way to the database and back, and that is then
// gone once for all of them.
//
// It is no memory. Whoever asks is answered by a question that was put after they
// asked, and so by what is true then: what was revoked before they asked, they see
// revoked, however many ask beside them, and whatever those have been told.
//
// What fails, fails for all whom one question is about: let nobody ask for what cannot
// be asked, such as an id that is none. Who hangs up takes nobody with them.
package together

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	// Most is how many keys one question is about at most.
	Most = 256
	// limit is how long one question may take: it does not end with one of those who
	// wait for it.
	limit = 10 * time.Second
)

// PlanOnce is a statement to be sent first in the batch of a question that PostgreSQL
// answers: with many keys in an array it would plan what follows anew each time, for
// longer than the answer takes. It holds for that batch. What follows should join the
// keys, unnested, to the table that has them: with "= ANY" a plan that is made once may
// begin at the other end of a join.
const PlanOnce = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true),
	set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`

// Questions are put one at a time, each about all that was asked for while the one
// before was under way. They are safe for concurrent use.
type Questions[K comparable, V any] struct {
	put func(ctx context.Context, about []K) (map[K]V, error)

	mu     sync.Mutex
	busy   bool
	rounds []*round[K, V] // not put yet; all but the last are full
}

// round is one question and its answer.
type round[K comparable, V any] struct {
	about []K
	done  chan struct{} // closed when the rest is set
	found map[K]V
	err   error
}

// New returns questions as put puts them. It is given each key once; what it does not
// find it leaves out of the answer.
func New[K comparable, V any](put func(ctx context.Context, about []K) (map[K]V, error)) *Questions[K, V] {
	return &Questions[K, V]{put: put}
}

// Ask returns what is found under the key, and whether anything is. Others who asked
// for the same get the same value, which nobody may change.
func (q *Questions[K, V]) Ask(ctx context.Context, key K) (found V, ok bool, err error) {
	r := q.join(key)
	select {
	case <-r.done:
		if r.err == nil {
			found, ok = r.found[key]
		}
		return found, ok, r.err
	case <-ctx.Done():
		return found, false, ctx.Err()
	}
}

// join makes the key part of the next question, and sees to it that it is put.
func (q *Questions[K, V]) join(key K) *round[K, V] {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.rounds); n == 0 || len(q.rounds[n-1].about) == Most {
		q.rounds = append(q.rounds, &round[K, V]{done: make(chan struct{})})
	}
	r := q.rounds[len(q.rounds)-1]
	if !slices.Contains(r.about, key) {
		r.about = append(r.about, key)
	}
	if !q.busy {
		q.busy = true
		go q.putAll()
	}
	return r
}

// putAll puts questions until there are none.
func (q *Questions[K, V]) putAll() {
	for r := q.next(); r != nil; r = q.next() {
		r.found, r.err = q.answer(r.about)
		close(r.done)
	}
}

// answer puts one question. A panic is an error of those who asked: on this goroutine
// it would end the process.
func (q *Questions[K, V]) answer(about []K) (found map[K]V, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			found, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return q.put(ctx, about)
}

// next takes the next question: from now on nobody joins it.
func (q *Questions[K, V]) next() *round[K, V] {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.rounds) == 0 {
		q.busy = false
		return nil
	}
	r := q.rounds[0]
	q.rounds = q.rounds[1:]
	return r
}
