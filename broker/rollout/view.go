package rollout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/refusal"
)

// View is one deployment, for a person who may see it.
func (s *Service) View(ctx context.Context, c identity.Caller, id string) (api.Deployment, error) {
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return api.Deployment{}, err
	}
	if !d.visible(c) {
		return api.Deployment{}, ErrUnknown
	}
	out, err := s.shown(ctx, c, d)
	if err != nil {
		return api.Deployment{}, err
	}
	return out[0], nil
}

// shown are deployments that the person may see, as they are shown one: with so many
// queries, however many they are.
func (s *Service) shown(ctx context.Context, c identity.Caller, list ...*deployment) ([]api.Deployment, error) {
	out, err := s.views(ctx, list...)
	if err != nil {
		return nil, err
	}
	for i, d := range list {
		out[i].Actions = d.actions(c)
	}
	return out, s.visited(ctx, out)
}

// Filter narrows List. Zero fields do not filter.
type Filter struct {
	Service, Environment string
	State                string
	Running, Over        bool
	Cursor               string // id of the last of the page before
	Limit                int    // 1 to 200; 0 means 50
}

// List are the deployments that the person may see, newest first.
func (s *Service) List(ctx context.Context, c identity.Caller, f Filter) (api.Page[api.Deployment], error) {
	page := api.Page[api.Deployment]{Items: []api.Deployment{}}
	if f.Limit == 0 {
		f.Limit = 50
	}
	everything := seesAll(c)
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT `+columns+` FROM deployments
		WHERE ($1 OR groups && $2) AND ($3 = '' OR service = $3) AND ($4 = '' OR environment = $4) AND (NOT $5 OR ended_at IS NULL)
			AND ($8 = '' OR phase = $8) AND (NOT $9 OR ended_at IS NOT NULL)
			AND ($6 = '' OR (opened_at, id) < (SELECT d.opened_at, d.id FROM deployments AS d WHERE d.id = $6))
		ORDER BY opened_at DESC, id DESC LIMIT $7`,
		everything, append([]string{}, c.Groups...), f.Service, f.Environment, f.Running, f.Cursor, f.Limit+1, f.State, f.Over)
	if err != nil {
		return page, fmt.Errorf("listing deployments: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return page, fmt.Errorf("listing deployments: %w", err)
	}
	if len(list) > f.Limit {
		list = list[:f.Limit]
		page.Next = list[len(list)-1].id
	}
	page.Items, err = s.shown(ctx, c, list...)
	return page, err
}

// view is how the deployment stands now, by the clock.
func (s *Service) view(ctx context.Context, d *deployment) (api.Deployment, error) {
	out, err := s.views(ctx, d)
	if err != nil {
		return api.Deployment{}, err
	}
	return out[0], nil
}

func (s *Service) views(ctx context.Context, list ...*deployment) ([]api.Deployment, error) {
	out := make([]api.Deployment, len(list))
	if len(list) == 0 {
		return out, nil
	}
	now, err := s.now(ctx, s.cfg.Pool)
	if err != nil {
		return nil, err
	}
	said, err := s.said(ctx, list)
	if err != nil {
		return nil, err
	}
	for i, d := range list {
		out[i] = d.view(now)
		out[i].Decisions = append(out[i].Decisions, said[d.id]...)
	}
	return out, nil
}

// view is how the deployment stands, without what people have said. It stands by the
// clock from then on.
func (d *deployment) view(now time.Time) api.Deployment {
	// As it will be written down by whoever looks next; but no end before that.
	if state, _, err := machine.Step(d.terms, d.state, machine.Tick{}, now); err == nil && !state.Phase.Over() {
		d.state = state
	}
	t, st := d.terms, d.state
	out := api.Deployment{ID: d.id, Service: t.Service, Environment: t.Environment, Digest: t.Digest, Previous: t.Previous,
		State: string(st.Phase), Why: st.Why, Entry: t.Entry, Policy: t.PolicyVersion, TermsHash: d.termsHash,
		OpenedBy: t.Agent.Run, Claims: t.Agent.Claims, OpenedAt: d.openedAt, EndedAt: d.endedAt,
		Epoch: uint64(st.Epoch), Holder: st.Holder, LeaseUntil: given(st.Lease), Blockers: d.blockers(now),
		Assurance: t.Assurance, Spent: st.Spent, Budget: t.Failures, Batches: []api.DeploymentBatch{}, Decisions: []api.DeploymentSaid{}, Actions: []string{}}
	if next := st.Next(); next != nil && !st.Phase.Over() {
		out.Next = next.Number
	}
	names := map[string]string{}
	for _, h := range t.Hosts() {
		names[h.ID] = h.Name
	}
	for _, b := range st.Batches {
		out.Batches = append(out.Batches, d.batchView(b, names))
	}
	return out
}

func (d *deployment) batchView(b machine.Batch, names map[string]string) api.DeploymentBatch {
	out := api.DeploymentBatch{Number: b.Number, Rollback: b.Rollback, State: string(b.Phase), Why: b.Why,
		OpenedAt: given(b.Opened), SealedAt: given(b.Sealed), Hosts: []api.DeploymentHost{}, Gates: []api.DeploymentGate{}}
	for _, h := range b.Hosts {
		out.Hosts = append(out.Hosts, api.DeploymentHost{ID: h.ID, Name: names[h.ID], State: string(h.Phase), Result: string(h.Result), Why: h.Why})
	}
	switch b.Phase {
	case machine.Open:
		out.Until = given(b.Opened.Add(d.terms.OpenTime()))
	case machine.Sealing:
		out.Until = given(b.Shut.Add(d.terms.VerifyTime()))
	}
	if b.Rollback {
		return out
	}
	from := d.terms.Batches[b.Number-1]
	out.Canary = from.Canary
	if b.Phase == machine.Soaking {
		out.Until = given(b.Sealed.Add(from.SoakTime()))
	}
	stands := map[string]machine.Gate{}
	for _, g := range b.Gates {
		stands[g.Name] = g
	}
	for _, g := range from.Gates {
		now, begun := stands[g.Name]
		if !begun {
			now.Verdict = machine.Waiting
		}
		gate := api.DeploymentGate{Name: g.Name, Kind: string(g.Kind), Verdict: string(now.Verdict),
			Passes: now.Passes, Times: g.Times, Failures: now.Failures, Why: now.Why, Needs: needs(g), Asks: asks(g, len(from.Hosts))}
		gate.At, gate.By = seen(b, g, now)
		out.Gates = append(out.Gates, gate)
	}
	return out
}

// needs is whose approval a gate waits for, in words.
func needs(g plan.Gate) (list []string) {
	for _, stage := range g.Stages {
		for _, slot := range stage.Slots {
			list = append(list, fmt.Sprintf("%d from %s", slot.Count, strings.Join(slot.Groups, " or ")))
		}
	}
	return list
}

// blockers are what keeps the deployment from opening its next batch.
func (d *deployment) blockers(now time.Time) []api.Blocker {
	list := []api.Blocker{}
	add := func(r *refusal.Error, why string, until time.Time) {
		if why == "" {
			why = r.Detail
		}
		list = append(list, api.Blocker{Code: r.Code, Why: why, Hint: r.Hint, Until: given(until)})
	}
	st := &d.state
	switch {
	case st.Phase.Over():
		return list
	case st.Phase == machine.AwaitingApproval:
		add(machine.ErrAwaiting, "", time.Time{})
	}
	for _, h := range st.Holds {
		hint := "somebody who controls it resumes it, aborts it or rolls it back"
		switch h.Code {
		case machine.LeaseLost:
			hint = "start the pipeline's job again: its run takes the deployment up"
		case machine.BatchFailed:
			hint = "abort the deployment or roll it back"
		}
		list = append(list, api.Blocker{Code: h.Code, Why: h.Why, Hint: hint})
	}
	if f := d.terms.FrozenAt(now); f != nil && !st.Overridden(now) && st.Phase != machine.RollingBack {
		add(machine.ErrFrozen, fmt.Sprintf("nothing is deployed in the freeze %q", f.Name), f.Until)
	}
	if b := st.Current(); b != nil && b.Phase != machine.Open {
		until := time.Time{}
		if b.Phase == machine.Soaking {
			until = b.Sealed.Add(d.terms.Batches[b.Number-1].SoakTime())
		}
		add(machine.ErrBatchBefore, fmt.Sprintf("batch %d is %s", b.Number, b.Phase), until)
	}
	return list
}

// actions are what the person may do now.
func (d *deployment) actions(c identity.Caller) []string {
	list := []string{}
	if d.state.Phase.Over() {
		return list
	}
	if d.controls(c) {
		list = append(list, "stop", "resume", "abort", "rollback")
	}
	for _, g := range d.groups {
		for _, mine := range c.Groups {
			if g == mine {
				return append(list, "decide")
			}
		}
	}
	return list
}

// said is what people have said of each of the deployments, as it is kept.
func (s *Service) said(ctx context.Context, list []*deployment) (map[string][]api.DeploymentSaid, error) {
	all := make([]string, len(list))
	for i, d := range list {
		all[i] = d.id
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT d.deployment_id, d.id, d.statement, d.statement_hash, coalesce(d.id_token, ''), coalesce(d.keys_hash, ''), p.id, p.name, p.email
		FROM deployment_decisions AS d JOIN people AS p ON p.id = d.person_id
		WHERE d.deployment_id = ANY ($1) ORDER BY d.deployment_id, d.position`, all)
	if err != nil {
		return nil, fmt.Errorf("reading decisions: %w", err)
	}
	said := map[string][]api.DeploymentSaid{}
	var of, id, hash, idToken, keysHash string
	var text []byte
	var person identity.Person
	_, err = pgx.ForEachRow(rows, []any{&of, &id, &text, &hash, &idToken, &keysHash, &person.ID, &person.Name, &person.Email}, func() error {
		st, err := plan.ParseStatement(text)
		if err != nil {
			return err
		}
		kind, batch, gate := st.Of()
		said[of] = append(said[of], api.DeploymentSaid{ID: id, About: kind, Batch: batch, Gate: gate, Verdict: st.Verdict, Person: person.API(),
			Comment: st.Comment, At: st.Time, Evidence: approvals.Shown(st.Said(), hash, idToken, keysHash)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading decisions: %w", err)
	}
	return said, nil
}

// given is the time, or nothing.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
