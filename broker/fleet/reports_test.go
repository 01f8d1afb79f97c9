package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api/hostapi"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/fleet"
	"sallyport/broker/sessions"
)

// alarms are the codes of the session alarms, oldest first.
func (h *house) alarms() []string {
	h.t.Helper()
	var codes []string
	for _, e := range h.events("session.alarm") {
		codes = append(codes, e.Data.(event.SessionAlarm).Code)
	}
	return codes
}

func TestASessionIsReported(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	r := h.grant("dba", "db-1")
	c := h.certificate(r, newKey(t))
	in := m.login(c, "dba")
	if a := m.report(in); a.Seq != 1 || len(a.Refused) != 0 {
		t.Fatalf("accepted %+v", a)
	}
	got, err := h.broker.Request(t.Context(), h.engineer, r.ID)
	must(t, err)
	if len(got.Sessions) != 1 || got.Sessions[0].Serial != c.Serial || got.Sessions[0].EndedAt != nil || got.Sessions[0].Person.ID != h.engineer.ID ||
		got.Sessions[0].Host != "db-1" || got.Sessions[0].Alarm != "" || !got.Sessions[0].StartedAt.Equal(in.StartedAt) {
		t.Fatalf("sessions %+v", got.Sessions)
	}
	host, err := h.broker.Host(t.Context(), h.auditor, "db-1")
	must(t, err)
	if host.Sessions != 1 {
		t.Errorf("%d sessions on the host", host.Sessions)
	}
	h.clock.Advance(10 * time.Minute)
	m.report(hostapi.SessionEnded{Session: in.Session, Serial: c.Serial, KeyID: c.KeyID, Login: "dba", Peer: in.Peer, EndedAt: h.clock.Now(), Reason: hostapi.EndRevoked, Killed: 3})
	got, err = h.broker.Request(t.Context(), h.engineer, r.ID)
	must(t, err)
	if s := got.Sessions[0]; s.EndedAt == nil || s.EndReason != "revoked" {
		t.Errorf("ended as %+v", s)
	}
	started, ended := h.events("session.started"), h.events("session.ended")
	if len(started) != 1 || len(ended) != 1 || len(h.alarms()) != 0 {
		t.Fatalf("%d starts, %d ends, alarms %v", len(started), len(ended), h.alarms())
	}
	about := event.Subject{RequestID: r.ID, PersonID: h.engineer.ID, HostID: m.id}
	for _, e := range []event.Event{started[0], ended[0]} {
		if e.Actor != (event.Actor{Kind: event.Host, ID: m.id, Name: "db-1"}) || e.Subject.RequestID != about.RequestID ||
			e.Subject.PersonID != about.PersonID || e.Subject.HostID != about.HostID || e.Source != from {
			t.Errorf("%s: %+v", e.Type, e)
		}
	}
	if d := ended[0].Data.(event.SessionEnded); d.Killed != 3 || !d.StartedAt.Equal(in.StartedAt) || d.Reason != "revoked" || d.Client != in.Peer {
		t.Errorf("the end says %+v", d)
	}
}

func TestP10_SessionsAreSeenByThoseConcerned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	m.report(m.login(h.certificate(h.grant("dba", "db-1"), newKey(t)), "dba"), hostapi.SessionStarted{
		Session: session(), Method: "password", Login: "root", Peer: "10.9.9.9", StartedAt: h.clock.Now()})
	for _, c := range []struct {
		who  string
		want int
	}{{"operator", 2}, {"auditor", 2}, {"engineer", 1}, {"colleague", 0}} {
		as := map[string]identity.Caller{"operator": h.operator, "auditor": h.auditor, "engineer": h.engineer, "colleague": h.colleague}[c.who]
		page, err := h.broker.HostSessions(t.Context(), as, "db-1", sessions.Filter{})
		must(t, err)
		if len(page.Items) != c.want {
			t.Errorf("%s sees %d sessions, want %d", c.who, len(page.Items), c.want)
		}
	}
	stranger := h.person("vera", "visitors")
	if _, err := h.broker.HostSessions(t.Context(), stranger, "db-1", sessions.Filter{}); err == nil {
		t.Error("a stranger knows of the host")
	}
	first, err := h.broker.HostSessions(t.Context(), h.auditor, "db-1", sessions.Filter{Limit: 1})
	must(t, err)
	second, err := h.broker.HostSessions(t.Context(), h.auditor, "db-1", sessions.Filter{Limit: 1, Cursor: first.Next})
	must(t, err)
	if len(first.Items) != 1 || len(second.Items) != 1 || second.Next != "" || first.Items[0].ID == second.Items[0].ID {
		t.Errorf("pages %+v, %+v", first, second)
	}
	for _, f := range []sessions.Filter{{Cursor: "x"}, {Limit: -1}, {Limit: 201}, {Cursor: "MjAyNg"}} {
		_, err := h.broker.HostSessions(t.Context(), h.auditor, "db-1", f)
		refused(t, err, sessions.ErrPage)
	}
}

