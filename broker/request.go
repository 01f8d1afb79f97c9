package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
)

// Request is approvals.Get with the certificates and the sessions that they opened, and with what the hosts have to
// say about the caller's "connect" action.
func (b *Broker) Request(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	r, err := b.cfg.Approvals.Get(ctx, c, id)
	if err != nil {
		return api.Request{}, err
	}
	if r.Certificates, err = b.certificates(ctx, id); err != nil {
		return api.Request{}, err
	}
	if err := b.addResults(ctx, id, r.Certificates); err != nil {
		return api.Request{}, err
	}
	countCertificates(r)
	if r.Sessions, err = b.sessions.OfRequest(ctx, id); err != nil {
		return api.Request{}, err
	}
	i := slices.IndexFunc(r.Actions, func(a api.Action) bool { return a.Name == "connect" })
	if i < 0 || !r.Actions[i].Allowed {
		return r, nil
	}
	why, err := b.cannotConnect(ctx, r)
	if err != nil {
		return api.Request{}, err
	}
	r.Actions[i].Allowed, r.Actions[i].Why = why == "", why
	return r, nil
}

// certificates are those of one request, oldest first.
func (b *Broker) certificates(ctx context.Context, requestID string) ([]api.CertificateInfo, error) {
	rows, err := b.cfg.Pool.Query(ctx, `
		SELECT serial, key_id, principal, fingerprint, valid_after, valid_before, event_id::text
		FROM certificates WHERE request_id = $1 ORDER BY serial`, requestID)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i api.CertificateInfo, err error) {
		err = row.Scan(&i.Serial, &i.KeyID, &i.Principal, &i.Fingerprint, &i.ValidAfter, &i.ValidBefore, &i.Event)
		i.ValidAfter, i.ValidBefore = i.ValidAfter.UTC(), i.ValidBefore.UTC()
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	return list, nil
}
