package brokertest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
)

// Rollout is the one deployment that the broker knows. Its course is the real one's, without
// the time that that takes: a batch whose hosts are reported has passed, unless something
// below says otherwise. Its fields may be set under Lock.
type Rollout struct {
	sync.Mutex
	api.Deployment // as it stands; none, if its ID is empty

	// Gate is how the batch that was closed last goes on: "" passes, "wait" soaks until it is
	// something else, "fail" fails.
	Gate string
	// SoakUntil is when the soak ends, as the deployment says; it is not looked at here.
	SoakUntil time.Time
	// OnFailure is rollback, hold or abort, as in the policy.
	OnFailure string
	// Blocker, if it has a code, keeps batches from being opened.
	Blocker api.Blocker
	// RunOver ends the run: its calls are not authenticated any more.
	RunOver bool
	// Lost is how many answers to come get lost after what was asked has been done.
	Lost int
	// Calls are those that were let in, in order, such as "batch 1" or "abort: the reason".
	Calls []string

	run int // of the lease's holder
}

// NewRollout is a broker's rollout: a canary and one batch more.
func NewRollout() *Rollout { return &Rollout{OnFailure: "abort"} }

const digestBefore = "sha256:00000000000000000000000000000000000000000000000000000000000000aa"

func conflict(code, detail string) error {
	return &api.Problem{Status: 409, Code: code, Detail: detail}
}

// Open opens the deployment for a run, or lets it join.
func (r *Rollout) Open(in api.DeploymentInput, run int) (api.Deployment, error) {
	if r.ID != "" && !r.over() {
		if r.Holder != "" && r.run != run {
			return api.Deployment{}, conflict("lease-taken", "run run-"+strconv.Itoa(r.run)+" has the lease")
		}
		if r.Digest != in.Digest {
			return api.Deployment{}, conflict("deployment-running", "deployment "+r.ID+" is under way there")
		}
		if r.run != run || r.Holder == "" {
			r.take(run)
		}
		r.Calls = append(r.Calls, "open")
		return r.copy(), nil
	}
	if in.Service != "web" {
		return api.Deployment{}, &api.Problem{Status: 403, Code: "deployment-not-allowed", Detail: "no entry of the policy lets this agent deploy that service there"}
	}
	r.Calls = append(r.Calls, "open")
	names := [][]string{{"web-1"}, {"web-2", "web-3"}}
	r.Deployment = api.Deployment{ID: "dep-000000000001", Service: in.Service, Environment: in.Environment, Digest: in.Digest,
		Previous: digestBefore, State: "active", Entry: "web-prod", OpenedAt: time.Now().UTC(), Blockers: []api.Blocker{}, OpenedBy: "run-1",
		Next: 1, Budget: r.Budget, Decisions: []api.DeploymentSaid{}, Actions: []string{}, Claims: map[string]string{}}
	for i, hosts := range names {
		b := api.DeploymentBatch{Number: i + 1, Canary: i == 0, State: "pending", Gates: []api.DeploymentGate{{Name: "errors", Kind: "prometheus", Verdict: "waiting", Times: 3}}}
		for _, name := range hosts {
			b.Hosts = append(b.Hosts, api.DeploymentHost{ID: "host-" + strings.ReplaceAll(name, "-", ""), Name: name, State: "sealed"})
		}
		r.Batches = append(r.Batches, b)
	}
	r.take(run)
	return r.copy(), nil
}

func (r *Rollout) take(run int) {
	r.Epoch++
	r.run, r.Holder = run, "run-"+strconv.Itoa(run)
}

// Steal gives the lease to somebody else, which closes what is open.
func (r *Rollout) Steal() {
	r.take(99)
	r.close("the lease was lost")
}

// Close closes what is open, as when somebody stops it.
func (r *Rollout) Close(why string) { r.close(why) }

func (r *Rollout) close(why string) {
	if b := r.current(); b != nil && b.State == "open" {
		b.State, b.Why = "inconclusive", why
		for i := range b.Hosts {
			if b.Hosts[i].Result == "" {
				b.Hosts[i].Result = "missing"
			}
			b.Hosts[i].State = "sealed"
		}
		r.Next = b.Number
	}
}

