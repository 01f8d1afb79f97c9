package approvals

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/together"
)

// Seen is a request as it was read: which, and in which version of its row.
type Seen struct{ id, version string }

// Grant reads a grant and its evidence: in one round trip, unless it extends another,
// which serves all who read one at the same time.
// It returns ErrUnknownRequest if the request does not exist or is not the caller's,
// identity.ErrRemoved if the caller has been removed, and ErrEvidence if its texts
// cannot be read. Whether the grant is good is for Check to say.
//
// Nothing is locked. What was read is still so when QueueHold says that what was seen
// is the same: all that a grant can become is in the request's one row.
func (s *Service) Grant(ctx context.Context, c identity.Caller, id string) (Grant, Seen, error) {
	if !ids.Valid(ids.Request, id) {
		return Grant{}, Seen{}, ErrUnknownRequest
	}
	f, _, err := s.grants.Ask(ctx, id)
	seen := Seen{id, f.version}
	switch {
	case err != nil:
		return Grant{}, seen, fmt.Errorf("reading request %s: %w", id, err)
	case f.request == nil || f.request.personID != c.ID:
		return Grant{}, seen, ErrUnknownRequest
	case !f.there:
		return Grant{}, seen, identity.ErrRemoved
	}
	r := new(request)
	*r = *f.request // which others may have got too
	if err := s.addReviews(ctx, s.cfg.Pool, []*request{r}); err != nil {
		return Grant{}, seen, err
	}
	if r.broken != nil {
		return Grant{}, seen, r.broken
	}
	r.settle(s.cfg.Clock.Now())
	g, err := s.grantOf(ctx, s.cfg.Pool, r, c, policy.MaxExtensions)
	return g, seen, err
}

// found is a request as it was read for its grant.
type found struct {
	*request        // not settled, and without its review
	version  string // of the row
	there    bool   // its person: they have not been removed
}

// readGrants reads requests with all that their grants rest on, but for reviews and
// what they extend. Those that are wanted at the same time are read together.
func (s *Service) readGrants(ctx context.Context, wanted []string) (map[string]found, error) {
	list := make(map[string]found, len(wanted))
	var batch pgx.Batch
	batch.Queue(together.PlanOnce)
	batch.Queue(`
		SELECT `+requestColumns+`, xmin::text,
			EXISTS (SELECT FROM people WHERE people.id = requests.person_id AND removed_at IS NULL)
		FROM requests WHERE id = ANY ($1)`, wanted).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
			f.request, err = scanRequestAnd(row, &f.version, &f.there)
			return f, err
		})
		for _, f := range all {
			list[f.id] = f
		}
		return err
	})
	batch.Queue(`
		SELECT d.request_id, d.id, d.statement, d.statement_hash, d.decided_at, coalesce(d.id_token, ''), coalesce(d.keys_hash, ''),
			EXISTS (SELECT FROM void_decisions v WHERE v.decision_id = d.id), k.note, g.note
		FROM unnest($1::text[]) AS u (id) JOIN decisions d ON d.request_id = u.id
			LEFT JOIN provider_keys k ON k.hash = d.keys_hash LEFT JOIN delegations g ON g.id = d.delegation_id
		ORDER BY d.request_id, d.position`, wanted).Query(func(rows pgx.Rows) error {
		var id string
		var d decision
		_, err := pgx.ForEachRow(rows, []any{&id, &d.id, &d.text, &d.hash, &d.taken, &d.idToken, &d.keysHash, &d.void, &d.keysNote, &d.lent}, func() error {
			if f, ok := list[id]; ok { // which there was not, a moment ago, if it is new
				f.addDecision(d)
			}
			return nil
		})
		return err
	})
	return list, s.cfg.Pool.SendBatch(ctx, &batch).Close()
}

// QueueHold asks, for each of the requests that were seen, whether it is still the
// same and its person has not been removed, and keeps it so until the transaction
// that the batch is sent in ends. found is called with the place of each that is.
//
// It does not wait: one that somebody else holds may be about to change, and is not
// among those found. A removal, which ends the person's grants, comes before this or
// after it, by the request's lock.
func (s *Service) QueueHold(batch *pgx.Batch, seen []Seen, found func(place int)) {
	keys := make([]string, len(seen))
	for i, one := range seen {
		keys[i] = one.id
	}
	slices.Sort(keys)
	// Not "= ANY": PostgreSQL might begin with all people.
	batch.Queue(`
		SELECT r.id, r.xmin::text FROM unnest($1::text[]) AS u (id) JOIN requests r ON r.id = u.id
		WHERE EXISTS (SELECT FROM people p WHERE p.id = r.person_id AND p.removed_at IS NULL)
		FOR UPDATE OF r SKIP LOCKED`, slices.Compact(keys)).Query(func(rows pgx.Rows) error {
		now := make(map[string]string, len(seen))
		var id, version string
		_, err := pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			now[id] = version
			return nil
		})
		if err != nil {
			return fmt.Errorf("holding requests: %w", err)
		}
		for i, one := range seen {
			if now[one.id] == one.version && one.version != "" {
				found(i)
			}
		}
		return nil
	})
}

// QueueUse binds held grants, which must be bound to no other key, to their keys and
// makes them active.
func (s *Service) QueueUse(batch *pgx.Batch, requests, fingerprints []string) {
	if len(requests) == 0 {
		return
	}
	batch.Queue(`
		UPDATE requests r SET state = 'active', key = u.key
		FROM unnest($1::text[], $2::text[]) AS u (id, key)
		WHERE r.id = u.id AND r.state IN ('approved', 'active') AND r.key IN ('', u.key)`, requests, fingerprints).
		Exec(func(tag pgconn.CommandTag) error {
			if int(tag.RowsAffected()) != len(requests) {
				return fmt.Errorf("%d of %d grants could not be bound to their keys", len(requests)-int(tag.RowsAffected()), len(requests))
			}
			return nil
		})
}

// Settled returns when nobody holds the request any more who held it before.
func (s *Service) Settled(ctx context.Context, id string) error {
	if _, err := s.cfg.Pool.Exec(ctx, `SELECT FROM requests WHERE id = $1 FOR UPDATE`, id); err != nil {
		return fmt.Errorf("waiting for request %s: %w", id, err)
	}
	return nil
}

// grantOf is the caller's settled request as a grant. It may extend so many others.
func (s *Service) grantOf(ctx context.Context, db querier, r *request, c identity.Caller, left int) (Grant, error) {
	g := Grant{
		RequestID: r.id, State: r.state, Person: TermsPerson{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject},
		Terms: r.terms, TermsText: r.termsText, TermsHash: r.termsHash, Key: r.key,
		Anchor: s.anchor(),
	}
	if r.starts != nil && r.ends != nil {
		g.StartsAt, g.EndsAt = *r.starts, *r.ends
	}
	for _, d := range r.decision {
		if d.void {
			continue
		}
		e, err := d.evidence(ctx, db)
		if err != nil {
			return Grant{}, err
		}
		g.Decisions = append(g.Decisions, e)
	}
	var err error
	g.Earlier, err = s.earlier(ctx, db, r.terms, c, left)
	return g, err
}
