package fleet_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/audit/recording"
	"sallyport/broker/fleet"
	"sallyport/broker/recordings"
)

// studio is a host with a session that is being recorded, and where auditors look.
type studio struct {
	*machine
	store   *recordings.Store
	session hostapi.SessionStarted
	id      string // the broker's name for it
}

func newStudio(t *testing.T) *studio {
	t.Helper()
	h := newHouse(t)
	s := &studio{machine: h.enrolled("db-1")}
	var err error
	s.store, err = recordings.New(recordings.Config{Pool: h.db.Pool, Log: h.log, Approvals: h.approvals, Clock: h.clock})
	must(t, err)
	key := newKey(t)
	s.session = s.login(h.certificate(h.grant("dba", "db-1"), key), "dba")
	s.report(s.session)
	must(t, h.db.Pool.QueryRow(t.Context(), `SELECT id FROM host_sessions WHERE host_session = $1`, s.session.Session).Scan(&s.id))
	return s
}

func (s *studio) bring(offset int64, piece string) (int64, error) {
	s.t.Helper()
	r, err := s.Record(s.t.Context(), s.caller(), s.session.Session, 1, offset, []byte(piece))
	return r.Bytes, err
}

func (s *studio) has(want int64, offset int64, piece string) {
	s.t.Helper()
	if n, err := s.bring(offset, piece); err != nil || n != want {
		s.t.Errorf("a piece at %d: it has %d, %v, want %d", offset, n, err, want)
	}
}

// end is the host's report of what it recorded.
func (s *studio) end(text string) hostapi.SessionRecorded {
	sum := sha256.Sum256([]byte(text))
	return hostapi.SessionRecorded{Session: s.session.Session, Number: 1, Serial: s.session.Serial, Login: "dba", Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:]),
		Recipients: []string{"age1example"}, StartedAt: s.clock.Now(), EndedAt: s.clock.Now().Add(time.Minute), Terminal: true}
}

func (s *studio) listed(c identity.Caller) api.Recording {
	s.t.Helper()
	list, err := s.store.OfSession(s.t.Context(), c, "test", s.id)
	must(s.t, err)
	if len(list) != 1 {
		s.t.Fatalf("%d recordings", len(list))
	}
	return list[0]
}

func TestRecordingsComeInPiecesAndTheLogHasTheirHash(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.has(5, 0, "first")
	if r := s.listed(s.auditor); r.State != api.RecordingGoesOn || r.Bytes != 5 || r.Event != nil {
		t.Errorf("while it goes on: %+v", r)
	}
	s.report(s.end("first second"))
	if r := s.listed(s.auditor); r.State != api.RecordingComes {
		t.Errorf("before all of it came: %+v", r)
	}
	s.has(12, 5, " second")
	events := s.events("session.recorded")
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	d := e.Data.(event.SessionRecorded)
	if d.SessionID != s.id || d.Digest != s.end("first second").SHA256 || d.Bytes != 12 || e.Actor.ID != s.machine.id || e.Actor.Kind != event.Host ||
		e.Subject.RequestID == "" || d.Serial != s.session.Serial {
		t.Errorf("the event says %+v of %+v", d, e)
	}
	r := s.listed(s.auditor)
	if r.State != api.RecordingWhole || r.SHA256 != d.Digest || r.Event == nil || r.Claimed != 12 || r.Host != "db-1" || r.Person.Name != "erin" {
		t.Errorf("in the end: %+v", r)
	}
	content, err := s.store.Open(t.Context(), s.auditor, "test", s.id, 1)
	must(t, err)
	if told := s.events("disclosed.recording"); len(told) != 1 || told[0].Actor.ID != s.auditor.ID {
		t.Errorf("before a byte left, the log has %+v", told)
	}
	var out bytes.Buffer
	must(t, content.Write(t.Context(), &out))
	if out.String() != "first second" {
		t.Errorf("the auditor gets %q", out.String())
	}
}

// What comes again, at another place or changed, changes nothing.
func TestReplayedPiecesOfRecordingsChangeNothing(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.has(5, 0, "first")
	s.has(5, 0, "other")
	s.has(5, 2, "rst second")
	s.has(5, 7, "gap")
	s.has(12, 5, " second")
	s.report(s.end("first second"))
	s.has(12, 0, "again")
	if _, err := s.bring(12, "more"); !errors.Is(err, recordings.ErrRefused) {
		t.Errorf("more than was told: %v", err)
	}
	if r := s.listed(s.auditor); r.State != api.RecordingWhole {
		t.Errorf("%+v", r)
	}
	s.report(s.end("first second")) // its host was killed before it noted that it had told
	if n := len(s.events("session.recorded")); n != 1 {
		t.Errorf("%d events", n)
	}
	if a := s.report(s.end("something else")); len(a.Refused) != 1 || a.Refused[0].Code != "recording-known" {
		t.Errorf("another end: %+v", a)
	}
}

func TestARecordingThatIsNotWhatWasToldIsAnAlarm(t *testing.T) {
	t.Parallel()
	for what, order := range map[string]func(s *studio){
		"told first":   func(s *studio) { s.report(s.end("first")); s.has(5, 0, "FIRST") },
		"told last":    func(s *studio) { s.has(5, 0, "FIRST"); s.report(s.end("first")) },
		"told short":   func(s *studio) { s.has(5, 0, "first"); s.report(s.end("fir")) },
		"told shorter": func(s *studio) { s.has(3, 0, "fir"); s.report(s.end("first")); s.has(5, 3, "ST") },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newStudio(t)
			order(s)
			if r := s.listed(s.auditor); r.State != api.RecordingDiffers {
				t.Errorf("%+v", r)
			}
			alarms := s.events("session.alarm")
			if len(alarms) != 1 || alarms[0].Data.(event.SessionAlarm).Code != "recording-differs" {
				t.Errorf("%+v", alarms)
			}
		})
	}
}

