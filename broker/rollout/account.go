package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/broker/sessions"
)

// Limits of what is shown of one deployment.
const (
	maxShownCertificates = 500
	// MaxTold is how many of its events Told gives, the newest.
	MaxTold = 200
	// toldSearches is how many pages of the log are searched for them.
	toldSearches = 10
)

// Account is all that people are shown of one deployment beside its events: how it
// stands, by what terms, what people are asked, and which certificates and sessions its
// agents had.
func (s *Service) Account(ctx context.Context, c identity.Caller, id string) (api.DeploymentAccount, error) {
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return api.DeploymentAccount{}, err
	}
	if !d.visible(c) {
		return api.DeploymentAccount{}, ErrUnknown
	}
	shown, err := s.shown(ctx, c, d) // d stands by the clock from here on
	if err != nil {
		return api.DeploymentAccount{}, err
	}
	t := d.terms
	out := api.DeploymentAccount{Deployment: shown[0], Agent: t.Agent.Entry, Issuer: t.Agent.Issuer, Subject: t.Agent.Subject, Login: t.Login,
		Command: t.CommandFor(false), Sources: t.SourceAddress, Lifetime: t.LifetimeFor().String(), Uses: t.Uses, OnFailure: t.OnFailure,
		Unfrozen: given(d.state.Unfroze)}
	if t.RollbackCommand != "" && t.Previous != "" {
		out.Back = t.CommandFor(true)
	}
	if out.Questions, err = s.asked(ctx, d, c); err != nil {
		return out, err
	}
	if out.Certificates, err = s.certificates(ctx, id); err != nil {
		return out, err
	}
	out.Sessions, err = sessions.New(s.cfg.Pool).OfDeployment(ctx, id)
	return out, err
}

// asked is what people are asked of the deployment now, as the person sees it. Decide
// checks all of it again.
func (s *Service) asked(ctx context.Context, d *deployment, c identity.Caller) ([]api.DeploymentQuestion, error) {
	list := []api.DeploymentQuestion{}
	if d.state.Phase.Over() {
		return list, nil
	}
	decisions, err := decisionsOf(ctx, s.cfg.Pool, d.id)
	if err != nil {
		return nil, err
	}
	ask := func(kind machine.SubjectKind, batch int, gate string) {
		if q, err := d.question(string(kind), batch, gate); err == nil {
			list = append(list, s.questionView(d, c, q, decisions))
		}
	}
	ask(machine.ToStart, 0, "")
	if b := d.state.Current(); b != nil && b.Phase == machine.Gating {
		for _, g := range b.Gates {
			if g.Verdict == machine.Waiting {
				ask(machine.ToPass, b.Number, g.Name)
			}
		}
	}
	ask(machine.ToOverride, 0, "")
	return list, nil
}

func (s *Service) questionView(d *deployment, c identity.Caller, q question, decisions []plan.Decision) api.DeploymentQuestion {
	out := api.DeploymentQuestion{About: string(q.subject.Kind), Batch: q.subject.Batch, Gate: q.subject.Gate, Slots: []api.Slot{}}
	tally, err := d.terms.Count(q.about, q.stages, decisions, d.termsHash, s.cfg.Log.VerifierKey())
	if err != nil {
		out.Why = ErrEvidence.Detail
	}
	mine := policy.Approval{PersonID: c.ID}
	for i, stage := range q.stages {
		for j, slot := range stage.Slots {
			view := api.Slot{Stage: i + 1, Groups: slot.Groups, Count: slot.Count}
			if err == nil {
				view.Filled = tally.Filled[i][j]
			}
			out.Slots = append(out.Slots, view)
			for _, g := range slot.Groups {
				if slices.Contains(c.Groups, g) {
					mine.Groups = append(mine.Groups, g)
				}
			}
		}
	}
	switch {
	case err != nil:
	case len(mine.Groups) == 0:
		out.Why = ErrNotApprover.Detail
	case d.terms.Started(c.Email):
		out.Why = ErrOwnDeployment.Detail
	case answered(decisions, q.about, c.ID):
		out.Why = ErrDecided.Detail
	default:
		out.MayDeny = true
		if out.MayApprove = policy.MayFill(plan.Stages(q.stages), tally.Approved, mine); !out.MayApprove {
			out.Why = "your approval fills no place that is free"
		}
	}
	return out
}

