package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/audit/vouch"
)

// machine is a host as it is outside, with nothing but its key.
func (k *kit) machine(t *testing.T) *hostapi.Client {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &hostapi.Client{URL: k.http.URL, Key: key, HTTP: http.DefaultClient, Now: time.Now}
}

// enrolled is one that an operator let in, by a token.
func (k *kit) enrolled(t *testing.T, name string) (*hostapi.Client, hostapi.Enrolment) {
	t.Helper()
	token := get[api.JoinToken](t, k.do(t, "operator", "POST", "/api/v1/hosts/join-tokens",
		fmt.Sprintf(`{"name":%q,"labels":{"class":"web"},"logins":["web"],"address":"127.0.0.1:1","expires_in":"10m"}`, name)), 201)
	m := k.machine(t)
	e, pending, err := m.Enrol(t.Context(), hostapi.EnrolmentInput{Token: token.Token, Facts: hostapi.Facts{OS: "Debian 12"}})
	if err != nil || pending != nil {
		t.Fatalf("enrolling: %+v, %v", pending, err)
	}
	m.ID = e.HostID
	return m, *e
}

func isProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *hostapi.Problem
	if !errors.As(err, &p) || p.Status != status || p.Code != code || p.Hint == "" {
		t.Errorf("error %v, want %d %s", err, status, code)
	}
}

