package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// The second trip: somebody who has said what they decide, or what they found in a
// review, goes to the provider once more, with a nonce that is the hash of that
// statement, and comes back with an ID token that signs it. Nobody is signed in by
// it, and who signs in at the provider on the way as somebody else decides nothing.

// Decisions takes what the provider has signed; package approvals does.
type Decisions interface {
	// Complete takes what was drafted.
	Complete(ctx context.Context, c identity.Caller, signIn, draft string, in approvals.Signed) error
}

// Sign sends the browser of a person who decides to the provider, which signs what
// draft prepares. When it comes back, that is taken, and the browser ends at next,
// a path within Sallyport.
func (s *Service) Sign(w http.ResponseWriter, r *http.Request, next string, draft func(identity.Caller, approvals.Browser) (approvals.Draft, error)) error {
	ctx := r.Context()
	signedIn, ok := browser(ctx)
	if !ok {
		return problem.ErrSignInNeeded
	}
	// Better told here than by an error of the browser's: is the provider there?
	provider, _, err := s.provider.publishedKeys(ctx)
	if err != nil {
		return unsigned(err)
	}
	d, err := draft(s.caller(r, signedIn), approvals.Browser{SignIn: signedIn.ID, ClientID: s.cfg.ClientID})
	if err != nil {
		return err
	}
	f := flow{State: rand.Text(), Nonce: d.Nonce, Verifier: oauth2.GenerateVerifier(), Draft: d.ID,
		Next: next, Expires: s.cfg.Clock.Now().Add(evidence.Lifetime)}
	s.addFlow(ctx, f)
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if d.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(int64(d.MaxAge/time.Second), 10)))
		// For providers that know prompt, but not max_age.
		if s.cfg.Clock.Now().Sub(signedIn.AuthTime) > d.MaxAge {
			options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
		}
	}
	if len(d.ACRValues) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(d.ACRValues, " ")))
	}
	web.Forward(w, r, provider.oauth.AuthCodeURL(f.State, options...))
	return nil
}

// finishSigning takes what the browser went to have signed, and comes back with by
// a code or by the reason why there is none.
func (s *Service) finishSigning(r *http.Request, f flow, code string, err error) (next string, _ error) {
	ctx := r.Context()
	signedIn, ok := browser(ctx)
	if !ok {
		return "", identity.ErrSignedOut
	}
	if err != nil {
		return "", unsigned(err)
	}
	raw, _, err := s.provider.redeem(ctx, code, f)
	if err != nil {
		return "", unsigned(err)
	}
	_, keys, err := s.provider.publishedKeys(ctx)
	if err != nil {
		return "", unsigned(err)
	}
	err = s.cfg.Decisions.Complete(ctx, s.caller(r, signedIn), signedIn.ID, f.Draft, approvals.Signed{IDToken: raw,
		Keys: evidence.Keys{Issuer: s.cfg.Issuer, ClientID: s.cfg.ClientID, GroupsClaim: s.cfg.GroupsClaim,
			Keys: keys, SeenAt: s.cfg.Clock.Now()}})
	if err != nil {
		return "", recorded{err}
	}
	return f.Next, nil
}

// recorded is a refusal that is an event already.
type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

// unsigned says of a failure at the provider what it means for what is decided.
func unsigned(err error) error {
	switch refused := refusal.As(err); {
	case errors.Is(err, ErrProviderDown):
		return refused.With("the identity provider does not answer, so it cannot sign a decision").
			Hinting("nothing was decided; try again in a minute")
	case errors.Is(err, ErrBadIDToken), errors.Is(err, ErrProviderRefused):
		return refused.Hinting("nothing was decided; look at it and decide again; if it stays, an operator finds the reason in the broker's log")
	}
	return err
}

// maxJWKS bounds what is read of a provider's keys.
const maxJWKS = 1 << 20

// publishedKeys fetches the keys that the provider publishes now.
func (p *provider) publishedKeys(ctx context.Context) (*found, []evidence.Key, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	jwks, err := p.fetch(ctx, found.keysURL)
	if err != nil {
		return nil, nil, ErrProviderDown.Because(err)
	}
	keys, err := evidence.ReadKeys(jwks)
	if err != nil {
		return nil, nil, ErrProviderDown.Because(err)
	}
	return found, keys, nil
}

func (p *provider) fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider's keys: %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS))
	if err != nil {
		return nil, fmt.Errorf("the provider's keys: %w", err)
	}
	return text, nil
}
