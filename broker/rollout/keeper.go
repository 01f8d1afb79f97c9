package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

const (
	// lookEvery is how often a replica looks for deployments that are due.
	lookEvery = time.Second
	// keepLimit bounds what is done for one deployment at a time.
	keepLimit = time.Minute
	// dueAtOnce is how many deployments one look takes.
	dueAtOnce = 50
)

// Run keeps deployments going until ctx ends: what time brings about, and what their
// states ask for outside. Every replica runs it; two that do the same do no harm.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := s.Keep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "deployments do not go on", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.kick:
		}
	}
}

// Keep does once what is due now.
func (s *Service) Keep(ctx context.Context) error {
	now, err := s.now(ctx, s.cfg.Pool)
	if err != nil {
		return err
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT id FROM deployments WHERE ended_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2`, now, dueAtOnce)
	if err != nil {
		return fmt.Errorf("looking for deployments that are due: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for deployments that are due: %w", err)
	}
	var failed error
	for _, id := range list {
		limited, cancel := context.WithTimeout(ctx, keepLimit)
		err := s.keep(limited, id, now)
		cancel()
		if err != nil && ctx.Err() == nil {
			failed = errors.Join(failed, fmt.Errorf("deployment %s: %w", id, err))
		}
	}
	return failed
}

// keep does what one deployment asks for. What takes time outside is done without a
// lock; then the state is told, as it is by then.
func (s *Service) keep(ctx context.Context, id string, now time.Time) error {
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return err
	}
	// What time has brought about comes first.
	if now.Before(d.state.At) {
		now = d.state.At
	}
	state, _, err := machine.Step(d.terms, d.state, machine.Tick{}, now)
	if err != nil {
		return err
	}
	news := []machine.Event{machine.Tick{}}
	var shut []machine.ShutHosts
	for _, task := range machine.Due(d.terms, state, now) {
		switch task := task.(type) {
		case machine.ShutHosts:
			shut = append(shut, task)
		case machine.VerifyHosts:
			seen, err := s.verified(ctx, task)
			if err != nil {
				return err
			}
			// Asked for after that: what somebody may have changed meanwhile proves nothing.
			came, err := s.entered(ctx, d, task.Hosts)
			if err != nil {
				return err
			}
			news = append(append(news, came...), seen...)
		case machine.Measure:
			v, why := s.measure(ctx, d, task)
			news = append(news, machine.Measured{Batch: task.Batch, Gate: task.Gate, Outcome: v, Why: why})
		}
	}
	_, _, err = s.change(ctx, id, by{}, func(ctx context.Context, c *change) error {
		for _, e := range news {
			if err := c.step(e); err != nil {
				return err
			}
		}
		for _, task := range shut {
			if b := c.state.Batch(task.Batch); b.Phase != machine.Closing {
				continue
			}
			if err := c.seal(ctx, task.Hosts); err != nil {
				return err
			}
			if err := c.step(machine.Shut{Batch: task.Batch}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// verified are what hosts have shown since.
func (s *Service) verified(ctx context.Context, task machine.VerifyHosts) ([]machine.Event, error) {
	if len(task.Hosts) == 0 {
		return nil, nil
	}
	postures, err := s.cfg.Hosts.Verified(ctx, task.Hosts)
	if err != nil {
		return nil, fmt.Errorf("asking for postures: %w", err)
	}
	var news []machine.Event
	for _, id := range task.Hosts {
		p, ok := postures[id]
		if ok && p.State != gates.Unknown && !p.At.Before(task.Since) {
			news = append(news, machine.Verified{Host: id, Sealed: p.State == gates.Sealed, At: p.At, Why: p.Why})
		}
	}
	return news, nil
}

func (s *Service) measure(ctx context.Context, d *deployment, task machine.Measure) (machine.Verdict, string) {
	g := d.terms.Gate(task.Batch, task.Gate)
	if g == nil {
		return machine.Unclear, "the terms have no such gate"
	}
	about := gates.About{Service: d.terms.Service, Environment: d.terms.Environment, Deployment: d.id, Batch: task.Batch, Sealed: task.Since}
	about.Hosts = append([]plan.Host{}, d.terms.Batches[task.Batch-1].Hosts...)
	var err error
	if about.Postures, err = s.cfg.Hosts.Verified(ctx, task.Hosts); err != nil {
		return machine.Unclear, "the hosts' postures cannot be read"
	}
	return s.cfg.Gates.Measure(ctx, *g, about)
}
