package rollout_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/pgtest"
	"sallyport/internal/refusal"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var start = time.Date(2026, 3, 2, 12, 0, 0, 250_000_000, time.UTC) // a Monday

const (
	one = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	two = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

const testPolicy = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
rules: [{name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}]
deployments:
  - name: api-prod
    service: api
    environment: prod
    agents: [github-api]
    where: class=api
    login: deploy
    command: /usr/local/bin/deploy {digest}
    certificate: {lifetime: 5m, source_address: [192.0.2.0/24], uses: 2}
    plan: {canary: {hosts: 1, soak: 10m}, batches: [{hosts: 3}, {hosts: 6}], failures: 0, on_failure: hold, verify_within: 5m}
    gates: [{name: reported, reported: {ok: 100%}}]
    freezes: [{name: evening, zone: Europe/Berlin, times: [{days: [mon], from: "18:00", to: "20:00"}]}]
    override: [{slots: [{groups: [leads], count: 1}]}, {slots: [{groups: [security]}]}]
    control: [oncall]
  - name: db-prod
    service: db
    environment: prod
    agents: [github-db, github-api]
    where: class in (api, db)
    login: deploy
    command: /usr/local/bin/deploy-db
    certificate: {source_address: [192.0.2.0/24]}
    plan: {batches: [{hosts: 100%}], on_failure: rollback}
    gates: [{name: people, approval: {slots: [{groups: [leads]}]}}]
    approvals: [{slots: [{groups: [leads]}, {groups: [security]}]}]
  - name: edge-prod
    service: edge
    environment: prod
    agents: [github-edge]
    where: class=edge
    login: deploy
    command: /usr/local/bin/deploy-edge {digest}
    rollback_command: /usr/local/bin/put-back {digest}
    certificate: {source_address: [192.0.2.0/24]}
    plan: {canary: {hosts: 1}, batches: [{hosts: 100%}], on_failure: rollback}
    gates: [{name: sealed, posture: {ports: [443]}, every: 30s, times: 2, failures: 1, within: 10m}]
  - name: vault-prod
    service: vault
    environment: prod
    agents: [github-vault]
    where: class=edge
    login: deploy
    command: /usr/local/bin/deploy-vault {digest}
    certificate: {source_address: [192.0.2.0/24]}
    plan: {batches: [{hosts: 100%}]}
    gates: [{name: people, approval: {slots: [{groups: [leads]}]}}]
    approvals: [{slots: [{groups: [leads]}]}]
    assurance: provider
    max_age: 15m
  - {name: wide-prod, service: wide, environment: prod, agents: [github-wide], where: class=db, login: deploy, command: /bin/deploy,
     certificate: {source_address: [192.0.2.0/24]}, plan: {batches: [{hosts: 100%}]}}
`

// house is a database with everything that deployments need, shared by as many
// processes as a test opens.
type house struct {
	t              testing.TB
	db             *pgtest.DB
	clock          *clock.Manual
	key            audittest.Key
	userCA, hostCA ssh.Signer
	shown          *shown
	trips          trips
	fault          atomic.Pointer[func(step string) error] // asked before each step of the sequencer
}

// shown is what hosts show of themselves, and what they were told.
type shown struct {
	clock *clock.Manual

	mu       sync.Mutex
	postures map[string]gates.Posture
	silent   bool // nobody shows anything by themselves
}

// fleet are the hosts of the registry, which show that they are sealed when they have
// been sealed, unless a test says otherwise.
type fleet struct {
	*hosts.Registry
	*shown
	pool *pgxpool.Pool
}

func (f fleet) Select(ctx context.Context, where labels.Selector, login string) ([]plan.Host, error) {
	all, err := f.Targets(ctx)
	var list []plan.Host
	for _, h := range all {
		if where.Matches(labels.Set(h.Labels)) && slices.Contains(h.Logins, login) {
			list = append(list, plan.Host{ID: h.ID, Name: h.Name})
		}
	}
	return list, err
}

func (f fleet) Verified(ctx context.Context, ids []string) (map[string]gates.Posture, error) {
	rows, err := f.pool.Query(ctx, `SELECT host_id FROM deployment_hosts WHERE open_until IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]gates.Posture{}
	for _, id := range ids {
		switch p, set := f.postures[id]; {
		case set:
			p.At = f.clock.Now()
			out[id] = p
		case !f.silent && !slices.Contains(open, id):
			out[id] = gates.Posture{State: gates.Sealed, At: f.clock.Now(), Ports: []int{443}}
		}
	}
	return out, nil
}

