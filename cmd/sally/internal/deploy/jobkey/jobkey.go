// Package jobkey is the key of a job that deploys, and how it signs the job's calls.
//
// A job makes its key anew and for itself. `sally deploy run` keeps it in memory only.
// Where the steps of a deployment are commands of their own, the key must outlive each:
// it is then a file in the runtime folder ([Folder]) that its owner alone can read, and
// is removed when the deployment ends.
package jobkey

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/internal/clock"
)

// Key is a job's key. It is safe for concurrent use.
type Key struct {
	private ed25519.PrivateKey
	signer  ssh.Signer
	random  io.Reader
	first   string // nonce of the call that carries the token
}

// New makes a key.
func New(random io.Reader) (*Key, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return of(private, random)
}

func of(private ed25519.PrivateKey, random io.Reader) (*Key, error) {
	k := &Key{private: private, random: random}
	var err error
	if k.signer, err = ssh.NewSignerFromSigner(private); err != nil {
		return nil, fmt.Errorf("use the key: %w", err)
	}
	k.first, err = k.nonce()
	return k, err
}

// Signer signs logins with the key.
func (k *Key) Signer() ssh.Signer { return k.signer }

// Public is the public key, authorized_keys format.
func (k *Key) Public() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

// Audience is the one to ask a token for, so that its issuer signs whose it is.
func (k *Key) Audience(audience string) string {
	return api.AgentAudience(audience, k.signer.PublicKey().Marshal(), k.first)
}

func (k *Key) nonce() (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(k.random, b[:]); err != nil {
		return "", fmt.Errorf("make a nonce: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

type tokenKey struct{}

// WithToken makes the calls of a context carry the job's token: those that open a
// deployment, until one is answered.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// Signed is a transport that signs every call with the key and sends it on.
func (k *Key) Signed(next http.RoundTripper, c clock.Clock) http.RoundTripper {
	return signing{k, next, c}
}

type signing struct {
	key   *Key
	next  http.RoundTripper
	clock clock.Clock
}

// RoundTrip implements http.RoundTripper.
func (s signing) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		if err = errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
	}
	// A RoundTripper must not change what it was given.
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	token, _ := r.Context().Value(tokenKey{}).(string)
	nonce, err := s.key.first, error(nil)
	if token == "" {
		nonce, err = s.key.nonce()
	} else {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if err != nil {
		return nil, err
	}
	at := s.clock.Now().UTC().Truncate(time.Second).Format(time.RFC3339)
	url := r.URL.Scheme + "://" + r.URL.Host + r.URL.RequestURI()
	signature, err := s.key.sign(api.AgentMessage(r.Method, url, body, token, at, nonce))
	if err != nil {
		return nil, err
	}
	r.Header.Set(api.AgentKeyHeader, s.key.Public())
	r.Header.Set(api.AgentTimeHeader, at)
	r.Header.Set(api.AgentNonceHeader, nonce)
	r.Header.Set(api.AgentSignatureHeader, signature)
	return s.next.RoundTrip(r)
}

func (k *Key) sign(message []byte) (string, error) {
	signature, err := sshsig.Sign(bytes.NewReader(message), k.signer, sshsig.HashSHA512, api.AgentNamespace)
	if err != nil {
		return "", fmt.Errorf("sign a call: %w", err)
	}
	block, _ := pem.Decode(sshsig.Armor(signature))
	return base64.StdEncoding.EncodeToString(block.Bytes), nil
}
