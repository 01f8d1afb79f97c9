package approvals

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
)

// CheckPolicy verifies that the grant's terms, and those of the grants that it
// extends, are what the policy gave them, by the versions that they name. Terms
// are in the database, and whoever writes there could write himself a rule that
// asks nobody; versions that a broker vouches for he cannot.
func (s *Service) CheckPolicy(ctx context.Context, g Grant) error {
	return g.CheckPolicy(func(t Terms) (*policy.Policy, error) {
		return s.believedVersion(ctx, s.cfg.Pool, t.PolicyVersion)
	})
}

// believedVersion is a version that a broker vouches for. Others are ErrEvidence.
func (s *Service) believedVersion(ctx context.Context, db querier, n int64) (*policy.Policy, error) {
	if p := s.Policy(); p.Version == n {
		return p, nil
	}
	if p, ok := s.older.Load(n); ok {
		return p.(*policy.Policy), nil
	}
	v, err := readVersion(ctx, db, n)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrEvidence.With("the terms name a version of the policy that never was in force")
	}
	if err != nil {
		return nil, err
	}
	if err := v.check(s.cfg.Log.VerifierKey()); err != nil {
		return nil, ErrEvidence.With("the terms name a version of the policy that nobody vouches for").Because(err)
	}
	p, err := v.parse()
	if err != nil {
		return nil, err
	}
	s.older.Store(n, p)
	return p, nil
}