func (r *Rollout) over() bool {
	return slices.Contains([]string{"complete", "aborted", "rolled_back", "rollback_failed"}, r.State)
}

// copy is how it stands, once what follows by itself has.
func (r *Rollout) copy() api.Deployment {
	r.advance()
	text, err := json.Marshal(r.Deployment)
	if err != nil {
		panic(err)
	}
	var d api.Deployment
	if err := json.Unmarshal(text, &d); err != nil {
		panic(err)
	}
	return d
}

func (r *Rollout) current() *api.DeploymentBatch {
	for i := range r.Batches {
		if slices.Contains([]string{"open", "soaking"}, r.Batches[i].State) {
			return &r.Batches[i]
		}
	}
	return nil
}

func (r *Rollout) advance() {
	r.Blockers = []api.Blocker{}
	if r.over() {
		return
	}
	if b := r.current(); b != nil && b.State == "soaking" {
		switch {
		case r.Spent > r.Budget && !b.Rollback || r.Gate == "fail":
			b.State, b.Why = "failed", "it failed"
			r.fail(b)
		case r.Gate == "wait":
			blocker := api.Blocker{Code: "batch-before", Why: fmt.Sprintf("batch %d is soaking", b.Number)}
			if !r.SoakUntil.IsZero() {
				blocker.Until = &r.SoakUntil
			}
			r.Blockers = append(r.Blockers, blocker)
			return
		default:
			b.State = "passed"
			if b.Rollback {
				r.State, r.Next = "rolled_back", 0
				return
			}
		}
	}
	if r.State == "active" && !slices.ContainsFunc(r.Batches, func(b api.DeploymentBatch) bool { return b.State != "passed" }) {
		r.State, r.Next = "verifying", 0
	}
	if r.State == "held" {
		r.Blockers = append(r.Blockers, api.Blocker{Code: "batch-failed", Why: "batch 1 has failed"})
	}
	if r.Blocker.Code != "" {
		r.Blockers = append(r.Blockers, r.Blocker)
	}
}

func (r *Rollout) fail(b *api.DeploymentBatch) {
	switch {
	case b.Rollback:
		r.State, r.Next = "rollback_failed", 0
	case r.OnFailure == "hold":
		r.State = "held"
	case r.OnFailure == "rollback":
		r.State, r.Why = "rolling_back", "the canary failed"
		back := api.DeploymentBatch{Number: len(r.Batches) + 1, Rollback: true, State: "pending", Gates: []api.DeploymentGate{}}
		for _, h := range b.Hosts {
			back.Hosts = append(back.Hosts, api.DeploymentHost{ID: h.ID, Name: h.Name, State: "sealed"})
		}
		r.Batches, r.Next, r.Gate = append(r.Batches, back), back.Number, ""
	default:
		r.State, r.Why, r.Next = "aborted", "batch 1 has failed", 0
	}
}

func (r *Rollout) proves(run int, epoch uint64) error {
	switch {
	case r.over():
		return conflict("deployment-over", "the deployment is "+r.State)
	case r.run != run || epoch != r.Epoch || r.Holder == "":
		return conflict("lease-stale", "another run has the lease of the deployment, or its time has passed")
	}
	return nil
}

// Batch opens a batch.
func (r *Rollout) Batch(run, n int, epoch uint64) (api.Deployment, error) {
	r.advance()
	if err := r.proves(run, epoch); err != nil {
		return api.Deployment{}, err
	}
	if n < 1 || n > len(r.Batches) {
		return api.Deployment{}, &api.Problem{Status: 404, Code: "unknown-batch", Detail: "the deployment has no such batch"}
	}
	b := &r.Batches[n-1]
	if b.Rollback != (r.State == "rolling_back") && r.State != "held" {
		return api.Deployment{}, conflict("batch-not-open", fmt.Sprintf("the deployment is %s, and batch %d is not a part of that", r.State, n))
	}
	for _, before := range r.Batches[:n-1] {
		if before.State != "passed" && !b.Rollback {
			return api.Deployment{}, conflict("batch-before", fmt.Sprintf("batch %d is %s", before.Number, before.State))
		}
	}
	switch {
	case r.Blocker.Code != "":
		return api.Deployment{}, conflict(r.Blocker.Code, r.Blocker.Why)
	case r.State == "held":
		return api.Deployment{}, conflict("deployment-held", "the deployment is held")
	case b.State == "open":
		return r.copy(), nil
	case b.State != "pending" && b.State != "inconclusive":
		return api.Deployment{}, conflict("batch-not-open", fmt.Sprintf("batch %d is %s", n, b.State))
	}
	r.Calls = append(r.Calls, fmt.Sprintf("batch %d", n))
	b.State, r.Next = "open", 0
	if n < len(r.Batches) {
		r.Next = n + 1
	}
	for i := range b.Hosts {
		if h := &b.Hosts[i]; h.Result == "" || h.Result == "missing" {
			h.State, h.Result = "open", ""
		}
	}
	return r.copy(), nil
}

