// Package brokertest is a broker for tests of sally: it keeps everything in
// memory and follows a script, but speaks the real protocols. What sally does
// wrong, such as showing a refresh token twice or a proof that does not fit, it
// refuses as the real one does.
package brokertest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
)

// Broker is one broker. Its exported fields may be set under Lock.
type Broker struct {
	sync.Mutex
	URL string

	// Down makes every call answer 503.
	Down bool
	// AccessLife is how long access tokens live.
	AccessLife time.Duration
	// DevicePolls are the answers to polls for a device code, before the tokens.
	DevicePolls []string
	// AuthorizeError is what the browser brings back instead of a code.
	AuthorizeError string
	// Spoil changes certificates' answers, as a hostile broker would.
	Spoil func(*api.Certificate)
	// OtherHost makes certificates be for another host of the request than was asked
	// for, as a hostile broker would.
	OtherHost bool
	// OldSignIns makes sign-ins too old for certificates, but for those anew.
	OldSignIns bool

	// Signed makes decisions and reviews need the identity provider's signature: they are given
	// by opening the page that the refusal names.
	Signed bool
	// ContinueAt is the page that the refusal names instead, as a hostile broker would.
	ContinueAt string
	// InBrowser is what the person decides there, whatever sally was told.
	InBrowser api.Verdict

	// Refreshes and Reuses count refresh tokens shown for the first time, and
	// again. Revoked counts revocations.
	Refreshes, Reuses, Revoked int

	// Rollout is the deployment that it knows.
	Rollout *Rollout

	server   *httptest.Server
	userCA   ssh.Signer
	hostCA   ssh.Signer
	families map[string]*family // by access token
	refresh  map[string]*family // by refresh token, also used ones
	codes    map[string]string  // code to PKCE challenge
	anew     bool               // the last code is of somebody who authenticated for it
	requests []*api.Request

	versions  []api.PolicyVersion
	proposals []*api.PolicyProposal

	waiting map[string]int // long polls under way, by request
	changed chan struct{}  // closed when a request changes
	serial  uint64
	removed map[string]*api.Removal // by person
}

// New starts a broker on a port of 127.0.0.1.
func New() *Broker {
	b := &Broker{
		AccessLife: 10 * time.Minute,
		userCA:     newSigner(), hostCA: newSigner(), Rollout: NewRollout(),
		families: map[string]*family{}, refresh: map[string]*family{}, codes: map[string]string{},
		waiting: map[string]int{}, changed: make(chan struct{}), removed: map[string]*api.Removal{},
	}
	for name := range people {
		b.families["token-"+name] = &family{person: name}
	}
	mux := http.NewServeMux()
	b.oauth(mux)
	b.api(mux)
	mux.HandleFunc("GET /requests/{id}/decide", b.decideInBrowser)
	mux.HandleFunc("GET /requests/{id}/review", b.reviewInBrowser)
	mux.HandleFunc("GET /policy/proposals/{id}/decide", b.decidePolicyInBrowser)
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.Lock()
		down := b.Down
		b.Unlock()
		if down {
			refuse(w, 503, "down", "the broker is being restarted", "")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	b.URL = "http://" + b.server.Listener.Addr().String()
	b.server.Start()
	return b
}

// Close stops the broker.
func (b *Broker) Close() { b.server.CloseClientConnections(); b.server.Close() }

func newSigner() ssh.Signer {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		panic(err)
	}
	return signer
}

var people = map[string]api.Person{
	"engineer": {ID: "per-engineer", Name: "Erin Engineer", Email: "engineer@example.com", Groups: []string{"engineers"}},
	"operator": {ID: "per-000000000009", Name: "Olga Operator", Email: "operator@example.com", Groups: []string{"operators"}},
	"approver": {ID: "per-approver", Name: "Alex Approver", Email: "approver@example.com", Groups: []string{"approvers"}},
}

// hosts are the hosts that there are, with the engineer's rules.
var hosts = []api.Host{
	{ID: "host-db1", Name: "db-1", Address: "127.0.0.3:22", State: "sealed", Logins: []string{"dba"},
		Labels: map[string]string{"class": "database", "env": "demo"},
		Rules: []api.HostRule{{Login: "dba", Rule: "databases", MaxDuration: "2h0m0s", DefaultDuration: "30m0s",
			Approvers: slots(0), Reason: &api.TextRule{Required: true, Message: "say what is broken"}}}},
	{ID: "host-web1", Name: "web-1", Address: "127.0.0.2:2222", State: "open", Logins: []string{"web"},
		Labels: map[string]string{"class": "web", "env": "demo"},
		Rules: []api.HostRule{{Login: "web", Rule: "web", MaxDuration: "1h0m0s", DefaultDuration: "15m0s",
			Automatic: true}}},
	{ID: "host-job1", Name: "job-1", Address: "127.0.0.4:22", State: "sealed", Logins: []string{"batch"},
		Labels: map[string]string{"class": "job"}, Rules: jobs},
	{ID: "host-job2", Name: "job-2", Address: "127.0.0.5:22", State: "sealed", Logins: []string{"batch"},
		Labels: map[string]string{"class": "job"}, Rules: jobs},
}

var jobs = []api.HostRule{{Login: "batch", Rule: "jobs", MaxDuration: "2h0m0s", DefaultDuration: "30m0s", Approvers: slots(0)}}

func slots(filled int) []api.Slot {
	return []api.Slot{{Stage: 1, Groups: []string{"approvers"}, Count: 1, Filled: filled, People: []api.Person{people["approver"]}}}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code, detail, hint string) {
	refuseWith(w, api.Problem{Status: status, Code: code, Detail: detail, Hint: hint})
}

func refuseWith(w http.ResponseWriter, p api.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// caller is who calls, by bearer token; it refuses those who are not known.
func (b *Broker) caller(w http.ResponseWriter, r *http.Request) (string, bool) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	f := b.families[token]
	if f == nil || f.ended {
		refuse(w, 401, "bad-token", "the access token is not good", "")
		return "", false
	}
	return f.person, true
}
