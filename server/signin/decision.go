package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// The second trip: an approver who has said what they decide goes to the provider
// once more, with a nonce that is the hash of that statement, and comes back with
// an ID token that signs it. Nobody is signed in by it, and who signs in at the
// provider on the way as somebody else decides nothing.

// Decisions takes decisions that the provider signs; package approvals has them.
type Decisions interface {
	// Draft prepares a decision of the caller for the provider's signature.
	Draft(ctx context.Context, c identity.Caller, signIn, clientID, request string, in api.DecisionInput) (approvals.Draft, error)
	// Complete takes it, and returns the request's id.
	Complete(ctx context.Context, c identity.Caller, signIn, draft string, in approvals.Signed) (request string, err error)
}

// Decide sends the browser of a person who decides to the provider. When it comes
// back, the decision is taken, and the browser ends at the request's page.
func (s *Service) Decide(w http.ResponseWriter, r *http.Request, request string, in api.DecisionInput) error {
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
	draft, err := s.cfg.Decisions.Draft(ctx, s.caller(r, signedIn), signedIn.ID, s.cfg.ClientID, request, in)
	if err != nil {
		return err
	}
	f := flow{State: rand.Text(), Nonce: draft.Nonce, Verifier: oauth2.GenerateVerifier(), Draft: draft.ID,
		Next: "/requests/" + url.PathEscape(request), Expires: s.cfg.Clock.Now().Add(evidence.Lifetime)}
	s.addFlow(ctx, f)
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if draft.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(int64(draft.MaxAge/time.Second), 10)))
		// For providers that know prompt, but not max_age.
		if s.cfg.Clock.Now().Sub(signedIn.AuthTime) > draft.MaxAge {
			options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
		}
	}
	if len(draft.ACRValues) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(draft.ACRValues, " ")))
	}
	web.Forward(w, r, provider.oauth.AuthCodeURL(f.State, options...))
	return nil
}

// finishDecision takes the decision that the browser comes back with, by a code
// or by the reason why there is none.
func (s *Service) finishDecision(r *http.Request, f flow, code string, err error) (next string, _ error) {
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
	_, err = s.cfg.Decisions.Complete(ctx, s.caller(r, signedIn), signedIn.ID, f.Draft, approvals.Signed{IDToken: raw,
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

// unsigned says of a failure at the provider what it means for a decision.
func unsigned(err error) error {
	switch refused := refusal.As(err); {
	case errors.Is(err, ErrProviderDown):
		return refused.With("the identity provider does not answer, so it cannot sign a decision").
			Hinting("nothing was decided; try again in a minute")
	case errors.Is(err, ErrBadIDToken), errors.Is(err, ErrProviderRefused):
		return refused.Hinting("nothing was decided; look at the request and decide again; if it stays, an operator finds the reason in the broker's log")
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