// The whole life of a host over HTTP.
func TestAHostEnrolsHearsAndReports(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	m, e := k.enrolled(t, "web-1")
	if e.Name != "web-1" || e.URL != k.http.URL || e.Principals["web"] != "web@"+e.HostID || !strings.Contains(e.HostCertificate, "-cert-v01@openssh.com ") {
		t.Errorf("enrolment %+v", e)
	}
	if again, err := m.Renew(t.Context()); err != nil || again.HostID != e.HostID {
		t.Errorf("renewed %+v, %v", again, err)
	}

	// It waits, and hears of the end of a grant at once.
	r := k.ask(t, "web-1", "web")
	heard := make(chan []byte, 1)
	go func() {
		note, err := m.Revocations(context.WithoutCancel(t.Context()), 0, 50*time.Second)
		if err != nil {
			t.Error(err)
		}
		heard <- note
	}()
	get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/finish", ""), 200)
	text, err := vouch.Open(hostapi.RevocationsKind, <-heard, e.LogKey)
	if err != nil {
		t.Fatal(err)
	}
	list, err := hostapi.ParseRevocations(text)
	if end, over := list.Ended(r.ID); err != nil || !over || end.Reason != hostapi.EndFinished {
		t.Errorf("heard %+v, %v", list, err)
	}
	_, err = m.Revocations(t.Context(), 99, 0)
	isProblem(t, err, 503, hostapi.CodeBehind)

	report := func(seq uint64, kind hostapi.Kind, data any) (hostapi.Accepted, error) {
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return m.Report(t.Context(), []hostapi.Report{{BootID: "boot", Seq: seq, Time: time.Now(), Kind: kind, Data: text}})
	}
	in := hostapi.SessionStarted{Session: strings.Repeat("ab", 16), Method: "password", Login: "web", Peer: "192.0.2.9", StartedAt: time.Now()}
	if a, err := report(1, hostapi.KindSessionStarted, in); err != nil || a.Seq != 1 || len(a.Refused) > 0 {
		t.Errorf("accepted %+v, %v", a, err)
	}
	in.Login = "root"
	_, err = report(1, hostapi.KindSessionStarted, in)
	isProblem(t, err, 409, hostapi.CodeConflict)
	page := get[api.Page[api.Session]](t, k.do(t, "operator", "GET", "/api/v1/hosts/web-1/sessions?live=true", ""), 200)
	if len(page.Items) != 1 || page.Items[0].Alarm != "no-certificate" {
		t.Errorf("sessions %+v", page.Items)
	}

	p := hostapi.Posture{HostID: e.HostID, BootID: "boot", Number: 2, TakenAt: time.Now(), Checks: []hostapi.Check{
		{ID: "keys", Result: hostapi.Fail, Findings: []string{"/root/.ssh/authorized_keys"}, Remedy: "remove it"}}}
	signed, err := hostapi.SignPosture(p, m.Key)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := report(2, hostapi.KindPosture, signed); err != nil || a.Seq != 2 || len(a.Refused) > 0 {
		t.Errorf("accepted %+v, %v", a, err)
	}
	shown := get[api.HostPosture](t, k.do(t, "auditor", "GET", "/api/v1/hosts/web-1/posture", ""), 200)
	if shown.State != api.HostDrifted || len(shown.Checks) != len(hostapi.Checks) || shown.Enrolled == nil || shown.Enrolled.OS != "Debian 12" || shown.Number != 2 {
		t.Errorf("posture %+v", shown)
	}
	problemOf(t, k.do(t, "engineer", "GET", "/api/v1/hosts/web-1/posture", ""), 403)
	problemOf(t, k.do(t, "stranger", "GET", "/api/v1/hosts/web-1/posture", ""), 404)
	figures := string(k.do(t, "", "GET", "/metrics", "").body)
	for _, want := range []string{`sallyport_hosts{state="drifted"} 1`, `sallyport_hosts{state="sealed"} 0`, `sallyport_hosts{state="pending"} 0`} {
		if !strings.Contains(figures, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	krl, signature := k.do(t, "", "GET", hostapi.KRLPath, ""), k.do(t, "", "GET", hostapi.KRLSignaturePath, "")
	ca, _, _, _, err := ssh.ParseAuthorizedKey([]byte(e.UserCAs[0]))
	if err != nil || hostapi.VerifyKRL(krl.body, string(signature.body), ca) != nil {
		t.Errorf("the KRL: %s, %v", krl.Status, err)
	}
}

func TestAHostWaitsForAnOperator(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	m := k.machine(t)
	_, pending, err := m.Enrol(t.Context(), hostapi.EnrolmentInput{Name: "web-2", Address: "10.0.0.2", Logins: []string{"web"}})
	if err != nil || pending == nil || pending.Fingerprint != ssh.FingerprintSHA256(m.Key.PublicKey()) {
		t.Fatalf("pending %+v, %v", pending, err)
	}
	m.ID = pending.ID
	if e, still, err := m.Enrolment(t.Context()); err != nil || e != nil || still == nil {
		t.Errorf("it is %+v, %+v, %v", e, still, err)
	}
	if list := get[api.Page[api.PendingHost]](t, k.do(t, "operator", "GET", "/api/v1/hosts/pending", ""), 200); len(list.Items) != 1 || list.Items[0].Name != "web-2" {
		t.Errorf("pending %+v", list.Items)
	}
	problemOf(t, k.do(t, "engineer", "GET", "/api/v1/hosts/pending", ""), 403)
	approve := func(print string) answer {
		return k.do(t, "operator", "POST", "/api/v1/hosts/pending/"+pending.ID+"/approve",
			fmt.Sprintf(`{"fingerprint":%q,"labels":{"class":"web"}}`, print))
	}
	problemOf(t, approve("SHA256:other"), 409)
	h := get[api.Host](t, approve(pending.Fingerprint), 201)
	e, still, err := m.Enrolment(t.Context())
	if err != nil || still != nil || e.HostID != h.ID || e.Labels["class"] != "web" {
		t.Errorf("it is %+v, %+v, %v", e, still, err)
	}
	other := k.machine(t)
	_, pending, err = other.Enrol(t.Context(), hostapi.EnrolmentInput{Name: "web-3", Logins: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	if a := k.do(t, "operator", "POST", "/api/v1/hosts/pending/"+pending.ID+"/refuse", `{"reason":"not ours"}`); a.StatusCode != 204 {
		t.Errorf("refused: %s\n%s", a.Status, a.body)
	}
	other.ID = pending.ID
	_, _, err = other.Enrolment(t.Context())
	isProblem(t, err, 403, hostapi.CodeRefused)
}

func TestOperatorsKeepTheFleet(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, name := range []string{"web-1", "web-2"} {
		k.host(t, name, "web", "web")
	}
	k.host(t, "db-1", "database", "dba")
	labels := func(who, body string) answer { return k.do(t, who, "POST", "/api/v1/hosts/labels", body) }
	problemOf(t, labels("engineer", `{"selector":"class=web","set":{"env":"prod"}}`), 403)
	problemOf(t, labels("operator", `{"selector":"class=web","set":{"env":"prod"},"remove":["env"]}`), 422)
	problemOf(t, labels("operator", `{"selector":"class in","set":{"env":"prod"}}`), 422)
	for _, dry := range []bool{true, false} {
		page := get[api.Page[api.Host]](t, labels("operator", fmt.Sprintf(`{"selector":"class=web","set":{"env":"prod"},"dry_run":%v}`, dry)), 200)
		if len(page.Items) != 2 || page.Items[0].Labels["env"] != "prod" || page.Items[0].State != api.HostUnknown {
			t.Errorf("dry %v: %+v", dry, page.Items)
		}
		got := get[api.Host](t, k.do(t, "operator", "GET", "/api/v1/hosts/web-2", ""), 200)
		if (got.Labels["env"] == "prod") == dry {
			t.Errorf("dry %v: labels %v", dry, got.Labels)
		}
	}
	if page := get[api.Page[api.Host]](t, labels("operator", `{"selector":"class=web","set":{"env":"prod"}}`), 200); len(page.Items) != 0 {
		t.Errorf("once more: %+v", page.Items)
	}
	h := get[api.Host](t, k.do(t, "operator", "POST", "/api/v1/hosts/web-1/quarantine", `{"reason":"odd packets"}`), 200)
	if h.State != api.HostQuarantined || h.Quarantine == nil || h.Quarantine.Reason != "odd packets" {
		t.Errorf("host %+v", h)
	}
	problemOf(t, k.do(t, "operator", "POST", "/api/v1/hosts/web-1/quarantine", `{"reason":"odd packets"}`), 409)
	problemOf(t, k.do(t, "auditor", "POST", "/api/v1/hosts/web-1/release", `{"reason":"x"}`), 403)
	if h := get[api.Host](t, k.do(t, "operator", "POST", "/api/v1/hosts/web-1/release", `{"reason":"it was us"}`), 200); h.State != api.HostUnknown {
		t.Errorf("host %+v", h)
	}
}
