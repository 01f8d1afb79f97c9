package approvals_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/approvals"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/internal/mailtest"
)

const tellPolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: staged
    who: [engineers]
    where: class=database
    logins: [staged]
    duration: {default: 40m, max: 1h}
    approvals:
      - slots: [{groups: [approvers], count: 2}]
      - slots: [{groups: [directors]}]
    approve_within: 1h
    remind: 15m
    escalate: [{after: 20m, groups: [managers]}, {after: 30m, groups: [directors, managers]}]
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 40m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    approve_within: 1h
    emergency:
      who: [engineers]
      duration: {default: 15m, max: 30m}
      tell: [managers]
      review: {by: [security], within: 1h}
  - name: lonely
    who: [engineers]
    where: class=other
    logins: [dba]
    duration: {default: 30m, max: 1h}
    approvals: [{slots: [{groups: [nobody]}]}]
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {default: 20m, max: 1h}
    automatic: true
`

// hook is a real receiver of webhooks that keeps what it gets, by the path.
type hook struct {
	url string
	mu  sync.Mutex
	got []hooked
	// status by path; 204 if there is none.
	status map[string]int
}

type hooked struct {
	path, id string
	notify.Payload
}

func newHook(t testing.TB, l net.Listener) *hook {
	t.Helper()
	h := &hook{status: map[string]int{}}
	if l == nil {
		var err error
		l, err = net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
	}
	h.url = "http://" + l.Addr().String()
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := hooked{path: strings.TrimPrefix(r.URL.Path, "/"), id: r.Header.Get("Webhook-Id")}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &in.Payload)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, in)
	if s, ok := h.status[in.path]; ok {
		w.WriteHeader(s)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// told is what came so far, as "path kind".
func (h *hook) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, g := range h.got {
		out = append(out, g.path+" "+string(g.Type))
	}
	slices.Sort(out)
	return out
}

func (h *hook) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, g := range h.got {
		out = append(out, g.id)
	}
	return out
}

func (h *hook) answer(path string, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status[path] = status
}

// tellHouse is a house in which people are told: each group by a webhook of its
// own name, operators by "ops", and people personally through "mail" where the
// routes say so.
type tellHouse struct {
	*house
	hook *hook
	mail *mailtest.Server
}

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// newTellHouse opens a house with the routes, which are lines of YAML.
func newTellHouse(t testing.TB, routes string) *tellHouse {
	t.Helper()
	h := &tellHouse{house: newHouseUnder(t, tellPolicy), hook: newHook(t, nil), mail: mailtest.New(t, mailtest.Config{
		Refuse: func(to string) string {
			if strings.HasPrefix(to, "gone@") {
				return "550 no such mailbox"
			}
			return ""
		}})}
	h.Service = h.openTelling(routes)
	return h
}

func (h *tellHouse) openTelling(routes string) *approvals.Service {
	h.t.Helper()
	var file strings.Builder
	file.WriteString("channels:\n")
	for _, name := range []string{"approvers", "directors", "managers", "security", "engineers", "ops"} {
		fmt.Fprintf(&file, "  %s: {webhook: {url: '%s/%s', secret_env: S}}\n", name, h.hook.url, name)
	}
	fmt.Fprintf(&file, "  mail: {smtp: {server: '%s', tls: none, from: sallyport@example.com}}\n%s\n", h.mail.Addr, routes)
	settings, err := notify.Parse([]byte(file.String()))
	must(h.t, err)
	setup, err := settings.Open(func(string) (string, bool) { return hookSecret, true })
	must(h.t, err)
	p, err := policy.Parse([]byte(tellPolicy))
	must(h.t, err)
	s, err := approvals.New(h.t.Context(), approvals.Config{Pool: h.db.Pool, Log: h.log, Clock: h.clock, People: h.people,
		Hosts: h.hosts, Policy: p, Notify: setup, URL: "https://sp.example.com"})
	must(h.t, err)
	return s
}

const byHook = `
routes: {approvers: [approvers], directors: [directors], managers: [managers], security: [security]}
operators: [ops]
requester: mail`

// quiet waits until no job is left that could run now.
func (h *tellHouse) quiet() {
	h.t.Helper()
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE kind IN ('notice', 'message')
			AND (state IN ('available', 'running') AND (args->'notice'->>'due')::timestamptz <= $1 OR state = 'running')`, h.clock.Now()) == 0
	})
}

// until keeps something running until the function that it returns is called.
func (h *tellHouse) until(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			h.t.Errorf("running: %v", err)
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	h.t.Cleanup(stop)
	return stop
}

func (h *tellHouse) wantTold(want ...string) {
	h.t.Helper()
	slices.Sort(want)
	h.eventuallyEqual(h.hook.told, want)
}

func (h *tellHouse) eventuallyEqual(got func() []string, want []string) {
	h.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !slices.Equal(got(), want) {
		if time.Now().After(deadline) || len(got()) > len(want) {
			h.t.Fatalf("told\n%q, want\n%q", got(), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.quiet()
	if !slices.Equal(got(), want) {
		h.t.Fatalf("told\n%q, want\n%q", got(), want)
	}
}

// mailed are the mails so far, as "address: subject".
func (h *tellHouse) mailed() []string {
	var out []string
	for _, m := range h.mail.Mails() {
		_, rest, _ := strings.Cut(m.Data, "Subject: ")
		subject, _, _ := strings.Cut(rest, "\n")
		out = append(out, strings.Join(m.To, ",")+": "+subject)
	}
	slices.Sort(out)
	return out
}

// states are the states of a kind's messages.
func (h *tellHouse) states(kind notify.Kind) []string {
	h.t.Helper()
	rows, err := h.db.Pool.Query(h.t.Context(), `SELECT channel || ' ' || state FROM messages WHERE kind = $1 ORDER BY 1`, kind)
	must(h.t, err)
	var out []string
	for rows.Next() {
		var s string
		must(h.t, rows.Scan(&s))
		out = append(out, s)
	}
	must(h.t, rows.Err())
	return out
}
