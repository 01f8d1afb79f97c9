package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
)

// The states of a proposal, as they are stored.
const (
	proposalOpen      = "open"
	proposalApproved  = "approved"
	proposalDenied    = "denied"
	proposalWithdrawn = "withdrawn"
)

// proposal is a row of policy_proposals, with the decision on it if there is one.
type proposal struct {
	id        string
	authorID  string
	base      int64
	document  []byte // only when one is read
	statement ProposalStatement
	text      []byte
	hash      string // of text
	note      []byte
	created   time.Time
	state     string

	decisionID string // empty: nobody has decided
	decision   policyDecision
	version    int64 // that it became; 0: none
}

// policyDecision is what another operator said to a proposal.
type policyDecision struct {
	kept
	statement PolicyStatement
}

// selectProposals is what scanProposal reads.
const selectProposals = `
	SELECT p.id, p.author_id, p.base_version, p.statement, p.statement_hash, p.note, p.created_at, p.state,
		coalesce(d.id, ''), d.statement, coalesce(d.statement_hash, ''), d.decided_at, coalesce(d.id_token, ''), coalesce(d.keys_hash, ''),
		coalesce(a.version, 0)
	FROM policy_proposals AS p
	LEFT JOIN policy_decisions AS d ON d.proposal_id = p.id
	LEFT JOIN policy_activations AS a ON a.proposal_id = p.id `

func scanProposal(row pgx.CollectableRow) (*proposal, error) {
	var p proposal
	var decided *time.Time
	d := &p.decision
	err := row.Scan(&p.id, &p.authorID, &p.base, &p.text, &p.hash, &p.note, &p.created, &p.state,
		&p.decisionID, &d.text, &d.hash, &decided, &d.idToken, &d.keysHash, &p.version)
	if err != nil {
		return nil, err
	}
	p.created = p.created.UTC()
	if decided != nil {
		d.taken = decided.UTC()
	}
	if err := grant.ParseCanonical(p.text, &p.statement); err != nil {
		return nil, ErrEvidence.Because(fmt.Errorf("proposal %s: %w", p.id, err))
	}
	if d.text != nil {
		if err := grant.ParseCanonical(d.text, &d.statement); err != nil {
			return nil, ErrEvidence.Because(fmt.Errorf("the decision on proposal %s: %w", p.id, err))
		}
	}
	return &p, nil
}

// findProposal reads one proposal with its document, or ErrUnknownProposal. With
// lock, others cannot change it until db, a transaction, ends.
func (s *Service) findProposal(ctx context.Context, db querier, id string, lock bool) (*proposal, error) {
	if !ids.Valid(ids.Proposal, id) {
		return nil, ErrUnknownProposal
	}
	// The lock is a statement of its own, so that what follows sees what was
	// committed while it waited.
	read := `SELECT document FROM policy_proposals WHERE id = $1`
	if lock {
		read += ` FOR UPDATE`
	}
	document, err := oneRow(ctx, db, pgx.RowTo[[]byte], read, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnknownProposal
	}
	if err != nil {
		return nil, fmt.Errorf("reading proposal %s: %w", id, err)
	}
	p, err := oneRow(ctx, db, scanProposal, selectProposals+`WHERE p.id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("reading proposal %s: %w", id, err)
	}
	p.document = document
	return p, s.checkProposal(p)
}

// checkProposal refuses a proposal that no broker took: that somebody is its author,
// or that this is its document, is what the database alone says.
func (s *Service) checkProposal(p *proposal) error {
	v := VouchedStatement{Text: p.text, Note: p.note}
	_, err := v.Open(grant.ProposalKind, s.cfg.Log.VerifierKey())
	st := p.statement
	if err == nil && (st.Format != ProposalFormat || st.ProposalID != p.id || st.Author.ID != p.authorID ||
		st.BaseVersion != p.base || st.DocumentHash != hash(p.document)) {
		err = errors.New("the row is not what its statement says")
	}
	if err != nil {
		return ErrForgedProposal.Because(fmt.Errorf("proposal %s: %w", p.id, err))
	}
	return nil
}

func oneRow[T any](ctx context.Context, db querier, scan pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		var none T
		return none, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

func (p *proposal) insert(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO policy_proposals (id, author_id, base_version, document, document_hash, statement, statement_hash, note,
			created_at, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		p.id, p.authorID, p.base, p.document, p.statement.DocumentHash, p.text, p.hash, p.note, p.created, p.state)
	if err != nil {
		return fmt.Errorf("writing proposal %s: %w", p.id, err)
	}
	return nil
}

// close gives a locked, open proposal its last state.
func (p *proposal) close(ctx context.Context, tx pgx.Tx, state string) error {
	p.state = state
	if _, err := tx.Exec(ctx, `UPDATE policy_proposals SET state = $2 WHERE id = $1`, p.id, state); err != nil {
		return fmt.Errorf("closing proposal %s: %w", p.id, err)
	}
	return nil
}

// insertPolicyDecision adds the decision on a locked proposal.
func (s *Service) insertPolicyDecision(ctx context.Context, tx pgx.Tx, id string, p *proposal, d policyDecision) error {
	note, err := s.cfg.Log.Vouch(grant.DecisionKind, d.hash)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO policy_decisions (id, proposal_id, author_id, approver_id, statement, statement_hash, note, decided_at,
			assurance, id_token, keys_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, ''), nullif($11, ''))`,
		id, p.id, p.authorID, d.statement.Approver.ID, d.text, d.hash, note, d.taken,
		d.statement.Assurance, d.idToken, d.keysHash)
	if err != nil {
		return fmt.Errorf("writing the decision on proposal %s: %w", p.id, err)
	}
	return nil
}

