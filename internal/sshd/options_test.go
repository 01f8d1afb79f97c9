package sshd_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
	"sallyport/internal/sshd"
)

// securityKey plays a FIDO token (PROTOCOL.u2f) that is touched at each signature
// and, if it verifies, has asked its person for a PIN.
type securityKey struct {
	private  ed25519.PrivateKey
	public   ssh.PublicKey
	verifies bool
}

func newSecurityKey(t *testing.T) *securityKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name        string
		Public      []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return &securityKey{private: private, public: key}
}

func (k *securityKey) PublicKey() ssh.PublicKey { return k.public }

func (k *securityKey) Sign(_ io.Reader, message []byte) (*ssh.Signature, error) {
	application, digest := sha256.Sum256([]byte("ssh:")), sha256.Sum256(message)
	flags := []byte{1, 0, 0, 0, 7} // touched; the counter
	if k.verifies {
		flags[0] |= 4
	}
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Rest: flags,
		Blob: ed25519.Sign(k.private, slices.Concat(application[:], flags, digest[:]))}, nil
}

// The real sshd gives what the broker's certificates say, and nothing else.
func TestSSHDGivesWhatTheCertificateSays(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	key, err := sshd.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	id := ids.New(ids.Host)
	host, err := sshd.Start(t.Context(), sshd.Config{Name: "db-1", Listen: "127.0.0.3:0", HostKey: key, HostCertificate: ca.signHost(t, key, "db-1"),
		UserCA: ca.public, Logins: []string{"dba"}, Principals: map[string][]string{"dba": {"dba@" + id}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Stop)
	erin := newPerson(t)
	enter := func(t *testing.T, by ssh.Signer, change func(*certs.User)) (*ssh.Client, error) {
		t.Helper()
		now := time.Now()
		u := certs.User{Serial: 1, Key: by.PublicKey(), Login: "dba", HostID: id, RequestID: ids.New(ids.Request), PersonID: ids.New(ids.Person),
			Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}
		change(&u)
		cert := certtest.NewLog(t, "sallyport.example.com/log").Certify(u, ca.signer)
		signer, err := ssh.NewCertSigner(cert, by)
		if err != nil {
			t.Fatal(err)
		}
		client, err := ssh.Dial("tcp", host.Addr(), &ssh.ClientConfig{User: "dba", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err == nil {
			t.Cleanup(func() { client.Close() })
		}
		return client, err
	}

	for name, c := range map[string]struct {
		change           func(*certs.User)
		pty, port, agent bool
	}{
		"as usual":   {func(*certs.User) {}, true, false, false},
		"nothing":    {func(u *certs.User) { u.NoPTY = true }, false, false, false},
		"port":       {func(u *certs.User) { u.Forwarding = []string{"port"} }, true, true, false},
		"agent only": {func(u *certs.User) { u.NoPTY, u.Forwarding = true, []string{"agent"} }, false, false, true},
		"from here":  {func(u *certs.User) { u.SourceAddress = []string{"127.0.0.0/8"} }, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := enter(t, erin.signer, c.change)
			if err != nil {
				t.Fatalf("%v\n%s", err, host.Log())
			}
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := session.RequestPty("xterm", 24, 80, nil); (err == nil) != c.pty {
				t.Errorf("a terminal: %v", err)
			}
			if err := agent.RequestAgentForwarding(session); (err == nil) != c.agent {
				t.Errorf("the agent: %v", err)
			}
			forwarded, err := client.Dial("tcp", host.Addr())
			if (err == nil) != c.port {
				t.Errorf("a port: %v", err)
			}
			if err == nil {
				forwarded.Close()
			}
			if out, err := session.CombinedOutput("id -un"); err != nil || !strings.HasPrefix(string(out), "dba") {
				t.Errorf("a command: %q, %v", out, err)
			}
		})
	}
	t.Run("from elsewhere", func(t *testing.T) {
		t.Parallel()
		if _, err := enter(t, erin.signer, func(u *certs.User) { u.SourceAddress = []string{"192.0.2.0/24"} }); err == nil {
			t.Error("a certificate for other addresses opened the host")
		}
	})
	t.Run("a security key that must verify", func(t *testing.T) {
		t.Parallel()
		token := newSecurityKey(t)
		must := func(u *certs.User) { u.VerifyRequired = true }
		if _, err := enter(t, token, must); err == nil {
			t.Error("a touch alone opened the host")
		}
		token.verifies = true
		if _, err := enter(t, token, must); err != nil {
			t.Errorf("touched and verified: %v\n%s", err, host.Log())
		}
	})
}
