package evidence

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sallyport/audit"
	"sallyport/audit/event"
)

// needed refuses to remove what the broker still asks the log about.
func (p *Pruner) needed(ctx context.Context, plan Plan) error {
	open, err := p.cfg.Needs.Open(ctx)
	if err != nil {
		return err
	}
	e, err := p.cfg.Log.FirstAbout(ctx, open)
	if err == nil && e.Index < plan.Before {
		if ev, err := e.Event(); err == nil {
			return ErrStillNeeded.With("entry %d is about request %s, which is not over, or an emergency that nobody has reviewed",
				e.Index, ev.Subject.RequestID).Hinting("end or review it, or choose an earlier end")
		}
		return ErrStillNeeded.With("entry %d is about a request that is not over", e.Index)
	}
	if err != nil && !errors.Is(err, audit.ErrNoEntry) {
		return err
	}
	id, err := p.cfg.Needs.InForce(ctx)
	if err == nil {
		e, err = p.cfg.Log.Find(ctx, id)
	}
	if err != nil && !errors.Is(err, audit.ErrNoEntry) {
		return err
	}
	if err == nil && e.Index < plan.Before {
		return ErrStillNeeded.With("entry %d put the policy into force that still is", e.Index).
			Hinting("propose the policy again, if only with another comment in it, and have it approved; or choose an end before entry %d", e.Index)
	}
	if err := p.deploying(ctx, plan); err != nil {
		return err
	}
	return p.reviewed(ctx, plan)
}

// deploying refuses to remove the opening of a deployment that is not over, and what has
// happened in it since.
func (p *Pruner) deploying(ctx context.Context, plan Plan) error {
	open, err := p.cfg.Needs.Deploying(ctx)
	if err != nil || len(open) == 0 {
		return err
	}
	first, id := int64(-1), ""
	for before := plan.Before; before > 0; {
		opened, err := p.cfg.Log.Entries(ctx, audit.Filter{Type: "deployment.opened", Before: before, Limit: 200})
		if err != nil {
			return err
		}
		if len(opened) == 0 {
			break
		}
		for _, entry := range opened { // newest first
			e, err := entry.Event()
			if err != nil {
				return fmt.Errorf("reading entry %d: %w", entry.Index, err)
			}
			if d, ok := e.Data.(event.DeploymentOpened); ok && slices.Contains(open, d.DeploymentID) {
				first, id = entry.Index, d.DeploymentID
			}
		}
		before = opened[len(opened)-1].Index
	}
	if first < 0 {
		return nil
	}
	return ErrStillNeeded.With("entry %d opened deployment %s, which is not over", first, id).
		Hinting("end it, or choose an end before entry %d", first)
}

// reviewed refuses to remove an emergency whose review the log does not have, whatever
// the database says.
func (p *Pruner) reviewed(ctx context.Context, plan Plan) error {
	for before := plan.Before; ; {
		started, err := p.cfg.Log.Entries(ctx, audit.Filter{Type: "emergency.started", Before: before, Limit: 200})
		if err != nil || len(started) == 0 {
			return err
		}
		for _, entry := range started {
			e, err := entry.Event()
			if err != nil {
				return fmt.Errorf("reading entry %d: %w", entry.Index, err)
			}
			reviews, err := p.cfg.Log.Entries(ctx, audit.Filter{RequestID: e.Subject.RequestID, Type: "review.given", Limit: 1})
			if err != nil {
				return err
			}
			if len(reviews) == 0 {
				return ErrStillNeeded.With("entry %d is about emergency %s, whose review the log does not have", entry.Index, e.Subject.RequestID).
					Hinting("have it reviewed, or choose an end before entry %d", entry.Index)
			}
		}
		if before = started[len(started)-1].Index; before == 0 {
			return nil
		}
	}
}

// delivered refuses to remove what a stream has not delivered. Cursors never go back.
func (p *Pruner) delivered(ctx context.Context, before int64) error {
	list, err := p.cfg.Streams(ctx)
	if err != nil {
		return err
	}
	without := slices.Clone(p.cfg.Without)
	for _, c := range list {
		if at := slices.Index(without, c.Name); at >= 0 {
			without = slices.Delete(without, at, at+1)
			continue
		}
		if c.Next < before {
			return ErrNotDelivered.With("the stream %s to %s has delivered the entries before %d, and those before %d would go", c.Name, c.Destination, c.Next, before).
				Hinting("wait for it, or give --without-stream %s if nobody wants the others there", c.Name)
		}
	}
	if len(without) > 0 {
		return ErrUnknownStream.With("there is no stream %s", without[0])
	}
	return nil
}
