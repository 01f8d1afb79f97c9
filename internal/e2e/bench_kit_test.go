package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/oauth2"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	policies "sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/broker/keys"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// perGrant is how many certificates a grant is asked for in one measurement.
const perGrant = broker.MaxCertificates / 4

// bench is a house on a PostgreSQL with fsync, with two brokers as processes,
// built without the race detector, and the same rooms once more in this process.
type bench struct {
	t        testing.TB
	house    *house
	brokers  []process
	starts   []start
	trace    *tracer
	postgres string // PID of its first process

	keys      *keys.Set
	signer    note.Signer
	log       *audit.Log
	identity  *identity.Store
	approvals *approvals.Service
	broker    *broker.Broker

	approver identity.Caller
	known    []*asker
}

type process struct {
	url string
	pid int
}

// start is how one `sallyportd serve` came up.
type start struct {
	took time.Duration
	rss  int64 // bytes
}

func newBench(t testing.TB) *bench {
	t.Helper()
	fast := filepath.Join(t.TempDir(), "sallyportd")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", fast, "sallyport/cmd/sallyportd").CombinedOutput(); err != nil {
		t.Fatalf("building sallyportd: %v\n%s", err, out)
	}
	slow := programs.sallyportd
	programs.sallyportd = fast
	t.Cleanup(func() { programs.sallyportd = slow })

	_, db := pgtest.NewCluster(t, true)
	h := &bench{t: t, house: newHouseOn(t, rules, db), trace: &tracer{}}
	h.findPostgres()
	h.open()
	h.brokers = []process{{h.house.URL, h.house.first.PID()}}
	for range 5 {
		address := freeAddress(t)
		began := time.Now()
		p := h.house.serve(address)
		h.starts = append(h.starts, start{time.Since(began), rss(t, p.PID())})
		if len(h.starts) < 5 {
			p.Stop(syscall.SIGTERM, 30*time.Second)
			continue
		}
		h.brokers = append(h.brokers, process{"http://" + address, p.PID()})
	}
	return h
}

// open puts the broker's rooms together in this process.
func (h *bench) open() {
	h.t.Helper()
	ctx := h.t.Context()
	cfg, err := pgxpool.ParseConfig(h.house.db.URL)
	h.must(err)
	cfg.MaxConns, cfg.ConnConfig.Tracer = 24, h.trace // as many as serve has
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	h.must(err)
	h.t.Cleanup(pool.Close)
	h.keys, err = keys.Load(keys.LoadOptions{Dir: h.house.keys})
	h.must(err)
	h.signer, err = note.NewSigner(h.keys.LogSigner)
	h.must(err)
	h.log, err = audit.Open(ctx, audit.Config{Pool: pool, Signer: h.signer, VerifierKey: h.keys.LogVerifier, Clock: clock.System})
	h.must(err)
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.log.Run(running) }()
	h.t.Cleanup(func() { stop(); <-done })

	h.identity, err = identity.New(identity.Config{Pool: pool, Log: h.log, Clock: clock.System})
	h.must(err)
	registry, err := hosts.New(hosts.Config{Pool: pool, Log: h.log, Clock: clock.System})
	h.must(err)
	document, err := policies.Parse([]byte(rules))
	h.must(err)
	h.approvals, err = approvals.New(ctx, approvals.Config{Pool: pool, Log: h.log, Clock: clock.System,
		People: h.identity, Hosts: registry, Policy: document})
	h.must(err)
	h.broker, err = broker.New(ctx, broker.Config{Pool: pool, Log: h.log, Clock: clock.System, Approvals: h.approvals,
		Hosts: registry, UserCA: h.keys.UserCA, HostCA: h.keys.HostCA, URL: h.house.URL})
	h.must(err)

	h.approver = h.signedIn("approver", "approvers")
	_, err = registry.Register(ctx, h.signedIn("operator", "operators"), api.HostInput{Name: "db-1", Address: "192.0.2.1:22",
		Labels: map[string]string{"class": "database"}, Logins: []string{"dba"}})
	h.must(err)
}

