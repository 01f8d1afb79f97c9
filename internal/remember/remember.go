// Package remember keeps what is dear to compute and can never come out otherwise:
// what some bytes mean, or that a signature over them holds. The key is the SHA-256 of
// all that the result depends on, so that remembering is no trust in anybody.
package remember

import (
	"crypto/sha256"
	"sync"
)

// Key is the SHA-256 of what a result depends on.
type Key [sha256.Size]byte

// Of is the key of one text.
func Of(text []byte) Key { return sha256.Sum256(text) }

// Memory remembers between Size and twice as many results: when Size new ones have
// come, those that nobody asked for meanwhile are forgotten. It is safe for concurrent
// use.
type Memory[T any] struct {
	Size int // must be positive

	mu         sync.Mutex
	young, old map[Key]T
}

// Get returns what was put under the key. Whoever gets it must not change it.
func (m *Memory[T]) Get(key Key) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.young[key]; ok {
		return v, true
	}
	v, ok := m.old[key]
	if ok {
		m.put(key, v)
	}
	return v, ok
}

// Put remembers a result.
func (m *Memory[T]) Put(key Key, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v)
}

func (m *Memory[T]) put(key Key, v T) {
	if len(m.young) >= m.Size {
		m.young, m.old = nil, m.young
	}
	if m.young == nil {
		m.young = make(map[Key]T)
	}
	m.young[key] = v
}
