package rollout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/internal/refusal"
)

// pollEvery is how often a call that waits for a batch looks again.
const pollEvery = 400 * time.Millisecond

// own refuses a run whose trust entry the deployment's entry does not name, or whose
// entry is no longer in the policy in force: to it, the deployment does not exist.
func (s *Service) own(ctx context.Context, run Run, d *deployment) (*policy.Deployment, error) {
	p, err := s.cfg.Approvals.InForce(ctx)
	if err != nil {
		return nil, err
	}
	entry := p.Deployment(d.terms.Entry)
	if entry == nil || entry.Service != d.terms.Service || entry.Environment != d.terms.Environment {
		if run.Entry == d.terms.Agent.Entry {
			return nil, ErrEntryGone
		}
		return nil, ErrUnknown
	}
	if !slices.Contains(entry.Agents, run.Entry) {
		return nil, ErrUnknown
	}
	return entry, nil
}

// act lets a run change a deployment.
func (s *Service) act(ctx context.Context, run Run, id string, refused event.DeploymentRefused, do func(ctx context.Context, c *change) error) (api.Deployment, error) {
	d, err := s.acted(ctx, run, id, do)
	if err != nil {
		refused.DeploymentID = id
		if errors.Is(err, ErrUnknown) {
			refused.DeploymentID = ""
		}
		return api.Deployment{}, s.Refused(ctx, run, refused, err)
	}
	return s.view(ctx, d)
}

func (s *Service) acted(ctx context.Context, run Run, id string, do func(ctx context.Context, c *change) error) (*deployment, error) {
	// The policy is asked before a row is locked: it may need a connection of its own.
	seen, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return nil, err
	}
	if _, err := s.own(ctx, run, seen); err != nil {
		return nil, err
	}
	d, _, err := s.change(ctx, id, by{run.Actor(), run.Source}, do)
	return d, err
}

// Progress is how a deployment stands, for a run that may have a part in it.
func (s *Service) Progress(ctx context.Context, run Run, id string) (api.Deployment, error) {
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return api.Deployment{}, err
	}
	if _, err := s.own(ctx, run, d); err != nil {
		return api.Deployment{}, err
	}
	return s.view(ctx, d)
}

// Batch opens a batch for the run, and waits for it as long as it may: until batches
// before it have passed, people have approved, or a freeze is over. What still keeps it
// is the refusal. Opening it again in the same epoch changes nothing.
func (s *Service) Batch(ctx context.Context, run Run, id string, n int, in api.BatchInput, wait time.Duration) (api.Deployment, error) {
	refused := event.DeploymentRefused{DeploymentID: id, Action: "batch", Batch: n}
	up := time.NewTimer(wait)
	defer up.Stop()
	look := time.NewTicker(pollEvery)
	defer look.Stop()
	for first := true; ; first = false {
		d, err := s.batch(ctx, run, id, n, in)
		if err == nil {
			return s.view(ctx, d)
		}
		if r := refusal.As(err); r == nil || !waiting(r) {
			return api.Deployment{}, s.Refused(ctx, run, refused, err)
		}
		if first { // who waits is there, and keeps the lease
			if _, err := s.acted(ctx, run, id, func(_ context.Context, c *change) error {
				return c.step(machine.Renew{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}})
			}); err != nil {
				return api.Deployment{}, s.Refused(ctx, run, refused, err)
			}
		}
		select {
		case <-ctx.Done():
			return api.Deployment{}, err
		case <-up.C:
			return api.Deployment{}, err
		case <-look.C:
		}
	}
}

func (s *Service) batch(ctx context.Context, run Run, id string, n int, in api.BatchInput) (*deployment, error) {
	seen, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return nil, err
	}
	entry, err := s.own(ctx, run, seen)
	if err != nil {
		return nil, err
	}
	d, events, err := s.change(ctx, id, by{run.Actor(), run.Source}, func(ctx context.Context, c *change) error {
		// A freeze that was put into the policy since holds, too.
		if err := thawed(entry, c.deployment, n, c.now); err != nil {
			return err
		}
		if err := c.overridden(ctx, entry, n); err != nil {
			return err
		}
		if err := c.proved(ctx); err != nil {
			return err
		}
		if err := c.step(machine.OpenBatch{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, Batch: n}); err != nil {
			return err
		}
		return c.unbar(ctx, c.state.Batch(n))
	})
	if err != nil {
		return nil, err
	}
	// Certificates follow only when the log has it.
	if _, err := s.cfg.Log.Wait(ctx, events...); err != nil {
		return nil, err
	}
	return d, nil
}