func (h *bench) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *bench) signedIn(name string, groups ...string) identity.Caller {
	h.t.Helper()
	p, err := h.identity.SignIn(h.t.Context(), identity.Claims{Issuer: "https://id.example.com", Subject: name, Name: name,
		Groups: groups, AuthTime: clock.System.Now()}, identity.ViaWeb, "192.0.2.7")
	h.must(err)
	return identity.Caller{Person: p, Source: "192.0.2.7", AuthTime: p.SignedInAt, Via: identity.ViaWeb,
		Roles: h.approvals.Policy().RolesOf(groups), Policy: event.PolicyRef{Version: h.approvals.Policy().Version, Hash: h.approvals.Policy().Hash}}
}

// asker is somebody with an access token and a grant.
type asker struct {
	caller  identity.Caller
	token   string
	request string
	in      api.CertificateInput
	left    int // certificates of this measurement
	call    []byte
	wires   map[int]*wire // by broker
}

// people are n people with fresh grants.
func (h *bench) people(n int) []*asker {
	h.t.Helper()
	for len(h.known) < n {
		p := &asker{caller: h.signedIn(fmt.Sprintf("engineer %d", len(h.known)), "engineers"), wires: map[int]*wire{}}
		p.token = h.token(p.caller.Person)
		h.known = append(h.known, p)
	}
	var all sync.WaitGroup
	for _, p := range h.known[:n] {
		key := newSigner(h.t)
		all.Go(func() {
			r, err := h.approvals.Request(h.t.Context(), p.caller, api.RequestInput{Host: "db-1", Login: "dba", Reason: "to see how fast it is"})
			if err == nil {
				_, err = h.approvals.Decide(h.t.Context(), h.approver, r.ID, api.DecisionInput{Verdict: api.Approve})
			}
			if err != nil {
				h.t.Error(err)
				return
			}
			p.request = r.ID
			p.in = api.CertificateInput{PublicKey: authorized(key.PublicKey()), Proof: prove(h.t, key, h.house.URL, r.ID)}
			body, err := json.Marshal(p.in)
			if err != nil {
				h.t.Error(err)
			}
			p.call = fmt.Appendf(nil, "POST /api/v1/requests/%s/certificates HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				r.ID, strings.TrimPrefix(h.house.URL, "http://"), p.token, len(body), body)
		})
	}
	all.Wait()
	if h.t.Failed() {
		h.t.FailNow()
	}
	return h.known[:n]
}

// token is an access token as sally gets it, but for the pages in between.
func (h *bench) token(p identity.Person) string {
	h.t.Helper()
	const redirect = "http://127.0.0.1:1/callback"
	browser, err := h.identity.Open(h.t.Context(), p, identity.Claims{AuthTime: p.SignedInAt}, time.Hour)
	h.must(err)
	verifier := oauth2.GenerateVerifier()
	code, err := h.identity.Authorize(h.t.Context(), browser, redirect, oauth2.S256ChallengeFromVerifier(verifier))
	h.must(err)
	var answer *http.Response
	// A broker gives so many tokens to one address at once, and then a few a second.
	eventually(h.t, "an answer", func() bool {
		broker := h.brokers[len(h.known)%len(h.brokers)].url
		answer, err = plain.PostForm(broker+"/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {"sally"},
			"code": {code}, "code_verifier": {verifier}, "redirect_uri": {redirect}})
		h.must(err)
		h.t.Cleanup(func() { answer.Body.Close() })
		return answer.StatusCode != http.StatusTooManyRequests
	})
	var token struct {
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&token); err != nil || token.Access == "" {
		h.t.Fatalf("no access token: %s, %v", answer.Status, err)
	}
	return token.Access
}

// inProcess calls the broker of this process.
func (h *bench) inProcess(ctx context.Context, p *asker, _ int) error {
	_, err := h.broker.Issue(ctx, p.caller, p.request, p.in)
	return err
}

// wire is a connection that is kept. net/http's client would take as much of the
// machine as the broker does for one call.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
}

