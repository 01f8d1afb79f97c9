package fleet_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/internal/ids"
)

func TestAHostEnrolsWithAToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.machine()
	token := h.token("db-1")
	e, p, err := m.enrol(token)
	must(t, err)
	if p != nil || !ids.Valid(ids.Host, e.HostID) || e.Name != "db-1" || e.Labels["class"] != "database" || e.URL != url ||
		e.LogKey != h.log.VerifierKey() || e.Principals["dba"] != "dba@"+e.HostID || len(e.UserCAs) != 1 || e.LastReport != 0 {
		t.Errorf("enrolled as %+v", e)
	}
	if e.Settings.MaxSilence() != fleet.MaxSilence || !e.Settings.RenewAt.After(h.clock.Now()) || !e.Settings.RenewAt.Before(e.ValidBefore) {
		t.Errorf("settings %+v", e.Settings)
	}
	cert, err := certs.ParseKey(e.HostCertificate)
	if err == nil {
		t.Errorf("the host certificate is the key %v", cert)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(e.HostCertificate))
	must(t, err)
	if c := parsed.(*ssh.Certificate); c.CertType != ssh.HostCert || c.KeyId != e.HostID || string(c.Key.Marshal()) != string(m.key.PublicKey().Marshal()) {
		t.Errorf("the host certificate is %+v", c)
	}
	// Who let it in, and who did it.
	for _, kind := range []string{"host.registered", "host.enrolled", "host.certificate_issued"} {
		list := h.events(kind)
		if len(list) != 1 || list[0].Actor != (event.Actor{Kind: event.Host, ID: e.HostID, Name: "db-1"}) ||
			list[0].OnBehalfOf == nil || list[0].OnBehalfOf.ID != h.operator.ID || list[0].Subject.HostID != e.HostID || list[0].Source != from {
			t.Errorf("%s: %+v", kind, list)
		}
	}
	made := h.events("host.join_token_made")
	if len(made) != 1 || made[0].Actor.ID != h.operator.ID {
		t.Errorf("the token's event: %+v", made)
	}
	got, err := h.hosts.Get(t.Context(), "db-1")
	must(t, err)
	if got.Address != from+":22" || got.HostKey != certs.Line(m.key.PublicKey()) {
		t.Errorf("registered as %+v", got)
	}

	// The answer was lost: the same host asks again, and is the same.
	again, _, err := m.enrol(token)
	must(t, err)
	if again.HostID != e.HostID || h.count(`SELECT count(*) FROM hosts`) != 1 || len(h.events("host.enrolled")) != 1 {
		t.Errorf("again it is %s", again.HostID)
	}
	renewed, err := h.Renew(t.Context(), m.caller())
	must(t, err)
	if renewed.HostID != e.HostID || renewed.HostCertificate == e.HostCertificate {
		t.Error("the certificate was not renewed")
	}
}

// P11: the token is in its answer and nowhere else.
func TestP11_JoinTokensAreKeptAsHashes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.token("db-1")
	m := h.machine()
	_, _, err := m.enrol(token)
	must(t, err)
	list, err := h.Tokens(t.Context(), h.operator)
	must(t, err)
	if len(list) != 1 || list[0].Token != "" || list[0].State != "used" || list[0].HostID != m.id {
		t.Errorf("listed as %+v", list)
	}
	h.events("host.enrolled") // all are sequenced
	secret := strings.TrimPrefix(token, "sjt_")
	for _, sql := range []string{`SELECT count(*) FROM join_tokens AS t WHERE t::text LIKE '%' || $1 || '%'`,
		`SELECT count(*) FROM audit.entries AS e WHERE convert_from(e.leaf, 'UTF8') LIKE '%' || $1 || '%'`} {
		if h.count(sql, secret) != 0 {
			t.Errorf("the token is found by %s", sql)
		}
	}
}

func TestAJoinTokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.token("db-1")
	_, _, err := h.machine().enrol(token)
	must(t, err)
	thief := h.machine()
	_, _, err = thief.enrol(token)
	refused(t, err, fleet.ErrJoinToken)
	list := h.events("host.enrolment_refused")
	if len(list) != 1 || list[0].Data.(event.EnrolmentRefused).HostKey != ssh.FingerprintSHA256(thief.key.PublicKey()) ||
		list[0].Data.(event.EnrolmentRefused).Reason != "the token is used" {
		t.Errorf("events %+v", list)
	}
	if n := h.count(`SELECT count(*) FROM hosts`); n != 1 {
		t.Errorf("%d hosts", n)
	}
	// A token that there never was is no event: anybody could fill the log.
	_, _, err = thief.enrol("sjt_guess")
	refused(t, err, fleet.ErrJoinToken)
	if len(h.events("host.enrolment_refused")) != 1 {
		t.Error("a guess is an event")
	}
}

func TestAJoinTokenRacedByManyHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.token("db-1")
	const n = 8
	var wg sync.WaitGroup
	results := make([]error, n)
	for i := range n {
		m := h.machine()
		in := m.input(token)
		wg.Go(func() { _, _, results[i] = h.process().Enrol(t.Context(), from, in) })
	}
	wg.Wait()
	in := 0
	for _, err := range results {
		if err == nil {
			in++
		} else if !errors.Is(err, fleet.ErrJoinToken) {
			t.Errorf("a loser hears %v", err)
		}
	}
	if in != 1 || h.count(`SELECT count(*) FROM hosts`) != 1 || h.count(`SELECT count(*) FROM enrolled_hosts`) != 1 {
		t.Errorf("%d were let in", in)
	}
}

func TestJoinTokensThatAreOver(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	late, withdrawn, gone := h.token("db-1"), h.token("db-2"), h.token("db-3")
	list, err := h.Tokens(t.Context(), h.operator)
	must(t, err)
	for _, token := range list {
		if token.Name == "db-2" {
			must(t, h.WithdrawToken(t.Context(), h.operator, token.ID))
			refused(t, h.WithdrawToken(t.Context(), h.operator, token.ID), fleet.ErrTokenOver)
		}
	}
	refused(t, h.WithdrawToken(t.Context(), h.operator, "join-000000000000"), fleet.ErrUnknownToken)
	_, _, err = h.machine().enrol(withdrawn)
	refused(t, err, fleet.ErrJoinToken)

	// The name was taken since.
	_, err = h.hosts.Register(t.Context(), h.operator, api.HostInput{Name: "db-3", Address: "10.0.0.3", Logins: []string{"dba"}})
	must(t, err)
	m := h.machine()
	_, _, err = m.enrol(gone)
	refused(t, err, hosts.ErrNameTaken)

	h.clock.Advance(time.Hour)
	_, _, err = h.machine().enrol(late)
	refused(t, err, fleet.ErrJoinToken)
	if n := h.count(`SELECT count(*) FROM enrolled_hosts`); n != 0 {
		t.Errorf("%d hosts were let in", n)
	}
}

func TestJoinTokensAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, life := range []string{"30s", "24h1s", "soon", "-1h"} {
		_, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Logins: []string{"dba"}, Expires: life})
		refused(t, err, fleet.ErrTokenLife)
	}
	_, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "DB 1", Logins: []string{"dba"}})
	refused(t, err, hosts.ErrName)
	_, err = h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1"})
	refused(t, err, hosts.ErrLogins)
	_, err = h.db.Pool.Exec(t.Context(), `
		INSERT INTO join_tokens (id, secret_hash, name, address, labels, logins, made_by, made_by_name, made_at, expires_at)
		SELECT 'join-' || lpad(i::text, 12, '0'), encode(sha256(i::text::bytea), 'hex'), 'h', '', '{}', '{dba}', $1, 'x', $2::timestamptz, $2::timestamptz + interval '1 hour'
		FROM generate_series(1, $3::int) AS i`, h.operator.ID, h.clock.Now(), fleet.MaxTokens)
	must(t, err)
	_, err = h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Logins: []string{"dba"}})
	refused(t, err, fleet.ErrTooManyTokens)
	h.clock.Advance(time.Hour)
	_, err = h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Logins: []string{"dba"}, Expires: "24h"})
	must(t, err)
}

