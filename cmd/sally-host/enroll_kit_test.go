package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
)

// stock is a host as Debian sets it up, that its administrator enters by a key and a
// password. What is below Match is there to come back.
const stock = `%INCLUDE%
HostKey /etc/ssh/host_key
PidFile /run/sshd.pid
Port %PORT%
ListenAddress 127.0.0.1
KbdInteractiveAuthentication no
UsePAM yes
LogLevel VERBOSE
PermitRootLogin yes
PasswordAuthentication yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Match User dba
	AuthorizedKeysFile .ssh/others
	AuthenticationMethods publickey password
	PasswordAuthentication yes
`

const include = "Include /etc/ssh/sshd_config.d/*.conf"

// joining is a host that is to be enrolled, and its broker. guarded.ca, log and id are
// the broker's for it.
type joining struct {
	*guarded
	admin ssh.Signer // whose key is in root's and dba's authorized keys
	url   string
	token string

	mu      sync.Mutex
	let     bool // pending hosts are let in
	lie     func(*hostapi.Enrolment)
	asked   []hostapi.EnrolmentInput
	hostCA  ssh.Signer
	hostKey ssh.PublicKey
}

// join starts a stock host, with what stands at the top of its sshd_config, and a broker.
func join(t testing.TB, top string) *joining { return joinOn(t, "", top) }

// joinOn is join on a host with another system's files.
func joinOn(t testing.TB, system, top string) *joining {
	t.Helper()
	j := &joining{guarded: guardOn(t, system, "PidFile /run/sshd.pid\n"), admin: newSigner(t), token: "join-token", hostCA: newSigner(t)}
	_, port, err := net.SplitHostPort(j.Addr())
	must(t, err)
	// Nothing of ours is there.
	for _, name := range []string{"/etc/ssh/sallyport", "/var/lib/sally-host", "/usr/lib/sallyport"} {
		must(t, os.RemoveAll(j.Path(name)))
	}
	passwd := read(t, j.Path("/etc/passwd"))
	var rest []string
	for line := range strings.Lines(passwd) {
		if !strings.HasPrefix(line, place.Account) {
			rest = append(rest, line)
		}
	}
	must(t, os.WriteFile(j.Path("/etc/passwd"), []byte(strings.Join(rest, "")), 0o644))
	for _, file := range []string{"/etc/group", "/etc/shadow"} {
		text := read(t, j.Path(file))
		i := strings.Index(text, place.Account)
		must(t, os.WriteFile(j.Path(file), []byte(text[:i]+text[i+strings.Index(text[i:], "\n")+1:]), 0o640))
	}
	binary, err := program()
	must(t, err)
	must(t, os.MkdirAll(j.Path("/usr/local/bin"), 0o755))
	must(t, os.WriteFile(j.Path("/usr/local/bin/sally-host"), binary, 0o755))
	key := certs.Line(j.admin.PublicKey()) + "\n"
	for _, name := range []string{"/root/.ssh/authorized_keys", "/home/dba/.ssh/others"} {
		must(t, os.MkdirAll(filepath.Dir(j.Path(name)), 0o755))
		must(t, os.WriteFile(j.Path(name), []byte(key), 0o644))
	}
	must(t, os.MkdirAll(j.Path("/etc/ssh/sshd_config.d"), 0o755))
	must(t, os.WriteFile(j.Path("/etc/ssh/sshd_config"), []byte(strings.NewReplacer("%INCLUDE%", top, "%PORT%", port).Replace(stock)), 0o644))
	must(t, j.Command(t.Context(), "kill", "-HUP", "1").Run())
	deadline := time.Now().Add(10 * time.Second)
	for strings.Count(j.Log(), "Server listening on ") < 2 || !reachable(j.Addr()) {
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not come back\n%s", j.Log())
		}
		time.Sleep(5 * time.Millisecond)
	}
	j.byKey("root")
	j.byKey("dba")
	j.serve()
	return j
}