// Report takes what became of hosts.
func (r *Rollout) Report(run, n int, in api.ReportInput) (api.Deployment, error) {
	if err := r.proves(run, in.Epoch); err != nil {
		return api.Deployment{}, err
	}
	b := r.current()
	if b == nil || b.State != "open" || b.Number != n {
		return api.Deployment{}, conflict("batch-not-open", fmt.Sprintf("batch %d is not open", n))
	}
	left := 0
	var told []string
	for i := range b.Hosts {
		h := &b.Hosts[i]
		result := in.Results[h.Name]
		switch {
		case result != "" && h.Result != "" && h.Result != result:
			return api.Deployment{}, conflict("host-reported", "the host has been reported already")
		case result != "" && h.Result == "":
			h.Result, h.State = result, "deployed"
			told = append(told, h.Name+"="+result)
			if result == "failed" {
				r.Spent++
			}
		}
		if h.Result == "" {
			left++
		}
	}
	if len(told) > 0 {
		r.Calls = append(r.Calls, fmt.Sprintf("report %d %s", n, strings.Join(told, " ")))
	}
	if left == 0 || in.Done || r.Spent > r.Budget && !b.Rollback {
		b.State = "soaking"
		for i := range b.Hosts {
			b.Hosts[i].State = "sealed"
		}
	}
	return r.copy(), nil
}

// End finishes, aborts or rolls back.
func (r *Rollout) End(run int, how string, in api.EndInput) (api.Deployment, error) {
	r.advance()
	if how == "finish" && r.State == "complete" {
		return r.copy(), nil
	}
	if err := r.proves(run, in.Epoch); err != nil {
		return api.Deployment{}, err
	}
	r.Calls = append(r.Calls, strings.TrimSuffix(how+": "+in.Reason, ": "))
	switch {
	case how == "finish" && r.State != "verifying":
		return api.Deployment{}, conflict("batches-left", "batches are left")
	case how == "finish":
		r.State = "complete"
	case how == "abort":
		r.close("the deployment is aborted")
		r.State, r.Why, r.Next = "aborted", in.Reason, 0
	case how == "rollback":
		r.close("the deployment is rolled back")
		kept := r.OnFailure
		r.OnFailure = "rollback"
		r.fail(&r.Batches[0])
		r.OnFailure = kept
	}
	return r.copy(), nil
}

