package agents

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// RevokeFor lets an operator end the run that the input names: its calls are refused from
// now on, what it has open closes, and its certificates open nothing. Another job of the
// same pipeline can go on; what keeps all of them away is a stop of the deployment, or
// the policy. A run that is over or revoked already is no error, and no event.
func (s *Service) RevokeFor(ctx context.Context, c identity.Caller, in api.RevocationInput) (api.Revocation, error) {
	out := api.Revocation{Ended: []string{}, Cancelled: []string{}}
	if in.Request+in.Person+in.Host+in.Serial != "" {
		return out, approvals.ErrBadRevocation
	}
	why, err := approvals.CheckWhy(in.Reason)
	if err != nil {
		return out, err
	}
	if !c.Has(api.Operator) {
		refused := approvals.ErrNotOperator
		s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
			event.AccessRefused{Action: "revocations", Code: refused.Code, Reason: refused.Detail}))
		return out, refused
	}
	run, err := s.Get(ctx, in.Agent)
	if err != nil {
		return out, err
	}
	if !run.Revoked.IsZero() || !s.cfg.Clock.Now().Before(run.Expires) {
		return out, nil
	}
	err = pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		return s.Revoke(ctx, tx, Revoker{Actor: c.Actor(), Source: c.Source, Policy: c.Policy}, run.ID, why)
	})
	if err != nil {
		return out, err
	}
	s.cfg.Log.Kick()
	out.Runs = []string{run.ID}
	return out, nil
}