// serve plays the broker.
func (j *joining) serve() {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(w http.ResponseWriter, code string) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(hostapi.Problem{Title: "refused", Code: code, Detail: "the broker says no: " + code})
	}
	const waiting = "enr-000000000001"
	mux.HandleFunc("POST "+hostapi.EnrolmentsPath, func(w http.ResponseWriter, r *http.Request) {
		var in hostapi.EnrolmentInput
		_ = json.NewDecoder(r.Body).Decode(&in)
		j.mu.Lock()
		defer j.mu.Unlock()
		key, err := hostapi.VerifyEnrolment(in, j.url)
		j.asked = append(j.asked, in)
		switch {
		case err != nil:
			refuse(w, "host-proof")
		case in.Token == "":
			j.hostKey = key
			answer(w, http.StatusAccepted, hostapi.Pending{ID: waiting, Fingerprint: ssh.FingerprintSHA256(key), ExpiresAt: time.Now().Add(time.Hour)})
		case in.Token != j.token:
			refuse(w, "join-token")
		default:
			j.hostKey = key
			answer(w, http.StatusCreated, j.enrolment())
		}
	})
	signed := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			credential, err := hostapi.ParseCredential(r.Header.Get("Authorization"))
			j.mu.Lock()
			defer j.mu.Unlock()
			if err != nil || j.hostKey == nil || credential.Verify(j.hostKey, r.Method, r.RequestURI, body) != nil {
				refuse(w, "host-signature")
				return
			}
			next(w, r)
		}
	}
	mux.HandleFunc("GET "+hostapi.EnrolmentsPath+"/"+waiting, signed(func(w http.ResponseWriter, r *http.Request) {
		if !j.let {
			answer(w, http.StatusAccepted, hostapi.Pending{ID: waiting, Fingerprint: ssh.FingerprintSHA256(j.hostKey), ExpiresAt: time.Now().Add(time.Hour)})
			return
		}
		answer(w, http.StatusOK, j.enrolment())
	}))
	mux.HandleFunc("POST "+hostapi.CertificatesPath, signed(func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusCreated, j.enrolment()) }))
	mux.HandleFunc("GET "+hostapi.RevocationsPath, signed(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, j.note(time.Now())) }))
	server := httptest.NewUnstartedServer(mux)
	j.mu.Lock()
	j.url = "http://" + server.Listener.Addr().String()
	j.mu.Unlock()
	server.Start()
	j.t.Cleanup(server.Close)
}

// enrolment is what the broker says of the host. The caller holds the lock.
func (j *joining) enrolment() hostapi.Enrolment {
	cert := j.log.CertifyHost(certs.Host{Serial: 7, Key: j.hostKey, HostID: j.id, Names: []string{"db-1"}, Now: time.Now(), Lifetime: time.Hour}, j.hostCA, rand.Reader)
	e := hostapi.Enrolment{HostID: j.id, Name: "db-1", Logins: []string{"dba", "root"}, URL: j.url, UserCAs: []string{certs.Line(j.ca.PublicKey())}, LogKey: j.log.Key,
		HostCertificate: certs.Line(cert), ValidBefore: time.Now().Add(time.Hour).UTC(), HostCA: certs.Line(j.hostCA.PublicKey()),
		Settings: hostapi.Settings{MaxSilenceSeconds: 86400, RenewAt: time.Now().Add(time.Hour).UTC()}}
	if j.lie != nil {
		j.lie(&e)
	}
	return e
}

// run runs sally-host on the host, and returns what it says and its exit code.
func (j *joining) run(args ...string) (string, int) {
	j.t.Helper()
	out, err := j.Command(j.t.Context(), "/usr/local/bin/sally-host", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		j.t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

func (j *joining) enroll(args ...string) string {
	j.t.Helper()
	out, code := j.run(append([]string{"enroll", "--non-interactive", "--url", j.url}, args...)...)
	if code != exitDone {
		j.t.Fatalf("it ended with %d:\n%s\n%s", code, out, j.Log())
	}
	return out
}

// asAdmin is whether the administrator's key opens the login.
func (j *joining) asAdmin(login string) error {
	client, err := ssh.Dial("tcp", j.Addr(), &ssh.ClientConfig{User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(j.admin)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second})
	if err != nil {
		return err
	}
	return client.Close()
}

func (j *joining) byKey(login string) {
	j.t.Helper()
	if err := j.asAdmin(login); err != nil {
		j.t.Fatalf("the administrator is locked out: %v\n%s", err, j.Log())
	}
}

func (j *joining) notByKey(login string) {
	j.t.Helper()
	if err := j.asAdmin(login); err == nil {
		j.t.Fatalf("the administrator's key still opens %s", login)
	}
}

// files are those that enrolment could change, by name.
func (j *joining) files() map[string]string {
	j.t.Helper()
	all := map[string]string{}
	for _, name := range []string{"/etc/ssh/sshd_config", "/etc/pam.d/sshd", "/etc/ssh/sshd_config.d/00-sallyport.conf"} {
		text, err := os.ReadFile(j.Path(name))
		if err == nil {
			all[name] = string(text)
		} else if !os.IsNotExist(err) {
			j.t.Fatal(err)
		}
	}
	return all
}
