package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
)

// insertReview adds a review to a locked request, in the database and in r.
func (r *request) insertReview(ctx context.Context, tx pgx.Tx, v review) error {
	r.review = &v
	_, err := tx.Exec(ctx, `
		INSERT INTO reviews (id, request_id, requester_id, reviewer_id, statement, statement_hash, reviewed_at,
			assurance, id_token, keys_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), nullif($10, ''))`,
		v.id, r.id, r.personID, v.statement.Reviewer.ID, v.text, v.hash, v.taken,
		v.statement.Said().Assurance, v.idToken, v.keysHash)
	if err != nil {
		return fmt.Errorf("writing the review of request %s: %w", r.id, err)
	}
	return nil
}

// addReviews reads the reviews of those that are emergencies. One that does not
// sign off its terms, or is not proved as they want it, was written by hand.
func (s *Service) addReviews(ctx context.Context, db querier, list []*request) error {
	byID, keys := map[string]*request{}, []string{}
	for _, r := range list {
		if r.terms.Emergency != nil {
			byID[r.id], keys = r, append(keys, r.id)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `
		SELECT v.request_id, v.id, v.statement, v.statement_hash, v.reviewed_at, coalesce(v.id_token, ''), coalesce(v.keys_hash, ''), k.note
		FROM reviews AS v LEFT JOIN provider_keys AS k ON k.hash = v.keys_hash
		WHERE v.request_id = ANY($1)`, keys)
	if err != nil {
		return fmt.Errorf("reading reviews: %w", err)
	}
	var id string
	var v review
	var keysNote []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &v.id, &v.text, &v.hash, &v.taken, &v.idToken, &v.keysHash, &keysNote}, func() error {
		r, v := byID[id], v
		v.text, v.taken = slices.Clone(v.text), v.taken.UTC()
		var err error
		v.statement, err = CheckReview(r.terms, r.termsHash, Evidence{Statement: v.text, Hash: v.hash, Taken: v.taken,
			Proof: evidence.Proof{IDToken: v.idToken, Keys: keysNote}}, s.anchor())
		if err != nil {
			r.broken = ErrEvidence.Because(fmt.Errorf("request %s: %w", id, err))
		}
		r.review = &v
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading reviews: %w", err)
	}
	return nil
}

// reviewLogged reports whether the log has the request's review, exactly; or had it,
// and the emergency was pruned, which is done with those only that were reviewed.
func (s *Service) reviewLogged(ctx context.Context, r *request) (bool, error) {
	entries, err := s.cfg.Log.Entries(ctx, audit.Filter{RequestID: r.id, Type: "review.given"})
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		e, err := entry.Event()
		if err != nil {
			return false, err
		}
		given, ok := e.Data.(event.ReviewGiven)
		if ok && r.review != nil && e.Subject.RequestID == r.id && given.EvidenceHash == r.review.hash && given.Evidence == string(r.review.text) {
			return true, nil
		}
	}
	return s.emergencyPruned(ctx, r)
}

// emergencyPruned reports whether the log begins after the emergency. One that is
// there, or waits for its place, has a start in the log.
func (s *Service) emergencyPruned(ctx context.Context, r *request) (bool, error) {
	started, err := s.cfg.Log.Entries(ctx, audit.Filter{RequestID: r.id, Type: "emergency.started", Limit: 1})
	if err != nil || len(started) > 0 {
		return false, err
	}
	records, err := s.cfg.Log.Prunes(ctx)
	return len(records) > 0 && r.terms.CreatedAt.Before(records[0].Time), err
}

// waitsForReview is true of a row e of emergencies that nobody has reviewed.
const waitsForReview = `(NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = e.request_id))`

// hasUnreviewed reports whether the person has an emergency, a real one, that
// nobody has reviewed.
func (s *Service) hasUnreviewed(ctx context.Context, db querier, personID string) (bool, error) {
	rows, err := db.Query(ctx, `SELECT EXISTS (SELECT FROM emergencies e WHERE e.person_id = $1 AND NOT e.drill AND `+waitsForReview+`)`, personID)
	if err != nil {
		return false, fmt.Errorf("reading unreviewed emergencies: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("reading unreviewed emergencies: %w", err)
	}
	return found, nil
}

// trades reports whether the person has an emergency, a real one, whose review is
// missing or not proved: they would trade signatures. It takes connections of its
// own, as the log has to be asked.
func (s *Service) trades(ctx context.Context, personID string) (bool, error) {
	_, err := s.checkReviewed(ctx, personID, false)
	if errors.Is(err, ErrUnreviewed) {
		return true, nil
	}
	return false, err
}

// addReviewActions says of the emergencies of a list whether the caller can review
// them, and if not, why.
func (s *Service) addReviewActions(ctx context.Context, c identity.Caller, list []*request, out []api.Request) error {
	waits := func(r *request) bool { return r.mayReview(c.Person, false) == nil }
	own := false
	if slices.ContainsFunc(list, waits) {
		var err error
		if own, err = s.hasUnreviewed(ctx, s.cfg.Pool, c.ID); err != nil {
			return err
		}
	}
	for i, r := range list {
		if r.terms.Emergency != nil {
			out[i].Actions = append(out[i].Actions, action("review", r.mayReview(c.Person, own)))
		}
	}
	return nil
}

// reviewsForMe selects the emergencies e that @me could review.
const reviewsForMe = `(e.person_id <> @me AND e.review_groups && @groups::text[] AND ` + waitsForReview + `
	AND NOT EXISTS (SELECT FROM emergencies mine WHERE mine.person_id = @me AND NOT mine.drill
		AND NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = mine.request_id)))`

// CountReviews is how many emergencies wait for the caller's review.
func (s *Service) CountReviews(ctx context.Context, c identity.Caller) (int, error) {
	var n int
	err := s.cfg.Pool.QueryRow(ctx, `SELECT count(*) FROM emergencies e WHERE `+reviewsForMe,
		pgx.NamedArgs{"me": c.ID, "groups": notNil(c.Groups)}).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting reviews: %w", err)
	}
	return n, nil
}
