// Package signin gets, keeps and gives back sally's tokens.
//
// The broker is an OAuth authorization server with one public client, "sally":
// authorization code with PKCE over a loopback redirect (RFC 8252, RFC 7636),
// device codes where there is no browser (RFC 8628), rotating refresh tokens,
// revocation (RFC 7009). A refresh token is used once: the broker ends the whole
// sign-in when it sees one twice, so processes take turns (see [Tokens]).
package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// clientID is how the broker knows sally. It is no secret (RFC 8252, section 8.4).
const clientID = "sally"

// ErrAgain says that the sign-in that the tokens came from is over.
var ErrAgain = refusal.New(refusal.Unauthenticated, "signed-out",
	"your sign-in has ended", "sign in again: sally login")

var (
	errNoServer = refusal.New(refusal.Unavailable, "no-authorization-server",
		"no Sallyport broker answers at this URL", "check the URL, and whether the broker runs")
	errOtherIssuer = refusal.New(refusal.Invalid, "other-issuer",
		"the broker calls itself by another URL", "use the URL that it gives")
	errElsewhere = refusal.New(refusal.Invalid, "endpoint-elsewhere",
		"the broker wants sign-ins to go to another place", "tell whoever runs the broker")
	errNotGiven = refusal.New(refusal.Unauthenticated, "sign-in-refused",
		"the sign-in was refused", "")
	errTooLate = refusal.New(refusal.Unauthenticated, "sign-in-expired",
		"the code was not entered in time", "try again: sally login --device")
	errNoDevice = refusal.New(refusal.Unavailable, "no-device-sign-in",
		"this broker offers no sign-in by device code", "use sally login without --device")
)

// Server is a broker's authorization server.
type Server struct {
	meta metadata
	http *http.Client
}

// metadata is what we need of RFC 8414.
type metadata struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	Device        string `json:"device_authorization_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
}

// Discover asks the broker at the URL (as api.CheckURL gives it) for its
// authorization server's metadata (RFC 8414).
func Discover(ctx context.Context, client *http.Client, broker string) (*Server, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, broker+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the broker's metadata: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for the broker's metadata: %w", err)
	}
	defer resp.Body.Close()
	s := &Server{http: client}
	if resp.StatusCode != http.StatusOK {
		return nil, errNoServer.With("no Sallyport broker answers at %s (%s)", broker, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&s.meta); err != nil {
		return nil, errNoServer.With("no Sallyport broker answers at %s", broker).Because(err)
	}
	// RFC 8414, section 3.3: the issuer must be identical to the one asked.
	// Proofs of possession name it, too.
	if s.meta.Issuer != broker {
		return nil, errOtherIssuer.With("the broker at %s calls itself %s", broker, s.meta.Issuer).
			Hinting("use its own URL: sally login --url %s", s.meta.Issuer)
	}
	for _, endpoint := range []string{s.meta.Authorization, s.meta.Token, s.meta.Device, s.meta.Revocation} {
		if endpoint != "" && !strings.HasPrefix(endpoint, broker+"/") {
			return nil, errElsewhere.With("the broker at %s wants sign-ins to go to %s", broker, endpoint)
		}
	}
	return s, nil
}

func (s *Server) config(redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID:    clientID,
		RedirectURL: redirect,
		Endpoint: oauth2.Endpoint{
			AuthURL: s.meta.Authorization, TokenURL: s.meta.Token, DeviceAuthURL: s.meta.Device,
			AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

// with makes package oauth2 use our HTTP client.
func (s *Server) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, s.http)
}

// Device signs in with a code that the person enters in a browser anywhere
// (RFC 8628). show is called once with where to go and what to enter.
func (s *Server) Device(ctx context.Context, show func(*oauth2.DeviceAuthResponse)) (*oauth2.Token, error) {
	if s.meta.Device == "" {
		return nil, errNoDevice
	}
	conf := s.config("")
	code, err := conf.DeviceAuth(s.with(ctx))
	if err != nil {
		return nil, readable("ask for a device code", err)
	}
	show(code)
	token, err := conf.DeviceAccessToken(s.with(ctx), code)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, errTooLate
	}
	return token, readable("wait for the sign-in", err)
}

// Refresh swaps a refresh token for new tokens. It returns ErrAgain if the
// sign-in is over; after any other error the refresh token may still be good.
func (s *Server) Refresh(ctx context.Context, refresh string) (*oauth2.Token, error) {
	source := s.config("").TokenSource(s.with(ctx), &oauth2.Token{RefreshToken: refresh})
	token, err := source.Token()
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.ErrorCode == "invalid_grant" {
		return nil, ErrAgain.Because(err)
	}
	return token, readable("renew the sign-in", err)
}

// Revoke ends the sign-in that a refresh token belongs to (RFC 7009).
func (s *Server) Revoke(ctx context.Context, refresh string) error {
	if s.meta.Revocation == "" {
		return nil
	}
	form := url.Values{"client_id": {clientID}, "token": {refresh}, "token_type_hint": {"refresh_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.meta.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("revoke the sign-in: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("revoke the sign-in: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("revoke the sign-in: the broker answered %s", resp.Status)
	}
	return nil
}

// readable turns the OAuth errors that a person causes into sentences.
func readable(doing string, err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || refused.ErrorCode == "" {
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch refused.ErrorCode {
	case "access_denied":
		return errNotGiven
	case "expired_token":
		return errTooLate
	}
	return refusedWith(refused.ErrorCode, refused.ErrorDescription)
}

func refusedWith(code, description string) error {
	if code == "access_denied" && description == "" {
		return errNotGiven
	}
	if description == "" {
		description = code
	}
	return errNotGiven.With("the sign-in was refused: %s", description)
}
