package brokertest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
)

func (b *Broker) api(mux *http.ServeMux) {
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request, person string)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /api/v1"+path, func(w http.ResponseWriter, r *http.Request) {
			b.Lock()
			defer b.Unlock()
			if person, ok := b.caller(w, r); ok {
				f(w, r, person)
			}
		})
	}
	handle("GET /me", func(w http.ResponseWriter, r *http.Request, who string) {
		me := api.Me{Person: people[who], Roles: []api.Role{}, SignedInAt: time.Now().UTC(), Grants: []api.Request{}}
		for _, q := range b.requests {
			if q.Requester.ID == me.Person.ID && (q.State == api.Approved || q.State == api.Active) {
				me.Grants = append(me.Grants, *q)
			}
		}
		answer(w, 200, me)
	})
	handle("GET /hosts", func(w http.ResponseWriter, r *http.Request, who string) {
		answer(w, 200, listHosts(r))
	})
	handle("GET /hosts/{host}", func(w http.ResponseWriter, r *http.Request, who string) {
		if h := host(r.PathValue("host")); h != nil {
			answer(w, 200, h)
			return
		}
		refuse(w, 404, "unknown-host", "there is no such host", "see: sally hosts")
	})
	handle("POST /explain", b.explain)
	mux.HandleFunc("POST /api/v1/deployments/explain", b.explainAgent)
	handle("GET /hosts/{host}/reach", b.hostReach)
	handle("GET /people/{person}/reach", b.personReach)
	b.policy(handle)
	fleet(handle)
	b.entries(handle)
	b.auditing(handle)
	handle("GET /requests", b.list)
	handle("POST /requests", b.ask)
	handle("GET /requests/{id}", b.get)
	handle("POST /requests/{id}/decisions", b.decide)
	handle("POST /requests/{id}/certificates", b.certify)
	handle("POST /requests/{id}/review", b.review)
	handle("POST /requests/{id}/extend", b.extend)
	handle("GET /people", b.people)
	b.deployments(mux, handle)
	handle("POST /people/{id}/{what}", b.govern)
	handle("POST /revocations", b.revoke)
	handle("POST /requests/{id}/cancel", b.end(api.Requested, api.Cancelled))
	handle("POST /requests/{id}/finish", b.end(api.Active, api.Ended))
}

func host(name string) *api.Host {
	for i := range hosts {
		if hosts[i].Name == name || hosts[i].ID == name {
			return &hosts[i]
		}
	}
	return nil
}

func (b *Broker) list(w http.ResponseWriter, r *http.Request, who string) {
	p := api.Page[api.Request]{Items: []api.Request{}}
	states := r.FormValue("state")
	for _, q := range b.requests {
		if (states == "" || strings.Contains(states, string(q.State))) && emergencyFits(q, r) &&
			(r.FormValue("scope") != "mine" || q.Requester.ID == people[who].ID) {
			p.Items = append(p.Items, *q)
		}
	}
	answer(w, 200, p)
}

func (b *Broker) ask(w http.ResponseWriter, r *http.Request, who string) {
	var in api.RequestInput
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(w, 400, "malformed-json", "the body is not JSON", "")
		return
	}
	all := selected(in)
	if len(all) == 0 {
		refuse(w, 404, "unknown-host", "there is no such host", "see: sally hosts")
		return
	}
	h := &all[0]
	rule := h.Rules[0]
	if rule.Login != in.Login || who != "engineer" {
		refuse(w, 403, "no-rule", "no rule lets you ask for this login", "see: sally hosts")
		return
	}
	if in.Duration == "" {
		in.Duration = rule.DefaultDuration
	}
	duration, err := time.ParseDuration(in.Duration)
	if err != nil || duration > 2*time.Hour {
		refuse(w, 422, "too-long", "the duration is over the rule's limit", "ask for at most 2h")
		return
	}
	now := time.Now().UTC()
	if in.Emergency {
		b.emergency(w, r, who, in, h)
		return
	}
	if r.FormValue("dry_run") == "true" {
		answer(w, 200, api.Preview{Host: *h, Login: in.Login, Rule: rule.Rule, Duration: duration.String(),
			Automatic: rule.Automatic, Approvers: rule.Approvers, ApproveBy: now.Add(time.Hour), CertificateLifetime: "5m0s",
			NotBefore: in.NotBefore, Hosts: requestHosts(all)})
		return
	}
	q := &api.Request{ID: fmt.Sprintf("req-%012d", len(b.requests)+1), State: api.Requested, Requester: people[who],
		HostID: h.ID, Host: h.Name, Login: in.Login, Duration: duration.String(), Reason: in.Reason, Rule: rule.Rule,
		TermsHash: fmt.Sprintf("%064x", len(b.requests)+1), CreatedAt: now, ApproveBy: now.Add(time.Hour),
		Approvers: rule.Approvers, Hosts: requestHosts(all), Selector: in.Selector}
	if rule.Automatic {
		start(q)
	}
	b.requests = append(b.requests, q)
	answer(w, 201, q)
}

