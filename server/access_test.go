package server

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
)

// TestP10_WhoMayDoWhat is the whole matrix: each call by everybody, each on
// objects of its own.
func TestP10_WhoMayDoWhat(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	k.host(t, "web-1", "web", "web")
	who := []string{"", "engineer", "stranger", "approver", "auditor", "operator"}
	const hostBody = `{"name":"%s","address":"127.0.0.8","labels":{"class":"web"},"logins":["web"],"host_key":"` + hostKey + `"}`
	request := func(int) string { return k.ask(t, "db-1", "dba").ID }
	host := func(n int) string { return k.host(t, fmt.Sprintf("extra-%d", n), "database", "dba").ID }
	name := func(n int) string { return fmt.Sprintf("new-%d", n) }
	none := func(int) string { return "" }
	requester := func(int) string { return k.ask(t, "db-1", "dba").Requester.ID }

	for row, c := range []struct {
		method, path, body string
		object             func(int) string // for %s in path or body
		want               []int            // by who
	}{
		{"GET", "/api/v1/me", "", none, []int{401, 200, 200, 200, 200, 200}},
		{"GET", "/api/v1/hosts", "", none, []int{401, 200, 200, 200, 200, 200}},
		{"GET", "/api/v1/hosts/db-1", "", none, []int{401, 200, 404, 404, 200, 200}},
		{"POST", "/api/v1/hosts", hostBody, name, []int{401, 403, 403, 403, 403, 201}},
		{"PUT", "/api/v1/hosts/%s", fmt.Sprintf(hostBody, "changed"), host, []int{401, 403, 403, 403, 403, 200}},
		{"DELETE", "/api/v1/hosts/%s", "", host, []int{401, 403, 403, 403, 403, 204}},
		{"POST", "/api/v1/hosts/%s/certificate", "", host, []int{401, 403, 403, 403, 403, 201}},
		{"POST", "/api/v1/requests", `{"host":"db-1","login":"dba","reason":"x"}`, none, []int{401, 201, 404, 404, 404, 404}},
		{"POST", "/api/v1/requests?dry_run=true", `{"host":"db-1","login":"dba","reason":"x"}`, none, []int{401, 200, 404, 404, 404, 404}},
		{"POST", "/api/v1/requests?dry_run=true", `{"selector":{"class":"database"},"login":"dba","reason":"x"}`, none, []int{401, 200, 404, 404, 404, 404}},
		{"POST", "/api/v1/requests?dry_run=true", `{"selector":{"class":"database"},"host":"db-1","login":"dba","reason":"x"}`, none, []int{401, 422, 422, 422, 422, 422}},
		{"GET", "/api/v1/requests", "", none, []int{401, 200, 200, 200, 200, 200}},
		{"GET", "/api/v1/requests/%s", "", request, []int{401, 200, 404, 200, 200, 200}},
		{"POST", "/api/v1/requests/%s/decisions", `{"verdict":"approve"}`, request, []int{401, 403, 404, 200, 403, 403}},
		{"POST", "/api/v1/requests/%s/decisions", `{"verdict":"deny","comment":"no"}`, request, []int{401, 403, 404, 200, 403, 403}},
		{"POST", "/api/v1/requests/%s/cancel", "", request, []int{401, 200, 404, 403, 403, 403}},
		{"POST", "/api/v1/requests/%s/finish", "", request, []int{401, 409, 404, 403, 403, 403}},
		{"POST", "/api/v1/requests/%s/certificates", `{"public_key":"` + hostKey + `","proof":"x"}`, request, []int{401, 422, 422, 422, 422, 422}},
		{"POST", "/api/v1/explain", `{"host":"db-1","login":"dba"}`, none, []int{401, 200, 200, 200, 200, 200}},
		{"POST", "/api/v1/explain", `{"host":"db-1","login":"dba","person":"per-000000000000"}`, none, []int{401, 404, 404, 404, 404, 404}},
		{"POST", "/api/v1/explain", `{"host":"db-1","login":"dba","person":"%s"}`, requester, []int{401, 200, 404, 404, 200, 200}},
		{"GET", "/api/v1/hosts/db-1/reach?login=dba", "", none, []int{401, 403, 403, 403, 200, 200}},
		{"GET", "/api/v1/hosts/nowhere/reach?login=dba", "", none, []int{401, 403, 403, 403, 404, 404}},
		{"GET", "/api/v1/people/me/reach", "", none, []int{401, 200, 200, 200, 200, 200}},
		{"GET", "/api/v1/people/%s/reach", "", requester, []int{401, 200, 404, 404, 200, 200}},
		{"GET", "/api/v1/audit/events", "", none, []int{401, 403, 403, 403, 200, 403}},
		{"GET", "/api/v1/audit/events/0", "", none, []int{401, 403, 403, 403, 200, 403}},
		{"GET", "/api/v1/audit/events/0/receipt", "", none, []int{401, 403, 403, 403, 200, 403}},
		{"GET", "/api/v1/notifications?state=failed", "", none, []int{401, 403, 403, 403, 200, 200}},
		{"GET", "/api/v1/notifications?state=lost", "", none, []int{401, 422, 422, 422, 422, 422}},
		{"GET", "/api/v1/notifications?cursor=x", "", none, []int{401, 403, 403, 403, 422, 422}},
		{"GET", "/log/tile/entries/000.p/1", "", none, []int{401, 403, 403, 403, 200, 403}},
		{"GET", "/log/tile/0/000.p/1", "", none, []int{200, 200, 200, 200, 200, 200}},
		{"GET", "/log/checkpoint", "", none, []int{200, 200, 200, 200, 200, 200}},
		{"GET", "/log/vkey", "", none, []int{200, 200, 200, 200, 200, 200}},
		{"GET", "/ssh/ca.pub", "", none, []int{200, 200, 200, 200, 200, 200}},
	} {
		for i, want := range c.want {
			path, body := c.path, c.body
			if id := c.object(row*10 + i); strings.Contains(path, "%s") {
				path = fmt.Sprintf(path, id)
			} else if strings.Contains(body, "%s") {
				body = fmt.Sprintf(body, id)
			}
			if strings.HasPrefix(c.method, "PUT") {
				body = strings.Replace(body, "changed", fmt.Sprintf("changed-%d-%d", row, i), 1)
			}
			a := k.do(t, who[i], c.method, path, body)
			if a.StatusCode != want {
				t.Errorf("%s %s by %q: %d, want %d\n%s", c.method, c.path, who[i], a.StatusCode, want, a.body)
			} else if want >= 400 {
				problemOf(t, a, want)
			}
		}
	}
}

