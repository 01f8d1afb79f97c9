package broker_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/keys"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
	"sallyport/internal/refusal"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// start has a fraction of a second, because certificates have none.
var start = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

const url = "https://broker.example.com"

const testPolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    certificate: {lifetime: 5m}
    emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 4h}}
  - name: database-root
    who: [engineers]
    where: class=database
    logins: [root]
    duration: {max: 1h}
    approvals: [{slots: [{groups: [approvers]}, {groups: [security]}]}]
    certificate: {lifetime: 2m, source_address: [10.0.0.0/8, "2001:db8::/32"]}
  - name: web
    who: [engineers, web-people]
    where: class=web
    logins: [web]
    duration: {default: 20m, max: 1h}
    automatic: true
  - {name: bare, who: [engineers], where: class=options, logins: [bare], duration: {max: 1h}, automatic: true, certificate: {pty: false}}
  - {name: tunnel, who: [engineers], where: class=options, logins: [tunnel], duration: {max: 1h}, automatic: true,
     certificate: {pty: false, forwarding: [port, agent]}}
  - {name: token, who: [engineers], where: class=options, logins: [token], duration: {max: 1h}, automatic: true,
     certificate: {verify_required: true, key_types: [sk-ssh-ed25519@openssh.com]}}
  - {name: once, who: [engineers], where: class=options, logins: [once], duration: {max: 1h}, automatic: true, single_use: true}
  - name: batch
    who: [engineers]
    where: class=web
    logins: [batch]
    duration: {default: 20m, max: 1h}
    automatic: true
    extend: {times: 1, by: 10m, automatic: true}
    max_sign_in_age: 1h
  - {name: vault, who: [engineers], where: class=vault, logins: [keeper], duration: {default: 30m, max: 2h},
     approvals: [{slots: [{groups: [approvers]}]}], assurance: provider,
     emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 4h}}}
  - {name: vault-root, who: [engineers], where: class=vault, logins: [root], duration: {default: 30m, max: 2h},
     approvals: [{slots: [{groups: [approvers]}, {groups: [security]}]}], assurance: provider}
  - {name: safe, who: [engineers], where: class=vault, logins: [safe], duration: {default: 30m, max: 2h},
     approvals: [{slots: [{groups: [approvers]}]}], assurance: provider, max_age: 15m, acr_values: [phr, phrh],
     emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 4h}}}
