package pack

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// inOrder has jobs done in parallel and takes their results in the order in which
// they were emitted. What is on its way costs memory, which emit states in bytes; no
// more than inFlight is on its way at once.
func inOrder[T any](ctx context.Context, produce func(ctx context.Context, emit func(cost int64, job func(context.Context) (T, error)) error) error,
	consume func(T) error) error {
	type result struct {
		value T
		err   error
	}
	type slot struct {
		done chan result
		cost int64
	}
	all, ctx := errgroup.WithContext(ctx)
	budget := semaphore.NewWeighted(inFlight)
	order := make(chan slot, inFlight/minChunk)
	jobs := new(errgroup.Group)
	jobs.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	all.Go(func() error {
		defer close(order)
		defer jobs.Wait() // a job's error is in its slot
		return produce(ctx, func(cost int64, job func(context.Context) (T, error)) error {
			s := slot{make(chan result, 1), min(max(cost, minChunk), inFlight)}
			if err := budget.Acquire(ctx, s.cost); err != nil {
				return err
			}
			select {
			case order <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
			jobs.Go(func() error {
				v, err := job(ctx)
				s.done <- result{v, err}
				return nil
			})
			return nil
		})
	})
	all.Go(func() error {
		for s := range order {
			var r result
			select {
			case r = <-s.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if r.err != nil {
				return r.err
			}
			if err := consume(r.value); err != nil {
				return err
			}
			budget.Release(s.cost)
		}
		return nil
	})
	return all.Wait()
}