func start(q *api.Request) {
	now := time.Now().UTC()
	duration, _ := time.ParseDuration(q.Duration)
	end := now.Add(duration)
	q.State, q.StartsAt, q.EndsAt = api.Approved, &now, &end
}

// find is a request by id.
func (b *Broker) find(w http.ResponseWriter, r *http.Request) *api.Request {
	for _, q := range b.requests {
		if q.ID == r.PathValue("id") {
			return q
		}
	}
	refuse(w, 404, "unknown-request", "there is no such request", "see: sally requests")
	return nil
}

func (b *Broker) get(w http.ResponseWriter, r *http.Request, who string) {
	q := b.find(w, r)
	if q == nil {
		return
	}
	if wait, _ := time.ParseDuration(r.FormValue("wait")); wait > 0 {
		for up := time.After(wait); unchanged(q, r); {
			changed := b.changed
			b.waiting[q.ID]++
			b.Unlock()
			select {
			case <-changed:
			case <-r.Context().Done():
			case <-up:
			}
			b.Lock()
			b.waiting[q.ID]--
			if r.Context().Err() != nil {
				return
			}
		}
	}
	answer(w, 200, b.seen(q, who))
}

// unchanged reports whether a request is still as the caller knows it.
func unchanged(q *api.Request, r *http.Request) bool {
	known, n := r.FormValue("decisions"), len(q.Decisions)
	if q.Emergency != nil && q.Emergency.Review != nil {
		n++
	}
	return q.State == api.State(r.FormValue("state")) && (known == "" || known == strconv.Itoa(n))
}

// seen is a request with what the person could do.
func (b *Broker) seen(q *api.Request, who string) api.Request {
	r := *q
	for _, verdict := range []string{"approve", "deny"} {
		a := api.Action{Name: verdict, Allowed: who == "approver" && q.State == api.Requested}
		if who == "engineer" {
			a.Why = "nobody decides on their own request"
		} else if !a.Allowed {
			a.Why = "it is decided already"
		}
		r.Actions = append(r.Actions, a)
	}
	r.Actions = append(r.Actions, reviewAction(q, who)...)
	return r
}

// Change changes a request behind everybody's back, and wakes who waits for it.
func (b *Broker) Change(id string, f func(*api.Request)) bool {
	b.Lock()
	defer b.Unlock()
	for _, q := range b.requests {
		if q.ID == id {
			f(q)
			b.wake()
			return true
		}
	}
	return false
}

func (b *Broker) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Waiting reports whether somebody waits for a decision on a request.
func (b *Broker) Waiting(id string) bool {
	b.Lock()
	defer b.Unlock()
	return b.waiting[id] > 0
}

// Approve approves a request.
func (b *Broker) Approve(id string) { b.Change(id, start) }

func (b *Broker) decide(w http.ResponseWriter, r *http.Request, who string) {
	q := b.find(w, r)
	var in api.DecisionInput
	if q == nil || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	switch {
	case who != "approver":
		refuse(w, 403, "own-request", "nobody decides on their own request", "ask another approver")
		return
	case in.TermsHash != q.TermsHash:
		refuse(w, 409, "other-terms", "the request has other terms than you saw", "look again")
		return
	case q.State != api.Requested:
		refuse(w, 409, "decided", "the request is decided already", "")
		return
	case b.Signed:
		b.onPage(w, "/requests/"+q.ID+"/decide", string(in.Verdict), in.Comment)
		return
	}
	b.take(q, who, in)
	answer(w, 200, b.seen(q, who))
}

// onPage says that it must be said in the browser.
func (b *Broker) onPage(w http.ResponseWriter, page, verdict, comment string) {
	p := api.Problem{Status: 409, Code: "provider-evidence-needed", Detail: "the identity provider has to sign it",
		Continue: b.URL + page + "?" + url.Values{"verdict": {verdict}, "comment": {comment}}.Encode()}
	if b.ContinueAt != "" {
		p.Continue = b.ContinueAt
	}
	refuseWith(w, p)
}