`

// house is a database with everything that a broker needs, shared by as many
// brokers as a test opens.
type house struct {
	t              testing.TB
	db             *pgtest.DB
	clock          clock.Clock
	key            audittest.Key // the log's
	userCA, hostCA ssh.Signer
}

// process is one broker with all that belongs to its process.
type process struct {
	*broker.Broker
	house     *house
	pool      *pgxpool.Pool
	log       *audit.Log
	people    *identity.Store
	hosts     *hosts.Registry
	approvals *approvals.Service
	// fault, if set, is asked before each step of the sequencer.
	fault atomic.Pointer[func(step string) error]
}

func newHouse(t testing.TB, db *pgtest.DB, c clock.Clock) *house {
	t.Helper()
	return &house{t: t, db: db, clock: c, key: audittest.NewKey(t), userCA: newKey(t), hostCA: newKey(t)}
}

// open starts one process on the house's database. Options change its configuration.
func (h *house) open(options ...func(*broker.Config)) *process {
	h.t.Helper()
	p := &process{house: h}
	config, err := pgxpool.ParseConfig(h.db.URL)
	must(h.t, err)
	config.MaxConns = 16
	p.pool, err = pgxpool.NewWithConfig(h.t.Context(), config)
	must(h.t, err)
	h.t.Cleanup(p.pool.Close)
	audittest.Complete(h.t, p.pool)

	p.log, err = audit.Open(h.t.Context(), audit.Config{Pool: p.pool, Signer: h.key.Signer, VerifierKey: h.key.Verifier, Clock: h.clock,
		Fault: func(step string) error {
			if f := p.fault.Load(); f != nil {
				return (*f)(step)
			}
			return nil
		}})
	must(h.t, err)
	audittest.Run(h.t, p.log.Run)
	p.people, err = identity.New(identity.Config{Pool: p.pool, Log: p.log, Clock: h.clock})
	must(h.t, err)
	p.hosts, err = hosts.New(hosts.Config{Pool: p.pool, Log: p.log, Clock: h.clock})
	must(h.t, err)
	document, err := policy.Parse([]byte(testPolicy))
	must(h.t, err)
	p.approvals, err = approvals.New(h.t.Context(), approvals.Config{Pool: p.pool, Log: p.log, Clock: h.clock,
		People: p.people, Hosts: p.hosts, Policy: document})
	must(h.t, err)
	cfg := broker.Config{Pool: p.pool, Log: p.log, Clock: h.clock, Approvals: p.approvals, Hosts: p.hosts,
		UserCA: h.userCA, HostCA: h.hostCA, URL: url}
	for _, option := range options {
		option(&cfg)
	}
	p.Broker, err = broker.New(h.t.Context(), cfg)
	must(h.t, err)
	return p
}

// scene is a process with people and hosts, which most tests begin with.
type scene struct {
	*process
	t     testing.TB
	clock *clock.Manual

	engineer, colleague, approver, security, auditor, operator identity.Caller

	db, web api.Host
}

func newScene(t testing.TB, options ...func(*broker.Config)) *scene {
	t.Helper()
	c := clock.NewManual(start)
	s := &scene{t: t, clock: c, process: newHouse(t, pgtest.New(t), c).open(options...)}
	s.fill()
	return s
}

func (s *scene) fill() {
	s.t.Helper()
	s.engineer, s.colleague = s.person("erin", "engineers"), s.person("carl", "engineers")
	s.approver, s.security = s.person("anna", "approvers"), s.person("sven", "security")
	s.auditor, s.operator = s.person("audrey", "auditors"), s.person("otto", "operators")
	s.db = s.host("db-1", "10.0.3.7:2222", "database", "dba", "root")
	s.web = s.host("web-1", "10.0.3.8", "web", "web")
}

// person signs somebody in.
func (p *process) person(name string, groups ...string) identity.Caller {
	t, now := p.house.t, p.house.clock.Now()
	t.Helper()
	found, err := p.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: name, Name: name,
		Groups: groups, AuthTime: now}, "web", "192.0.2.7")
	must(t, err)
	return identity.Caller{Person: found, Source: "192.0.2.7", AuthTime: now, Via: "web", Roles: p.approvals.Policy().RolesOf(groups),
		Policy: event.PolicyRef{Version: p.approvals.Policy().Version, Hash: p.approvals.Policy().Hash}}
}

func (s *scene) host(name, address, class string, logins ...string) api.Host {
	s.t.Helper()
	h, err := s.hosts.Register(s.t.Context(), s.operator, api.HostInput{Name: name, Address: address,
		Labels: map[string]string{"class": class}, Logins: logins, HostKey: certs.Line(newKey(s.t).PublicKey())})
	must(s.t, err)
	return h
}

// ask makes a request of the engineer; change may change it first.
func (s *scene) ask(login, host string, change ...func(*api.RequestInput)) api.Request {
	s.t.Helper()
	in := api.RequestInput{Host: host, Login: login, Reason: "restore a backup"}
	for _, f := range change {
		f(&in)
	}
	r, err := s.approvals.Request(s.t.Context(), s.engineer, in)
	must(s.t, err)
	return r
}

// grant asks, and lets whoever has to approve.
func (s *scene) grant(login, host string, change ...func(*api.RequestInput)) api.Request {
	s.t.Helper()
	r := s.ask(login, host, change...)
	approvers := map[string][]identity.Caller{"dba": {s.approver}, "root": {s.approver, s.security}}[login]
	for _, a := range approvers {
		var err error
		r, err = s.approvals.Decide(s.t.Context(), a, r.ID, api.DecisionInput{Verdict: api.Approve})
		must(s.t, err)
	}
	if r.State != api.Approved {
		s.t.Fatalf("the request is %s, not approved", r.State)
	}
	return r
}

// input asks for a certificate for the key, with a good proof.
func input(t testing.TB, key ssh.Signer, requestID string) api.CertificateInput {
	t.Helper()
	return api.CertificateInput{PublicKey: certs.Line(key.PublicKey()), Proof: proof(t, key, url, requestID)}
}

func proof(t testing.TB, key ssh.Signer, url, requestID string) string {
	t.Helper()
	signature, err := sshsig.Sign(bytes.NewReader(api.ProofMessage(url, requestID)), key, sshsig.HashSHA512, api.ProofNamespace)
	must(t, err)
	return string(sshsig.Armor(signature))
}

// issue gets the engineer a certificate, which must succeed.
func (s *scene) issue(key ssh.Signer, requestID string) (api.Certificate, *ssh.Certificate) {
	s.t.Helper()
	got, err := s.Issue(s.t.Context(), s.engineer, requestID, input(s.t, key, requestID))
	must(s.t, err)
	return got, parse(s.t, got.Certificate)
}

// logged is what the log says of a certificate, which carries the proof.
func (p *process) logged(cert *ssh.Certificate) certs.Logged {
	p.house.t.Helper()
	verifier, err := note.NewVerifier(p.house.key.Verifier)
	must(p.house.t, err)
	logged, err := certs.CheckReceipt(cert.Marshal(), verifier)
	must(p.house.t, err)
	return logged
}

// preCertificate is what the log has to have of a message that a CA is asked to
// sign: the same without the receipt.
func preCertificate(message []byte) ([]byte, error) {
	signature := ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)})
	key, err := ssh.ParsePublicKey(append(bytes.Clone(message), ssh.Marshal(struct{ Signature []byte }{signature})...))
	if err != nil {
		return nil, err
	}
	cert := *key.(*ssh.Certificate)
	cert.Signature = nil
	if _, found := cert.Extensions[receiptName]; !found {
		return nil, errors.New("there is no receipt in it")
	}
	delete(cert.Extensions, receiptName)
	out := cert.Marshal()
	return out[:len(out)-4], nil
}

// own are the extensions but for the receipt.
func own(cert *ssh.Certificate) map[string]string {
	extensions := maps.Clone(cert.Extensions)
	delete(extensions, receiptName)
	return extensions
}

const receiptName = "tlog-proof@sallyport.example.com"

func parse(t testing.TB, line string) *ssh.Certificate {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	must(t, err)
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		t.Fatalf("not a certificate: %s", line)
	}
	return cert
}

// refusedIssue expects the refusal, no certificate, and its event if it is one
// that matters.
func (s *scene) refusedIssue(c identity.Caller, requestID string, in api.CertificateInput, want *refusal.Error) {
	s.t.Helper()
	before := s.count(`SELECT count(*) FROM certificates`)
	events := len(s.events("certificate.refused"))
	got, err := s.Issue(s.t.Context(), c, requestID, in)
	if !errors.Is(err, want) {
		s.t.Errorf("error %v, want %v", err, want)
		return
	}
	if r := refusal.As(err); r.Hint == "" {
		s.t.Errorf("refusal %s has no hint", r.Code)
	}
	if got.Certificate != "" || s.count(`SELECT count(*) FROM certificates`) != before {
		s.t.Errorf("with the refusal %s came a certificate", want.Code)
	}
	list := s.events("certificate.refused")
	if len(list) != events+1 {
		s.t.Errorf("%d events certificate.refused, want %d", len(list), events+1)
		return
	}
	last := list[len(list)-1]
	if data := last.Data.(event.CertificateRefused); data.Code != want.Code || last.Actor.ID != c.ID {
		s.t.Errorf("the event says %+v by %+v", data, last.Actor)
	}
}

// events are all of the type, oldest first, when nothing waits any more.
func (p *process) events(kind string) []event.Event {
	p.house.t.Helper()
	return audittest.Events(p.house.t, p.pool, p.log, kind)
}

func (p *process) count(sql string, args ...any) (n int) {
	p.house.t.Helper()
	must(p.house.t, p.pool.QueryRow(p.house.t.Context(), sql, args...).Scan(&n))
	return n
}

func (p *process) eventually(done func() bool) {
	p.house.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.house.t.Fatal("it did not happen")
		}
	}
}

// checkLog re-verifies the whole log, and that every certificate has its event
// and every event its certificate.
func (p *process) checkLog() {
	p.house.t.Helper()
	issued := p.events("certificate.issued")
	verifier, err := note.NewVerifier(p.house.key.Verifier)
	must(p.house.t, err)
	if _, err := audit.CheckAll(p.house.t.Context(), p.pool, verifier); err != nil {
		p.house.t.Error(err)
	}
	if n := p.count(`SELECT count(*) FROM certificates`); n != len(issued) {
		p.house.t.Errorf("%d certificates, %d events", n, len(issued))
	}
	serials := map[uint64]bool{}
	for _, e := range issued {
		data := e.Data.(event.CertificateIssued)
		if serials[data.Serial] {
			p.house.t.Errorf("serial %d twice", data.Serial)
		}
		serials[data.Serial] = true
		if n := p.count(`SELECT count(*) FROM certificates WHERE event_id = $1 AND serial = $2 AND pre_certificate = $3`,
			e.ID, data.Serial, data.PreCertificate); n != 1 {
			p.house.t.Errorf("event %s has %d certificates", e.ID, n)
		}
	}
}

// spy is a CA that tells of each use before it signs.
type spy struct {
	keys.Signer
	before func(message []byte) error
}

func (s spy) Sign(random io.Reader, message []byte) (*ssh.Signature, error) {
	if err := s.before(message); err != nil {
		return nil, err
	}
	return s.Signer.Sign(random, message)
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
