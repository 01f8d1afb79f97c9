// Package agenttest has issuers of workloads' tokens for tests, one for each kind that
// the policy knows: real HTTPS servers with discovery and keys, whose tokens have the
// names and types of the true ones. They can be told to go wrong. And it has jobs, which
// make a key, get a token and sign their calls.
package agenttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/internal/clock"
)

// Issuer is one issuer.
type Issuer struct {
	Provider policy.AgentProvider
	URL      string
	// Asked counts how often the keys were fetched.
	Asked atomic.Int64

	clock  clock.Clock
	server *httptest.Server

	mu     sync.Mutex
	keys   []Key                                             // published, guarded by mu
	faulty func(w http.ResponseWriter, r *http.Request) bool // guarded by mu
}

// Key is a key that an issuer signs with.
type Key struct {
	ID, Algorithm string
	Private       crypto.Signer
}

// rsaKey is one for all issuers with RSA: to make one takes long, and tests have no use for a second.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// New starts an issuer, with one key, until the test ends.
func New(t testing.TB, provider policy.AgentProvider, c clock.Clock) *Issuer {
	t.Helper()
	i := &Issuer{Provider: provider, clock: c}
	switch provider {
	case policy.SPIFFE:
		i.keys = []Key{NewKey(t, "key-1")}
	case policy.Generic:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i.keys = []Key{{"key-1", "EdDSA", private}}
	default:
		i.keys = []Key{{"key-1", "RS256", rsaKey()}}
	}
	i.server = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	i.server.Config.ErrorLog = nil
	i.URL = i.server.URL + shapes[provider].path
	t.Cleanup(i.server.Close)
	return i
}

// NewKey is a new P-256 key.
func NewKey(t testing.TB, id string) Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Key{id, "ES256", private}
}

// Roots are what clients must trust to reach issuers.
func Roots(issuers ...*Issuer) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, i := range issuers {
		pool.AddCert(i.server.Certificate())
	}
	return pool
}

// Certificate is Roots of one issuer as a file has it, for programs.
func (i *Issuer) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw})
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	faulty := i.faulty
	i.mu.Unlock()
	if faulty != nil && faulty(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case shapes[i.Provider].path + "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}})
	case shapes[i.Provider].path + "/keys":
		i.Asked.Add(1)
		w.Write(i.KeySet())
	default:
		http.NotFound(w, r)
	}
}

// Fault has f answer instead, where it returns true. Nil is no fault.
func (i *Issuer) Fault(f func(w http.ResponseWriter, r *http.Request) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faulty = f
}

// Publish replaces the keys that the issuer publishes. The first signs.
func (i *Issuer) Publish(keys ...Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Keys are those that the issuer publishes.
func (i *Issuer) Keys() []Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]Key{}, i.keys...)
}

// KeySet is the JWK set that the issuer publishes.
func (i *Issuer) KeySet() []byte {
	var set jose.JSONWebKeySet
	for _, k := range i.Keys() {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return text
}

// Token is a token with the claims, signed by the issuer's first key.
func (i *Issuer) Token(t testing.TB, claims map[string]any) string {
	t.Helper()
	key := i.Keys()[0]
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return Sign(t, key, headerOf(i.Provider, key.Algorithm, key.ID), string(text))
}

// Sign makes a token of any header and payload by the key, whatever they say.
func Sign(t testing.TB, key Key, header map[string]any, payload string) string {
	t.Helper()
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	signed := encode(head) + "." + encode([]byte(payload))
	signature, err := jwt.GetSigningMethod(key.Algorithm).Sign(signed, key.Private)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(signature)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Job is one job of a pipeline: it has a key of its own.
type Job struct {
	Key    ssh.Signer
	Nonce  string // of the first call
	Source string

	broker string
	clock  clock.Clock
}

// NewJob is a job with a new key, which calls the broker at the URL.
func NewJob(t testing.TB, brokerURL string, c clock.Clock) *Job {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &Job{Key: key, Nonce: nonce(), Source: "192.0.2.7", broker: brokerURL, clock: c}
}

func nonce() string {
	var b [32]byte
	rand.Read(b[:])
	return encode(b[:])
}

// Audience is the one to ask a token for, where it is bound to the key.
func (j *Job) Audience(audience string) string {
	return api.AgentAudience(audience, j.Key.PublicKey().Marshal(), j.Nonce)
}

// Token is one of the issuer for this job: bound to its key where that is the way of
// the provider if the policy does not say.
func (j *Job) Token(t testing.TB, i *Issuer) string {
	t.Helper()
	switch i.Provider {
	case policy.GitHub, policy.Buildkite, policy.SPIFFE:
		return i.Token(t, i.Claims(j.Audience(j.broker)))
	}
	return i.Token(t, i.Claims(j.broker))
}

// First is the job's first call, with a token.
func (j *Job) First(t testing.TB, method, path string, body []byte, token string) agents.Call {
	t.Helper()
	return j.sign(t, method, path, body, token, j.Nonce)
}

// Call is one of the calls that follow.
func (j *Job) Call(t testing.TB, method, path string, body []byte) agents.Call {
	t.Helper()
	return j.sign(t, method, path, body, "", nonce())
}

func (j *Job) sign(t testing.TB, method, path string, body []byte, token, nonce string) agents.Call {
	t.Helper()
	c := agents.Call{Method: method, URL: strings.TrimSuffix(j.broker, "/") + path, Body: body, Nonce: nonce, Source: j.Source,
		Time: j.clock.Now().UTC().Truncate(time.Second).Format(time.RFC3339),
		Key:  strings.TrimSpace(string(ssh.MarshalAuthorizedKey(j.Key.PublicKey())))}
	return j.Resign(t, c, token)
}

// Resign signs a call anew, as it is.
func (j *Job) Resign(t testing.TB, c agents.Call, token string) agents.Call {
	t.Helper()
	message := api.AgentMessage(c.Method, c.URL, c.Body, token, c.Time, c.Nonce)
	signature, err := sshsig.Sign(strings.NewReader(string(message)), j.Key, sshsig.HashSHA512, api.AgentNamespace)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(sshsig.Armor(signature))
	c.Signature = base64.StdEncoding.EncodeToString(block.Bytes)
	return c
}

// Headers are those of a call, for a client of HTTP.
func Headers(c agents.Call, token string) http.Header {
	h := http.Header{}
	h.Set(api.AgentKeyHeader, c.Key)
	h.Set(api.AgentTimeHeader, c.Time)
	h.Set(api.AgentNonceHeader, c.Nonce)
	h.Set(api.AgentSignatureHeader, c.Signature)
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}
