// Package jwks has the keys by which issuers sign their workloads' tokens. It asks
// issuers that the policy names and nobody else, whatever a token says (jku, x5u and the
// like are not even read), and it is careful about whom it connects to:
//
//   - https only, with the system's roots, through no proxy, and no redirect is followed;
//   - the address that is dialled must be public, or in the blocks that the policy has for
//     the issuer. It is checked when the connection is made, after the name was resolved,
//     so that a name that means something else the second time (DNS rebinding) gains nothing;
//   - an answer has a bounded size, and the whole takes a bounded time, however slowly it comes.
//
// Keys are forgotten. A set is asked for again after RefreshAfter, and nothing is checked
// with one older than MaxAge: a key that the issuer has removed is good for no longer. A
// key that the set does not have is looked for at once, but not more often than Pause.
package jwks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"sallyport/internal/clock"
	"sallyport/internal/keyset"
	"sallyport/internal/refusal"
)

const (
	// MaxAge is how old a set of keys may be that a token is checked with.
	MaxAge = time.Hour
	// RefreshAfter is how old one is before the issuer is asked again.
	RefreshAfter = 10 * time.Minute
	// Pause is how long an issuer is left alone after it was asked.
	Pause = 10 * time.Second

	maxMetadata = 64 << 10
	fetchLimit  = 10 * time.Second // for both questions together
	maxHeader   = 32 << 10
)

var (
	// ErrIssuerDown says that an issuer's keys cannot be had.
	ErrIssuerDown = refusal.New(refusal.Unavailable, "agent-issuer-down",
		"the keys of the token's issuer cannot be fetched, so that nothing it signed can be checked",
		"try again in a moment; if it lasts, an operator finds the cause in the broker's log")
	// ErrUnknownKey says that an issuer has no key of that id.
	ErrUnknownKey = refusal.New(refusal.Unauthenticated, "agent-key-unknown",
		"the issuer has no key of the id that the token names",
		"get a new token and try again in a few seconds")
)

// Config is what the keys need. Every field without "optional" must be set.
type Config struct {
	Clock clock.Clock
	// Roots are the authorities that issuers' certificates may be from. Optional: the
	// system's.
	Roots *x509.CertPool
	// Resolver finds issuers' addresses. Optional: the system's.
	Resolver *net.Resolver
	// Logger is told why keys could not be had. Optional.
	Logger *slog.Logger
}

// Keys are the keys of issuers. They are safe for concurrent use.
type Keys struct {
	cfg    Config
	flight singleflight.Group

	mu    sync.Mutex
	known map[string]*known // by Issuer.id, guarded by mu
}

// Issuer is one that the policy names.
type Issuer struct {
	URL       string
	Addresses []netip.Prefix // where it may be, beside public addresses
}

func (i Issuer) id() string { return fmt.Sprintf("%s %v", i.URL, i.Addresses) }

// known is what was found out about an issuer.
type known struct {
	set    keyset.Set
	at     time.Time // when the set was asked for; zero: never had
	asked  time.Time // when it was tried last
	failed error     // then; nil: it went well
}