// deployments are the calls of agents, and people's about deployments.
func (b *Broker) deployments(mux *http.ServeMux, handle func(string, func(http.ResponseWriter, *http.Request, string))) {
	keys := map[string]int{}      // runs, by key
	tokens := map[string]string{} // keys, by token
	nonces := map[string]struct{}{}
	agent := func(pattern string, f func(w http.ResponseWriter, r *http.Request, body []byte, run int) (any, error)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /api/v1/deployments"+path, func(w http.ResponseWriter, r *http.Request) {
			b.Rollout.Lock()
			defer b.Rollout.Unlock()
			body, _ := io.ReadAll(r.Body)
			key, token, why := b.signedCall(r, body)
			if _, again := nonces[r.Header.Get(api.AgentNonceHeader)]; again && token == "" {
				why = "the call was made before"
			}
			if why != "" || b.Rollout.RunOver && token == "" {
				refuse(w, 401, "agent-run-over", "the run is over, or the call is no good: "+why, "start the pipeline's job again")
				return
			}
			nonces[r.Header.Get(api.AgentNonceHeader)] = struct{}{}
			if token != "" {
				switch first, taken := tokens[token]; {
				case taken && first == key:
					refuse(w, 409, "agent-token-redeemed", "the token has been taken", "make the call without it")
					return
				case taken:
					refuse(w, 403, "agent-token-shared", "the token was shown with another key", "")
					return
				}
				keys[key] = len(keys) + 1
			}
			run := keys[key]
			if run == 0 {
				refuse(w, 401, "agent-run-over", "no run has this key", "start the pipeline's job again")
				return
			}
			out, err := f(w, r, body, run)
			if p, ok := err.(*api.Problem); ok {
				refuseWith(w, *p)
				return
			}
			if token != "" {
				tokens[token], b.Rollout.RunOver = key, false
			}
			if b.Rollout.Lost > 0 {
				b.Rollout.Lost--
				refuse(w, 503, "down", "the answer got lost", "")
				return
			}
			answer(w, 200, out)
		})
	}
	ro := b.Rollout
	agent("POST ", func(_ http.ResponseWriter, _ *http.Request, body []byte, run int) (any, error) {
		var in api.DeploymentInput
		return decoded(body, &in, func() (any, error) { return ro.Open(in, run) })
	})
	agent("GET /{id}/progress", func(http.ResponseWriter, *http.Request, []byte, int) (any, error) { return ro.copy(), nil })
	agent("POST /{id}/batches/{n}", func(_ http.ResponseWriter, r *http.Request, body []byte, run int) (any, error) {
		var in api.BatchInput
		n, _ := strconv.Atoi(r.PathValue("n"))
		return decoded(body, &in, func() (any, error) { return ro.Batch(run, n, in.Epoch) })
	})
	agent("POST /{id}/batches/{n}/report", func(_ http.ResponseWriter, r *http.Request, body []byte, run int) (any, error) {
		var in api.ReportInput
		n, _ := strconv.Atoi(r.PathValue("n"))
		return decoded(body, &in, func() (any, error) { return ro.Report(run, n, in) })
	})
	agent("POST /{id}/certificates", func(_ http.ResponseWriter, r *http.Request, body []byte, run int) (any, error) {
		var in api.AgentCertificateInput
		return decoded(body, &in, func() (any, error) { return b.agentCertificate(r, run, in) })
	})
	for _, how := range []string{"finish", "abort", "rollback"} {
		agent("POST /{id}/"+how, func(_ http.ResponseWriter, _ *http.Request, body []byte, run int) (any, error) {
			var in api.EndInput
			return decoded(body, &in, func() (any, error) { return ro.End(run, how, in) })
		})
	}
	locked := func(f func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, r *http.Request, _ string) {
			ro.Lock()
			defer ro.Unlock()
			f(w, r)
		}
	}
	handle("GET /deployments", locked(func(w http.ResponseWriter, r *http.Request) {
		p := api.Page[api.Deployment]{Items: []api.Deployment{}}
		if ro.ID != "" && (r.FormValue("running") == "" || !ro.over()) {
			p.Items = append(p.Items, ro.copy())
		}
		answer(w, 200, p)
	}))
	handle("GET /deployments/{id}", locked(func(w http.ResponseWriter, r *http.Request) {
		if ro.ID != r.PathValue("id") {
			refuse(w, 404, "unknown-deployment", "there is no such deployment", "list deployments: sally deploy status")
			return
		}
		answer(w, 200, ro.copy())
	}))
	handle("POST /deployments/{id}/control", locked(func(w http.ResponseWriter, r *http.Request) {
		var in api.ControlInput
		json.NewDecoder(r.Body).Decode(&in)
		d, _ := ro.End(ro.run, in.Action, api.EndInput{Epoch: ro.Epoch, Reason: in.Reason})
		answer(w, 200, d)
	}))
}

func decoded(body []byte, in any, then func() (any, error)) (any, error) {
	if json.Unmarshal(body, in) != nil {
		return nil, &api.Problem{Status: 400, Code: "malformed-json", Detail: "the body is not JSON"}
	}
	return then()
}

