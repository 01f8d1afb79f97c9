package sshd

import (
	"io"
	"sync"
)

// logBuffer keeps what is written and wakes those who wait for more.
type logBuffer struct {
	also io.Writer // may be nil

	mu   sync.Mutex
	text []byte
	more chan struct{} // closed, and replaced, at each write
}

func newLogBuffer(also io.Writer) *logBuffer {
	return &logBuffer{also: also, more: make(chan struct{})}
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	close(b.more)
	b.more = make(chan struct{})
	if b.also != nil {
		return b.also.Write(p)
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// changed is closed at the next write after this call.
func (b *logBuffer) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}
