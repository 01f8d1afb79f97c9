package approvals

import "context"

// WatchReview does what the job does that looks at an emergency's review now.
func (s *Service) WatchReview(ctx context.Context, id string) error {
	return s.watchReview(ctx, reviewJob{RequestID: id, Due: s.cfg.Clock.Now()})
}
