package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/internal/sshd"
)

// sallyHost builds the helper as it is shipped, once.
var sallyHost = sync.OnceValues(func() ([]byte, error) {
	file := filepath.Join(programs.dir, "sally-host")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "sallyport/cmd/sally-host")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
})

// enrol makes an enrolled host of one that is running, with a join token, and starts its
// daemon.
func (h *house) enrol(t testing.TB, name string, labels map[string]string, logins ...string) *sshd.Host {
	t.Helper()
	host := h.addHost(name, labels, logins...)
	binary, err := sallyHost()
	if err != nil {
		t.Fatal(err)
	}
	var token api.JoinToken
	h.signIn(operator).call(http.MethodPost, "/hosts/join-tokens", api.JoinTokenInput{Name: name}, &token, http.StatusCreated)
	if err := host.Enroll(t.Context(), binary, h.URL, token.Token, os.Stderr); err != nil {
		t.Fatalf("%v\n%s", err, host.Log())
	}
	return host
}

// enter opens a connection by a grant that nobody has to approve.
func (h *house) enter(t testing.TB, c *client, host, login string) (*ssh.Client, api.Request) {
	t.Helper()
	var r api.Request
	c.call(http.MethodPost, "/requests", api.RequestInput{Host: host, Login: login, Reason: "to see how it ends"}, &r, http.StatusCreated)
	return h.come(t, c, r), r
}

// come opens a connection by a grant.
func (h *house) come(t testing.TB, c *client, r api.Request) *ssh.Client {
	t.Helper()
	key := newSigner(t)
	var cert api.Certificate
	c.call(http.MethodPost, "/requests/"+r.ID+"/certificates", api.CertificateInput{PublicKey: authorized(key.PublicKey()), Proof: prove(t, key, h.URL, r.ID)},
		&cert, http.StatusCreated)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cert.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(public.(*ssh.Certificate), key)
	if err != nil {
		t.Fatal(err)
	}
	host := h.hosts[r.Host]
	connection, err := dial(host, r.Login, signer)
	if err != nil {
		t.Fatalf("%v\n%s", err, host.Log())
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// sessionsOf waits until the broker's sessions of a host are as they should be.
func (h *house) sessionsOf(t testing.TB, host string, are func([]api.Session) bool) []api.Session {
	t.Helper()
	c := h.signIn(auditor)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var page api.Page[api.Session]
		c.call(http.MethodGet, "/hosts/"+host+"/sessions", nil, &page, http.StatusOK)
		if are(page.Items) {
			return page.Items
		}
		if time.Now().After(deadline) {
			got, _ := json.MarshalIndent(page.Items, "", " ")
			t.Fatalf("the sessions of %s are\n%s\n%s", host, got, h.hosts[host].Log())
		}
	}
}

// One host and one grant after the other, with the real broker: somebody is done, and
// what they left running ends; the broker knows who was in, and why it ended.
func TestAFinishedGrantEndsItsSession(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	host := h.enrol(t, "web-1", map[string]string{"class": "web"}, "web")
	erin := h.signIn(engineer)
	connection, r := h.enter(t, erin, "web-1", "web")
	s, err := connection.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("setsid -f sleep 7771 >/dev/null 2>&1; id -un"); err != nil || string(out) != "web\n" {
		t.Fatalf("%q, %v\n%s", out, err, host.Log())
	}
	live := h.sessionsOf(t, "web-1", func(list []api.Session) bool { return len(list) == 1 && list[0].EndedAt == nil })
	if live[0].Login != "web" || live[0].Request != r.ID || live[0].Alarm != "" {
		t.Errorf("the session is %+v", live[0])
	}
	erin.call(http.MethodPost, "/requests/"+r.ID+"/finish", struct{}{}, nil, http.StatusOK)
	ended := make(chan struct{})
	go func() {
		_ = connection.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the connection goes on\n%s", host.Log())
	}
	over := h.sessionsOf(t, "web-1", func(list []api.Session) bool { return len(list) == 1 && list[0].EndedAt != nil })
	if over[0].EndReason != string(hostapi.EndFinished) {
		t.Errorf("the session is %+v", over[0])
	}
	if out, err := host.Command(t.Context(), "pgrep", "-f", "sleep 7771").Output(); err == nil {
		t.Errorf("what was left behind goes on: %s", out)
	}
}

// A host whose root belongs to somebody else reports for another host: its key is not
// that host's, and nothing of it is believed.
func TestAHostileHostReportsForNobodyElse(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	hostile := h.enrol(t, "web-1", map[string]string{"class": "web"}, "web")
	h.enrol(t, "web-2", map[string]string{"class": "web"}, "web")
	private, err := os.ReadFile(hostile.Path("/etc/ssh/host_key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	c := &hostapi.Client{URL: h.URL, ID: h.hostID(t, "web-2"), Key: key, HTTP: plain, Now: time.Now}
	data, err := json.Marshal(hostapi.SessionStarted{Session: strings.Repeat("ab", 16), Login: "web", StartedAt: time.Now(), Isolation: "cgroup"})
	if err != nil {
		t.Fatal(err)
	}
	report := []hostapi.Report{{BootID: "boot", Seq: 1 << 40, Time: time.Now(), Kind: hostapi.KindSessionStarted, Data: data}}
	if _, err := c.Report(t.Context(), report); err == nil {
		t.Error("a report for another host was taken")
	}
	if _, err := c.Renew(t.Context()); err == nil {
		t.Error("a certificate of another host was given out")
	}
	if _, err := c.Revocations(t.Context(), 0, 0); err == nil {
		t.Error("another host was believed to have heard")
	}
	h.sessionsOf(t, "web-2", func(list []api.Session) bool { return len(list) == 0 })
}

// percentile of durations, sorted in place.
func percentile(all []time.Duration, p float64) time.Duration {
	slices.Sort(all)
	return all[min(int(p*float64(len(all))), len(all)-1)]
}
