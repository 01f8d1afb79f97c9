package rollout

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// question is what people decide on, once: a gate that is judged again, or another
// override, is another question.
type question struct {
	subject machine.Subject
	about   string // as statements name it
	stages  []grant.TermsStage
}

// question finds what is asked now, if it is.
func (d *deployment) question(kind string, batch int, gate string) (question, error) {
	switch machine.SubjectKind(kind) {
	case machine.ToStart:
		if d.state.Phase != machine.AwaitingApproval {
			return question{}, machine.ErrSubject
		}
		return question{machine.Subject{Kind: machine.ToStart}, "start", d.terms.Approvals}, nil
	case machine.ToOverride:
		if d.state.Phase.Over() || len(d.terms.Override) == 0 {
			return question{}, machine.ErrSubject.With("nobody can override freezes of this deployment")
		}
		return question{machine.Subject{Kind: machine.ToOverride}, fmt.Sprintf("override/%d", max(d.state.Unfroze.Unix(), 0)), d.terms.Override}, nil
	case machine.ToPass:
		b, g := d.state.Batch(batch), d.terms.Gate(batch, gate)
		if b == nil || g == nil || b.Phase != machine.Gating || g.Kind != policy.ApprovalGate {
			return question{}, machine.ErrSubject
		}
		return question{machine.Subject{Kind: machine.ToPass, Batch: batch, Gate: gate}, fmt.Sprintf("gate/%d/%d/%s", batch, b.Gated.UnixMicro(), gate), g.Stages}, nil
	}
	return question{}, machine.ErrSubject
}

// Decide takes what a person says to the start of a deployment, to a gate, or to going on
// in a freeze. The rules:
//
//  1. it is asked now, and the person has not answered yet;
//  2. the person is in a group whose approval it needs, by their last sign-in, and a
//     place in the current stage is free for them; a denial takes no place;
//  3. the person did not start the deployment, as far as the job's token says who did,
//     and neither did an agent decide: it is no person (P5);
//  4. the terms that they saw are the deployment's (P4);
//  5. an override has a reason, and ends within a day;
//  6. the terms take the broker's own word for it (assurance session). Under others the
//     answer is approvals.ErrProviderEvidence, and DraftDecision and Complete are the way.
//
// What they say is kept as a statement that the log's key vouches for, and with what
// proves it, as decisions on requests are.
func (s *Service) Decide(ctx context.Context, c identity.Caller, id string, in api.DeploymentDecisionInput) (api.Deployment, error) {
	if err := checkDecision(&in); err != nil {
		return api.Deployment{}, err
	}
	c, err := s.decided(ctx, c, id, func(ctx context.Context, ch *change, c identity.Caller) error {
		a, err := ch.answer(ctx, c, in)
		if err != nil {
			return err
		}
		if ch.terms.Assurance == evidence.Provider {
			return approvals.ErrProviderEvidence.With("decisions on this deployment are signed by the identity provider, so they are given in a browser").
				Hinting("open the deployment's page and decide there")
		}
		a.statement.SignIn = &grant.StatementSignIn{AuthTime: c.AuthTime.UTC(), AMR: append([]string{}, c.AMR...), ACR: c.ACR}
		return ch.take(ctx, a, plan.Decision{}, "")
	})
	if err != nil {
		return api.Deployment{}, err
	}
	return s.View(ctx, c, id)
}

func checkDecision(in *api.DeploymentDecisionInput) error {
	in.Comment = strings.TrimSpace(in.Comment)
	if in.Verdict != api.Approve && in.Verdict != api.Deny || utf8.RuneCountInString(in.Comment) > plan.MaxReason {
		return machine.ErrSubject
	}
	if in.About == string(machine.ToOverride) && in.Comment == "" {
		return ErrReason.On("comment")
	}
	return nil
}

// decided lets do take what a person says to a deployment that they may see, and writes
// down what they were refused.
func (s *Service) decided(ctx context.Context, c identity.Caller, id string, do func(ctx context.Context, ch *change, c identity.Caller) error) (identity.Caller, error) {
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return c, err
	}
	c.Person = person
	_, _, err = s.change(ctx, id, by{c.Actor(), c.Source}, func(ctx context.Context, ch *change) error {
		if !ch.visible(c) {
			return ErrUnknown
		}
		if err := s.cfg.People.HoldPresent(ctx, ch.tx, c.ID); err != nil {
			return err
		}
		return do(ctx, ch, c)
	})
	if err != nil && !errors.Is(err, approvals.ErrProviderEvidence) { // which refuses nothing, but names the way
		err = s.refusedPerson(ctx, c, id, "decide", err)
	}
	return c, err
}

// answer is what a person says to a question, as far as they may say it now.
type answer struct {
	question
	statement plan.Statement
	before    plan.Tally // what others have said
	position  int
}