// A host knows the name of another's session, and brings a recording of it.
func TestAHostRecordsNoOthersSessions(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	other := s.enrolled("db-2")
	if _, err := other.Record(t.Context(), other.caller(), s.session.Session, 1, 0, []byte("forged")); !errors.Is(err, recordings.ErrSession) {
		t.Errorf("another host: %v", err)
	}
	if a := other.report(s.end("forged")); len(a.Refused) != 1 || a.Refused[0].Code != "recording-session" {
		t.Errorf("another host's report: %+v", a)
	}
	if _, err := s.Record(t.Context(), s.caller(), session(), 1, 0, []byte("x")); !errors.Is(err, recordings.ErrSession) {
		t.Errorf("a session that was never reported: %v", err)
	}
	if n := s.count(`SELECT count(*) FROM session_recordings`); n != 0 {
		t.Errorf("%d recordings", n)
	}
}

func TestRecordingsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	for what, try := range map[string]func() error{
		"nothing":   func() error { _, err := s.bring(0, ""); return err },
		"too much":  func() error { _, err := s.bring(0, string(make([]byte, hostapi.MaxPiece+1))); return err },
		"before it": func() error { _, err := s.bring(-1, "x"); return err },
		"no number": func() error {
			_, err := s.Record(t.Context(), s.caller(), s.session.Session, 10_000, 0, []byte("x"))
			return err
		},
		"no name": func() error { _, err := s.Record(t.Context(), s.caller(), "x", 1, 0, []byte("x")); return err },
	} {
		if err := try(); !errors.Is(err, recordings.ErrPiece) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.has(1, 0, "x")
	_, err := s.db.Pool.Exec(t.Context(), `UPDATE session_recordings SET bytes = $1`, recording.MaxSize)
	must(t, err)
	if _, err := s.bring(recording.MaxSize, "x"); !errors.Is(err, recordings.ErrRefused) {
		t.Errorf("a recording without an end: %v", err)
	}
	_, err = s.db.Pool.Exec(t.Context(), `UPDATE session_recordings SET bytes = $1`, recordings.MaxOfHost)
	must(t, err)
	if _, err := s.Record(t.Context(), s.caller(), s.session.Session, 2, 0, []byte("x")); !errors.Is(err, recordings.ErrNoRoom) {
		t.Errorf("a host that has filled its share: %v", err)
	}
	// And no faster than the broker takes.
	for range 200 {
		if _, err = s.bring(0, "x"); err != nil {
			break
		}
	}
	if !errors.Is(err, fleet.ErrTooManyCalls) {
		t.Errorf("a host that does not stop: %v", err)
	}
}

// A host begins recordings without end, to fill them all later.
func TestAHostBeginsNotAllAtOnce(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.has(1, 0, "x")
	_, err := s.db.Pool.Exec(t.Context(), `INSERT INTO session_recordings (session_id, number, bytes, hashed, began_at)
		SELECT session_id, n + 10, 1, hashed, began_at FROM session_recordings, generate_series(2, $1) AS n`, recordings.MaxAtOnce)
	must(t, err)
	second := func() error {
		_, err := s.Record(t.Context(), s.caller(), s.session.Session, 2, 0, []byte("x"))
		return err
	}
	if err := second(); !errors.Is(err, recordings.ErrNoRoom) {
		t.Errorf("one more: %v", err)
	}
	s.has(2, 1, "y")
	s.report(s.end("xy"))
	must(t, second())
}

func TestOnlyAuditorsGetRecordings(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.has(1, 0, "x")
	for _, c := range []identity.Caller{s.engineer, s.operator} {
		if _, err := s.store.OfSession(t.Context(), c, "test", s.id); err == nil {
			t.Errorf("%s sees the list", c.Name)
		}
		if _, err := s.store.Open(t.Context(), c, "test", s.id, 1); err == nil {
			t.Errorf("%s gets the recording", c.Name)
		}
	}
	if n := len(s.events("disclosed.recording")); n != 0 {
		t.Errorf("%d disclosures", n)
	}
	for _, id := range []string{"", "ses-000000000000", "x"} {
		if _, err := s.store.Open(t.Context(), s.auditor, "test", id, 1); !errors.Is(err, recordings.ErrUnknown) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestRecordingsAreForgottenInTime(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	s.has(1, 0, "x")
	s.clock.Advance(recordings.Kept - time.Minute)
	must(t, s.store.Tidy(t.Context()))
	if r := s.listed(s.auditor); r.State == api.RecordingForgotten {
		t.Error("it was forgotten too soon")
	}
	s.clock.Advance(2 * time.Minute)
	must(t, s.store.Tidy(t.Context()))
	must(t, s.store.Tidy(t.Context()))
	if r := s.listed(s.auditor); r.State != api.RecordingForgotten {
		t.Errorf("%+v", r)
	}
	if n := s.count(`SELECT count(*) FROM recording_pieces`); n != 0 {
		t.Errorf("%d pieces are left", n)
	}
	if n := len(s.events("session.recording_expired")); n != 1 {
		t.Errorf("%d events", n)
	}
	if _, err := s.bring(1, "y"); !errors.Is(err, recordings.ErrRefused) {
		t.Errorf("it comes back: %v", err)
	}
}

func TestHostsAreToldTheAuditorsKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.machine()
	m.house.Service = h.process()
	e, _, err := m.enrol(h.token("db-1"))
	must(t, err)
	if len(e.Settings.AuditorKeys) != 1 || e.Settings.AuditorKeys[0] != auditorKey {
		t.Errorf("the host is told %q", e.Settings.AuditorKeys)
	}
}
