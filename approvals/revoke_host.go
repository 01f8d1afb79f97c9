package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// CheckWhy returns the reason for an end that somebody brings about, or refuses it.
func CheckWhy(reason string) (string, error) {
	why := trim(reason)
	if why == "" {
		return "", ErrNoWhy
	}
	return why, text("reason", why, maxReason)
}

// revokeHost ends all requests that are for the host, which may have been removed.
// Each ends in a transaction of its own: they are different people's, whose own ends
// lock them in other orders. What fails can be done again.
func (s *Service) revokeHost(ctx context.Context, c identity.Caller, nameOrID, why string) (api.Revocation, error) {
	if !c.Has(api.Operator) {
		return api.Revocation{}, s.refusedTo(ctx, c, "revocations", event.Subject{}, ErrNotOperator)
	}
	hostID := nameOrID
	if target, err := s.cfg.Hosts.Target(ctx, nameOrID); err == nil {
		hostID = target.ID
	} else if !errors.Is(err, ErrUnknownHost) || !ids.Valid(ids.Host, nameOrID) {
		return api.Revocation{}, err
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT id FROM requests
		WHERE (host_id = $1 OR more_host_ids @> ARRAY[$1]) AND state IN ('requested', 'approved', 'active')
		ORDER BY created_at, id`, hostID)
	if err != nil {
		return api.Revocation{}, fmt.Errorf("reading a host's requests: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return api.Revocation{}, fmt.Errorf("reading a host's requests: %w", err)
	}
	how := stopping{why: "revoked", comment: why, actor: c.Actor(), source: c.Source}
	all := api.Revocation{Ended: []string{}, Cancelled: []string{}}
	for _, id := range list {
		if slices.Contains(all.Ended, id) || slices.Contains(all.Cancelled, id) {
			continue // with the one that it extends
		}
		var out stopped
		err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
			out = stopped{}
			if err := s.stop(ctx, tx, id, how, &out); err != nil {
				return err
			}
			return s.cfg.Log.Stage(ctx, tx, out.events...)
		})
		if err != nil {
			return api.Revocation{}, fmt.Errorf("ending request %s, after %d others of the host: %w", id, len(all.Ended)+len(all.Cancelled), err)
		}
		s.cfg.Log.Kick()
		all.Ended, all.Cancelled = append(all.Ended, out.ended...), append(all.Cancelled, out.cancelled...)
	}
	return all, nil
}
