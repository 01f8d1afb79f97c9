package approvals

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// Cancel withdraws the caller's own undecided request.
func (s *Service) Cancel(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	return s.withdraw(ctx, c, id, "requests.cancel", func(r *request, _ time.Time) (event.Data, error) {
		if err := r.mayCancel(c.Person); err != nil {
			return nil, err
		}
		return r.close(api.Cancelled), nil
	})
}

// Finish ends the caller's own grant early ("I'm done"), also one that has not
// started yet, and with it those that extend it.
func (s *Service) Finish(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	return s.withdraw(ctx, c, id, "requests.finish", func(r *request, now time.Time) (event.Data, error) {
		if err := r.mayFinish(c.Person); err != nil {
			return nil, err
		}
		return r.end("finished", now), nil
	})
}

// withdraw lets act change a locked, settled request and keeps what came of it.
// That somebody tried the action on another's request is an event.
func (s *Service) withdraw(ctx context.Context, c identity.Caller, id, action string, act func(*request, time.Time) (event.Data, error)) (api.Request, error) {
	var r *request
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		now := s.cfg.Clock.Now()
		r.settle(now)
		data, err := act(r, now)
		if err != nil {
			return err
		}
		if err := r.save(ctx, tx); err != nil {
			return err
		}
		if r.state == api.Cancelled {
			if err := s.tellClosed(ctx, tx, r, now, c.ID); err != nil {
				return err
			}
		}
		out := stopped{events: []event.Event{r.event(now, c.Actor(), c.Source, data)}}
		if err := s.stop(ctx, tx, r.next, stopping{why: "finished", actor: c.Actor(), source: c.Source}, &out); err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, out.events...)
	})
	if refused := refusal.As(err); refused != nil && errors.Is(err, ErrNotRequester) {
		s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source,
			event.AccessRefused{Action: action, Code: refused.Code, Reason: refused.Detail}))
		if !r.visible(c) {
			err = ErrUnknownRequest
		}
	}
	if err != nil {
		return api.Request{}, err
	}
	s.cfg.Log.Kick()
	return s.Get(ctx, c, id)
}