func (f *shown) set(id string, p gates.Posture) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.postures[id] = p
}

func (f *shown) says(change func(*shown)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// process is one broker's deployments.
type process struct {
	*rollout.Service
	house     *house
	pool      *pgxpool.Pool
	log       *audit.Log
	people    *identity.Store
	hosts     *hosts.Registry
	approvals *approvals.Service
	broker    *broker.Broker
}

func newHouse(t testing.TB) *house {
	t.Helper()
	c := clock.NewManual(start)
	return &house{t: t, clock: c, key: audittest.NewKey(t), userCA: newKey(t), hostCA: newKey(t),
		shown: &shown{clock: c, postures: map[string]gates.Posture{}}}
}

func (h *house) open(options ...func(*rollout.Config)) *process {
	t := h.t
	t.Helper()
	p := &process{house: h}
	config, err := pgxpool.ParseConfig(h.db.URL)
	must(t, err)
	config.MaxConns, config.ConnConfig.Tracer = 16, &h.trips
	p.pool, err = pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(p.pool.Close)
	audittest.Complete(t, p.pool)
	p.log, err = audit.Open(t.Context(), audit.Config{Pool: p.pool, Signer: h.key.Signer, VerifierKey: h.key.Verifier, Clock: h.clock,
		Fault: func(step string) error {
			if f := h.fault.Load(); f != nil {
				return (*f)(step)
			}
			return nil
		}})
	must(t, err)
	audittest.Run(t, p.log.Run)
	p.people, err = identity.New(identity.Config{Pool: p.pool, Log: p.log, Clock: h.clock})
	must(t, err)
	p.hosts, err = hosts.New(hosts.Config{Pool: p.pool, Log: p.log, Clock: h.clock})
	must(t, err)
	document, err := policy.Parse([]byte(testPolicy))
	must(t, err)
	p.approvals, err = approvals.New(t.Context(), approvals.Config{Pool: p.pool, Log: p.log, Clock: h.clock, People: p.people, Hosts: p.hosts, Policy: document})
	must(t, err)
	p.broker, err = broker.New(t.Context(), broker.Config{Pool: p.pool, Log: p.log, Clock: h.clock, Approvals: p.approvals, Hosts: p.hosts,
		UserCA: h.userCA, HostCA: h.hostCA, URL: "https://broker.example.com"})
	must(t, err)
	cfg := rollout.Config{Pool: p.pool, Log: p.log, Clock: h.clock, Approvals: p.approvals, People: p.people,
		Hosts: fleet{p.hosts, h.shown, p.pool}, Certificates: p.broker, Gates: gates.NewProber(gates.Config{})}
	for _, option := range options {
		option(&cfg)
	}
	p.Service, err = rollout.New(cfg)
	must(t, err)
	return p
}

// scene is a process with ten API hosts, two databases and three edge hosts.
type scene struct {
	*process
	t     testing.TB
	clock *clock.Manual

	lead, security, oncall, engineer, operator, auditor identity.Caller
	ids                                                 map[string]string // of hosts, by name
}

func newScene(t testing.TB, options ...func(*rollout.Config)) *scene {
	t.Helper()
	return newSceneOn(t, pgtest.New(t), options...)
}

func newSceneOn(t testing.TB, db *pgtest.DB, options ...func(*rollout.Config)) *scene {
	t.Helper()
	return newSceneIn(t, func(h *house) { h.db = db }, options...)
}

// newSceneIn has the house's database made by furnish.
func newSceneIn(t testing.TB, furnish func(*house), options ...func(*rollout.Config)) *scene {
	t.Helper()
	h := newHouse(t)
	furnish(h)
	s := &scene{process: h.open(options...), t: t, clock: h.clock, ids: map[string]string{}}
	s.lead, s.security, s.oncall = s.person("lena", "leads"), s.person("sven", "security"), s.person("olga", "oncall")
	s.engineer, s.operator, s.auditor = s.person("erin", "engineers"), s.person("otto", "operators"), s.person("audrey", "auditors")
	for class, n := range map[string]int{"api": 10, "db": 2, "edge": 3} {
		for i := range n {
			s.host(fmt.Sprintf("%s-%02d", class, i+1), class)
		}
	}
	return s
}

func (s *scene) host(name, class string) {
	s.t.Helper()
	h, err := s.hosts.Register(s.t.Context(), s.operator, api.HostInput{Name: name, Address: fmt.Sprintf("10.0.3.%d", len(s.ids)+1),
		Labels: map[string]string{"class": class}, Logins: []string{"deploy"}, HostKey: certs.Line(newKey(s.t).PublicKey())})
	must(s.t, err)
	s.ids[name] = h.ID
}

func (p *process) person(name string, groups ...string) identity.Caller {
	t, now := p.house.t, p.house.clock.Now()
	t.Helper()
	found, err := p.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: name, Name: name, Email: name + "@example.com",
		Groups: groups, AuthTime: now}, "web", "192.0.2.7")
	must(t, err)
	return identity.Caller{Person: found, Source: "192.0.2.7", AuthTime: now, Via: "web", Roles: p.approvals.Policy().RolesOf(groups),
		Policy: event.PolicyRef{Version: p.approvals.Policy().Version, Hash: p.approvals.Policy().Hash}}
}

