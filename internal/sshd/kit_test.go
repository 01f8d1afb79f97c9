package sshd_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/sshd"
)

func runs(t *testing.T, argument string) bool {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), "sleep\x00"+argument+"\x00") {
			return true
		}
	}
	return false
}

func answers(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func startHost(t *testing.T, ca *authority, name, listen string) (host *sshd.Host, knownHosts string) {
	t.Helper()
	key, err := sshd.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	logins := []string{"root", "dba"}
	if name == "web-1" {
		logins = []string{"web", "root"}
	}
	principals := map[string][]string{}
	for _, l := range logins {
		principals[l] = []string{l + "@" + name}
	}
	host, err = sshd.Start(t.Context(), sshd.Config{Name: name, Listen: listen, HostKey: key,
		HostCertificate: ca.signHost(t, key, name), UserCA: ca.public, Principals: principals, Logins: logins})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Stop)
	knownHosts = filepath.Join(t.TempDir(), "known_hosts")
	line := "@cert-authority " + name + " " + ca.public + "\n"
	if err := os.WriteFile(knownHosts, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return host, knownHosts
}

// authority is the test's own CA, for people and hosts.
type authority struct {
	signer ssh.Signer
	public string
}

func makeAuthority() (*authority, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	return &authority{signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}, nil
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca, err := makeAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (a *authority) certifyHost(key *sshd.HostKey, name string) (string, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key.Public))
	if err != nil {
		return "", err
	}
	cert := &ssh.Certificate{Key: public, CertType: ssh.HostCert, KeyId: name, ValidPrincipals: []string{name},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(cert)), nil
}

func (a *authority) signHost(t *testing.T, key *sshd.HostKey, name string) string {
	t.Helper()
	cert, err := a.certifyHost(key, name)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// sign certifies the person's key for one span of time.
func (a *authority) sign(t *testing.T, p *person, principals []string, from, to time.Time) string {
	t.Helper()
	cert := &ssh.Certificate{Key: p.signer.PublicKey(), CertType: ssh.UserCert, KeyId: "test", ValidPrincipals: principals,
		ValidAfter: uint64(from.Unix()), ValidBefore: uint64(to.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(cert))
}

// person has a key in a file.
type person struct {
	dir    string
	signer ssh.Signer
	public string
}

func newPerson(t *testing.T) *person {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &person{dir, signer, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))}
}

func (p *person) ssh(t *testing.T, cert string, host *sshd.Host, known, login, command string) (string, error) {
	t.Helper()
	return p.sshWith(t, "", cert, host, known, login, command)
}

// sshWith runs OpenSSH's client with the certificate and returns all it says.
func (p *person) sshWith(t *testing.T, stdin, cert string, host *sshd.Host, known, login, command string) (string, error) {
	t.Helper()
	address, port, err := net.SplitHostPort(host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	name := "db-1"
	if line, err := os.ReadFile(known); err == nil {
		name = strings.Fields(string(line))[1]
	}
	args := []string{"-F", "none", "-i", filepath.Join(p.dir, "key"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=" + name, "-p", port}
	if cert != "" {
		file, err := os.CreateTemp(p.dir, "cert-*.pub")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(cert); err != nil {
			t.Fatal(err)
		}
		file.Close()
		args = append(args, "-o", "CertificateFile="+file.Name())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append(args, login+"@"+address, command)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *person) dial(t *testing.T, cert string, host *sshd.Host, login string) *ssh.Client {
	t.Helper()
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cert))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(public.(*ssh.Certificate), p.signer)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", host.Addr(), &ssh.ClientConfig{User: login,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatalf("%v\n%s", err, host.Log())
	}
	t.Cleanup(func() { client.Close() })
	return client
}
