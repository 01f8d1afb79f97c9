package approvals

import "context"

// Settle does what the job does for a request that is due now.
func (s *Service) Settle(ctx context.Context, id string) error {
	return s.work(ctx, settleJob{RequestID: id, Due: s.cfg.Clock.Now()})
}

// Forget makes Trends count every week anew.
func (s *Service) Forget() {
	s.settled.mu.Lock()
	defer s.settled.mu.Unlock()
	s.settled.weeks = nil
}