// run is a job that was admitted just now.
func (p *process) run(entry string) rollout.Run {
	p.house.t.Helper()
	run := rollout.Run{ID: ids.New(ids.Run), Entry: entry, Issuer: "https://token.test", Subject: "repo:example/api", TokenHash: strings.Repeat("ab", 32),
		Claims: map[string]string{"repository": "example/api", "user_email": "lena.too@example.com"}, Key: newKey(p.house.t).PublicKey(),
		Policy: event.PolicyRef{Version: p.approvals.Policy().Version, Hash: p.approvals.Policy().Hash}, Source: "192.0.2.9", Expires: p.house.clock.Now().Add(6 * time.Hour)}
	_, err := p.pool.Exec(p.house.t.Context(), `
		INSERT INTO agent_runs (id, entry, entry_hash, provider, issuer, subject, token_id, token_hash, claims, key, fingerprint, policy_version, policy_hash,
			source, created_at, expires_at)
		VALUES ($1, $2, repeat('0', 64), 'github', $3, $4, $1, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		run.ID, run.Entry, run.Issuer, run.Subject, run.TokenHash, run.Claims, certs.Line(run.Key), ssh.FingerprintSHA256(run.Key), run.Policy.Version, run.Policy.Hash,
		run.Source, p.house.clock.Now(), run.Expires)
	must(p.house.t, err)
	return run
}

// tryOpen opens a deployment, or joins one.
func (p *process) tryOpen(run rollout.Run, service, digest string, change ...func(*api.DeploymentInput)) (api.Deployment, error) {
	ctx := p.house.t.Context()
	in := api.DeploymentInput{Service: service, Environment: "prod", Digest: digest}
	for _, f := range change {
		f(&in)
	}
	o, err := p.Prepare(ctx, in)
	if err != nil {
		return api.Deployment{}, err
	}
	id, err := p.Open(ctx, run, o)
	if err != nil {
		return api.Deployment{}, p.Refused(ctx, run, event.DeploymentRefused{Action: "open", Service: service, Environment: "prod"}, err)
	}
	return p.Opened(ctx, run, id)
}

// job is a run with its deployment.
type job struct {
	p     *process
	run   rollout.Run
	id    string
	epoch uint64
}

func (p *process) deploy(entry, service, digest string, change ...func(*api.DeploymentInput)) *job {
	p.house.t.Helper()
	j := &job{p: p, run: p.run(entry)}
	d, err := p.tryOpen(j.run, service, digest, change...)
	must(p.house.t, err)
	j.id, j.epoch = d.ID, d.Epoch
	return j
}

// again attaches the same run once more, which has waited for long.
func (j *job) again() {
	j.p.house.t.Helper()
	d := j.state()
	d, err := j.p.tryOpen(j.run, d.Service, d.Digest)
	must(j.p.house.t, err)
	j.epoch = d.Epoch
}

func (j *job) batch(n int) (api.Deployment, error) {
	return j.p.Batch(j.p.house.t.Context(), j.run, j.id, n, api.BatchInput{Epoch: j.epoch}, 0)
}

func (j *job) cert(n int, host string) (api.AgentCertificate, error) {
	return j.p.Certificate(j.p.house.t.Context(), j.run, j.id, api.AgentCertificateInput{Epoch: j.epoch, Batch: n, Host: host})
}

func (j *job) report(n int, results map[string]string) (api.Deployment, error) {
	return j.p.Report(j.p.house.t.Context(), j.run, j.id, n, api.ReportInput{Epoch: j.epoch, Results: results})
}

func (j *job) state() api.Deployment {
	d, err := j.p.Progress(j.p.house.t.Context(), j.run, j.id)
	must(j.p.house.t, err)
	return d
}

// deployBatch opens a batch, gets a certificate for every host of it, and reports them.
func (j *job) deployBatch(n int, results ...string) {
	t := j.p.house.t
	t.Helper()
	d, err := j.batch(n)
	must(t, err)
	report := map[string]string{}
	for i, h := range d.Batches[n-1].Hosts {
		if h.Result != "" {
			continue
		}
		cert, err := j.cert(n, h.Name)
		must(t, err)
		if c := parse(t, cert.Certificate.Certificate); c.ValidPrincipals[0] != "deploy@"+h.ID {
			t.Fatalf("the certificate is for %q", c.ValidPrincipals)
		}
		report[h.Name] = "ok"
		if len(results) > 0 {
			report[h.Name] = results[i%len(results)]
		}
	}
	_, err = j.report(n, report)
	must(t, err)
}

// until keeps and lets time pass, half a minute at a time, until the batch, or with 0 the
// deployment, is in the state.
func (p *process) until(id string, batch int, state string) api.Deployment {
	t := p.house.t
	t.Helper()
	var got string
	for range 500 {
		d, err := p.View(t.Context(), p.reader(), id)
		must(t, err)
		if got = d.State; batch > 0 {
			got = d.Batches[batch-1].State
		}
		if got == state {
			return d
		}
		must(t, p.Keep(t.Context()))
		p.house.clock.Advance(10 * time.Second)
	}
	t.Fatalf("batch %d of %s is %s, not %s", batch, id, got, state)
	return api.Deployment{}
}

// reader sees everything.
func (p *process) reader() identity.Caller {
	return identity.Caller{Roles: []api.Role{api.Auditor}}
}

// refused expects the refusal.
func refused(t testing.TB, err error, want *refusal.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %s", err, want.Code)
	}
	if r := refusal.As(err); r != nil && r.Hint == "" {
		t.Errorf("refusal %s has no hint", r.Code)
	}
}

// events are all of the type, oldest first, when nothing waits any more.
func (p *process) events(kind string) []event.Event {
	p.house.t.Helper()
	return audittest.Events(p.house.t, p.pool, p.log, kind)
}

func (p *process) eventually(done func() bool) {
	p.house.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.house.t.Fatal("it did not happen")
		}
	}
}

func (p *process) count(sql string, args ...any) (n int) {
	p.house.t.Helper()
	must(p.house.t, p.pool.QueryRow(p.house.t.Context(), sql, args...).Scan(&n))
	return n
}

// check verifies that the log is whole, that every certificate has its event, and lies
// within one open batch of its epoch, by what the log says alone.
func (p *process) check() {
	t := p.house.t
	t.Helper()
	issued := p.events("deployment.certificate_issued")
	if n := p.count(`SELECT count(*) FROM deployment_certificates`); n != len(issued) {
		t.Errorf("%d certificates, %d events", n, len(issued))
	}
	verifier, err := note.NewVerifier(p.house.key.Verifier)
	must(t, err)
	_, err = audit.CheckAll(t.Context(), p.pool, verifier)
	must(t, err)
	type opening struct {
		deployment string
		batch      int
		epoch      uint64
	}
	open := map[opening]map[string]bool{}
	all := p.events("")
	for _, e := range all {
		switch d := e.Data.(type) {
		case event.BatchMoved:
			at := opening{d.DeploymentID, d.Batch, d.Epoch}
			switch {
			case d.State == "open":
				open[at] = map[string]bool{e.Subject.HostID: true}
				for _, id := range e.Subject.HostIDs {
					open[at][id] = true
				}
			default:
				delete(open, at)
			}
		case event.DeploymentCertificateIssued:
			if !open[opening{d.DeploymentID, d.Batch, d.Epoch}][e.Subject.HostID] {
				t.Errorf("certificate %d is of batch %d, which is not open in epoch %d, or not for its host", d.Serial, d.Batch, d.Epoch)
			}
		}
	}
}

// logged is what the log says of a certificate, which carries the proof.
func (p *process) logged(cert *ssh.Certificate) certs.Logged {
	t := p.house.t
	t.Helper()
	verifier, err := note.NewVerifier(p.house.key.Verifier)
	must(t, err)
	logged, err := certs.CheckReceipt(cert.Marshal(), verifier)
	must(t, err)
	return logged
}

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

// own are the extensions but for the receipt.
func own(cert *ssh.Certificate) map[string]string {
	extensions := maps.Clone(cert.Extensions)
	delete(extensions, "tlog-proof@sallyport.example.com")
	return extensions
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
