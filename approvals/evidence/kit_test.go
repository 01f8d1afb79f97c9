package evidence_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/mod/sumdb/note"

	"sallyport/approvals/evidence"
	"sallyport/audit/vouch"
)

const (
	issuer = "https://id.test"
	client = "sallyport"
)

var made = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// logKey is a log's key, which vouches for notes.
type logKey struct {
	signer note.Signer
	anchor evidence.Anchor
}

func newLogKey(t testing.TB) logKey {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "sallyport.test/log")
	must(t, err)
	signer, err := note.NewSigner(private)
	must(t, err)
	return logKey{signer, evidence.Anchor{LogKey: public}}
}

func (k logKey) vouch(kind, text string) ([]byte, error) { return vouch.Sign(kind, text, k.signer) }

// scene is an honest decision that a provider signed. A test changes what it
// likes and calls verify.
type scene struct {
	t        testing.TB
	log      logKey
	key      *ecdsa.PrivateKey
	keys     evidence.Keys
	decision evidence.Decision
	method   jwt.SigningMethod
	sign     any // with which the token is signed
	header   map[string]any
	claims   jwt.MapClaims
	token    string // instead of one made of the above
	note     []byte // instead of one made of keys
}

func newScene(t testing.TB) *scene {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	s := &scene{t: t, log: newLogKey(t), key: key, method: jwt.SigningMethodES256, sign: key,
		header: map[string]any{"kid": "one"}}
	s.keys = evidence.Keys{Issuer: issuer, ClientID: client, GroupsClaim: "groups",
		Keys: []evidence.Key{publicKey(t, "one", key.Public())}, SeenAt: made.Add(20 * time.Second)}
	s.decision = evidence.Decision{
		Statement: []byte(`{"format":"sallyport.decision/1","verdict":"approve"}`), Issuer: issuer, Subject: "ann", ClientID: client,
		Groups: []string{"approvers"}, Made: made, Taken: made.Add(20 * time.Second),
	}
	s.claims = jwt.MapClaims{"iss": issuer, "sub": "ann", "aud": client, "nonce": evidence.Nonce(s.decision.Statement),
		"iat": made.Add(19 * time.Second).Unix(), "exp": made.Add(10 * time.Minute).Unix(), "groups": []string{"staff", "approvers"}}
	return s
}

func (s *scene) proof() evidence.Proof {
	s.t.Helper()
	p := evidence.Proof{IDToken: s.token, Keys: s.note}
	if p.IDToken == "" {
		t := jwt.NewWithClaims(s.method, s.claims)
		for name, value := range s.header {
			t.Header[name] = value
		}
		var err error
		p.IDToken, err = t.SignedString(s.sign)
		must(s.t, err)
	}
	if p.Keys == nil {
		var err error
		p.Keys, err = s.keys.Note(s.log.vouch)
		must(s.t, err)
	}
	return p
}

func (s *scene) verify() error {
	s.t.Helper()
	return evidence.Verify(evidence.Provider, s.decision, s.proof(), s.log.anchor)
}

// publicKey is a key as a provider publishes it.
func publicKey(t testing.TB, id string, key any) evidence.Key {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		b, err := k.Bytes() // 4, X, Y
		must(t, err)
		n := len(b) / 2
		return evidence.Key{Type: "EC", ID: id, Curve: k.Params().Name, X: enc(b[1 : 1+n]), Y: enc(b[1+n:])}
	case *rsa.PublicKey:
		return evidence.Key{Type: "RSA", ID: id, Modulus: enc(k.N.Bytes()), Exponent: enc(big.NewInt(int64(k.E)).Bytes())}
	case ed25519.PublicKey:
		return evidence.Key{Type: "OKP", ID: id, Curve: "Ed25519", X: enc(k)}
	}
	t.Fatalf("no such key: %T", key)
	return evidence.Key{}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
