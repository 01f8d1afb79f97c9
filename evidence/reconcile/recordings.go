package reconcile

import (
	"strconv"
	"time"

	"sallyport/evidence/populations"
)

// recordingGrace is how long after the end of a session the ends of its recordings may
// come: hosts report them one after the other, and seldom in another order.
const recordingGrace = time.Hour

// recorded are the sessions that have to be recorded, by their ids, until an hour after
// their end; and those that have ended, as they did.
type recorded struct {
	open map[string]*recordedSession
	over []*recordedSession
}

type recordedSession struct {
	id          string
	certificate int64              // the entry which says that it has to be recorded
	ended       *populations.Event // nil: it goes on
	found       bool               // the end of a recording of it, or what the broker misses
}

// recording takes what the log says of a session, by the data's fields
//
//	session_id  of all
//	serial      of the certificate, as text: session.started and session.ended
//	reason      of session.ended: "refused" says that nothing ever ran
//	code        of session.alarm: recording-missing or recording-differs is the broker's
//	            word for what it has, whose bytes are not in the log
func (g *Engine) recording(e *populations.Event) {
	id := e.Text("session_id")
	s := g.recorded.open[id]
	switch code := e.Text("code"); {
	case e.Type == "session.started":
		g.hasToBeRecorded(e)
	case e.Type == "session.alarm" && (code == "recording-missing" || code == "recording-differs"):
		related := int64(-1)
		if s != nil {
			s.found, related = true, s.certificate
		}
		g.report(SessionUnrecorded, e, related, "%s", e.Text("reason"))
	case e.Type == "session.recorded" && s != nil:
		s.found = true
	case e.Type == "session.ended":
		if s == nil { // its start was lost
			s = g.hasToBeRecorded(e)
		}
		switch {
		case s == nil || s.ended != nil:
		case e.Text("reason") == "refused":
			delete(g.recorded.open, id)
		default:
			s.ended = brief(e)
			g.recorded.over = append(g.recorded.over, s)
		}
	}
}

// hasToBeRecorded remembers a session, if its certificate says so.
func (g *Engine) hasToBeRecorded(e *populations.Event) *recordedSession {
	id := e.Text("session_id")
	serial, err := strconv.ParseUint(e.Text("serial"), 10, 64)
	if c, ok := g.live[serial]; err != nil || !ok || !c.record || g.recorded.open[id] != nil {
		return nil
	}
	s := &recordedSession{id: id, certificate: g.live[serial].index}
	g.recorded.open[id] = s
	return s
}

// overdueRecordings reports sessions that ended more than an hour ago, and of which
// nothing in the log says what was recorded.
func (g *Engine) overdueRecordings(now time.Time) {
	r := &g.recorded
	for len(r.over) > 0 && now.After(r.over[0].ended.Time.Add(recordingGrace)) {
		s := r.over[0]
		r.over = r.over[1:]
		delete(r.open, s.id)
		if !s.found {
			g.report(SessionUnrecorded, s.ended, s.certificate, "nothing in the log says what was recorded of it")
		}
	}
}
