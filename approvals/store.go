package approvals

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// requestColumns are what scanRequest reads.
const requestColumns = `id, person_id, host_id, more_host_ids, created_at, terms, terms_hash, state, starts_at, ends_at, use_by, end_reason, key`

func scanRequest(row pgx.CollectableRow) (*request, error) { return scanRequestAnd(row) }

// scanRequestAnd also scans what was selected after requestColumns.
func scanRequestAnd(row pgx.CollectableRow, also ...any) (*request, error) {
	var r request
	var more []string
	err := row.Scan(append([]any{&r.id, &r.personID, &r.hostID, &more, &r.created, &r.termsText, &r.termsHash,
		&r.state, &r.starts, &r.ends, &r.useBy, &r.endsWhy, &r.key}, also...)...)
	if err != nil {
		return nil, err
	}
	for _, t := range []*time.Time{r.starts, r.ends, r.useBy} {
		if t != nil {
			*t = t.UTC()
		}
	}
	if r.terms, err = ParseTerms(r.termsText); err != nil {
		r.broken = ErrEvidence.Because(fmt.Errorf("request %s: %w", r.id, err))
	} else if r.hostID != r.terms.Host.ID || !slices.Equal(more, r.terms.MoreHostIDs()) {
		r.broken = ErrEvidence.Because(fmt.Errorf("request %s is found by other hosts than its terms name", r.id))
	}
	return &r, nil
}

// requests reads what the query, which begins with requestColumns, selects, with
// all decisions, as stored: whoever shows or judges them settles them first.
func (s *Service) requests(ctx context.Context, db querier, sql string, args ...any) ([]*request, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading requests: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanRequest)
	if err != nil {
		return nil, fmt.Errorf("reading requests: %w", err)
	}
	keys := make([]string, len(list))
	for i, r := range list {
		keys[i] = r.id
	}
	if rows, err = db.Query(ctx, selectDecisions+`ANY($1) ORDER BY request_id, position`, keys); err != nil {
		return nil, fmt.Errorf("reading decisions: %w", err)
	}
	if err := addDecisions(rows, list); err != nil {
		return nil, err
	}
	if err := s.addReviews(ctx, db, list); err != nil {
		return nil, err
	}
	return list, s.addExtensions(ctx, db, list)
}

// selectDecisions is what addDecisions reads, but for the request and the order.
const selectDecisions = `
	SELECT request_id, id, statement, statement_hash, decided_at, coalesce(id_token, ''), coalesce(keys_hash, ''),
		EXISTS (SELECT FROM void_decisions v WHERE v.decision_id = decisions.id)
	FROM decisions WHERE request_id = `

