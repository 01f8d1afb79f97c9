package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Opening is a deployment to open, as far as it is known before the run's token is
// redeemed: what takes time is done by then, and no transaction is open meanwhile.
type Opening struct {
	in     api.DeploymentInput
	narrow plan.Narrow
	policy *policy.Policy
	entry  *policy.Deployment
	hosts  []plan.Host
	// drifted are those of them that have drifted, with what was found.
	drifted map[string]string
}

// Prepare reads what is asked for, and what it means now.
func (s *Service) Prepare(ctx context.Context, in api.DeploymentInput) (*Opening, error) {
	o := &Opening{in: in, narrow: plan.Narrow{Hosts: in.Narrow.Hosts, Batch: in.Narrow.Batch}}
	if !plan.ValidDigest(in.Digest) {
		return nil, plan.ErrDigest
	}
	if in.Narrow.Soak != "" {
		soak, err := time.ParseDuration(in.Narrow.Soak)
		if err != nil {
			return nil, policy.ErrBadDuration.On("narrow.soak")
		}
		o.narrow.Soak = soak
	}
	var err error
	if o.policy, err = s.cfg.Approvals.InForce(ctx); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(o.policy.Deployments, func(d policy.Deployment) bool {
		return d.Service == in.Service && d.Environment == in.Environment
	})
	if i < 0 {
		return nil, ErrNotAllowed
	}
	o.entry = &o.policy.Deployments[i]
	if o.hosts, err = s.cfg.Hosts.Select(ctx, o.entry.Where, o.entry.Login); err != nil {
		return nil, err
	}
	o.drifted, err = s.drifted(ctx, o.hosts)
	return o, err
}

// OpenIn opens the deployment in the transaction in which the run's token is redeemed, or
// attaches the run to the one of the same artifact that is under way, and returns its id.
// Made again by the same run it changes nothing. The rules:
//
//  1. the policy in force has an entry for the service and environment that names the
//     trust entry which admitted the run;
//  2. at most one deployment of the service in the environment is under way; a run with
//     the same digest joins it, and gets its lease if nobody else has it;
//  3. the plan is the policy's, or narrower (plan.Make);
//  4. each host belongs to no other deployment that is under way;
//  5. while a host that the entry selects has drifted, the deployment is held until
//     somebody has looked at it and says so (resume).
//
// Call Opened after the commit.
func (s *Service) OpenIn(ctx context.Context, tx pgx.Tx, run Run, o *Opening) (id string, err error) {
	if !slices.Contains(o.entry.Agents, run.Entry) {
		return "", ErrNotAllowed
	}
	// Of two that open at once, the second waits here, and then sees the first one's.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('deploying ' || $1 || ' in ' || $2, 0))`, o.in.Service, o.in.Environment); err != nil {
		return "", fmt.Errorf("opening a deployment: %w", err)
	}
	running, err := under(ctx, tx, o.in.Service, o.in.Environment)
	if err != nil {
		return "", err
	}
	if running != nil {
		return running.id, s.join(ctx, tx, run, o, running)
	}
	return s.begin(ctx, tx, run, o)
}

// Open is OpenIn in a transaction of its own, for a run whose token has been redeemed.
func (s *Service) Open(ctx context.Context, run Run, o *Opening) (id string, err error) {
	err = pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		id, err = s.OpenIn(ctx, tx, run, o)
		return err
	})
	return id, err
}

// under is the deployment of the service that is under way, locked, or nil.
func under(ctx context.Context, tx pgx.Tx, service, environment string) (*deployment, error) {
	var id string
	err := tx.QueryRow(ctx, `SELECT id FROM deployments WHERE service = $1 AND environment = $2 AND ended_at IS NULL`, service, environment).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for a deployment under way: %w", err)
	}
	return load(ctx, tx, id, "FOR UPDATE")
}

// join attaches a run to a deployment under way: a rollout lasts longer than a job.
func (s *Service) join(ctx context.Context, tx pgx.Tx, run Run, o *Opening, d *deployment) error {
	if d.terms.Digest != o.in.Digest || d.terms.Entry != o.entry.Name {
		return ErrOtherRunning.With("deployment %s of %s is under way there", d.id, d.terms.Digest)
	}
	c, err := s.changing(ctx, tx, d, by{run.Actor(), run.Source})
	if err != nil {
		return err
	}
	if err := c.step(machine.Attach{Run: run.ID}); err != nil {
		return err
	}
	return c.save(ctx)
}

