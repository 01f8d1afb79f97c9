package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
)

// Two brokers on one database issue at once, and one is killed in between and
// started again: the log has no gap, its head is signed and consistent, and
// there is one event for every certificate that reached a caller (P1, P8).
func TestP8_TwoBrokersOneLog(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	other := freeAddress(t)
	second := h.serve(other)
	h.register("web-1", map[string]string{"class": "web"}, "web")

	const people, each = 8, 12
	var mu sync.Mutex
	issued := map[uint64]api.Certificate{}
	var work sync.WaitGroup
	before := h.checkpoint(t)
	erin := h.signIn(engineer)
	for n := range people {
		var r api.Request
		erin.call("POST", "/requests", api.RequestInput{Host: "web-1", Login: "web", Reason: "two brokers"}, &r, 201)
		key := newSigner(t)
		proof := prove(t, key, h.URL, r.ID)
		work.Go(func() {
			c := *erin
			if n%2 == 1 {
				c.url = "http://" + other
			}
			for range each {
				var cert api.Certificate
				err := c.try("POST", "/requests/"+r.ID+"/certificates",
					api.CertificateInput{PublicKey: authorized(key.PublicKey()), Proof: proof}, &cert)
				var refused *api.Problem
				if errors.As(err, &refused) {
					t.Errorf("refused: %v", refused)
				}
				if err != nil {
					continue // the broker was down; nothing was promised
				}
				mu.Lock()
				if _, twice := issued[cert.Serial]; twice {
					t.Errorf("serial %d was issued twice", cert.Serial)
				}
				issued[cert.Serial] = cert
				half := len(issued) == people*each/2
				mu.Unlock()
				if half {
					second.Stop(9, 0) // no time to say goodbye
					h.serve(other)
				}
			}
		})
	}
	work.Wait()
	if len(issued) < people*each/2 {
		t.Errorf("only %d certificates were issued", len(issued))
	}

	after := h.checkpoint(t) // what came of the last certificates is still on its way
	head, err := audit.CheckAll(t.Context(), h.db.Pool, h.verifier(t))
	if err != nil {
		t.Fatalf("the log: %v", err)
	}
	events := h.certificateEvents(t)
	for serial, cert := range issued {
		e, ok := events[serial]
		if !ok {
			t.Errorf("certificate %d reached a caller, and the log knows nothing of it", serial)
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cert.Certificate))
		if err != nil {
			t.Fatal(err)
		}
		if c := key.(*ssh.Certificate); c.KeyId != e.KeyID || len(c.ValidPrincipals) != 1 || c.ValidPrincipals[0] != e.Principal {
			t.Errorf("certificate %d is not what the log says: %+v", serial, c)
		}
	}
	if after.N <= before.N || after.N > head.N {
		t.Errorf("the checkpoint went from %d to %d, the log has %d", before.N, after.N, head.N)
	}
}

// register adds a host without an sshd.
func (h *house) register(name string, labels map[string]string, logins ...string) api.Host {
	h.t.Helper()
	var host api.Host
	h.signIn(operator).call("POST", "/hosts", api.HostInput{
		Name: name, Address: "127.0.0.1:9", Labels: labels, Logins: logins}, &host, 201)
	return host
}

func (h *house) verifier(t testing.TB) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(strings.TrimSpace((&client{t: t, url: h.URL, http: plain}).text("/log/vkey")))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkpoint fetches and verifies the tree head that anybody may see.
func (h *house) checkpoint(t testing.TB) tlog.Tree {
	t.Helper()
	v := h.verifier(t)
	n, err := note.Open([]byte((&client{t: t, url: h.URL, http: plain}).text("/log/checkpoint")), note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	var origin string
	var size int64
	var root string
	if _, err := fmt.Sscan(n.Text, &origin, &size, &root); err != nil || origin != v.Name() {
		t.Fatalf("the checkpoint cannot be read: %v\n%s", err, n.Text)
	}
	hash, err := tlog.ParseHash(root)
	if err != nil {
		t.Fatal(err)
	}
	return tlog.Tree{N: size, Hash: hash}
}

// certificateEvents reads the log by the database, and decodes it.
func (h *house) certificateEvents(t testing.TB) map[uint64]event.CertificateIssued {
	t.Helper()
	rows, err := h.db.Pool.Query(context.Background(), `SELECT leaf FROM audit.entries WHERE type = 'certificate.issued'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	events := map[uint64]event.CertificateIssued{}
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode(leaf)
		if err != nil {
			t.Fatal(err)
		}
		data := e.Data.(event.CertificateIssued)
		if _, twice := events[data.Serial]; twice {
			t.Errorf("two events for certificate %d", data.Serial)
		}
		events[data.Serial] = data
	}
	return events
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func authorized(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

func prove(t testing.TB, key ssh.Signer, url, request string) string {
	t.Helper()
	sig, err := sshsig.Sign(strings.NewReader(string(api.ProofMessage(url, request))), key, sshsig.HashSHA512, api.ProofNamespace)
	if err != nil {
		t.Fatal(err)
	}
	return string(sshsig.Armor(sig))
}