// A host that was registered by hand, or got new keys, enrols under its own name.
func TestATokenForAHostThatThereIs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.enrolled("db-1")
	_, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Labels: map[string]string{"class": "web"}})
	refused(t, err, fleet.ErrTokenOfHost)
	token, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1"})
	must(t, err)
	fresh := h.machine()
	e, _, err := fresh.enrol(token.Token)
	must(t, err)
	if e.HostID != old.id || e.Labels["class"] != "database" || len(e.Logins) != 2 {
		t.Errorf("enrolled as %+v", e)
	}
	_, err = h.Authenticate(t.Context(), old.call(old.id, "POST", hostapi.ReportsPath, "x"))
	refused(t, err, fleet.ErrSignature)
	fresh.caller()
	if changed := h.events("host.changed"); len(changed) != 1 || changed[0].OnBehalfOf.ID != h.operator.ID {
		t.Errorf("events %+v", changed)
	}
}

// A copied machine has the keys of the first: they could speak for each other.
func TestACopiedMachineIsKeptOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	twin := &machine{house: h, key: m.key}
	_, _, err := twin.enrol(h.token("db-2"))
	refused(t, err, fleet.ErrKeyTaken)
	_, _, err = twin.enrol("")
	refused(t, err, fleet.ErrKeyTaken)
	must(t, h.hosts.Remove(t.Context(), h.operator, "db-1"))
	_, _, err = twin.enrol(h.token("db-3"))
	must(t, err)
}

