package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// shortLived makes certificates so short that a test can outlive one.
var shortLived = strings.Replace(policy, "lifetime: 5m", "lifetime: 20s", 1)

// An incident from the first sign-in to the entry in the log, as its people live
// it: Erin asks in her browser and logs in from her terminal, Arne approves,
// Audrey reads. The certificate opens dba on db-1 and nothing else (P2), while
// it lasts (P3).
func TestIncident(t *testing.T) {
	t.Parallel()
	h := newHouse(t, shortLived)
	h.addHost("web-1", map[string]string{"class": "web"}, "web", "dba", "root")
	h.addHost("db-1", map[string]string{"class": "database"}, "dba", "web", "root")

	erin := h.at(engineer)
	erin.open("/requests/new?host=db-1&login=dba&ticket=INC-2041")
	erin.fill("#reason", "Find what blocks the orders")
	erin.read("#preview", "1 person from approvers")
	erin.picture("ask")
	erin.click(`button[value="send"]`)
	erin.read("h1", "dba@db-1")
	erin.read(".banner", "waiting for approval")
	request := path.Base(erin.where())

	// Nobody decides on their own request, in a page that does not offer it or by
	// a form that somebody made up (P5).
	if got := erin.page(); strings.Contains(got, "Your decision") {
		t.Errorf("Erin's page offers her the decision on her own request:\n%s", got)
	}

	arne := h.at(approver)
	arne.read("nav", "approvals")
	arne.open("/approvals")
	arne.click(fmt.Sprintf(`a[href="/requests/%s"]`, request))
	arne.read(".banner", "Find what blocks the orders")
	arne.fill("#comment", "Go ahead")
	arne.picture("decide")
	arne.click(".decide button.primary")
	arne.read(".banner", "Erin Engineer may log in")

	// Erin's page has changed by itself, and says what to do next.
	erin.read(".banner", "log in now")
	erin.read(".banner", "sally ssh dba@db-1")

	terminal := newTerminal(t, h)
	terminal.login(erin)
	if out := terminal.sally("ssh", "dba@db-1", "hostname; id -un"); out != "db-1\ndba\n" {
		t.Fatalf("ssh says %q", out)
	}
	erin.read(".banner", "you can log in")
	erin.read("main", "signed")
	erin.picture("request")

	// The same key and certificate everywhere else.
	terminal.sally("cert", request, "--out", "cert")
	issued := time.Now()
	cert := terminal.certificate("cert")
	if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != "dba@"+h.hostID(t, "db-1") {
		t.Errorf("principals %q", cert.ValidPrincipals)
	}
	if _, pty := cert.Extensions["permit-pty"]; len(cert.Extensions) != 2 || !pty || len(cert.CriticalOptions) != 0 {
		t.Errorf("options %v, extensions %v: only permit-pty was allowed, and the receipt", cert.CriticalOptions, cert.Extensions)
	}
	terminal.proves(h, "cert", cert)
	for _, c := range []struct {
		host, login string
		enters      bool
	}{
		{"db-1", "dba", true},
		{"db-1", "root", false},
		{"db-1", "web", false},
		{"web-1", "dba", false},
		{"web-1", "root", false},
	} {
		if out, err := terminal.ssh(h, "cert", c.login, c.host); (err == nil) != c.enters {
			t.Errorf("%s on %s: %v, want %v\n%s", c.login, c.host, err, c.enters, out)
		}
	}
	end := time.Unix(int64(cert.ValidBefore), 0)
	if end.After(issued.Add(20 * time.Second)) {
		t.Errorf("the certificate lasts until %s, it was issued before %s", end, issued)
	}
	time.Sleep(time.Until(end) + time.Second) // sshd compares whole seconds
	if out, err := terminal.ssh(h, "cert", "dba", "db-1"); err == nil {
		t.Errorf("the certificate opened db-1 after its end\n%s", out)
	}
	if err := h.hosts["db-1"].WaitLog(t.Context(), "Certificate invalid: expired"); err != nil {
		t.Errorf("db-1 does not say why it refused: %v\n%s", err, h.hosts["db-1"].Log())
	}

	// "I'm done", and there is no further certificate.
	erin.click(fmt.Sprintf(`form[action="/requests/%s/finish"] button`, request))
	erin.read(".banner", "ended early")
	if out, err := terminal.run("cert", request, "--out", "again"); err == nil {
		t.Errorf("a certificate after the end\n%s", out)
	}

	audrey := h.at(auditor)
	audrey.open("/log?request=" + request)
	for _, said := range []string{"asked for dba@db-1", "approved it", "started the grant", "got certificate", "being done"} {
		audrey.read("main", said)
	}
	audrey.picture("log")
	audrey.click(`main a[href^="/log/events/"]`)
	audrey.read("main", "c2sp.org/tlog-proof")
	audrey.picture("event")
	if tree := h.checkpoint(t); tree.N == 0 {
		t.Error("the log is empty")
	}
}