func (s *Service) begin(ctx context.Context, tx pgx.Tx, run Run, o *Opening) (string, error) {
	now, err := s.now(ctx, tx)
	if err != nil {
		return "", err
	}
	previous, err := lastVerified(ctx, tx, o.in.Service, o.in.Environment)
	if err != nil {
		return "", err
	}
	terms, err := plan.Make(plan.Opening{ID: ids.New(ids.Deployment), Entry: o.entry, Policy: o.policy, Digest: o.in.Digest, Previous: previous,
		Agent: plan.Agent{Run: run.ID, Entry: run.Entry, Issuer: run.Issuer, Subject: run.Subject, TokenHash: run.TokenHash, Claims: claims(run)},
		Hosts: o.hosts, Narrow: o.narrow, Now: now})
	if err != nil {
		return "", err
	}
	text, err := terms.Encode()
	if err != nil {
		return "", err
	}
	d := &deployment{id: terms.DeploymentID, text: text, termsHash: plan.Hash(text), groups: terms.Groups(), openedAt: now, terms: terms,
		state: machine.New(terms, now)}
	c, err := s.changing(ctx, tx, d, by{run.Actor(), run.Source})
	if err != nil {
		return "", err
	}
	if err := c.insert(ctx, run); err != nil {
		return "", err
	}
	opened := event.DeploymentOpened{DeploymentID: d.id, Entry: terms.Entry, Service: terms.Service, Environment: terms.Environment,
		Digest: terms.Digest, Previous: terms.Previous, Login: terms.Login, Command: terms.CommandFor(false),
		Claims: terms.Agent.Claims, TokenHash: run.TokenHash, TermsHash: d.termsHash}
	for _, b := range terms.Batches {
		opened.Batches = append(opened.Batches, strconv.Itoa(len(b.Hosts)))
	}
	c.add(opened, c.all()...)
	for _, e := range append([]machine.Event{machine.Start{}, machine.Attach{Run: run.ID}}, o.strayed(terms, now)...) {
		if err := c.step(e); err != nil {
			return "", err
		}
	}
	return d.id, c.save(ctx)
}

// claims are never null in the terms.
func claims(run Run) map[string]string {
	if run.Claims == nil {
		return map[string]string{}
	}
	return run.Claims
}

// insert writes the rows, and so takes the hosts' locks.
func (c *change) insert(ctx context.Context, run Run) error {
	state, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	t := c.terms
	if _, err := c.tx.Exec(ctx, `
		INSERT INTO deployments (id, entry, service, environment, digest, run_id, policy_version, terms, terms_hash, groups, opened_at, phase, state, epoch)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0)`,
		c.id, t.Entry, t.Service, t.Environment, t.Digest, run.ID, t.PolicyVersion, c.text, c.termsHash, c.groups, c.openedAt,
		string(c.state.Phase), state); err != nil {
		return fmt.Errorf("opening a deployment: %w", err)
	}
	var hosts []string
	var batches []int
	for _, b := range t.Batches {
		for _, h := range b.Hosts {
			hosts, batches = append(hosts, h.ID), append(batches, b.Number)
		}
	}
	// In one order, so that of two deployments one waits for the other, and not both.
	_, err = c.tx.Exec(ctx, `
		INSERT INTO deployment_hosts (deployment_id, host_id, batch)
		SELECT $1, u.host, u.batch FROM unnest($2::text[], $3::integer[]) AS u (host, batch) ORDER BY u.host`, c.id, hosts, batches)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "deployment_hosts_held" {
		return ErrHostBusy
	}
	if err != nil {
		return fmt.Errorf("locking the hosts of a deployment: %w", err)
	}
	return nil
}

// Opened is what follows the commit of OpenIn: the deployment as the run sees it, once
// the log has what was said of it.
func (s *Service) Opened(ctx context.Context, run Run, id string) (api.Deployment, error) {
	s.settled()
	d, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return api.Deployment{}, err
	}
	return s.view(ctx, d)
}

// Refused writes down that an agent was refused something, and returns the refusal. What
// is no fault of the agent's is not written, nor what only asks it to wait.
func (s *Service) Refused(ctx context.Context, run Run, data event.DeploymentRefused, err error) error {
	r := refusal.As(err)
	if r == nil || r.Kind == refusal.Unavailable || run.ID == "" || run.Source == "" || waiting(r) {
		return err
	}
	data.Code, data.Reason = r.Code, r.Detail
	now, clockErr := s.now(ctx, s.cfg.Pool)
	if clockErr == nil {
		s.cfg.Log.Refused(ctx, event.New(now, run.Actor(), run.Source, event.Subject{}, data).Under(run.Policy))
	}
	return err
}

// waiting reports whether the refusal says no more than that it is too early.
func waiting(r *refusal.Error) bool {
	for _, early := range []*refusal.Error{machine.ErrAwaiting, machine.ErrFrozen, machine.ErrHeld, machine.ErrBatchBefore} {
		if errors.Is(r, early) {
			return true
		}
	}
	return false
}
