package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
)

// posture is what the host would report next, passing all checks but those given.
func (m *machine) posture(but ...hostapi.Check) hostapi.Posture {
	p := hostapi.Posture{HostID: m.id, BootID: "boot", Number: m.seq + 1, TakenAt: m.clock.Now(), Heard: m.clock.Now()}
	p.Checks = slices.Clone(but)
	for _, id := range hostapi.Checks {
		if !slices.ContainsFunc(but, func(c hostapi.Check) bool { return c.ID == id }) {
			p.Checks = append(p.Checks, hostapi.Check{ID: id, Result: hostapi.Pass})
		}
	}
	p.Checks = p.Full()
	return p
}

func (m *machine) signed(p hostapi.Posture) hostapi.PostureReport {
	m.t.Helper()
	r, err := hostapi.SignPosture(p, m.key)
	must(m.t, err)
	return r
}

func (m *machine) looks(but ...hostapi.Check) {
	m.t.Helper()
	if a := m.report(m.signed(m.posture(but...))); len(a.Refused) > 0 {
		m.t.Fatalf("refused %+v", a.Refused)
	}
}

// probe looks at all hosts whose turn it is, and says at which.
func (h *house) probe(result hostapi.Result, findings ...string) (names []string) {
	h.t.Helper()
	seen := make(chan string, 100)
	must(h.t, fleet.LookAtAll(h.Service, h.t.Context(), func(d posture.Door, login string) posture.Probe {
		seen <- d.Name + " " + login
		return posture.Probe{Result: result, Findings: findings}
	}))
	close(seen)
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (h *house) state(name string, want api.HostState) {
	h.t.Helper()
	must(h.t, fleet.WriteSeen(h.Service, h.t.Context()))
	got, err := h.broker.Host(h.t.Context(), h.auditor, name)
	must(h.t, err)
	if got.State != want {
		h.t.Errorf("%s is %s %q, want %s", name, got.State, got.StateWhy, want)
	}
}

// The life of a host: sealed by its posture and the outside look together, open while a
// grant runs, and sealed again only when it passed again.
func TestAHostIsSealedWhenBothSidesAgree(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	h.state("db-1", api.HostUnknown)
	m.looks()
	h.state("db-1", api.HostUnknown)
	if seen := h.probe(hostapi.Pass); !slices.Equal(seen, []string{"db-1 dba"}) {
		t.Errorf("looked at %q", seen)
	}
	h.state("db-1", api.HostSealed)
	if seen := h.probe(hostapi.Pass); len(seen) > 0 {
		t.Errorf("looked at %q again", seen)
	}

	c := h.certificate(h.grant("dba", "db-1"), newKey(t))
	h.state("db-1", api.HostOpen)
	in := m.login(c, "dba")
	m.report(in)
	h.clock.Advance(40 * time.Minute) // the grant is over, the session goes on
	m.looks(hostapi.Check{ID: "sessions", Result: hostapi.Fail, Findings: []string{"dba"}})
	h.state("db-1", api.HostOpen)
	m.report(hostapi.SessionEnded{Session: in.Session, Serial: c.Serial, KeyID: c.KeyID, Login: "dba", Peer: in.Peer, EndedAt: h.clock.Now(), Reason: hostapi.EndClosed})
	h.state("db-1", api.HostDrifted) // it said that a connection lasts, and has not said otherwise
	m.looks()
	h.state("db-1", api.HostUnknown) // not seen from outside since
	h.clock.Advance(time.Second)
	if seen := h.probe(hostapi.Pass); len(seen) != 1 || !strings.HasPrefix(seen[0], "db-1 ") {
		t.Errorf("looked at %q", seen)
	}
	m.caller()
	h.state("db-1", api.HostSealed)

	h.clock.Advance(posture.Fresh + time.Second)
	m.caller()
	h.state("db-1", api.HostUnknown)
	h.clock.Advance(posture.SilentAfter + time.Second)
	h.state("db-1", api.HostSilent)
	if alarms := h.events("host.alarm"); len(alarms) > 0 {
		t.Errorf("%d alarms", len(alarms))
	}
}

// What is the same is no event; what is different is one; what opens a host is an alarm.
func TestDriftIsAnEventAndAnAlarm(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	planted := hostapi.Check{ID: "keys", Result: hostapi.Fail, Findings: []string{"/home/dba/.ssh/authorized_keys"}, Remedy: "remove it"}
	m.looks()
	m.looks()
	m.looks(planted)
	m.looks(planted)
	m.looks()
	var got []string
	for _, e := range h.events("host.posture_changed") {
		d := e.Data.(event.PostureChanged)
		got = append(got, strings.Join(slices.Concat(d.Changes, d.New, d.Gone), "; "))
		if e.Actor != (event.Actor{Kind: event.Host, ID: m.id, Name: "db-1"}) || e.Subject.HostID != m.id || len(d.Digest) != 64 ||
			d.Passed+d.Failed+d.Unknown != len(hostapi.Checks) {
			t.Errorf("event %+v", e)
		}
	}
	want := []string{"", "keys: pass -> fail; keys: /home/dba/.ssh/authorized_keys", "keys: fail -> pass; keys: /home/dba/.ssh/authorized_keys"}
	if !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
	if n := h.count(`SELECT count(*) FROM jobs.river_job WHERE args->'notice'->>'id' LIKE 'alarm/' || $1 || '/drift/%'`, m.id); n != 1 {
		t.Errorf("%d alarms", n)
	}
	h.probe(hostapi.Fail, "sshd offers passwords")
	h.state("db-1", api.HostDrifted)
	h.clock.Advance(20 * time.Minute)
	h.probe(hostapi.Fail, "sshd offers passwords")
	if n := len(h.events("host.probed")); n != 1 {
		t.Errorf("%d looks from outside are events", n)
	}
}

func TestForgedPosturesAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m, other := h.enrolled("db-1"), h.enrolled("db-2")
	old := m.signed(m.posture())
	m.report(old)
	good := func(change func(*hostapi.Posture)) hostapi.PostureReport {
		p := m.posture()
		change(&p)
		return m.signed(p)
	}
	tampered := good(func(*hostapi.Posture) {})
	tampered.Text = strings.Replace(tampered.Text, `"sessions":0`, `"sessions":1`, 1)
	theirs := other.posture()
	theirs.Number = m.seq + 1
	for what, r := range map[string]func() hostapi.PostureReport{
		"of before":          func() hostapi.PostureReport { return old },
		"tampered with":      func() hostapi.PostureReport { return tampered },
		"another's":          func() hostapi.PostureReport { return other.signed(theirs) },
		"another's, resaid":  func() hostapi.PostureReport { theirs.Number = m.seq + 1; return m.signed(theirs) },
		"of another boot":    func() hostapi.PostureReport { return good(func(p *hostapi.Posture) { p.BootID = "other" }) },
		"of a later report":  func() hostapi.PostureReport { return good(func(p *hostapi.Posture) { p.Number++ }) },
		"without checks":     func() hostapi.PostureReport { return good(func(p *hostapi.Posture) { p.Checks = nil }) },
		"with a check twice": func() hostapi.PostureReport { return good(func(p *hostapi.Posture) { p.Checks[1] = p.Checks[0] }) },
		"with no result":     func() hostapi.PostureReport { return good(func(p *hostapi.Posture) { p.Checks[0].Result = "" }) },
		"with a line break": func() hostapi.PostureReport {
			return good(func(p *hostapi.Posture) { p.Checks[0].Findings = []string{"a\nb"} })
		},
		"unsigned": func() hostapi.PostureReport {
			r := good(func(*hostapi.Posture) {})
			return hostapi.PostureReport{Text: r.Text}
		},
	} {
		if a := m.report(r()); len(a.Refused) != 1 || a.Refused[0].Code != "report-data" {
			t.Errorf("%s: %+v", what, a)
		}
	}
	if n := h.count(`SELECT number FROM host_postures WHERE host_id = $1`, m.id); n != 1 {
		t.Errorf("posture %d", n)
	}
}