// What no certificate of ours opened is an alarm, and is written down all the same.
func TestASessionWithoutItsCertificateIsAnAlarm(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m, other := h.enrolled("db-1"), h.enrolled("db-2")
	here := h.certificate(h.grant("dba", "db-1"), newKey(t))
	there := h.certificate(h.grant("dba", "db-2"), newKey(t))
	changed := func(change func(*hostapi.SessionStarted)) hostapi.SessionStarted {
		s := m.login(here, "dba")
		change(&s)
		return s
	}
	m.report(
		hostapi.SessionStarted{Session: session(), Method: "password", Login: "root", Peer: "10.9.9.9", StartedAt: h.clock.Now()},
		changed(func(s *hostapi.SessionStarted) { s.Serial = 4711 }),
		changed(func(s *hostapi.SessionStarted) { s.Serial = 1<<63 - 1 }),
		m.login(there, "dba"),
		changed(func(s *hostapi.SessionStarted) { s.Login = "root" }),
		changed(func(s *hostapi.SessionStarted) { s.Key = "SHA256:other" }),
		changed(func(s *hostapi.SessionStarted) { s.KeyID = "req-000000000000:per-000000000000" }),
		changed(func(s *hostapi.SessionStarted) { s.StartedAt = h.clock.Now().Add(10 * time.Minute) }),
		changed(func(s *hostapi.SessionStarted) { s.StartedAt = h.clock.Now().Add(-10 * time.Minute) }),
	)
	want := "no-certificate unknown-certificate unknown-certificate other-host certificate-differs certificate-differs certificate-differs outside-validity outside-validity"
	if got := strings.Join(h.alarms(), " "); got != want {
		t.Errorf("alarms\n%s, want\n%s", got, want)
	}
	if n := h.count(`SELECT count(*) FROM host_sessions WHERE alarm <> ''`); n != 9 {
		t.Errorf("%d sessions with an alarm", n)
	}
	// The other host's request knows nothing of it.
	for _, e := range h.events("session.started") {
		if e.Subject.HostID != m.id || e.Data.(event.SessionStarted).Serial == there.Serial && e.Subject.RequestID != "" {
			t.Errorf("%+v", e)
		}
	}
	_ = other
	// Operators are told, of each code once an hour.
	if n := h.count(`SELECT count(DISTINCT args->'notice'->>'id') FROM jobs.river_job WHERE args->'notice'->>'kind' = 'host.alarm'`); n != 5 {
		t.Errorf("%d notices", n)
	}
}

// A session that begins although its grant was ended: the host had not heard, or did
// not want to.
func TestASessionAfterTheEndIsAnAlarm(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	r := h.grant("dba", "db-1")
	c := h.certificate(r, newKey(t))
	_, err := h.approvals.Finish(t.Context(), h.engineer, r.ID)
	must(t, err)
	h.clock.Advance(time.Minute)
	m.report(m.login(c, "dba")) // the news was on its way
	h.clock.Advance(2 * time.Minute)
	m.report(m.login(c, "dba"))
	if got := strings.Join(h.alarms(), " "); got != "after-end" {
		t.Errorf("alarms %s", got)
	}
}

func TestAnEndWhoseStartWasLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	r := h.grant("dba", "db-1")
	c := h.certificate(r, newKey(t))
	end := hostapi.SessionEnded{Session: session(), Serial: c.Serial, KeyID: c.KeyID, Login: "dba", Peer: "10.0.0.1", EndedAt: h.clock.Now(), Reason: hostapi.EndLost, Survived: 2}
	unknown := end
	unknown.Session, unknown.KeyID, unknown.Survived = session(), "", 0
	m.report(end, unknown)
	got, err := h.broker.Request(t.Context(), h.engineer, r.ID)
	must(t, err)
	if len(got.Sessions) != 1 || got.Sessions[0].StartedAt != nil || got.Sessions[0].EndReason != "lost" {
		t.Errorf("sessions %+v", got.Sessions)
	}
	if got := strings.Join(h.alarms(), " "); got != "processes-survived unknown-certificate" {
		t.Errorf("alarms %s", got)
	}
}

func TestReportsAreTakenOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	c := h.certificate(h.grant("dba", "db-1"), newKey(t))
	list := m.reports(m.login(c, "dba"), m.login(c, "dba"))
	for range 3 { // the answer was lost
		a, err := h.Report(t.Context(), m.caller(), list)
		must(t, err)
		if a.Seq != 2 {
			t.Errorf("accepted %+v", a)
		}
	}
	list = append(list, m.reports(m.login(c, "dba"))...)
	a, err := h.Report(t.Context(), m.caller(), list)
	must(t, err)
	if a.Seq != 3 || len(h.events("session.started")) != 3 {
		t.Errorf("accepted %+v, %d events", a, len(h.events("session.started")))
	}
	// The same in another spelling is the same.
	list[0].Data = json.RawMessage(strings.Replace(string(list[0].Data), ":", " : ", 1))
	_, err = h.Report(t.Context(), m.caller(), list[:1])
	must(t, err)
	// The machine was put back to an older state, and numbers what it sees as before.
	m.seq = 1
	_, err = h.Report(t.Context(), m.caller(), m.reports(m.login(c, "dba"), m.login(c, "dba"), m.login(c, "dba")))
	refused(t, err, fleet.ErrReportConflict)
	if n := len(h.events("session.started")); n != 3 {
		t.Errorf("%d events", n)
	}
	e, err := h.Renew(t.Context(), m.caller())
	must(t, err)
	if e.LastReport != 3 {
		t.Errorf("the host is told to begin after %d", e.LastReport)
	}
}

func TestReportsFromTwoReplicasAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	c := h.certificate(h.grant("dba", "db-1"), newKey(t))
	list := m.reports(m.login(c, "dba"), m.login(c, "dba"))
	callers := []fleet.Caller{m.caller(), m.caller(), m.caller(), m.caller()}
	var wg sync.WaitGroup
	for _, c := range callers {
		other := h.process()
		wg.Go(func() {
			if _, err := other.Report(t.Context(), c, list); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(h.events("session.started")); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestLostReportsAreToldOf(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	m.seq = 4
	alarm := hostapi.Alarm{Code: "spool-full", Detail: "the disk is full"}
	if a := m.report(alarm); a.Seq != 5 {
		t.Errorf("accepted %+v", a)
	}
	lost, alarms := h.events("host.reports_lost"), h.events("host.alarm")
	if len(lost) != 1 || lost[0].Data != (event.ReportsLost{From: 1, To: 4}) || lost[0].Actor.ID != m.id {
		t.Errorf("lost %+v", lost)
	}
	if len(alarms) != 1 || alarms[0].Data.(event.HostAlarm).Code != "spool-full" {
		t.Errorf("alarms %+v", alarms)
	}
}

func TestReportsOutOfOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	alarm := hostapi.Alarm{Code: "x", Detail: "y"}
	many := make([]any, hostapi.MaxReports+1)
	for i := range many {
		many[i] = alarm
	}
	two := m.reports(alarm, alarm)
	for what, list := range map[string][]hostapi.Report{
		"none": {}, "too many": m.reports(many...), "falling": {two[1], two[0]}, "twice": {two[0], two[0]},
		"zero": {{BootID: "b", Time: h.clock.Now(), Kind: hostapi.KindAlarm}}, "beyond": {{Seq: 1 << 60, BootID: "b", Time: h.clock.Now(), Kind: hostapi.KindAlarm}},
	} {
		if _, err := h.Report(t.Context(), m.caller(), list); !errors.Is(err, fleet.ErrReports) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := h.count(`SELECT last_report FROM enrolled_hosts`); n != 0 {
		t.Errorf("%d reports were taken", n)
	}
}

// Garbage is recorded as garbage, and holds up nothing.
func TestGarbageIsRecordedAndForgotten(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	c := h.certificate(h.grant("dba", "db-1"), newKey(t))
	good := m.login(c, "dba")
	changed := func(change func(*hostapi.SessionStarted)) hostapi.SessionStarted {
		s := m.login(c, "dba")
		change(&s)
		return s
	}
	list := m.reports(
		changed(func(s *hostapi.SessionStarted) { s.Session = "../../etc" }),
		changed(func(s *hostapi.SessionStarted) { s.Login = "dba\nAccepted publickey for root" }),
		changed(func(s *hostapi.SessionStarted) { s.KeyID = strings.Repeat("k", 10_000) }),
		changed(func(s *hostapi.SessionStarted) { s.StartedAt = time.Time{} }),
		changed(func(s *hostapi.SessionStarted) { s.Serial = 1<<64 - 1 }),
		hostapi.SessionEnded{Session: session(), Login: "dba", EndedAt: h.clock.Now(), Reason: "boredom"},
		hostapi.SessionEnded{Session: session(), Login: "dba", EndedAt: h.clock.Now(), Reason: hostapi.EndClosed, Killed: -1},
		hostapi.Alarm{Code: "Not A Code", Detail: "x"},
		"a text",
		good, good, // the second is known
	)
	list[8].Kind = hostapi.KindSessionStarted
	weather := m.reports(map[string]int{"degrees": 21})
	list = append(list, weather...)
	list = append(list, m.reports(good)...)
	list[len(list)-1].BootID = strings.Repeat("b", 65)
	a, err := h.Report(t.Context(), m.caller(), list)
	must(t, err)
	if a.Seq != uint64(len(list)) || len(a.Refused) != len(list)-1 {
		t.Errorf("accepted %+v", a)
	}
	refusals := h.events("host.report_refused")
	if len(refusals) != len(list)-1 || len(h.events("session.started")) != 1 {
		t.Errorf("%d refusals, %d sessions", len(refusals), len(h.events("session.started")))
	}
	codes := map[string]int{}
	for _, e := range refusals {
		codes[e.Data.(event.ReportRefused).Code]++
	}
	if codes["report-kind"] != 1 || codes["session-known"] != 1 || codes["report-data"] != len(list)-3 {
		t.Errorf("codes %v", codes)
	}
}

func TestAHostReportsOnlySoMuch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	var last error
	for range 40 {
		_, last = h.Report(t.Context(), m.caller(), m.reports(hostapi.Alarm{Code: "x", Detail: "y"}))
	}
	refused(t, last, fleet.ErrTooManyCalls)
	h.clock.Advance(time.Minute)
	m.seq = 30
	m.report(hostapi.Alarm{Code: "x", Detail: "y"})
}

// Who removes a host while it reports: its reports are in before, or not at all.
func TestNoReportsFromARemovedHost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	c := m.caller()
	must(t, h.hosts.Remove(t.Context(), h.operator, "db-1"))
	_, err := h.Report(t.Context(), c, m.reports(hostapi.Alarm{Code: "x", Detail: "y"}))
	refused(t, err, fleet.ErrUnknownHost)
	if n := len(h.events("host.alarm")); n != 0 {
		t.Errorf("%d alarms", n)
	}
}

func TestLeavesSayWhatAHostNeedsToKnow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	kept, once := h.grant("dba", "db-1"), h.grant("root", "db-1")
	h.certificate(kept, newKey(t))
	h.certificate(once, newKey(t))
	issued := h.events("certificate.issued")
	first, second := issued[0].Data.(event.CertificateIssued), issued[1].Data.(event.CertificateIssued)
	if first.AtEnd != "keep" || !first.Record || first.SingleUse || !first.GrantEndsAt.Equal(*kept.EndsAt) {
		t.Errorf("the leaf says %+v", first)
	}
	if second.AtEnd != "end" || second.Record || !second.SingleUse || !second.GrantEndsAt.Equal(*once.EndsAt) {
		t.Errorf("the leaf says %+v", second)
	}
}