// answered reports whether the person has answered the question.
func answered(decisions []plan.Decision, about, person string) bool {
	return slices.ContainsFunc(decisions, func(d plan.Decision) bool {
		st, err := plan.ParseStatement(d.Text)
		return err == nil && st.About == about && st.Approver.ID == person
	})
}

// certificates are those of the deployment's agents, newest first.
func (s *Service) certificates(ctx context.Context, id string) ([]api.DeploymentCertificate, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT serial, host_id, batch, epoch, run_id, uses, issued_at, valid_before, event_id FROM deployment_certificates
		WHERE deployment_id = $1 ORDER BY issued_at DESC, serial DESC LIMIT $2`, id, maxShownCertificates)
	if err != nil {
		return nil, fmt.Errorf("reading a deployment's certificates: %w", err)
	}
	list, events := []api.DeploymentCertificate{}, []uuid.UUID{}
	var c api.DeploymentCertificate
	var event uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&c.Serial, &c.HostID, &c.Batch, &c.Epoch, &c.Run, &c.Uses, &c.IssuedAt, &c.ValidBefore, &event}, func() error {
		c.IssuedAt, c.ValidBefore = c.IssuedAt.UTC(), c.ValidBefore.UTC()
		list, events = append(list, c), append(events, event)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading a deployment's certificates: %w", err)
	}
	places, err := s.cfg.Log.Places(ctx, events)
	for i, event := range events {
		if place, there := places[event]; there {
			list[i].Index = &place
		}
	}
	return list, err
}

// Told are the deployment's events that have their place in the log, newest first and at
// most MaxTold, for a person who may see it; all reports whether there are no more.
// Certificates are a list of their own (Account).
func (s *Service) Told(ctx context.Context, c identity.Caller, id string) (events []api.Event, all bool, err error) {
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return nil, false, err
	}
	if !d.visible(c) {
		return nil, false, ErrUnknown
	}
	f := audit.Filter{Text: id, From: d.openedAt.Add(-time.Minute), Limit: MaxTold}
	for range toldSearches {
		found, err := s.cfg.Log.Search(ctx, f)
		if err != nil {
			return nil, false, err
		}
		for _, e := range found.Entries {
			if strings.HasPrefix(e.Type, "deployment.certificate_") || strings.HasPrefix(e.Type, "disclosed.") {
				continue
			}
			if event := e.API(false); event.Data["deployment_id"] == id {
				if len(events) == MaxTold {
					return events, false, nil
				}
				events = append(events, event)
			}
		}
		if f.Before = found.Next; f.Before == 0 {
			return events, true, nil
		}
	}
	return events, false, nil
}

// Sees reports whether there is any deployment that the person may see, or would.
func (s *Service) Sees(ctx context.Context, c identity.Caller) (sees bool, err error) {
	if seesAll(c) {
		return true, nil
	}
	err = s.cfg.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM deployments WHERE groups && $1)`, append([]string{}, c.Groups...)).Scan(&sees)
	if err != nil {
		return false, fmt.Errorf("looking for deployments: %w", err)
	}
	return sees, nil
}

// Services are the names of all services of which the person may see a deployment.
func (s *Service) Services(ctx context.Context, c identity.Caller) ([]string, error) {
	rows, err := s.cfg.Pool.Query(ctx, `SELECT DISTINCT service FROM deployments WHERE $1 OR groups && $2 ORDER BY service`,
		seesAll(c), append([]string{}, c.Groups...))
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	return list, nil
}

