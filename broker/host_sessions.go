package broker

import (
	"context"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/sessions"
)

// HostSessions are those on a host, latest first. Operators and auditors see all of
// them, which is an event; others their own (P10). It is ErrUnknownHost for whoever may not see the host.
func (b *Broker) HostSessions(ctx context.Context, c identity.Caller, nameOrID string, f sessions.Filter) (api.Page[api.Session], error) {
	var page api.Page[api.Session]
	h, err := b.Host(ctx, c, nameOrID)
	if err != nil {
		return page, err
	}
	if !c.Has(api.Operator) && !c.Has(api.Auditor) {
		f.PersonID = c.ID
	} else if err := b.cfg.Approvals.DiscloseSessions(ctx, c, h.ID); err != nil {
		return page, err
	}
	return b.sessions.OfHost(ctx, h.ID, f)
}