// overHTTP calls a broker as sally does, and looks for a certificate in the answer.
func (h *bench) overHTTP(ctx context.Context, p *asker, via int) error {
	w := p.wires[via]
	if w == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(h.brokers[via].url, "http://"))
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { conn.Close() })
		w = &wire{conn: conn, in: bufio.NewReader(conn), body: make([]byte, 0, 16<<10)}
		p.wires[via] = w
	}
	w.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := w.conn.Write(p.call); err != nil {
		return err
	}
	answer, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body := bytes.NewBuffer(w.body[:0])
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusCreated || !bytes.Contains(body.Bytes(), []byte("ssh-ed25519-cert-v01@openssh.com ")) {
		return fmt.Errorf("%s: no certificate: %s", answer.Status, body)
	}
	return nil
}

// allocated are the objects and the bytes that a process has allocated, by its own
// account (/metrics).
func (h *bench) allocated(p process) (objects, bytes float64) {
	h.t.Helper()
	answer, err := plain.Get(p.url + "/metrics")
	h.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	h.must(err)
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "go_memstats_mallocs_total %g", &objects)
		fmt.Sscanf(line, "go_memstats_alloc_bytes_total %g", &bytes)
	}
	if objects == 0 || bytes == 0 {
		h.t.Fatal("the broker does not say what it allocates")
	}
	return objects, bytes
}

// tracer counts what is sent to the database.
type tracer struct {
	mu     sync.Mutex
	on     bool
	counts map[string]int
}

// count begins to count or stops, and returns what was counted.
func (t *tracer) count(on bool) map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.counts
	t.on, t.counts = on, map[string]int{}
	return old
}

func (t *tracer) add(what ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range what {
		if t.on {
			t.counts[w]++
		}
	}
}

const (
	roundTrips = "round trips"
	statements = "statements"
)

// TraceQueryStart implements pgx.QueryTracer.
func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.add(roundTrips, statements)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (t *tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	t.add(roundTrips)
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (t *tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
	t.add(statements)
}

// TraceBatchEnd implements pgx.BatchTracer.
func (t *tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// tick is the unit of times in /proc: Linux says 100 a second to all programs.
const tick = 10 * time.Millisecond

// cpuOf is how long the processes have been on a CPU (proc(5), stat).
func cpuOf(t testing.TB, pids ...int) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, pid := range pids {
		for _, field := range stat(pid)[11:13] { // user and system
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// stat are the fields after the name of a process in /proc/PID/stat; zeros if it
// has ended.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, ok := strings.Cut(string(text), ") ")
	if err != nil || !ok {
		return strings.Fields(strings.Repeat("0 ", 50))
	}
	return strings.Fields(after)
}

// findPostgres asks which process is the parent of the server's.
func (h *bench) findPostgres() {
	h.t.Helper()
	admin, err := pgx.Connect(h.t.Context(), h.house.db.AdminURL)
	h.must(err)
	defer admin.Close(context.Background())
	var checkpointer int
	h.must(admin.QueryRow(h.t.Context(), `SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'`).Scan(&checkpointer))
	h.postgres = stat(checkpointer)[1]
}

// postgresCPU is the time of those of the server's processes that live.
func (h *bench) postgresCPU() time.Duration {
	h.t.Helper()
	children, err := os.ReadFile("/proc/" + h.postgres + "/task/" + h.postgres + "/children")
	h.must(err)
	var pids []int
	for _, field := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(field)
		h.must(err)
		pids = append(pids, pid)
	}
	return cpuOf(h.t, pids...)
}

// rss is how much memory a process has, in bytes.
func rss(t testing.TB, pid int) int64 {
	t.Helper()
	pages, err := strconv.ParseInt(stat(pid)[21], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// rules let one approver allow a lasting grant.
const rules = `
sallyport: 1
assurance: session # the approver is not what is measured
roles:
  operator: [operators]
rules:
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    certificate: {lifetime: 5m}
    approvals:
      - slots:
          - {groups: [approvers], count: 1}
`
