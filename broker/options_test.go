package broker_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
)

// securityKey plays a FIDO token with an Ed25519 key (PROTOCOL.u2f), touched at
// each signature.
type securityKey struct {
	private ed25519.PrivateKey
	public  ssh.PublicKey
}

func newSecurityKey(t testing.TB) securityKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name        string
		Public      []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"}))
	must(t, err)
	return securityKey{private, key}
}

func (k securityKey) PublicKey() ssh.PublicKey { return k.public }

func (k securityKey) Sign(_ io.Reader, message []byte) (*ssh.Signature, error) {
	application, digest := sha256.Sum256([]byte("ssh:")), sha256.Sum256(message)
	flags := []byte{1, 0, 0, 0, 7} // touched; the counter
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Rest: flags,
		Blob: ed25519.Sign(k.private, slices.Concat(application[:], flags, digest[:]))}, nil
}

// A certificate gives what the terms say, and nothing else; what the log holds says so.
func TestP2_CertificatesGiveWhatTheTermsSay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("box-1", "10.0.3.9", "options", "bare", "tunnel", "token", "once")
	for _, c := range []struct {
		login                string
		key                  ssh.Signer
		extensions, critical string
	}{
		{"bare", newKey(t), "map[]", "map[]"},
		{"tunnel", newKey(t), "map[permit-agent-forwarding: permit-port-forwarding:]", "map[]"},
		{"token", newSecurityKey(t), "map[permit-pty:]", "map[verify-required:]"},
	} {
		r := s.grant(c.login, "box-1")
		got, cert := s.issue(c.key, r.ID)
		if fmt.Sprint(own(cert)) != c.extensions || fmt.Sprint(cert.CriticalOptions) != c.critical {
			t.Errorf("%s: extensions %q, critical options %q", c.login, cert.Extensions, cert.CriticalOptions)
		}
		logged := s.events("certificate.issued")
		i := slices.IndexFunc(logged, func(e event.Event) bool { return e.ID.String() == got.Event })
		if i < 0 || string(logged[i].Data.(event.CertificateIssued).PreCertificate) != string(s.logged(cert).PreCertificate) {
			t.Errorf("%s: the log has another certificate", c.login)
		}
	}
	s.checkLog()
}

func TestOnlyKeysThatTheTermsTake(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("box-1", "10.0.3.9", "options", "token")
	r := s.grant("token", "box-1")
	s.refusedIssue(s.engineer, r.ID, input(t, newKey(t), r.ID), certs.ErrKeyType)
	// The refused key did not become the grant's.
	s.issue(newSecurityKey(t), r.ID)
}

// However many ask at once, a grant for single use gives one certificate.
func TestSingleUseIsSingle(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("box-1", "10.0.3.9", "options", "once")
	r := s.grant("once", "box-1")
	key := newKey(t)
	in := input(t, key, r.ID)
	var issued atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got, err := s.Issue(t.Context(), s.engineer, r.ID, in); err == nil && got.Certificate != "" {
				issued.Add(1)
			}
		})
	}
	all.Wait()
	if n := issued.Load(); n != 1 {
		t.Errorf("%d certificates came out", n)
	}
	s.refusedIssue(s.engineer, r.ID, in, broker.ErrUsed)
	s.refusedIssue(s.engineer, r.ID, input(t, newKey(t), r.ID), approvals.ErrOtherKey)
	if r, err := s.Request(t.Context(), s.engineer, r.ID); err != nil || r.State != api.Active || len(r.Certificates) != 1 {
		t.Errorf("the request is %+v, %v", r, err)
	}
}