// Two processes share the looking; nobody is looked at twice, and a process that died
// keeps nobody from being looked at.
func TestHostsAreLookedAtInTurns(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, name := range []string{"db-1", "db-2", "db-3"} {
		h.enrolled(name)
	}
	_, err := h.hosts.Register(t.Context(), h.operator, api.HostInput{Name: "static", Address: "10.0.0.9", Logins: []string{"dba"}})
	must(t, err)
	died, err := posture.New(h.db.Pool).Claim(t.Context(), h.clock.Now(), time.Hour, time.Minute, 2)
	must(t, err)
	if len(died) != 2 {
		t.Fatalf("claimed %+v", died)
	}
	if seen := h.probe(hostapi.Pass); len(seen) != 1 {
		t.Errorf("looked at %q", seen)
	}
	h.clock.Advance(time.Minute)
	if seen := h.probe(hostapi.Pass); len(seen) != 2 || !strings.HasSuffix(seen[0], " root") {
		t.Errorf("looked at %q", seen)
	}
}

func TestAHostInQuarantineGetsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	r := h.grant("dba", "db-1")
	key := newKey(t)
	c := h.certificate(r, key)
	_, err := h.hosts.Quarantine(t.Context(), h.engineer, "db-1", "odd")
	refused(t, err, hosts.ErrNotOperator)
	_, err = h.hosts.Quarantine(t.Context(), h.operator, "db-1", "odd packets")
	must(t, err)
	_, err = h.hosts.Quarantine(t.Context(), h.operator, "db-1", "odd packets")
	refused(t, err, hosts.ErrQuarantined)
	h.state("db-1", api.HostQuarantined)
	if news := h.news(0); !news.Revoked(c.Serial) {
		t.Errorf("the certificate is good still: %+v", news)
	}
	_, err = h.tryCertificate(r, key)
	refused(t, err, hosts.ErrQuarantined)
	_, err = h.hosts.Release(t.Context(), h.operator, "db-1", "it was us")
	must(t, err)
	_, err = h.hosts.Release(t.Context(), h.operator, "db-1", "it was us")
	refused(t, err, hosts.ErrNotQuarantined)
	h.certificate(r, key)
	if n := len(h.events("host.quarantined")) + len(h.events("host.released")); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestEnrolmentsSayWhatMayListen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	e, _, err := h.machine().enrol(h.token("db-1"))
	must(t, err)
	if l := e.Settings.Listen; len(l) != 1 || l[0].String() != "tcp/5432" || e.Settings.PostureEvery() != posture.Every {
		t.Errorf("settings %+v", e.Settings)
	}
}