func TestEnrolmentProofsThatDoNotHold(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.token("db-1")
	for what, change := range map[string]func(*machine, *hostapi.EnrolmentInput){
		"another's key":   func(_ *machine, in *hostapi.EnrolmentInput) { in.HostKey = certs.Line(newKey(t).PublicKey()) },
		"another address": func(_ *machine, in *hostapi.EnrolmentInput) { in.Address = "203.0.113.9" },
		"another broker": func(m *machine, in *hostapi.EnrolmentInput) {
			must(t, hostapi.SignEnrolment(in, "https://other.example", m.key, h.clock.Now()))
		},
		"no proof": func(_ *machine, in *hostapi.EnrolmentInput) { in.Proof = "" },
	} {
		m := h.machine()
		in := m.input(token)
		change(m, &in)
		if _, _, err := h.Enrol(t.Context(), from, in); !errors.Is(err, fleet.ErrEnrolProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// One that was recorded is worth nothing later, nor is one of a clock that is wrong.
	m := h.machine()
	in := m.input(token)
	h.clock.Advance(6 * time.Minute)
	_, _, err := h.Enrol(t.Context(), from, in)
	refused(t, err, fleet.ErrClock)
	h.clock.Advance(-12 * time.Minute)
	_, _, err = h.Enrol(t.Context(), from, in)
	refused(t, err, fleet.ErrClock)
	in.Facts.OS = strings.Repeat("x", hostapi.MaxFact+1)
	_, _, err = h.Enrol(t.Context(), from, in)
	refused(t, err, fleet.ErrFacts)
	if h.count(`SELECT count(*) FROM hosts`) != 0 || h.count(`SELECT count(*) FROM enrolments`) != 0 {
		t.Error("something was written down")
	}
}

func TestAHostWithoutATokenWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.machine()
	in := hostapi.EnrolmentInput{Name: "db-1", Logins: []string{"dba"}, Address: "10.0.0.7"}
	must(t, hostapi.SignEnrolment(&in, url, m.key, h.clock.Now()))
	e, p, err := h.Enrol(t.Context(), from, in)
	must(t, err)
	if e != nil || p.Fingerprint != ssh.FingerprintSHA256(m.key.PublicKey()) {
		t.Fatalf("%+v, %+v", e, p)
	}
	_, again, err := h.Enrol(t.Context(), from, in)
	must(t, err)
	if again.ID != p.ID {
		t.Error("who asks twice waits twice")
	}
	ask := func(m *machine, as string) (*hostapi.Enrolment, *hostapi.Pending, error) {
		return h.Asked(t.Context(), p.ID, m.call(as, "GET", hostapi.EnrolmentsPath+"/"+p.ID, ""))
	}
	e, still, err := ask(m, p.ID)
	must(t, err)
	if e != nil || still == nil {
		t.Fatalf("%+v, %+v", e, still)
	}
	_, _, err = ask(h.machine(), p.ID)
	refused(t, err, fleet.ErrSignature)
	_, _, err = ask(m, "host-000000000000")
	refused(t, err, fleet.ErrUnknownEnrolment)
	if len(h.events("host.enrolled")) != 0 || h.count(`SELECT count(*) FROM hosts`) != 0 {
		t.Error("who waits is in")
	}

	waiting, err := h.Pending(t.Context(), h.operator)
	must(t, err)
	if len(waiting) != 1 || waiting[0].Fingerprint != p.Fingerprint || waiting[0].Name != "db-1" || waiting[0].Address != "10.0.0.7:22" {
		t.Fatalf("waiting: %+v", waiting)
	}
	labels := map[string]string{"class": "database"}
	_, err = h.Approve(t.Context(), h.operator, p.ID, api.PendingDecision{Fingerprint: ssh.FingerprintSHA256(newKey(t).PublicKey()), Labels: labels})
	refused(t, err, fleet.ErrFingerprint)
	host, err := h.Approve(t.Context(), h.operator, p.ID, api.PendingDecision{Fingerprint: p.Fingerprint, Labels: labels})
	must(t, err)
	e, _, err = ask(m, p.ID)
	must(t, err)
	if e.HostID != host.ID || e.Labels["class"] != "database" {
		t.Errorf("let in as %+v", e)
	}
	if list := h.events("host.enrolled"); len(list) != 1 || list[0].Actor.ID != h.operator.ID {
		t.Errorf("events %+v", list)
	}
	_, err = h.Approve(t.Context(), h.operator, p.ID, api.PendingDecision{Fingerprint: p.Fingerprint})
	refused(t, err, fleet.ErrUnknownPending)
}

func TestPendingHostsThatAreNotLetIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.machine()
	_, p, err := m.enrol("")
	must(t, err)
	must(t, h.Refuse(t.Context(), h.operator, p.ID, "not ours"))
	_, _, err = h.Asked(t.Context(), p.ID, m.call(p.ID, "GET", hostapi.EnrolmentsPath+"/"+p.ID, ""))
	refused(t, err, fleet.ErrRefused)
	if list := h.events("host.enrolment_refused"); len(list) != 1 || list[0].Data.(event.EnrolmentRefused).Reason != "not ours" {
		t.Errorf("events %+v", list)
	}
	h.clock.Advance(time.Minute)
	_, second, err := m.enrol("")
	must(t, err)
	if second.ID == p.ID {
		t.Error("a refused enrolment waits again")
	}
	h.clock.Advance(25 * time.Hour)
	_, err = h.Approve(t.Context(), h.operator, second.ID, api.PendingDecision{Fingerprint: second.Fingerprint, Name: "db-1"})
	refused(t, err, fleet.ErrUnknownPending)
	_, _, err = h.Asked(t.Context(), second.ID, m.call(second.ID, "GET", hostapi.EnrolmentsPath+"/"+second.ID, ""))
	refused(t, err, fleet.ErrUnknownEnrolment)
}