// decideInBrowser is what the approver's browser does on the page, all at once.
func (b *Broker) decideInBrowser(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	if q := b.find(w, r); q != nil && b.Signed {
		in := api.DecisionInput{Verdict: api.Verdict(r.FormValue("verdict")), Comment: r.FormValue("comment")}
		if b.InBrowser != "" {
			in.Verdict = b.InBrowser
		}
		b.take(q, "approver", in)
	}
}

// take takes a decision.
func (b *Broker) take(q *api.Request, who string, in api.DecisionInput) {
	q.Decisions = append(q.Decisions, api.Decision{ID: "dec-1", Approver: people[who], Verdict: in.Verdict,
		Comment: in.Comment, TermsHash: in.TermsHash, At: time.Now().UTC()})
	if in.Verdict == api.Deny {
		q.State = api.Denied
	} else {
		q.Approvers = slots(1)
		start(q)
	}
	b.wake()
}

func (b *Broker) end(from, to api.State) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, who string) {
		q := b.find(w, r)
		if q == nil {
			return
		}
		if q.State != from && !(from == api.Active && q.State == api.Approved) {
			refuse(w, 409, "wrong-state", "the request is "+string(q.State), "")
			return
		}
		now := time.Now().UTC()
		if q.State = to; to == api.Ended {
			q.EndsAt, q.EndReason = &now, "finished"
		}
		b.wake()
		answer(w, 200, b.seen(q, who))
	}
}

func (b *Broker) certify(w http.ResponseWriter, r *http.Request, who string) {
	q := b.find(w, r)
	var in api.CertificateInput
	if q == nil || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(in.PublicKey))
	if err != nil {
		refuse(w, 422, "bad-key", "the public key cannot be read", "")
		return
	}
	proof, err := sshsig.Unarmor([]byte(in.Proof))
	if err == nil {
		err = sshsig.Verify(bytes.NewReader(api.ProofMessage(b.URL, q.ID)), proof, key, sshsig.HashSHA512, api.ProofNamespace)
	}
	if err != nil {
		refuse(w, 403, "bad-proof", "the proof of possession does not fit", "")
		return
	}
	fingerprint := ssh.FingerprintSHA256(key)
	if q.KeyFingerprint != "" && q.KeyFingerprint != fingerprint {
		refuse(w, 403, "other-key", "the grant is bound to another key", "")
		return
	}
	if q.State != api.Approved && q.State != api.Active {
		refuse(w, 409, "no-grant", "there is no grant", "")
		return
	}
	if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); b.OldSignIns && !b.families[token].anew {
		refuse(w, 401, "sign-in-too-old", "you signed in 2h ago, and the rule wants it within 1h", "sign in again: sally login")
		return
	}
	h := wanted(w, q, in.Host)
	if h == nil {
		return
	}
	if b.OtherHost {
		h = host(q.Hosts[len(q.Hosts)-1].ID)
	}
	q.KeyFingerprint, q.State = fingerprint, api.Active
	b.serial++
	for i := range q.Hosts {
		if q.Hosts[i].ID == h.ID {
			q.Hosts[i].Certificates++
		}
	}
	now := time.Now().UTC()
	c := &ssh.Certificate{Key: key, Serial: b.serial, CertType: ssh.UserCert, KeyId: q.ID + ":" + q.Requester.ID,
		ValidPrincipals: []string{q.Login + "@" + h.ID},
		ValidAfter:      uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(5 * time.Minute).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	if err := c.SignCert(rand.Reader, b.userCA); err != nil {
		panic(err)
	}
	address, port, _ := strings.Cut(h.Address, ":")
	out := api.Certificate{
		CertificateInfo: api.CertificateInfo{Serial: c.Serial, KeyID: c.KeyId, Principal: c.ValidPrincipals[0],
			Fingerprint: fingerprint, ValidAfter: now.Add(-time.Minute), ValidBefore: now.Add(5 * time.Minute)},
		Certificate: string(ssh.MarshalAuthorizedKey(c)),
		KnownHosts:  []string{"@cert-authority " + h.ID + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(b.hostCA.PublicKey())))},
		Connect:     api.Connect{Address: address, Login: q.Login, HostKeyAlias: h.ID, Command: "sally ssh " + q.Login + "@" + h.Name},
	}
	fmt.Sscan(port, &out.Connect.Port)
	if b.Spoil != nil {
		b.Spoil(&out)
	}
	answer(w, 201, out)
}