func addDecisions(rows pgx.Rows, list []*request) error {
	byID := make(map[string]*request, len(list))
	for _, r := range list {
		byID[r.id] = r
	}
	var id string
	var d decision
	_, err := pgx.ForEachRow(rows, []any{&id, &d.id, &d.text, &d.hash, &d.taken, &d.idToken, &d.keysHash, &d.void}, func() error {
		byID[id].addDecision(d)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading decisions: %w", err)
	}
	return nil
}

// addDecision adds a decision as it was read.
func (r *request) addDecision(d decision) {
	var err error
	if d.statement, err = ParseStatement(d.text); err != nil {
		r.broken = ErrEvidence.Because(fmt.Errorf("request %s: %w", r.id, err))
	}
	d.text, d.keysNote, d.lent, d.taken = slices.Clone(d.text), slices.Clone(d.keysNote), slices.Clone(d.lent), d.taken.UTC()
	r.decision = append(r.decision, d)
}

// find reads one request, settled, or ErrUnknownRequest.
func (s *Service) find(ctx context.Context, id string) (*request, error) {
	r, err := s.one(ctx, s.cfg.Pool, `SELECT `+requestColumns+` FROM requests WHERE id = $1`, id)
	if err != nil {
		return nil, err
	}
	r.settle(s.cfg.Clock.Now())
	return r, nil
}

// lock reads one request and keeps others from changing it until tx ends.
// The clock must be read after that: who had to wait sees what happened meanwhile.
func (s *Service) lock(ctx context.Context, tx pgx.Tx, id string) (*request, error) {
	return s.one(ctx, tx, `SELECT `+requestColumns+` FROM requests WHERE id = $1 FOR UPDATE`, id)
}

// one reads one request in one round trip. Its decisions are another statement,
// which begins, and sees what there is, after the first has its lock.
func (s *Service) one(ctx context.Context, db querier, sql, id string) (*request, error) {
	if !ids.Valid(ids.Request, id) {
		return nil, ErrUnknownRequest
	}
	var list []*request
	var batch pgx.Batch
	batch.Queue(sql, id).Query(func(rows pgx.Rows) (err error) {
		list, err = pgx.CollectRows(rows, scanRequest)
		return err
	})
	// Not ANY, which PostgreSQL would plan anew each time.
	batch.Queue(selectDecisions+`$1 ORDER BY position`, id).Query(func(rows pgx.Rows) error { return addDecisions(rows, list) })
	if err := db.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("reading request %s: %w", id, err)
	}
	if len(list) == 0 {
		return nil, ErrUnknownRequest
	}
	if err := s.addReviews(ctx, db, list); err != nil {
		return nil, err
	}
	if err := s.addExtensions(ctx, db, list); err != nil {
		return nil, err
	}
	return list[0], list[0].broken
}

// insert writes a new request.
func (r *request) insert(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups,
			created_at, approve_by, state, waiting_groups, starts_at, ends_at, use_by, key, more_host_ids)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		r.id, r.personID, r.hostID, r.terms.PolicyVersion, r.termsText, r.termsHash, r.terms.Readers(),
		r.terms.CreatedAt, r.terms.ApproveBy, r.state, r.waitingGroups(), r.starts, r.ends, r.useBy, r.key, r.terms.MoreHostIDs())
	if err != nil {
		return fmt.Errorf("writing request %s: %w", r.id, err)
	}
	return nil
}

// save writes how far a locked request has come.
func (r *request) save(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		UPDATE requests
		SET state = $2, waiting_groups = $3, starts_at = $4, ends_at = $5, use_by = $6, end_reason = $7, key = $8
		WHERE id = $1`,
		r.id, r.state, r.waitingGroups(), r.starts, r.ends, r.useBy, r.endsWhy, r.key)
	if err != nil {
		return fmt.Errorf("writing request %s: %w", r.id, err)
	}
	return nil
}

// insertDecision adds a decision to a locked request, in the database and in r.
func (r *request) insertDecision(ctx context.Context, tx pgx.Tx, d decision) error {
	r.decision = append(r.decision, d)
	var onBehalfOf StatementDelegator
	if f := d.statement.OnBehalfOf; f != nil {
		onBehalfOf = *f
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at,
			assurance, id_token, keys_hash, for_id, delegation_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, ''), nullif($11, ''), nullif($12, ''), nullif($13, ''))`,
		d.id, r.id, len(r.decision), r.personID, d.statement.Approver.ID, d.text, d.hash, d.taken,
		d.statement.Assurance, d.idToken, d.keysHash, onBehalfOf.ID, onBehalfOf.Delegation)
	if err != nil {
		return fmt.Errorf("writing a decision on request %s: %w", r.id, err)
	}
	return nil
}

// subject is what events about the request name.
func (r *request) subject() event.Subject {
	return event.Subject{RequestID: r.id, PersonID: r.personID, HostID: r.hostID, HostIDs: r.terms.HostIDs()}
}

// event is an event about the request, under the policy of its terms.
func (r *request) event(at time.Time, actor event.Actor, source string, data event.Data) event.Event {
	return event.New(at, actor, source, r.subject(), data).
		Under(event.PolicyRef{Version: r.terms.PolicyVersion, Hash: r.terms.PolicyHash})
}