// terminal is Erin's: a home of her own, and sally on the PATH.
type terminal struct {
	t    testing.TB
	home string
	env  []string
}

func newTerminal(t testing.TB, h *house) *terminal {
	home := t.TempDir()
	run := filepath.Join(home, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	return &terminal{t: t, home: home, env: []string{
		"HOME=" + home, "XDG_RUNTIME_DIR=" + run, "PATH=" + os.Getenv("PATH"), "SALLYPORT_URL=" + h.URL,
	}}
}

func (e *terminal) command(args ...string) *exec.Cmd {
	cmd := exec.Command(programs.sally, args...)
	cmd.Env, cmd.Dir = e.env, e.home
	return cmd
}

// sally runs a command that must succeed, and returns its standard output.
func (e *terminal) sally(args ...string) string {
	e.t.Helper()
	cmd := e.command(args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("sally %s: %v\n%s%s", strings.Join(args, " "), err, out, said.String())
	}
	return string(out)
}

func (e *terminal) run(args ...string) (string, error) {
	out, err := e.command(args...).CombinedOutput()
	return string(out), err
}

var address = regexp.MustCompile(`http://\S+/oauth/authorize\?\S+`)

// login runs `sally login` and opens the page that it names in the browser,
// where the person is signed in already.
func (e *terminal) login(p *person) {
	e.t.Helper()
	cmd := e.command("login")
	said, err := cmd.StderrPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	found := false
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if page := address.FindString(lines.Text()); page != "" && !found {
			found = true
			p.open(page)
			p.click(`form[action="/oauth/authorize"] button`)
		}
	}
	if err := cmd.Wait(); err != nil || !found {
		e.t.Fatalf("sally login: %v, page found: %v", err, found)
	}
	p.open("/requests")
	p.click(`main a[href^="/requests/req-"]`)
}

// ssh logs in with what `sally cert` wrote, by the machine's own ssh.
func (e *terminal) ssh(h *house, dir, login, host string) (string, error) {
	return e.sshWith(h, dir, "db-1", login, host)
}

// sshWith is ssh with what was written for the host named of.
func (e *terminal) sshWith(h *house, dir, of, login, host string) (string, error) {
	at := h.hosts[host].Addr()
	ip, port, _ := strings.Cut(at, ":")
	out, err := exec.Command("ssh", "-F", filepath.Join(e.home, dir, "ssh_config"), "-o", "BatchMode=yes",
		"-o", "HostName="+ip, "-o", "Port="+port, "-o", "HostKeyAlias="+h.hostID(e.t, host),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-l", login, of, "id").CombinedOutput()
	return string(out), err
}

// certificate reads the one that `sally cert` wrote.
func (e *terminal) certificate(dir string) *ssh.Certificate {
	e.t.Helper()
	files, err := filepath.Glob(filepath.Join(e.home, dir, "*-cert.pub"))
	if err != nil || len(files) != 1 {
		e.t.Fatalf("certificates in %s: %v, %v", dir, files, err)
	}
	line, err := os.ReadFile(files[0])
	if err != nil {
		e.t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		e.t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}
