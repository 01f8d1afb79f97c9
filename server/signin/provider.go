package signin

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/approvals/evidence"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

var (
	// ErrProviderDown says that the provider cannot be reached.
	ErrProviderDown = refusal.New(refusal.Unavailable, "provider-down",
		"the identity provider does not answer, so nobody can sign in now",
		"try again in a minute; whoever is signed in can go on working")
	// ErrProviderRefused says that the provider did not vouch for anybody.
	ErrProviderRefused = refusal.New(refusal.Unauthenticated, "provider-refused",
		"the identity provider refused the sign-in", "start again: open Sallyport and sign in")
	// ErrBadIDToken says that what the provider, or somebody who plays it, sent
	// proves nothing. What exactly is wrong is for the process's log.
	ErrBadIDToken = refusal.New(refusal.Unauthenticated, "bad-id-token",
		"the identity provider's answer could not be verified",
		"start again; if it stays, an operator finds the reason in the broker's log")
)

const (
	providerTimeout = 10 * time.Second
	// startTimeout is how long the broker's own start waits for the provider.
	startTimeout = 2 * time.Second
	// discoveryPause is how long a failed look for the provider is believed.
	discoveryPause = 2 * time.Second
)

// provider is the OIDC provider, which may not have been found yet.
type provider struct {
	issuer       string
	clientID     string
	clientSecret string
	redirect     string
	clock        clock.Clock
	http         *http.Client

	mu      sync.Mutex
	found   *found        // guarded by mu
	failed  error         // of the last look, guarded by mu
	at      time.Time     // when that ended, guarded by mu
	looking chan struct{} // closed when the look under way ends, guarded by mu
}

// found is what discovery told.
type found struct {
	oauth      oauth2.Config
	keys       oidc.KeySet
	keysURL    string
	endSession string // empty if the provider offers none
}

func newProvider(cfg Config) *provider {
	return &provider{
		issuer: cfg.Issuer, clientID: cfg.ClientID, clientSecret: cfg.ClientSecret,
		redirect: cfg.URL + CallbackPath, clock: cfg.Clock,
		http: &http.Client{Timeout: providerTimeout},
	}
}

// discover returns the provider. Until it is found it is looked for again, but
// not at every call, and by one caller for all.
func (p *provider) discover(ctx context.Context) (*found, error) {
	p.mu.Lock()
	f, looking, failed := p.lookLocked()
	p.mu.Unlock()
	if looking != nil {
		select {
		case <-looking:
		case <-ctx.Done():
			return nil, ErrProviderDown.Because(ctx.Err())
		}
		p.mu.Lock()
		f, failed = p.found, p.failed
		p.mu.Unlock()
	}
	return f, failed
}

// ready says why the provider cannot be used, as far as is known. It never
// waits: whether the broker is well must not depend on how fast another answers.
func (p *provider) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, looking, failed := p.lookLocked()
	if looking != nil {
		return ErrProviderDown.Because(errors.New("it has not answered yet"))
	}
	return failed
}

// lookLocked returns what is known or, if that is nothing or old, the look under
// way, which it starts if need be.
func (p *provider) lookLocked() (*found, <-chan struct{}, error) {
	if p.found != nil {
		return p.found, nil, nil
	}
	if p.looking != nil {
		return nil, p.looking, nil
	}
	if p.failed != nil && p.clock.Now().Sub(p.at).Abs() < discoveryPause {
		return nil, nil, p.failed
	}
	done := make(chan struct{})
	p.looking = done
	go func() {
		ctx, cancel := context.WithTimeout(oidc.ClientContext(context.Background(), p.http), providerTimeout)
		defer cancel()
		f, err := p.look(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.found, p.failed, p.at, p.looking = f, nil, p.clock.Now(), nil; err != nil {
			p.failed = ErrProviderDown.Because(err)
		}
		close(done)
	}()
	return nil, done, nil
}

func (p *provider) look(ctx context.Context) (*found, error) {
	op, err := oidc.NewProvider(ctx, p.issuer)
	if err != nil {
		return nil, fmt.Errorf("discovering the provider: %w", err)
	}
	var more struct {
		Keys       string   `json:"jwks_uri"`
		EndSession string   `json:"end_session_endpoint"`
		Scopes     []string `json:"scopes_supported"`
	}
	if err := op.Claims(&more); err != nil {
		return nil, fmt.Errorf("reading the provider's metadata: %w", err)
	}
	scopes := []string{oidc.ScopeOpenID, "profile", "email"}
	if slices.Contains(more.Scopes, "groups") { // not a standard scope: some refuse it, some need it
		scopes = append(scopes, "groups")
	}
	return &found{
		oauth: oauth2.Config{ClientID: p.clientID, ClientSecret: p.clientSecret, Endpoint: op.Endpoint(),
			RedirectURL: p.redirect, Scopes: scopes},
		keys:       oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.http), more.Keys),
		keysURL:    more.Keys,
		endSession: more.EndSession,
	}, nil
}

// redeem exchanges the code that a browser brought back for the ID token, and
// verifies that (OpenID Connect Core 1.0 section 3.1.3.7) and its nonce.
func (p *provider) redeem(ctx context.Context, code string, f flow) (raw string, token *oidc.IDToken, err error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.http), providerTimeout)
	defer cancel()
	answer, err := found.oauth.Exchange(ctx, code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return "", nil, exchangeError(err)
	}
	raw, ok := answer.Extra("id_token").(string)
	if !ok {
		return "", nil, ErrBadIDToken.Because(errors.New("no id_token in the answer"))
	}
	keys := &keySet{KeySet: found.keys}
	token, err = oidc.NewVerifier(p.issuer, keys, &oidc.Config{
		ClientID: p.clientID, SupportedSigningAlgs: evidence.Algorithms, Now: p.clock.Now,
	}).Verify(ctx, raw)
	if err != nil {
		if keys.absent {
			return "", nil, ErrProviderDown.Because(errors.New("its keys cannot be fetched"))
		}
		return "", nil, ErrBadIDToken.Because(err)
	}
	if f.Nonce == "" || subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(f.Nonce)) != 1 {
		return "", nil, ErrBadIDToken.Because(errors.New("another nonce"))
	}
	return raw, token, nil
}

// keySet notes whether a check failed because the provider's keys could not be
// fetched: that is nobody's attack. The verifier hands down errors as text only.
type keySet struct {
	oidc.KeySet
	absent bool
}

func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, jwt)
	k.absent = err != nil && strings.HasPrefix(err.Error(), "fetching keys")
	return payload, err
}

// exchangeError tells a provider that says no from one that is not there. The
// text of the library's error may hold the provider's whole answer, so that only
// its code and status are kept (P11).
func exchangeError(err error) error {
	var no *oauth2.RetrieveError
	if !errors.As(err, &no) {
		if strings.Contains(err.Error(), "access_token") { // "server response missing access_token"
			return ErrBadIDToken.Because(errors.New("no access_token in the answer"))
		}
		return ErrProviderDown.Because(errors.New("the code could not be exchanged"))
	}
	cause := fmt.Errorf("the token endpoint answered %d %q", no.Response.StatusCode, plain(no.ErrorCode))
	if no.Response.StatusCode >= http.StatusInternalServerError {
		return ErrProviderDown.Because(cause)
	}
	return ErrProviderRefused.Because(cause)
}

// plain keeps error codes of others only if they look like ones (RFC 6749
// section 5.2), so that nothing else of an answer gets into logs and pages.
func plain(code string) string {
	if len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "error"
	}
	return code
}
