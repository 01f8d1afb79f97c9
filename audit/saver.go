package audit

import (
	"time"

	"sallyport/internal/refusal"
)

// savePause is how long the file with the last known checkpoint is left alone once it
// has been written: PostgreSQL may wait for the same disk.
const savePause = 100 * time.Millisecond

// saver writes the last known checkpoint to its file beside the sequencer, so
// that nobody waits for that disk too. Kicks while it writes and pauses become one.
type saver struct {
	kicks chan struct{}
	last  chan struct{} // closed when the next save is the last one
	done  chan struct{}
}

func (l *Log) startSaving() *saver {
	s := &saver{kicks: make(chan struct{}, 1), last: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for range s.kicks {
			if err := l.saveState(); err != nil {
				l.logger.Error("keeping the checkpoint failed", "error", err, "cause", refusal.As(err).Unwrap())
			}
			select {
			case <-time.After(savePause):
			case <-s.last:
			}
		}
	}()
	return s
}

func (s *saver) kick() {
	select {
	case s.kicks <- struct{}{}:
	default:
	}
}

// stop returns when the newest checkpoint is in the file.
func (s *saver) stop() {
	s.kick()
	close(s.kicks)
	close(s.last)
	<-s.done
}
