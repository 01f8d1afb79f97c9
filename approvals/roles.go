package approvals

import (
	"context"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// OnlyAuditors lets those pass who may read the log; the log itself knows nobody.
// That anybody else tried the action, a method and a route, is an event (P10).
func (s *Service) OnlyAuditors(ctx context.Context, c identity.Caller, action string) error {
	if c.Has(api.Auditor) {
		return nil
	}
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.AccessRefused{Action: action, Code: ErrNotAuditor.Code, Reason: ErrNotAuditor.Detail}))
	return ErrNotAuditor
}