// New returns keys of which none is known.
func New(cfg Config) (*Keys, error) {
	if cfg.Clock == nil {
		return nil, errors.New("jwks: no clock")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Keys{cfg: cfg, known: map[string]*known{}}, nil
}

// Find is the issuer's key of the id, for the algorithm. It asks the issuer if it must.
func (k *Keys) Find(ctx context.Context, issuer Issuer, id, algorithm string) (any, error) {
	now, state := k.cfg.Clock.Now(), k.look(issuer)
	usable := func() bool { age := now.Sub(state.at); return !state.at.IsZero() && age >= -Pause && age <= MaxAge }
	fresh := func() bool { return usable() && now.Sub(state.at) <= RefreshAfter }
	rested := now.Sub(state.asked).Abs() >= Pause

	var key any
	var err error
	if usable() {
		key, err = state.set.Find(id, algorithm)
	}
	lacking := !usable() || errors.Is(err, keyset.ErrUnknown)
	if rested && (lacking || !fresh()) {
		if state, err = k.ask(ctx, issuer); err != nil {
			return nil, ErrIssuerDown.Because(err)
		}
		if usable() {
			key, err = state.set.Find(id, algorithm)
		}
	}
	switch {
	case !usable():
		return nil, ErrIssuerDown.Because(state.failed)
	case err != nil:
		return nil, ErrUnknownKey.Because(err)
	}
	return key, nil
}

// look is what is known about the issuer now.
func (k *Keys) look(issuer Issuer) known {
	k.mu.Lock()
	defer k.mu.Unlock()
	if state := k.known[issuer.id()]; state != nil {
		return *state
	}
	return known{}
}

// ask asks the issuer, once for all who wait. The answer does not hang on any one of
// them. The error is the context's: what else went wrong is in the state.
func (k *Keys) ask(ctx context.Context, issuer Issuer) (known, error) {
	result := k.flight.DoChan(issuer.id(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
		defer cancel()
		asked := k.cfg.Clock.Now()
		set, err := k.fetch(ctx, issuer)
		if err != nil {
			k.cfg.Logger.Warn("an issuer's keys cannot be fetched", "issuer", issuer.URL, "error", err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.forget(asked)
		state := k.known[issuer.id()]
		if state == nil {
			state = new(known)
			k.known[issuer.id()] = state
		}
		if state.asked, state.failed = asked, err; err == nil {
			state.set, state.at = set, asked
		}
		return *state, nil
	})
	select {
	case r := <-result:
		return r.Val.(known), nil
	case <-ctx.Done():
		return known{}, ctx.Err()
	}
}

// forget drops issuers of whom nothing is of use any more: earlier versions of the
// policy may have named them.
func (k *Keys) forget(now time.Time) {
	for id, state := range k.known {
		if now.Sub(state.asked) > MaxAge {
			delete(k.known, id)
		}
	}
}

// fetch asks the issuer where its keys are (OpenID Connect Discovery 1.0 section 4, and
// RFC 8414), and for them.
func (k *Keys) fetch(ctx context.Context, issuer Issuer) (keyset.Set, error) {
	client := k.client(issuer.Addresses)
	defer client.CloseIdleConnections()
	text, err := get(ctx, client, wellKnown(issuer.URL), maxMetadata)
	if err != nil {
		return keyset.Set{}, fmt.Errorf("reading the issuer's metadata: %w", err)
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &metadata); err != nil {
		return keyset.Set{}, errors.New("the issuer's metadata is not JSON")
	}
	if metadata.Issuer != issuer.URL {
		return keyset.Set{}, fmt.Errorf("the issuer calls itself %q", metadata.Issuer)
	}
	if text, err = get(ctx, client, metadata.Keys, keyset.MaxBytes); err != nil {
		return keyset.Set{}, fmt.Errorf("reading the issuer's keys: %w", err)
	}
	return keyset.Parse(text)
}

// wellKnown is where an issuer has its metadata: its terminating slash is left out.
func wellKnown(issuer string) string {
	if issuer[len(issuer)-1] == '/' {
		issuer = issuer[:len(issuer)-1]
	}
	return issuer + "/.well-known/openid-configuration"
}

// client connects to permitted addresses only.
func (k *Keys) client(allowed []netip.Prefix) *http.Client {
	dialer := &net.Dialer{Timeout: fetchLimit, Resolver: k.cfg.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		dialled, err := netip.ParseAddrPort(address)
		if err != nil || !permitted(dialled.Addr(), allowed) {
			return fmt.Errorf("%s is not a public address, and the policy does not list it for this issuer", address)
		}
		return nil
	}}
	return &http.Client{
		Timeout: fetchLimit,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: fetchLimit, ForceAttemptHTTP2: true,
			TLSClientConfig:        &tls.Config{RootCAs: k.cfg.Roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true, // so that what is bounded is what was sent
			DisableKeepAlives:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(ctx context.Context, client *http.Client, from string, most int64) ([]byte, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not an https URL", from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", u.Redacted(), answer.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	if err == nil {
		err = ctx.Err() // what was given up in the middle can look like the end
	}
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s answered with more than %d bytes", u.Redacted(), most)
	}
	return text, nil
}