func insertVersion(ctx context.Context, tx pgx.Tx, n int64, p *policy.Policy, at time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO policy_versions (version, hash, document, activated_at) VALUES ($1, $2, $3, $4)`,
		n, p.Hash, p.Text, at)
	if err != nil {
		return fmt.Errorf("writing version %d of the policy: %w", n, err)
	}
	return nil
}

// insertActivation puts a version into force: as soon as the log has the event.
func (s *Service) insertActivation(ctx context.Context, tx pgx.Tx, a Activation, proposalID string) error {
	text, err := a.Encode()
	if err != nil {
		return err
	}
	note, err := s.cfg.Log.Vouch(grant.ActivationKind, string(text))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO policy_activations (version, proposal_id, note, event_id) VALUES ($1, nullif($2, ''), $3, $4)`,
		a.Version, proposalID, note, a.EventID)
	if err != nil {
		return fmt.Errorf("activating version %d of the policy: %w", a.Version, err)
	}
	return nil
}

// readVersion reads a version with all that says how it came into force.
func readVersion(ctx context.Context, db querier, n int64) (version, error) {
	v, err := oneRow(ctx, db, func(row pgx.CollectableRow) (version, error) {
		v := version{VersionEvidence: VersionEvidence{Version: n}}
		var p, d VouchedStatement
		err := row.Scan(&v.Document, &v.Note, &v.eventID, &p.Text, &p.Note, &d.Text, &d.Note, &v.Proof.IDToken, &v.Proof.Keys, &v.Base)
		v.EventID = v.eventID.String()
		if p.Text != nil && d.Text != nil {
			v.Proposal, v.Decision = &p, &d
		}
		return v, err
	}, `
		SELECT v.document, a.note, a.event_id, p.statement, p.note, d.statement, d.note, coalesce(d.id_token, ''), k.note, b.document
		FROM policy_activations AS a
		JOIN policy_versions AS v USING (version)
		LEFT JOIN policy_proposals AS p ON p.id = a.proposal_id
		LEFT JOIN policy_decisions AS d ON d.proposal_id = p.id
		LEFT JOIN provider_keys AS k ON k.hash = d.keys_hash
		LEFT JOIN policy_versions AS b ON b.version = p.base_version
		WHERE a.version = $1`, n)
	if err != nil {
		return version{}, fmt.Errorf("reading version %d of the policy: %w", n, err)
	}
	return v, nil
}

// nextVersion is a number that no version has had, believed or not.
func nextVersion(ctx context.Context, tx pgx.Tx) (n int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT max(version) + 1 FROM policy_versions`).Scan(&n); err != nil {
		return 0, fmt.Errorf("numbering a version of the policy: %w", err)
	}
	return n, nil
}

// verdictState is the state of a proposal after a verdict.
func verdictState(v api.Verdict) string {
	if v == api.Approve {
		return proposalApproved
	}
	return proposalDenied
}