// Somebody announces a machine of theirs under the name of one of ours.
func TestNobodySquatsOnAName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	good := h.enrolled("db-1")
	bad := h.machine()
	in := hostapi.EnrolmentInput{Name: "db-1", Logins: []string{"dba"}}
	must(t, hostapi.SignEnrolment(&in, url, bad.key, h.clock.Now()))
	_, p, err := h.Enrol(t.Context(), from, in)
	must(t, err)
	// Even an operator who is careless enough cannot let it in as that.
	_, err = h.Approve(t.Context(), h.operator, p.ID, api.PendingDecision{Fingerprint: p.Fingerprint})
	refused(t, err, hosts.ErrNameTaken)
	good.caller()
	for _, name := range []string{"pending", "join-tokens", good.id} {
		_, err = h.Approve(t.Context(), h.operator, p.ID, api.PendingDecision{Fingerprint: p.Fingerprint, Name: name})
		if err == nil {
			t.Errorf("a host is called %s", name)
		}
	}
}

func TestAFloodOfPendingHostsIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	enrol := func(source string) error {
		_, _, err := h.Enrol(t.Context(), source, h.machine().input(""))
		return err
	}
	for range 20 {
		must(t, enrol("198.51.100.1"))
	}
	refused(t, enrol("198.51.100.1"), fleet.ErrTooManyPending)
	must(t, enrol("198.51.100.2")) // others come through
	_, err := h.db.Pool.Exec(t.Context(), `
		INSERT INTO enrolments (id, host_key, name, address, logins, facts, source, asked_at, expires_at)
		SELECT 'enr-' || lpad(i::text, 12, '0'), 'key ' || i, '', 'x', '{}', '{}', '10.' || i || '.0.1', $1::timestamptz, $1::timestamptz + interval '1 day'
		FROM generate_series(1, $2::int) AS i`, h.clock.Now(), fleet.MaxPending)
	must(t, err)
	refused(t, enrol("198.51.100.3"), fleet.ErrTooManyPending)
	h.clock.Advance(25 * time.Hour)
	must(t, enrol("198.51.100.3"))
	if n := len(h.events("")); n > 50 {
		t.Errorf("the flood made %d events", n)
	}
}

func TestP10_OnlyOperatorsLetHostsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, p, err := h.machine().enrol("")
	must(t, err)
	tries := 0
	for _, c := range []struct {
		who  string
		call func() error
	}{
		{"auditor", func() error {
			_, err := h.MakeToken(t.Context(), h.auditor, api.JoinTokenInput{Name: "x", Logins: []string{"dba"}})
			return err
		}},
		{"engineer", func() error {
			_, err := h.MakeToken(t.Context(), h.engineer, api.JoinTokenInput{Name: "x", Logins: []string{"dba"}})
			return err
		}},
		{"engineer", func() error { _, err := h.Tokens(t.Context(), h.engineer); return err }},
		{"engineer", func() error { return h.WithdrawToken(t.Context(), h.engineer, "join-000000000000") }},
		{"engineer", func() error { _, err := h.Pending(t.Context(), h.engineer); return err }},
		{"auditor", func() error { return h.Refuse(t.Context(), h.auditor, p.ID, "x") }},
		{"engineer", func() error {
			_, err := h.Approve(t.Context(), h.engineer, p.ID, api.PendingDecision{Fingerprint: p.Fingerprint, Name: "x", Logins: []string{"dba"}})
			return err
		}},
	} {
		tries++
		if err := c.call(); !errors.Is(err, hosts.ErrNotOperator) {
			t.Errorf("%s: %v", c.who, err)
		}
	}
	if n := len(h.events("access.refused")); n != tries {
		t.Errorf("%d events of %d tries", n, tries)
	}
}

// A certificate costs an entry in the log: a host gets no more than it needs.
func TestAHostRenewsOnlySoOften(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	var last error
	for range 10 {
		_, last = h.Renew(t.Context(), m.caller())
	}
	refused(t, last, fleet.ErrTooManyCalls)
	if n := len(h.events("host.certificate_issued")); n > 5 {
		t.Errorf("%d certificates", n)
	}
	h.clock.Advance(11 * time.Minute)
	_, err := h.Renew(t.Context(), m.caller())
	must(t, err)
}
