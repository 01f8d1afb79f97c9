package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/broker/certs"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
	"sallyport/internal/sshd"
)

// Olga enrols a host that had a file with principals before, and one that nobody knew:
// the real sally-host, against the real broker. Erin enters both with sally ssh, and a
// certificate signed with the CA's stolen key opens neither.
func TestEnrolledHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	helper := filepath.Join(t.TempDir(), "sally-host")
	build := exec.Command("go", "build", "-trimpath", "-o", helper, "sallyport/cmd/sally-host")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(helper)
	if err != nil {
		t.Fatal(err)
	}
	h.addHost("web-1", map[string]string{"class": "web"}, "web")
	h.addHost("web-2", map[string]string{"class": "web"}, "web")
	olga := h.signIn(operator)

	host := h.prepare(t, "web-1", program)
	var token api.JoinToken
	olga.call(http.MethodPost, "/hosts/join-tokens", api.JoinTokenInput{Name: "web-1"}, &token, http.StatusCreated)
	if out, code := onHost(t, host, "enroll", "--non-interactive", "--url", h.URL, "--token", token.Token); code != 0 {
		t.Fatalf("enroll ended with %d\n%s\n%s", code, out, host.Log())
	}

	// The second one waits, and Olga lets it in by the fingerprint that it shows.
	second := h.prepare(t, "web-2", program)
	out, code := onHost(t, second, "enroll", "--non-interactive", "--url", h.URL, "--login", "web", "--name", "web-2")
	if code != 4 {
		t.Fatalf("enroll ended with %d\n%s", code, out)
	}
	var waiting api.Page[api.PendingHost]
	olga.call(http.MethodGet, "/hosts/pending", nil, &waiting, http.StatusOK)
	if len(waiting.Items) != 1 || !strings.Contains(out, waiting.Items[0].Fingerprint) {
		t.Fatalf("%+v waits; the host says\n%s", waiting.Items, out)
	}
	olga.call(http.MethodPost, "/hosts/pending/"+waiting.Items[0].ID+"/approve", api.PendingDecision{Fingerprint: waiting.Items[0].Fingerprint}, nil, http.StatusCreated)
	if out, code := onHost(t, second, "enroll", "--non-interactive", "--url", h.URL); code != 0 {
		t.Fatalf("enroll ended with %d\n%s\n%s", code, out, second.Log())
	}

	// What the CA's stolen key signs, the door does not open.
	stolen, err := os.ReadFile(filepath.Join(h.keys, "user_ca"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ssh.ParsePrivateKey(stolen)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	forged := certtest.NewLog(t, "e2e.example.com/log").Certify(certs.User{Serial: 9000, Key: ca.PublicKey(), Login: "web", HostID: h.hostID(t, "web-1"),
		RequestID: ids.New(ids.Request), PersonID: ids.New(ids.Person), Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}, ca)
	signer, err := ssh.NewCertSigner(forged, ca)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ssh.Dial("tcp", host.Addr(), &ssh.ClientConfig{User: "web", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}); err == nil {
		c.Close()
		t.Errorf("the stolen key opened it\n%s", host.Log())
	}

	mine := h.signIn(engineer)
	for _, name := range []string{"web-1", "web-2"} {
		mine.call(http.MethodPost, "/requests", api.RequestInput{Host: name, Login: "web", Duration: "15m", Reason: "Look at the log"}, nil, http.StatusCreated)
	}
	terminal := newTerminal(t, h)
	terminal.login(h.at(engineer))
	for _, name := range []string{"web-1", "web-2"} {
		if out := terminal.sally("ssh", "web@"+name, "hostname; id -un"); out != name+"\nweb\n" {
			t.Fatalf("ssh says %q\n%s", out, h.hosts[name].Log())
		}
	}
}

// prepare has the host's sshd read drop-ins, as distributions do, and puts sally-host there.
func (h *house) prepare(t *testing.T, name string, program []byte) *sshd.Host {
	t.Helper()
	host := h.hosts[name]
	config, err := os.ReadFile(host.Path("/etc/ssh/sshd_config"))
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"/etc/ssh/sshd_config":      "Include /etc/ssh/sshd_config.d/*.conf\nPidFile /run/sshd.pid\n" + string(config),
		"/usr/local/bin/sally-host": string(program),
	} {
		if err := os.WriteFile(host.Path(file), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := host.Command(t.Context(), "kill", "-HUP", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(host.Path("/run/sshd.pid")); err == nil && strings.Count(host.Log(), "Server listening on ") > 1 {
			return host
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not come back\n%s", host.Log())
		}
	}
}

// onHost runs sally-host on a host, and returns what it says and its exit code.
func onHost(t *testing.T, host *sshd.Host, args ...string) (string, int) {
	t.Helper()
	cmd := host.Command(t.Context(), "/usr/local/bin/sally-host", args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
