package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sallyport/api"
)

// countedFor is for how long a count of the hosts is given out. Whoever scrapes metrics
// or opens pages, however often, costs one count in that time.
const countedFor = 10 * time.Second

// counted is the last count.
type counted struct {
	mu     sync.Mutex // held while hosts are counted, so that they are counted once for all who wait
	states map[api.HostState]int
	at     time.Time
}

// Count is how many hosts were in each state at most countedFor ago, with those that wait
// to be let in. Callers share the map.
func (s *Service) Count(ctx context.Context) (map[api.HostState]int, error) {
	s.counted.mu.Lock()
	defer s.counted.mu.Unlock()
	now := s.cfg.Clock.Now()
	if age := now.Sub(s.counted.at); s.counted.states != nil && age >= 0 && age < countedFor {
		return s.counted.states, nil
	}
	states, err := s.cfg.Broker.States(ctx)
	if err != nil {
		return nil, err
	}
	var pending int
	err = s.cfg.Pool.QueryRow(ctx, `SELECT count(*) FROM enrolments WHERE state = 'waiting' AND expires_at > $1`, now).Scan(&pending)
	if err != nil {
		return nil, fmt.Errorf("counting pending hosts: %w", err)
	}
	states[api.HostPending] = pending
	s.counted.states, s.counted.at = states, now
	return states, nil
}
