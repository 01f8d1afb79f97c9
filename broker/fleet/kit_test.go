package fleet_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/revocations"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
	"sallyport/internal/refusal"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var start = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

const (
	url  = "https://broker.example.com"
	from = "192.0.2.50" // where hosts call from

	auditorKey = "age1examplexxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
)

const testPolicy = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
listen: [{where: class=database, ports: [tcp/5432]}]
rules:
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    certificate: {lifetime: 5m}
    automatic: true
    at_end: keep
    record: true
    extend: {times: 1, by: 10m, automatic: true}
  - {name: once, who: [engineers], where: class=database, logins: [root], duration: {max: 1h}, automatic: true, single_use: true}
`

// house is a broker with its fleet.
type house struct {
	*fleet.Service
	t         testing.TB
	db        *pgtest.DB
	clock     *clock.Manual
	log       *audit.Log
	hosts     *hosts.Registry
	broker    *broker.Broker
	approvals *approvals.Service
	list      *revocations.List
	people    *identity.Store

	operator, auditor, engineer, colleague identity.Caller
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, db: pgtest.New(t), clock: clock.NewManual(start)}
	pool := h.db.Pool
	h.log = audittest.Open(t, pool, h.clock)
	var err error
	h.people, err = identity.New(identity.Config{Pool: pool, Log: h.log, Clock: h.clock})
	must(t, err)
	h.hosts, err = hosts.New(hosts.Config{Pool: pool, Log: h.log, Clock: h.clock})
	must(t, err)
	document, err := policy.Parse([]byte(testPolicy))
	must(t, err)
	settings, err := notify.Parse([]byte(`{channels: {ops: {webhook: {url: "http://127.0.0.1:9/", secret_env: S}}}, operators: [ops]}`))
	must(t, err)
	setup, err := settings.Open(func(string) (string, bool) { return "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", true })
	must(t, err)
	h.approvals, err = approvals.New(t.Context(), approvals.Config{Pool: pool, Log: h.log, Clock: h.clock, People: h.people,
		Hosts: h.hosts, Policy: document, Notify: setup, URL: url})
	must(t, err)
	ca := newKey(t)
	h.broker, err = broker.New(t.Context(), broker.Config{Pool: pool, Log: h.log, Clock: h.clock, Approvals: h.approvals,
		Hosts: h.hosts, UserCA: ca, HostCA: newKey(t), URL: url})
	must(t, err)
	h.list, err = revocations.New(t.Context(), revocations.Config{Pool: pool, Log: h.log, Clock: h.clock, Approvals: h.approvals, UserCA: ca})
	must(t, err)
	audittest.Run(t, h.list.Run)
	h.Service = h.process()
	h.operator, h.auditor = h.person("otto", "operators"), h.person("audrey", "auditors")
	h.engineer, h.colleague = h.person("erin", "engineers"), h.person("carl", "engineers")
	return h
}

// process is another fleet on the same database, as in another replica.
func (h *house) process() *fleet.Service {
	h.t.Helper()
	s, err := fleet.New(fleet.Config{Pool: h.db.Pool, Log: h.log, Clock: h.clock, Hosts: h.hosts, Broker: h.broker, Approvals: h.approvals, URL: url,
		RecordingKeys: []string{auditorKey}})
	must(h.t, err)
	return s
}

func (h *house) person(name string, groups ...string) identity.Caller {
	h.t.Helper()
	found, err := h.people.SignIn(h.t.Context(), identity.Claims{Issuer: "https://id.test", Subject: name, Name: name,
		Groups: groups, AuthTime: h.clock.Now()}, "web", "192.0.2.7")
	must(h.t, err)
	return identity.Caller{Person: found, Source: "192.0.2.7", AuthTime: h.clock.Now(), Via: "web",
		Roles: h.approvals.Policy().RolesOf(groups), Policy: event.PolicyRef{Version: h.approvals.Policy().Version, Hash: h.approvals.Policy().Hash}}
}

// machine is a host as it is outside.
type machine struct {
	*house
	key  ssh.Signer
	id   string // once it is enrolled
	name string
	seq  uint64
}

func (h *house) machine() *machine { return &machine{house: h, key: newKey(h.t)} }

// token lets a host of the name in.
func (h *house) token(name string) string {
	h.t.Helper()
	t, err := h.MakeToken(h.t.Context(), h.operator, api.JoinTokenInput{Name: name, Labels: map[string]string{"class": "database"}, Logins: []string{"dba", "root"}})
	must(h.t, err)
	return t.Token
}

func (m *machine) input(token string) hostapi.EnrolmentInput {
	m.t.Helper()
	in := hostapi.EnrolmentInput{Token: token, Facts: hostapi.Facts{OS: "Debian 12", OpenSSH: "OpenSSH_9.2p1"}}
	must(m.t, hostapi.SignEnrolment(&in, url, m.key, m.clock.Now()))
	return in
}

func (m *machine) enrol(token string) (*hostapi.Enrolment, *hostapi.Pending, error) {
	m.t.Helper()
	e, p, err := m.Enrol(m.t.Context(), from, m.input(token))
	if e != nil {
		m.id, m.name = e.HostID, e.Name
	}
	return e, p, err
}

// enrolled is a host that was let in.
func (h *house) enrolled(name string) *machine {
	h.t.Helper()
	m := h.machine()
	_, _, err := m.enrol(h.token(name))
	must(h.t, err)
	return m
}

// call signs a call, as the one with the id.
func (m *machine) call(id, method, target, body string) fleet.Call {
	m.t.Helper()
	req, err := http.NewRequest(method, url+target, nil)
	must(m.t, err)
	must(m.t, hostapi.Sign(req, id, m.key, []byte(body), m.clock.Now(), rand.Reader))
	return fleet.Call{Authorization: req.Header.Get("Authorization"), Method: method, Target: target, Body: []byte(body), Source: from, Changes: method != "GET"}
}

func (m *machine) caller() fleet.Caller {
	m.t.Helper()
	c, err := m.Authenticate(m.t.Context(), m.call(m.id, "POST", hostapi.ReportsPath, "x"))
	must(m.t, err)
	return c
}

// reports are numbered on from the last ones.
func (m *machine) reports(data ...any) []hostapi.Report {
	m.t.Helper()
	var out []hostapi.Report
	for _, d := range data {
		m.seq++
		r := hostapi.Report{BootID: "boot", Seq: m.seq, Time: m.clock.Now()}
		switch d.(type) {
		case hostapi.SessionStarted:
			r.Kind = hostapi.KindSessionStarted
		case hostapi.SessionEnded:
			r.Kind = hostapi.KindSessionEnded
		case hostapi.SessionRecorded:
			r.Kind = hostapi.KindSessionRecorded
		case hostapi.PostureReport:
			r.Kind = hostapi.KindPosture
		case hostapi.Alarm:
			r.Kind = hostapi.KindAlarm
		default:
			r.Kind = "weather"
		}
		text, err := json.Marshal(d)
		must(m.t, err)
		r.Data = text
		out = append(out, r)
	}
	return out
}

func (m *machine) report(data ...any) hostapi.Accepted {
	m.t.Helper()
	a, err := m.Report(m.t.Context(), m.caller(), m.reports(data...))
	must(m.t, err)
	return a
}

// grant asks for a login, which the policy gives.
func (h *house) grant(login, host string) api.Request {
	h.t.Helper()
	r, err := h.approvals.Request(h.t.Context(), h.engineer, api.RequestInput{Host: host, Login: login, Reason: "a backup"})
	must(h.t, err)
	return r
}

// certificate issues one under the grant.
func (h *house) certificate(r api.Request, key ssh.Signer) api.Certificate {
	h.t.Helper()
	c, err := h.tryCertificate(r, key)
	must(h.t, err)
	return c
}

func (h *house) tryCertificate(r api.Request, key ssh.Signer) (api.Certificate, error) {
	h.t.Helper()
	signature, err := sshsig.Sign(bytes.NewReader(api.ProofMessage(url, r.ID)), key, sshsig.HashSHA512, api.ProofNamespace)
	must(h.t, err)
	return h.broker.Issue(h.t.Context(), h.engineer, r.ID, api.CertificateInput{PublicKey: certs.Line(key.PublicKey()), Proof: string(sshsig.Armor(signature))})
}

// login is the start of a session that the certificate opened.
func (m *machine) login(c api.Certificate, login string) hostapi.SessionStarted {
	return hostapi.SessionStarted{Session: session(), Serial: c.Serial, KeyID: c.KeyID, Principal: c.Principal, Key: c.Fingerprint,
		Login: login, Peer: "198.51.100.4", StartedAt: m.clock.Now(), Isolation: "cgroup"}
}

func session() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// events are all of the type, oldest first, when nothing waits any more.
func (h *house) events(kind string) []event.Event {
	h.t.Helper()
	return audittest.Events(h.t, h.db.Pool, h.log, kind)
}

func (h *house) count(sql string, args ...any) (n int) {
	h.t.Helper()
	must(h.t, h.db.Pool.QueryRow(h.t.Context(), sql, args...).Scan(&n))
	return n
}

func (h *house) eventually(done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not happen")
		}
	}
}

// news is what a host hears that has the list with the number.
func (h *house) news(after uint64) hostapi.Revocations {
	h.t.Helper()
	note, err := h.list.News(h.t.Context(), after, time.Minute, nil)
	must(h.t, err)
	text, err := vouch.Open(hostapi.RevocationsKind, note, h.log.VerifierKey())
	must(h.t, err)
	r, err := hostapi.ParseRevocations(text)
	must(h.t, err)
	return r
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		if r := refusal.As(err); r != nil {
			t.Fatalf("refused: %s: %v", r.Code, err)
		}
		t.Fatal(err)
	}
}

func refused(t testing.TB, err error, want *refusal.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %s", err, want.Code)
	}
}
