package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/vouch"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
	"sallyport/internal/sshd"
)

// program builds sally-host as it is shipped, once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "sally-host")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "sally-host")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
})

// groupOfHelper is that of the kit's first account that is no login.
const groupOfHelper = 61099

// asks is what sshd needs to ask the helper.
const asks = `AuthorizedPrincipalsFile none
AuthorizedPrincipalsCommand ` + place.Program + ` principals %u %k
AuthorizedPrincipalsCommandUser _sallyport
PidFile /run/sshd.pid
`

// guarded is a host whose sshd asks sally-host, and the broker that it belongs to.
type guarded struct {
	*sshd.Host
	t     testing.TB
	place place.Place // the host's files, from here
	id    string
	ca    ssh.Signer
	log   *certtest.Log
	list  hostapi.Revocations // what the broker has revoked
	key   ssh.Signer          // Erin's
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// guard starts a host with logins dba and root that knows its broker and has just heard
// from it.
func guard(t testing.TB) *guarded { return guardWith(t, asks) }

func guardWith(t testing.TB, settings string) *guarded { return guardOn(t, "", settings) }

// guardOn is guardWith on a host with another system's files.
func guardOn(t testing.TB, system, settings string) *guarded {
	t.Helper()
	g := &guarded{t: t, id: ids.New(ids.Host), ca: newSigner(t), log: certtest.NewLog(t, "sallyport.example.com/log"), key: newSigner(t)}
	g.log.Grow(1000)
	hostKey, err := sshd.NewHostKey()
	must(t, err)
	public, err := certs.ParseKey(hostKey.Public)
	must(t, err)
	hostCertificate := certs.Line(g.log.CertifyHost(certs.Host{Serial: 7, Key: public, HostID: g.id, Names: []string{"db-1"}, Now: time.Now(), Lifetime: time.Hour}, newSigner(t), rand.Reader))
	g.Host, err = sshd.Start(t.Context(), sshd.Config{Name: "db-1", System: system, HostKey: hostKey, HostCertificate: hostCertificate, UserCA: certs.Line(g.ca.PublicKey()),
		Logins: []string{"dba", "root"}, Principals: map[string][]string{"dba": {"dba@" + g.id}}, Accounts: []string{"_sallyport"}, Settings: settings})
	must(t, err)
	t.Cleanup(g.Stop)
	must(t, g.Journal())
	binary, err := program()
	must(t, err)
	// Written by another process: what this one has open for writing, whatever it starts at
	// that moment has open, too, and then it cannot be run.
	install := g.Command(t.Context(), "sh", "-c", "mkdir -p /usr/lib/sallyport && cat >"+place.Program+" && chmod 755 "+place.Program)
	install.Stdin = bytes.NewReader(binary)
	must(t, install.Run())
	g.place = place.Place{Root: g.Path("/")}
	must(t, os.MkdirAll(g.place.State(), 0o750))
	must(t, os.Chown(g.place.State(), 0, groupOfHelper))
	must(t, os.Chmod(g.place.State(), 0o750|os.ModeSetgid))
	must(t, g.place.Keep(place.Settings{HostKey: "/etc/ssh/host_key", Enrolment: hostapi.Enrolment{HostID: g.id, Name: "db-1", URL: "https://sallyport.example.com",
		UserCAs: []string{certs.Line(g.ca.PublicKey())}, LogKey: g.log.Key, HostCertificate: hostCertificate, Settings: hostapi.Settings{MaxSilenceSeconds: 86400}}}))
	g.hear(time.Now())
	return g
}

// note is the broker's word on its list, as of then.
func (g *guarded) note(at time.Time) string {
	g.t.Helper()
	list := g.list
	list.MadeAt = at.UTC().Truncate(time.Second)
	text, err := json.Marshal(list)
	must(g.t, err)
	msg, err := vouch.Sign(hostapi.RevocationsKind, string(text), g.log.Signer)
	must(g.t, err)
	return string(msg)
}

// hear has the host hear from the broker, as its daemon would put it down.
func (g *guarded) hear(at time.Time) {
	g.t.Helper()
	g.put(g.place.Revocations(), notes(g.t, g.note(at)))
}

func notes(t testing.TB, list ...string) string {
	t.Helper()
	text, err := json.Marshal(list)
	must(t, err)
	return string(text)
}

func (g *guarded) put(name, text string) {
	g.t.Helper()
	must(g.t, place.Write(name, []byte(text), 0o644))
}

// terms are those of a certificate that opens dba for Erin, now.
func (g *guarded) terms() certs.User {
	now := time.Now()
	return certs.User{Serial: 42, Key: g.key.PublicKey(), Login: "dba", HostID: g.id, RequestID: ids.New(ids.Request), PersonID: ids.New(ids.Person),
		Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}
}

// issue logs and signs a certificate, with terms changed.
func (g *guarded) issue(change func(*certs.User)) *ssh.Certificate {
	g.t.Helper()
	u := g.terms()
	if change != nil {
		change(&u)
	}
	return g.log.Certify(u, g.ca)
}

// enter logs in with the certificate, and runs id -un.
func (g *guarded) enter(cert *ssh.Certificate, login string) error {
	g.t.Helper()
	signer, err := ssh.NewCertSigner(cert, g.key)
	must(g.t, err)
	client, err := ssh.Dial("tcp", g.Addr(), &ssh.ClientConfig{User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	must(g.t, err)
	out, err := session.CombinedOutput("id -un")
	if err != nil || strings.TrimSpace(string(out)) != login {
		g.t.Errorf("who came in is %q, %v", out, err)
	}
	return nil
}

func (g *guarded) opens(cert *ssh.Certificate, login string) {
	g.t.Helper()
	if err := g.enter(cert, login); err != nil {
		g.t.Fatalf("the host did not open: %v\n%s", err, g.Log())
	}
}

// refuses expects that the host does not open, and says why in its journal.
func (g *guarded) refuses(cert *ssh.Certificate, login, why string) {
	g.t.Helper()
	before := len(g.Log())
	if err := g.enter(cert, login); err == nil {
		g.t.Fatalf("the host opened\n%s", g.Log()[before:])
	}
	g.says(before, why)
}

// says waits until the journal's lines after before have the text.
func (g *guarded) says(before int, why string) {
	g.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(g.Log()[before:], why) {
		if time.Now().After(deadline) {
			g.t.Fatalf("nobody says %q\n%s", why, g.Log()[before:])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reachable is whether something listens there.
func reachable(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
