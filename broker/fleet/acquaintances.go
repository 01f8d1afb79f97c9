package fleet

import (
	"sync"
	"time"
)

const (
	// rememberFor is how long a host is known again without asking the database.
	rememberFor = time.Minute
	// maxAcquaintances is how many are known so; when there are more, all are asked for
	// anew.
	maxAcquaintances = 50_000
)

// acquaintances are hosts whose calls were good of late.
type acquaintances struct {
	mu    sync.Mutex
	hosts map[string]acquaintance
}

type acquaintance struct {
	host *enrolled
	at   time.Time // when the database said so
}

func (s *Service) acquainted(id string) *enrolled {
	s.acquaintances.mu.Lock()
	defer s.acquaintances.mu.Unlock()
	a, ok := s.acquaintances.hosts[id]
	if !ok || s.cfg.Clock.Now().Sub(a.at) > rememberFor {
		return nil
	}
	return a.host
}

// remember keeps a host that is new, or was read anew.
func (s *Service) remember(h *enrolled) {
	s.acquaintances.mu.Lock()
	defer s.acquaintances.mu.Unlock()
	if a, ok := s.acquaintances.hosts[h.id]; ok && a.host == h {
		return
	}
	if s.acquaintances.hosts == nil || len(s.acquaintances.hosts) >= maxAcquaintances {
		s.acquaintances.hosts = map[string]acquaintance{}
	}
	s.acquaintances.hosts[h.id] = acquaintance{h, s.cfg.Clock.Now()}
}