// Waiting are the deployments that cannot start, or pass a gate, until the person or
// somebody else in their place has decided; oldest first. Going on in a freeze waits for
// nobody.
func (s *Service) Waiting(ctx context.Context, c identity.Caller) ([]api.Deployment, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT id FROM deployments
		WHERE ended_at IS NULL AND groups && $1 AND (phase = 'awaiting_approval' OR state->'batches' @> '[{"phase": "gating"}]')
		ORDER BY opened_at, id`, append([]string{}, c.Groups...))
	if err != nil {
		return nil, fmt.Errorf("looking for deployments that wait: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("looking for deployments that wait: %w", err)
	}
	var list []api.Deployment
	for _, id := range ids {
		d, err := load(ctx, s.cfg.Pool, id, "")
		if err != nil {
			return nil, err
		}
		shown, err := s.view(ctx, d)
		if err != nil {
			return nil, err
		}
		questions, err := s.asked(ctx, d, c)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(questions, func(q api.DeploymentQuestion) bool { return q.MayApprove && q.About != string(machine.ToOverride) }) {
			list = append(list, shown)
		}
	}
	return list, nil
}

// CountWaiting is how many there are.
func (s *Service) CountWaiting(ctx context.Context, c identity.Caller) (int, error) {
	list, err := s.Waiting(ctx, c)
	return len(list), err
}

// OfHost is the last deployment that had the host and that the person may see; nil, if
// there was none.
func (s *Service) OfHost(ctx context.Context, c identity.Caller, hostID string) (*api.Deployment, error) {
	var id string
	err := s.cfg.Pool.QueryRow(ctx, `
		SELECT d.id FROM deployments AS d
		WHERE ($2 OR d.groups && $3) AND EXISTS (SELECT FROM deployment_hosts AS h WHERE h.deployment_id = d.id AND h.host_id = $1)
		ORDER BY d.opened_at DESC, d.id DESC LIMIT 1`, hostID, seesAll(c), append([]string{}, c.Groups...)).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for a host's last deployment: %w", err)
	}
	d, err := s.View(ctx, c, id)
	return &d, err
}

// asks is what a gate wants to see, in words; of a batch of so many hosts.
func asks(g plan.Gate, hosts int) string {
	switch g.Kind {
	case policy.ReportedGate:
		return fmt.Sprintf("%d of %d hosts reported ok", g.OK, hosts)
	case policy.HTTPGate:
		text := fmt.Sprintf("GET %s answers %d", g.URL, g.Status)
		if g.Contains != "" {
			text += fmt.Sprintf(" and contains %q", g.Contains)
		}
		return text
	case policy.PrometheusGate:
		return fmt.Sprintf("%s is %s, by %s", g.Query, g.Is, g.URL)
	case policy.PostureGate:
		if len(g.Ports) == 0 {
			return "every host shows that it is sealed, and nothing listens but sshd"
		}
		ports := strings.Trim(strings.ReplaceAll(fmt.Sprint(g.Ports), " ", ", "), "[]")
		return "every host shows that it is sealed, and nothing listens but sshd and port " + ports
	case policy.ApprovalGate:
		return "people approve"
	}
	return string(g.Kind)
}

// seen is when the gate was looked at last, and when it is inconclusive.
func seen(b machine.Batch, of plan.Gate, g machine.Gate) (at, by *time.Time) {
	switch {
	case b.Gated.IsZero() || g.Name == "":
		return nil, nil
	case !of.Kind.Measured():
		if of.Kind == policy.ReportedGate {
			at = given(b.Gated)
		}
	case g.Why != "" && g.Next.After(b.Gated):
		at = given(g.Next.Add(-of.EveryTime()))
	}
	if within := of.WithinTime(); within > 0 && g.Verdict == machine.Waiting {
		by = given(b.Gated.Add(within))
	}
	return at, by
}
