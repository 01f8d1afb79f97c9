package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// Posture is how a host is, and what says so. Operators and auditors only; to others the
// host is unknown unless they may see it, and then the refusal says whose it is.
func (s *Service) Posture(ctx context.Context, c identity.Caller, nameOrID string) (api.HostPosture, error) {
	var out api.HostPosture
	h, err := s.cfg.Broker.Host(ctx, c, nameOrID)
	if err != nil {
		return out, err
	}
	if !c.Has(api.Operator) && !c.Has(api.Auditor) {
		s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{HostID: h.ID},
			event.AccessRefused{Action: "hosts.posture", Code: approvals.ErrNotOperator.Code, Reason: approvals.ErrNotOperator.Detail}))
		return out, approvals.ErrNotOperator
	}
	known, err := s.postures.Facts(ctx, []string{h.ID})
	if err != nil {
		return out, err
	}
	f := known[h.ID]
	out = api.HostPosture{HostID: h.ID, State: h.State, StateWhy: h.StateWhy, Sessions: f.Live, Checks: []api.HostCheck{}}
	if !f.Enrolled {
		return out, nil
	}
	seen := f.SeenAt.UTC()
	out.SeenAt = &seen
	var facts hostapi.Facts
	var enrolled api.Enrolled
	err = s.cfg.Pool.QueryRow(ctx, `SELECT facts, enrolled_at, let_in_by, let_in_by_name, last_report FROM enrolled_hosts WHERE host_id = $1`, h.ID).
		Scan(&facts, &enrolled.At, &enrolled.LetInBy.ID, &enrolled.LetInBy.Name, &enrolled.LastReport)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return out, fmt.Errorf("reading an enrolled host: %w", err)
	}
	enrolled.At = enrolled.At.UTC()
	enrolled.OS, enrolled.OpenSSH, enrolled.Kernel, enrolled.Helper = facts.OS, facts.OpenSSH, facts.Kernel, facts.Helper
	out.Enrolled = &enrolled
	if p := f.Posture; p != nil {
		taken, received := p.TakenAt.UTC(), p.ReceivedAt.UTC()
		out.Number, out.TakenAt, out.ReceivedAt = p.Number, &taken, &received
		checks, err := s.postures.Checks(ctx, h.ID)
		if err != nil {
			return out, err
		}
		for _, check := range checks {
			out.Checks = append(out.Checks, api.HostCheck{ID: check.ID, Result: string(check.Result), Findings: check.Findings, Remedy: check.Remedy})
		}
	}
	if p := f.Probe; p != nil {
		out.Probe = &api.HostProbe{At: p.At.UTC(), Result: string(p.Result), Login: p.Login, Findings: p.Findings}
	}
	return out, nil
}