// answer says whether the person may say that now, by the rules of Decide, and what
// their statement would be, but for what proves it.
func (c *change) answer(ctx context.Context, who identity.Caller, in api.DeploymentDecisionInput) (answer, error) {
	var a answer
	err := c.step(machine.Tick{}) // what time has ended is not asked any more
	if err != nil {
		return a, err
	}
	if a.question, err = c.question(in.About, in.Batch, in.Gate); err != nil {
		return a, err
	}
	if in.TermsHash != "" && in.TermsHash != c.termsHash {
		return a, ErrOtherTerms
	}
	decisions, err := c.decisions(ctx)
	if err != nil {
		return a, err
	}
	a.position = len(decisions) + 1
	if a.before, err = c.terms.Count(a.about, a.stages, decisions, c.termsHash, c.s.cfg.Log.VerifierKey()); err != nil {
		return a, ErrEvidence.Because(err)
	}
	if a.statement, err = c.statement(who, a.question, in); err != nil {
		return a, err
	}
	switch {
	case len(a.statement.Groups) == 0:
		return a, ErrNotApprover
	case c.terms.Started(who.Email):
		return a, ErrOwnDeployment
	case in.Verdict == api.Approve && !policy.MayFill(plan.Stages(a.stages), a.before.Approved, a.approval()):
		return a, ErrNotApprover.With("your approval fills no place that is free")
	}
	return a, nil
}

func (a answer) approval() policy.Approval {
	return policy.Approval{PersonID: a.statement.Approver.ID, Groups: a.statement.Groups}
}

// take keeps the answer with its proof, and does what follows from it.
func (c *change) take(ctx context.Context, a answer, proof plan.Decision, keysHash string) error {
	hash, err := c.keep(ctx, a, proof, keysHash)
	if err != nil {
		return err
	}
	st := a.statement
	if st.Verdict == api.Deny {
		return c.step(machine.Denied{Subject: a.subject, Why: st.Comment})
	}
	if !policy.Quorum(plan.Stages(a.stages), append(a.before.Approved, a.approval())).Complete {
		return nil
	}
	until := st.Until
	if !a.before.Until.IsZero() && a.before.Until.Before(until) {
		until = a.before.Until
	}
	if err := c.step(machine.Approved{Subject: a.subject, Until: until}); err != nil {
		return err
	}
	if a.subject.Kind == machine.ToOverride {
		c.add(event.DeploymentUnfrozen{DeploymentID: c.id, Until: until, Decisions: append(a.before.Hashes, hash)}, c.all()...)
	}
	return nil
}

// statement is what the person says, in the form that is kept.
func (c *change) statement(who identity.Caller, q question, in api.DeploymentDecisionInput) (plan.Statement, error) {
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand crashes the process instead
	st := plan.Statement{
		Format: plan.DecisionFormat, DeploymentID: c.id, TermsHash: c.termsHash, About: q.about, Verdict: in.Verdict,
		Approver: approver(who), Groups: []string{}, Comment: in.Comment,
		Time: c.at(), Random: hex.EncodeToString(random[:]), Assurance: c.terms.Assurance,
	}
	for _, stage := range q.stages {
		for _, slot := range stage.Slots {
			for _, g := range slot.Groups {
				if slices.Contains(who.Groups, g) && !slices.Contains(st.Groups, g) {
					st.Groups = append(st.Groups, g)
				}
			}
		}
	}
	if q.subject.Kind == machine.ToOverride && in.Verdict == api.Approve {
		if in.Until == nil || !in.Until.After(c.now) || in.Until.After(c.now.Add(machine.MaxOverride)) {
			return st, ErrUntil
		}
		st.Until = in.Until.UTC().Truncate(time.Microsecond)
	}
	return st, nil
}

// approver is the person in the words of statements.
func approver(c identity.Caller) grant.StatementApprover {
	return grant.StatementApprover{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject}
}

// at is the time of what is kept: the database has microseconds.
func (c *change) at() time.Time { return c.now.UTC().Truncate(time.Microsecond) }

