package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/ids"
	"sallyport/internal/remember"
)

// deployment is a row, as it was read.
type deployment struct {
	id, termsHash string
	text          []byte
	groups        []string
	openedAt      time.Time
	endedAt       *time.Time
	terms         *plan.Terms
	state         machine.State
}

// load reads a deployment; lock is empty, FOR SHARE or FOR UPDATE. The terms are what
// their text says, and the text what its hash says; no column is believed beside them.
func load(ctx context.Context, db querier, id, lock string) (*deployment, error) {
	if !ids.Valid(ids.Deployment, id) {
		return nil, ErrUnknown
	}
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM deployments WHERE id = $1 `+lock, id)
	if err != nil {
		return nil, fmt.Errorf("reading deployment %s: %w", id, err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("reading deployment %s: %w", id, err)
	}
	return d, nil
}

// columns are what scan reads.
const columns = `id, terms, terms_hash, groups, opened_at, ended_at, state`

func scan(row pgx.CollectableRow) (*deployment, error) {
	d := &deployment{}
	var state []byte
	if err := row.Scan(&d.id, &d.text, &d.termsHash, &d.groups, &d.openedAt, &d.endedAt, &state); err != nil {
		return nil, err
	}
	return d, d.read(state)
}

func (d *deployment) read(state []byte) (err error) {
	if d.terms, err = plan.Parse(d.text); err != nil {
		return ErrEvidence.Because(err)
	}
	if d.terms.DeploymentID != d.id || plan.Hash(d.text) != d.termsHash {
		return ErrEvidence.Because(fmt.Errorf("the terms of %s are another deployment's", d.id))
	}
	d.openedAt = d.openedAt.UTC()
	key, known := remember.Of(state), false
	if d.state, known = states.Get(key); known {
		return nil
	}
	if err := json.Unmarshal(state, &d.state); err != nil {
		return fmt.Errorf("reading how deployment %s stands: %w", d.id, err)
	}
	states.Put(key, d.state)
	return nil
}

// states are those that were read before: each certificate of a batch asks for the same
// twice, and that of a thousand hosts takes a millisecond. The machine changes copies.
var states = remember.Memory[machine.State]{Size: 32}

// change is a change of one deployment under way, with its row locked.
type change struct {
	*deployment
	s      *Service
	tx     pgx.Tx
	now    time.Time
	actor  event.Actor
	source string
	policy event.PolicyRef
	events []event.Event
	// verifying: every host is to be sealed once more, and to show that it is.
	verifying bool
}

// by is who causes a change, where from, and under which policy; the broker itself, if
// it is zero.
type by struct {
	actor  event.Actor
	source string
}

// change lets do change a locked deployment, and keeps what came of it, with its events.
// It returns the deployment as it is then, and the ids of the events.
func (s *Service) change(ctx context.Context, id string, who by, do func(ctx context.Context, c *change) error) (*deployment, []uuid.UUID, error) {
	var c *change
	err := pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		d, err := load(ctx, tx, id, "FOR UPDATE")
		if err != nil {
			return err
		}
		if c, err = s.changing(ctx, tx, d, who); err != nil {
			return err
		}
		if err := do(ctx, c); err != nil {
			return err
		}
		return c.save(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	s.settled()
	return c.deployment, c.ids(), nil
}

func (s *Service) changing(ctx context.Context, tx pgx.Tx, d *deployment, who by) (*change, error) {
	now, err := s.now(ctx, tx)
	if err != nil {
		return nil, err
	}
	if now.Before(d.state.At) { // as the machine does: nothing happens before what has happened
		now = d.state.At
	}
	if who.actor.Kind == "" {
		who.actor = event.Actor{Kind: event.Broker}
	}
	return &change{deployment: d, s: s, tx: tx, now: now, actor: who.actor, source: who.source,
		policy: event.PolicyRef{Version: d.terms.PolicyVersion, Hash: d.terms.PolicyHash}}, nil
}

// settled is what follows a commit.
func (s *Service) settled() {
	s.cfg.Log.Kick()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (c *change) ids() []uuid.UUID {
	list := make([]uuid.UUID, len(c.events))
	for i, e := range c.events {
		list[i] = e.ID
	}
	return list
}

// step takes one step of the machine.
func (c *change) step(e machine.Event) error {
	state, effects, err := machine.Step(c.terms, c.state, e, c.now)
	if err != nil {
		return err
	}
	c.state = state
	c.say(effects)
	return nil
}

// save writes the row, and what its end brings with it.
func (c *change) save(ctx context.Context) error {
	if c.endedAt != nil {
		return nil
	}
	state, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	var due, ended *time.Time
	if at := machine.Wake(c.terms, c.state); !at.IsZero() {
		due = &at
	}
	if c.state.Phase.Over() {
		ended = &c.state.At
	}
	_, err = c.tx.Exec(ctx, `UPDATE deployments SET phase = $2, state = $3, epoch = $4, due_at = $5, ended_at = $6 WHERE id = $1`,
		c.id, string(c.state.Phase), state, c.state.Epoch, due, ended)
	if err == nil && ended != nil {
		c.endedAt = ended
		err = c.over(ctx)
	}
	if err != nil {
		return fmt.Errorf("writing how deployment %s stands: %w", c.id, err)
	}
	if c.verifying {
		if err := c.seal(ctx, c.all()); err != nil {
			return err
		}
	}
	if err := c.s.cfg.Log.Stage(ctx, c.tx, c.events...); err != nil {
		return err
	}
	if c.s.cfg.Fault != nil {
		return c.s.cfg.Fault()
	}
	return nil
}

// over lets the hosts go, and remembers what was verified.
func (c *change) over(ctx context.Context) error {
	if _, err := c.tx.Exec(ctx, `UPDATE deployment_hosts SET released_at = $2 WHERE deployment_id = $1 AND released_at IS NULL`, c.id, c.state.At); err != nil {
		return err
	}
	// Of a part of a service's hosts, the others have something else still.
	if c.state.Phase != machine.Complete {
		return nil
	}
	_, err := c.tx.Exec(ctx, `
		INSERT INTO verified_artifacts (service, environment, digest, deployment_id, verified_at) VALUES ($1, $2, $3, $4, $5)`,
		c.terms.Service, c.terms.Environment, c.terms.Digest, c.id, c.state.At)
	return err
}

// lastVerified is the digest that was verified on the service's hosts last, or empty.
func lastVerified(ctx context.Context, db querier, service, environment string) (digest string, err error) {
	err = db.QueryRow(ctx, `
		SELECT digest FROM verified_artifacts WHERE service = $1 AND environment = $2 ORDER BY verified_at DESC LIMIT 1`,
		service, environment).Scan(&digest)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for the artifact verified last: %w", err)
	}
	return digest, nil
}
