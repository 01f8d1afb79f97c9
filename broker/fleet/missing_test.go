package fleet_test

import (
	"testing"
	"time"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/recordings"
	"sallyport/broker/sessions"
)

// closes reports the end of the session.
func (s *studio) closes(reason hostapi.EndReason) {
	s.t.Helper()
	s.report(hostapi.SessionEnded{Session: s.session.Session, Serial: s.session.Serial, KeyID: s.session.KeyID, Login: "dba", Peer: s.session.Peer,
		EndedAt: s.clock.Now(), Reason: reason})
}

// mark is what the host's list of sessions shows beside it.
func (s *studio) mark() string {
	s.t.Helper()
	page, err := sessions.New(s.db.Pool).OfHost(s.t.Context(), s.machine.id, sessions.Filter{})
	must(s.t, err)
	if len(page.Items) != 1 {
		s.t.Fatalf("%d sessions", len(page.Items))
	}
	return page.Items[0].Alarm
}

// Whatever a host leaves out of what it should have recorded, an hour after the end it is
// an alarm, once.
func TestARecordingThatDoesNotComeIsAnAlarm(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		comes   func(s *studio)
		missing bool
	}{
		"nothing":               {func(s *studio) {}, true},
		"no end":                {func(s *studio) { s.has(5, 0, "first") }, true},
		"an end, and no bytes":  {func(s *studio) { s.report(s.end("first")) }, true},
		"an end, and some":      {func(s *studio) { s.has(3, 0, "fir"); s.report(s.end("first")) }, true},
		"other bytes":           {func(s *studio) { s.has(5, 0, "FIRST"); s.report(s.end("first")) }, true},
		"the second, no first":  {func(s *studio) { s.second() }, true},
		"all of it":             {func(s *studio) { s.has(5, 0, "first"); s.report(s.end("first")) }, false},
		"all of both":           {func(s *studio) { s.second(); s.has(5, 0, "first"); s.report(s.end("first")) }, false},
		"all of it, end before": {func(s *studio) { s.report(s.end("first")); s.has(5, 0, "first") }, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newStudio(t)
			c.comes(s)
			s.closes(hostapi.EndClosed)
			s.clock.Advance(recordings.DueAfter - time.Minute)
			must(t, s.TellMissing(t.Context()))
			if s.mark() == "recording-missing" {
				t.Error("it is missed too soon")
			}
			s.clock.Advance(2 * time.Minute)
			must(t, s.TellMissing(t.Context()))
			must(t, s.process().TellMissing(t.Context()))
			told := 0
			for _, e := range s.events("session.alarm") {
				d := e.Data.(event.SessionAlarm)
				if d.Code != "recording-missing" {
					continue
				}
				told++
				if e.Actor.Kind != event.Broker || e.Subject.HostID != s.machine.id || e.Subject.RequestID == "" || d.SessionID != s.id || d.Serial != s.session.Serial {
					t.Errorf("the alarm says %+v", e)
				}
			}
			if (told == 1) != c.missing || told > 1 || (s.mark() == "recording-missing") != c.missing {
				t.Errorf("it was told %d times, and the mark is %q", told, s.mark())
			}
			if n := s.count(`SELECT count(*) FROM expected_recordings`); (n == 1) != c.missing {
				t.Errorf("%d are expected still", n)
			}
		})
	}
}

// second brings another recording of the session.
func (s *studio) second() {
	s.t.Helper()
	_, err := s.Record(s.t.Context(), s.caller(), s.session.Session, 2, 0, []byte("first"))
	must(s.t, err)
	e := s.end("first")
	e.Number = 2
	s.report(e)
}

// A host that was away brings it late: the alarm stays in the log, and the mark goes.
func TestARecordingThatComesLateIsThere(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.closes(hostapi.EndUnrecorded)
	s.clock.Advance(recordings.DueAfter)
	must(t, s.TellMissing(t.Context()))
	if s.mark() != "recording-missing" {
		t.Errorf("the mark is %q", s.mark())
	}
	s.has(5, 0, "first")
	s.report(s.end("first"))
	must(t, s.TellMissing(t.Context()))
	if s.mark() != "" || len(s.events("session.alarm")) != 1 {
		t.Errorf("the mark is %q, with %d alarms", s.mark(), len(s.events("session.alarm")))
	}
}

// Nothing is expected of what never ran, nor of what no rule wants recorded.
func TestNoRecordingIsExpectedOfOthers(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.closes(hostapi.EndRefused)
	other := s.login(s.certificate(s.grant("root", "db-1"), newKey(t)), "root")
	s.report(other, hostapi.SessionEnded{Session: other.Session, Serial: other.Serial, KeyID: other.KeyID, Login: "root", Peer: other.Peer,
		EndedAt: s.clock.Now(), Reason: hostapi.EndClosed})
	if n := s.count(`SELECT count(*) FROM host_sessions WHERE ended_at IS NOT NULL`); n != 2 {
		t.Errorf("%d sessions ended", n)
	}
	if n := s.count(`SELECT count(*) FROM expected_recordings`); n != 0 {
		t.Errorf("%d are expected", n)
	}
}