// TestP10_CertificatesAreForTheGrantsPerson asks for one as everybody, each with
// a key of their own and a proof that holds.
func TestP10_CertificatesAreForTheGrantsPerson(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "web-1", "web", "web")
	r := k.ask(t, "web-1", "web") // approved at once
	path := "/api/v1/requests/" + r.ID + "/certificates"
	for _, who := range []string{"stranger", "approver", "auditor", "operator"} {
		problemOf(t, k.do(t, who, "POST", path, k.proven(t, r.ID)), 404)
	}
	c := get[api.Certificate](t, k.do(t, "engineer", "POST", path, k.proven(t, r.ID)), 201)
	if c.Principal != "web@"+r.HostID || c.LogIndex < 1 || len(c.KnownHosts) == 0 {
		t.Errorf("certificate %+v", c)
	}
	problemOf(t, k.do(t, "engineer", "POST", path, k.proven(t, "req-000000000000")), 403)
	shown := get[api.Request](t, k.do(t, "engineer", "GET", "/api/v1/requests/"+r.ID, ""), 200)
	if len(shown.Certificates) != 1 || shown.State != api.Active {
		t.Errorf("request %s with %d certificates", shown.State, len(shown.Certificates))
	}
	if metrics := string(k.do(t, "", "GET", "/metrics", "").body); !strings.Contains(metrics, "sallyport_certificates_issued_total 1\n") {
		t.Error("the metrics do not count one certificate")
	}
}

// proven is the body that asks for a certificate for a fresh key.
func (k *kit) proven(t *testing.T, requestID string) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	message := api.ProofMessage(k.cfg.URL, requestID)
	proof, err := sshsig.Sign(bytes.NewReader(message), signer, sshsig.HashSHA512, api.ProofNamespace)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(api.CertificateInput{
		PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), Proof: string(sshsig.Armor(proof))})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestP10_ListsHoldOnlyWhatTheCallerMaySee lists as everybody.
func TestP10_ListsHoldOnlyWhatTheCallerMaySee(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	for who, want := range map[string][2]int{
		"engineer": {1, 1}, "approver": {1, 0}, "auditor": {1, 1}, "operator": {1, 1}, "stranger": {0, 0},
	} {
		requests := get[api.Page[api.Request]](t, k.do(t, who, "GET", "/api/v1/requests", ""), 200)
		if len(requests.Items) != want[0] || want[0] == 1 && requests.Items[0].ID != r.ID {
			t.Errorf("%s sees %d requests, want %d", who, len(requests.Items), want[0])
		}
		hosts := get[api.Page[api.Host]](t, k.do(t, who, "GET", "/api/v1/hosts", ""), 200)
		if len(hosts.Items) != want[1] {
			t.Errorf("%s sees %d hosts, want %d", who, len(hosts.Items), want[1])
		}
		if requests.Items == nil || hosts.Items == nil {
			t.Errorf("%s: an empty list is null", who)
		}
	}
}

// TestRefusedAccessIsAnEvent looks for who tried to read the log.
func TestRefusedAccessIsAnEvent(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	problemOf(t, k.do(t, "engineer", "GET", "/api/v1/audit/events?type=request.", ""), 403)
	problemOf(t, k.do(t, "operator", "GET", "/log/tile/entries/000.p/1", ""), 403)
	problemOf(t, k.do(t, "approver", "GET", "/log/events/0/leaf", ""), 403)
	// They are sequenced soon after.
	var page api.Page[api.Event]
	for deadline := time.Now().Add(20 * time.Second); len(page.Items) < 3 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		page = get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", "/api/v1/audit/events?type=access.refused", ""), 200)
	}
	if len(page.Items) != 3 {
		t.Fatalf("%d events, want 3: %+v", len(page.Items), page.Items)
	}
	for i, want := range []struct{ who, action string }{
		{"approver", "GET /log/events/{index}/leaf"}, {"operator", "GET /log/tile/entries/*"}, {"engineer", "GET /api/v1/audit/events"},
	} {
		e := page.Items[i]
		if e.Actor.ID != k.people[want.who].ID || e.Data["action"] != want.action || e.Source != "127.0.0.1" {
			t.Errorf("event %d: %+v, want %v", i, e, want)
		}
	}
}

// TestNobodyIsSignedIn checks that input is not even read.
func TestNobodyIsSignedIn(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	a := k.do(t, "", "POST", "/api/v1/requests", `{"nonsense`)
	if p := problemOf(t, a, 401); p.Code != "sign-in-needed" {
		t.Errorf("code %s", p.Code)
	}
	if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="sallyport"` {
		t.Errorf("WWW-Authenticate: %q", got)
	}
	a = k.do(t, "", "GET", "/api/v1/me", "", "Authorization", "Bearer abc.def.ghi")
	problemOf(t, a, 401)
	if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, `error="invalid_token"`) {
		t.Errorf("WWW-Authenticate: %q", got)
	}
}
