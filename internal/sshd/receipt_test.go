package sshd_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
	"sallyport/internal/sshd"
)

// Stock ssh and sshd take certificates with receipts, the host's too, and what
// ssh-keygen reads of them is what the log has.
func TestStockOpenSSHTakesReceipts(t *testing.T) {
	t.Parallel()
	users, machines, log := newAuthority(t), newAuthority(t), certtest.NewLog(t, "sallyport.example.com/log")
	log.Grow(5000) // receipts of a dozen hashes
	now, id := time.Now(), ids.New(ids.Host)
	key, err := sshd.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := certs.ParseKey(key.Public)
	if err != nil {
		t.Fatal(err)
	}
	hostCertificate := log.CertifyHost(certs.Host{Serial: 7, Key: public, HostID: id, Names: []string{"db-1"}, Now: now, Lifetime: time.Hour}, machines.signer, rand.Reader)
	host, err := sshd.Start(t.Context(), sshd.Config{Name: "db-1", HostKey: key, HostCertificate: certs.Line(hostCertificate),
		UserCA: users.public, Logins: []string{"dba", "root"}, Principals: map[string][]string{"dba": {"dba@" + id}, "root": {"root@" + id}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Stop)
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte("@cert-authority "+id+" "+machines.public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	erin := newPerson(t)
	issue := func(login string) *ssh.Certificate {
		return log.Certify(certs.User{Serial: 42, Key: erin.signer.PublicKey(), Login: login, HostID: id, RequestID: ids.New(ids.Request),
			PersonID: ids.New(ids.Person), Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}, users.signer)
	}
	cert := issue("dba")
	out, err := erin.ssh(t, certs.Line(cert), host, known, "dba", "echo here I am")
	if err != nil || !strings.Contains(out, "here I am") {
		t.Fatalf("ssh said %v\n%s\n%s", err, out, host.Log())
	}
	// The client took the host for its certificate alone, which has a receipt, too.
	if logged, err := certs.CheckReceipt(hostCertificate.Marshal(), log.Verifier); err != nil || logged.HostID != id {
		t.Errorf("the host's certificate: %v", err)
	}
	if out, err := erin.ssh(t, certs.Line(cert), host, known, "root", "true"); err == nil {
		t.Errorf("a certificate for dba let root in\n%s", out)
	}
	if _, err := certs.Admit(cert.Marshal(), certs.Trust{CAs: []ssh.PublicKey{users.signer.PublicKey()}, Log: log.Verifier}, "dba", id, time.Now()); err != nil {
		t.Error(err)
	}

	for name, c := range map[string]*ssh.Certificate{"of a person": cert, "of a host": hostCertificate} {
		file := filepath.Join(t.TempDir(), "id-cert.pub")
		if err := os.WriteFile(file, []byte(certs.Line(c)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("ssh-keygen", "-L", "-f", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "tlog-proof@sallyport.example.com UNKNOWN OPTION") {
			t.Errorf("the certificate %s, as ssh-keygen reads it: %v\n%s", name, err, out)
		}
	}
	// sshd itself takes what the stolen CA's key signs: whoever wants more must ask
	// the receipt, as certs.Admit does.
	forged := certtest.Resign(t, issue("dba"), users.signer, func(c *ssh.Certificate) { delete(c.Extensions, "tlog-proof@sallyport.example.com") })
	if out, err := erin.ssh(t, certs.Line(forged), host, known, "dba", "true"); err != nil {
		t.Errorf("sshd without a helper refused the forgery: %v\n%s", err, out)
	}
	if _, err := certs.Admit(forged.Marshal(), certs.Trust{CAs: []ssh.PublicKey{users.signer.PublicKey()}, Log: log.Verifier}, "dba", id, time.Now()); certs.ReasonOf(err) != certs.NoReceipt {
		t.Errorf("the check said %v", err)
	}
}