// signedCall checks an agent's call, and returns its key and token. A token whose second
// part begins with "bound-" must be bound to the key, as one of GitHub's.
func (b *Broker) signedCall(r *http.Request, body []byte) (key, token, why string) {
	key = r.Header.Get(api.AgentKeyHeader)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		return "", "", "it has no key"
	}
	token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	at, err := time.Parse(time.RFC3339, r.Header.Get(api.AgentTimeHeader))
	if err != nil || time.Since(at).Abs() > time.Minute {
		return "", "", "its time is not now"
	}
	nonce := r.Header.Get(api.AgentNonceHeader)
	blob, err := base64.StdEncoding.DecodeString(r.Header.Get(api.AgentSignatureHeader))
	if err != nil || len(nonce) != 43 {
		return "", "", "it is not signed"
	}
	signature, err := sshsig.ParseSignature(blob)
	if err == nil {
		message := api.AgentMessage(r.Method, b.URL+r.URL.RequestURI(), body, token, r.Header.Get(api.AgentTimeHeader), nonce)
		err = sshsig.Verify(bytes.NewReader(message), signature, public, sshsig.HashSHA512, api.AgentNamespace)
	}
	if err != nil {
		return "", "", "its signature does not fit"
	}
	if _, bound, is := strings.Cut(token, ".bound-"); is {
		want := base64.RawURLEncoding.EncodeToString([]byte(api.AgentAudience(b.URL, public.Marshal(), nonce)))
		if bound, _, _ = strings.Cut(bound, "."); bound != want {
			return "", "", "its token is bound to another key"
		}
	}
	return key, token, ""
}

// BoundToken is a token for an audience, as a pipeline gives it whose jobs choose that.
func BoundToken(audience string) string {
	return fmt.Sprintf("t%x.bound-%s.x", randomText(), base64.RawURLEncoding.EncodeToString([]byte(audience)))
}

func randomText() []byte {
	var b [8]byte
	rand.Read(b[:])
	return b[:]
}

func (b *Broker) agentCertificate(r *http.Request, run int, in api.AgentCertificateInput) (any, error) {
	ro := b.Rollout
	if err := ro.proves(run, in.Epoch); err != nil {
		return nil, err
	}
	batch := ro.current()
	if batch == nil || batch.State != "open" || batch.Number != in.Batch {
		return nil, conflict("batch-not-open", "the batch is not open")
	}
	i := slices.IndexFunc(batch.Hosts, func(h api.DeploymentHost) bool { return h.Name == in.Host })
	if i < 0 {
		return nil, &api.Problem{Status: 403, Code: "host-of-another-batch", Detail: "the host is not in the batch that is open"}
	}
	ro.Calls = append(ro.Calls, "certificate "+in.Host)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.Header.Get(api.AgentKeyHeader)))
	if err != nil {
		return nil, err
	}
	id, now := batch.Hosts[i].ID, time.Now().UTC()
	b.Lock()
	defer b.Unlock()
	b.serial++
	c := &ssh.Certificate{Key: key, Serial: b.serial, CertType: ssh.UserCert, KeyId: fmt.Sprintf("%s/%d/%d/run-%d", ro.ID, in.Batch, in.Epoch, run),
		ValidPrincipals: []string{"deploy@" + id}, ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(5 * time.Minute).Unix()),
		Permissions: ssh.Permissions{CriticalOptions: map[string]string{"force-command": "/usr/local/bin/deploy-web", "source-address": "127.0.0.1"}}}
	if err := c.SignCert(rand.Reader, b.userCA); err != nil {
		panic(err)
	}
	out := api.AgentCertificate{Certificate: api.Certificate{
		CertificateInfo: api.CertificateInfo{Serial: c.Serial, KeyID: c.KeyId, Principal: c.ValidPrincipals[0],
			Fingerprint: ssh.FingerprintSHA256(key), ValidAfter: now.Add(-time.Minute), ValidBefore: now.Add(5 * time.Minute)},
		Certificate: string(ssh.MarshalAuthorizedKey(c)),
		KnownHosts:  []string{"@cert-authority " + id + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(b.hostCA.PublicKey())))},
		Connect:     api.Connect{Address: "127.0.0.1", Port: 22, Login: "deploy", HostKeyAlias: id}}}
	if b.Spoil != nil {
		b.Spoil(&out.Certificate)
	}
	return out, nil
}

// Progress is how it stands.
func (r *Rollout) Progress() api.Deployment { return r.copy() }

// Release ends the lease, as time does while nothing is open.
func (r *Rollout) Release() { r.Epoch++; r.run, r.Holder = 0, "" }