// keep writes the answer down, with its proof as far as there is one beside the broker's
// word, and says so in the log. What would not be believed later is refused.
func (c *change) keep(ctx context.Context, a answer, proof plan.Decision, keysHash string) (hash string, err error) {
	st := a.statement
	if proof.Text == nil {
		if proof.Text, err = st.Encode(); err != nil {
			return "", err
		}
	}
	proof.Taken = c.at()
	hash = plan.Hash(proof.Text)
	if proof.Note, err = c.s.cfg.Log.Vouch(plan.DecisionKind, hash); err != nil {
		return "", err
	}
	if _, _, err := proof.Open(c.terms, c.termsHash, c.s.cfg.Log.VerifierKey()); errors.Is(err, plan.ErrUnproved) {
		return "", approvals.Unproved(err)
	} else if err != nil {
		return "", ErrEvidence.Because(err)
	}
	id := ids.New(ids.Decision)
	tag, err := c.tx.Exec(ctx, `
		INSERT INTO deployment_decisions (id, deployment_id, position, about, person_id, statement, statement_hash, note, decided_at, id_token, keys_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, ''), nullif($11, '')) ON CONFLICT (deployment_id, about, person_id) DO NOTHING`,
		id, c.id, a.position, st.About, st.Approver.ID, proof.Text, hash, proof.Note, proof.Taken, proof.IDToken, keysHash)
	if err != nil {
		return "", fmt.Errorf("keeping a decision: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return "", ErrDecided
	}
	kind, batch, gate := st.Of()
	said := event.DeploymentDecided{DeploymentID: c.id, DecisionID: id, About: kind, Batch: batch, Gate: gate, Verdict: string(st.Verdict),
		Comment: st.Comment, TermsHash: c.termsHash, Groups: st.Groups, Evidence: string(proof.Text), EvidenceHash: hash,
		Assurance: st.Assurance, IDTokenHash: tokenHash(proof.IDToken), KeysHash: keysHash}
	c.add(said, c.all()...)
	return hash, nil
}

// tokenHash is how the log names the ID token; empty, if there is none.
func tokenHash(token string) string {
	if token == "" {
		return ""
	}
	return plan.Hash([]byte(token))
}

// decisions are what people have said, in order, as it is kept.
func (c *change) decisions(ctx context.Context) ([]plan.Decision, error) {
	return decisionsOf(ctx, c.tx, c.id)
}

func decisionsOf(ctx context.Context, db querier, id string) ([]plan.Decision, error) {
	rows, err := db.Query(ctx, `
		SELECT d.statement, d.note, d.decided_at, coalesce(d.id_token, ''), k.note
		FROM deployment_decisions AS d LEFT JOIN provider_keys AS k ON k.hash = d.keys_hash
		WHERE d.deployment_id = $1 ORDER BY d.position`, id)
	if err != nil {
		return nil, fmt.Errorf("reading decisions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[plan.Decision])
	if err != nil {
		return nil, fmt.Errorf("reading decisions: %w", err)
	}
	return list, nil
}

// start are the hashes of the evidence that approved the start, recomputed; ErrEvidence,
// if it is not enough.
func (c *change) start(ctx context.Context) ([]string, error) {
	if len(c.terms.Approvals) == 0 {
		return []string{}, nil
	}
	decisions, err := c.decisions(ctx)
	if err != nil {
		return nil, err
	}
	tally, err := c.terms.Count("start", c.terms.Approvals, decisions, c.termsHash, c.s.cfg.Log.VerifierKey())
	if err != nil {
		return nil, ErrEvidence.Because(err)
	}
	if !tally.Complete || tally.Denied {
		return nil, ErrEvidence.Because(errors.New("nobody, or too few, approved the start"))
	}
	return tally.Hashes, nil
}

// proved refuses to go on with a deployment whose start nobody approved, whatever its
// state says.
func (c *change) proved(ctx context.Context) error {
	if c.state.Phase == machine.Planned || c.state.Phase == machine.AwaitingApproval {
		return nil // the machine says what is missing
	}
	_, err := c.start(ctx)
	return err
}

// overridden refuses to go on in a freeze that nobody has overridden, whatever the state
// says.
func (c *change) overridden(ctx context.Context, entry *policy.Deployment, batch int) error {
	if b := c.state.Batch(batch); b != nil && b.Rollback || !c.state.Overridden(c.now) ||
		c.terms.FrozenAt(c.now) == nil && entry.FrozenAt(c.now) == nil {
		return nil
	}
	decisions, err := c.decisions(ctx)
	if err != nil {
		return err
	}
	until, err := c.terms.Overridden(decisions, c.termsHash, c.s.cfg.Log.VerifierKey())
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if until.Before(c.state.Unfroze) {
		return ErrEvidence.Because(errors.New("nobody, or too few, overrode the freeze"))
	}
	return nil
}

// refusedPerson writes down what a person was refused, unless it concerns what they may
// not know of.
func (s *Service) refusedPerson(ctx context.Context, c identity.Caller, id, action string, err error) error {
	r := refusal.As(err)
	if r == nil || r.Kind != refusal.Denied && r.Kind != refusal.Conflict {
		return err
	}
	now, clockErr := s.now(ctx, s.cfg.Pool)
	if clockErr == nil {
		s.cfg.Log.Refused(ctx, c.Event(now, event.Subject{}, event.DeploymentRefused{DeploymentID: id, Action: action, Code: r.Code, Reason: r.Detail}))
	}
	return err
}