// thawed refuses what a freeze of the policy in force forbids.
func thawed(entry *policy.Deployment, d *deployment, batch int, now time.Time) error {
	if b := d.state.Batch(batch); b != nil && b.Rollback || d.state.Overridden(now) {
		return nil
	}
	if f := entry.FrozenAt(now); f != nil {
		return machine.ErrFrozen.With("nothing is deployed in the freeze %q", f.Name)
	}
	return nil
}

// Report takes what became of hosts, by their ids or names, and renews the lease.
func (s *Service) Report(ctx context.Context, run Run, id string, n int, in api.ReportInput) (api.Deployment, error) {
	return s.act(ctx, run, id, event.DeploymentRefused{Action: "report", Batch: n}, func(ctx context.Context, c *change) error {
		results := map[string]machine.Result{}
		for name, result := range in.Results {
			id := c.hostID(name)
			if _, twice := results[id]; twice {
				return machine.ErrReported.With("host %s stands twice in the report", name)
			}
			results[id] = machine.Result(result)
		}
		return c.step(machine.Report{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, Batch: n, Results: results, Done: in.Done})
	})
}

// hostID is the id of a host of the deployment that is called so; the text itself, if
// there is none.
func (d *deployment) hostID(name string) string {
	for _, h := range d.terms.Hosts() {
		if h.Name == name {
			return h.ID
		}
	}
	return name
}

// Finish says that the run has nothing left to do. What is over already stays so.
func (s *Service) Finish(ctx context.Context, run Run, id string, in api.EndInput) (api.Deployment, error) {
	return s.end(ctx, run, id, "finish", machine.Finish{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}})
}

// Abort ends the deployment: what is open closes, and stays as it is.
func (s *Service) Abort(ctx context.Context, run Run, id string, in api.EndInput) (api.Deployment, error) {
	return s.end(ctx, run, id, "abort", machine.AgentAborts{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, Why: said(run.ID, in.Reason)})
}

// Rollback lets the run put back what was verified last, on the hosts that were opened.
func (s *Service) Rollback(ctx context.Context, run Run, id string, in api.EndInput) (api.Deployment, error) {
	return s.end(ctx, run, id, "rollback", machine.AgentRollsBack{By: machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, Why: said(run.ID, in.Reason)})
}

func said(who, why string) string {
	if why == "" {
		return who + " said so"
	}
	return why
}

func (s *Service) end(ctx context.Context, run Run, id, action string, e machine.Event) (api.Deployment, error) {
	return s.act(ctx, run, id, event.DeploymentRefused{Action: action}, func(ctx context.Context, c *change) error {
		if _, finish := e.(machine.Finish); finish && (c.state.Phase.Over() || c.state.Phase == machine.Verifying && c.state.Holder != run.ID) {
			return nil
		}
		return c.step(e)
	})
}

// RunRevoked takes the lease from a run that was revoked, in the transaction that does:
// what it has open closes.
func (s *Service) RunRevoked(ctx context.Context, tx pgx.Tx, runID, why string) error {
	rows, err := tx.Query(ctx, `SELECT id FROM deployments WHERE ended_at IS NULL AND state->>'holder' = $1 ORDER BY id`, runID)
	if err != nil {
		return err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, id := range list {
		d, err := load(ctx, tx, id, "FOR UPDATE")
		if err != nil {
			return err
		}
		c, err := s.changing(ctx, tx, d, by{})
		if err != nil {
			return err
		}
		if err := c.step(machine.Revoked{Run: runID, Why: why}); err != nil {
			return err
		}
		if err := c.save(ctx); err != nil {
			return err
		}
	}
	return nil
}
