package signin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// ErrState says that a browser comes back from the provider with a sign-in that
// it did not begin, began too long ago, or has finished already.
var ErrState = refusal.New(refusal.Unauthenticated, "sign-in-state",
	"this sign-in was not begun in this browser, or too long ago", "start again: open Sallyport and sign in")

const (
	// flowLifetime is how long a person may take at the provider.
	flowLifetime = 10 * time.Minute
	// maxFlows is how many sign-ins one browser may have begun at a time, in
	// several tabs; the oldest goes first.
	maxFlows = 5
	// flowsKey is where a cookie's contents have them.
	flowsKey = "flows"
)

// flow is one sign-in that a browser has begun at the provider. It is kept with
// that browser's cookie, so that nobody can end it elsewhere, and used once.
type flow struct {
	State    string    `json:"state"`    // says which flow, and that it is this browser's
	Nonce    string    `json:"nonce"`    // binds the ID token to it
	Verifier string    `json:"verifier"` // binds the code to it (RFC 7636)
	Next     string    `json:"next"`     // where to go afterwards
	Expires  time.Time `json:"expires"`
	// Draft is what the person went to have signed; empty: to sign in.
	Draft string `json:"draft,omitempty"`
}

// flows reads what the browser has begun and can still end.
func (s *Service) flows(ctx context.Context) []flow {
	var all []flow
	// What we wrote ourselves is readable; after a change of the form it may not be,
	// and then the person starts again.
	_ = json.Unmarshal(s.cookies.GetBytes(ctx, flowsKey), &all)
	now := s.cfg.Clock.Now()
	return slices.DeleteFunc(all, func(f flow) bool { return !now.Before(f.Expires) })
}

func (s *Service) putFlows(ctx context.Context, all []flow) {
	b, _ := json.Marshal(all) // strings and times: cannot fail
	s.cookies.Put(ctx, flowsKey, b)
}

// addFlow keeps one more flow, and forgets the oldest of too many.
func (s *Service) addFlow(ctx context.Context, f flow) {
	all := append(s.flows(ctx), f)
	s.putFlows(ctx, all[max(0, len(all)-maxFlows):])
}

// takeFlow removes and returns the flow with the state.
func (s *Service) takeFlow(ctx context.Context, state string) (flow, bool) {
	all := s.flows(ctx)
	i := slices.IndexFunc(all, func(f flow) bool { return state != "" && f.State == state })
	if i < 0 {
		return flow{}, false
	}
	f := all[i]
	s.putFlows(ctx, slices.Delete(all, i, i+1))
	return f, true
}

// begin sends a browser to the provider. next= is where it goes afterwards;
// prompt=login has the provider authenticate the person again.
func (s *Service) begin(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	provider, err := s.provider.discover(ctx)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	if err := s.cfg.People.Sweep(ctx); err != nil {
		problem.Write(w, r, err) // the database is gone: nobody could come back either
		return
	}
	f := flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
		Next: localPath(r.URL.Query().Get("next")), Expires: s.cfg.Clock.Now().Add(flowLifetime)}
	s.addFlow(ctx, f)
	if !s.cookies.Exists(ctx, signInKey) {
		// Whoever does not come back shall not leave a row for a whole Lifetime. The
		// library compares with the machine's clock.
		s.cookies.SetDeadline(ctx, time.Now().Add(flowLifetime))
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if r.URL.Query().Get("prompt") == "login" {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
	}
	http.Redirect(w, r, provider.oauth.AuthCodeURL(f.State, options...), http.StatusFound)
}

// callback takes a browser back from the provider, and signs it in or takes what it
// went there to have signed.
func (s *Service) callback(w http.ResponseWriter, r *http.Request) {
	next, err := s.finish(r)
	if err != nil {
		if cause := refusal.As(err); cause != nil && cause.Unwrap() != nil {
			s.cfg.Logger.WarnContext(r.Context(), "what came back from the provider was refused", "code", cause.Code, "reason", cause.Unwrap())
		}
		s.refuse(w, r, identity.ViaWeb, err)
		return
	}
	http.Redirect(w, r, next, http.StatusFound)
}

// finish checks what the browser brings, and opens its sign-in:
//
//  1. it has begun this flow (state, in its own cookie), and ends it once;
//  2. the answer comes from our provider (iss, RFC 9207, if it is sent);
//  3. the provider gives an ID token for the code, made for us, now, and for this
//     flow (redeem);
//  4. the cookie gets a new value, so that one that was planted before is worth
//     nothing (session fixation).
func (s *Service) finish(r *http.Request) (next string, err error) {
	ctx, q := r.Context(), r.URL.Query()
	f, ok := s.takeFlow(ctx, q.Get("state"))
	if !ok {
		return "", ErrState
	}
	code, err := s.code(q)
	if f.Draft != "" {
		return s.finishSigning(r, f, code, err)
	}
	if err != nil {
		return "", err
	}
	raw, token, err := s.provider.redeem(ctx, code, f)
	if err != nil {
		return "", err
	}
	claims, err := s.claimsOf(ctx, token)
	if err != nil {
		return "", err
	}
	person, err := s.cfg.People.SignIn(ctx, claims, identity.ViaWeb, source(r))
	if err != nil {
		return "", err
	}
	in, err := s.cfg.People.Open(ctx, person, claims, s.cfg.Lifetime)
	if err != nil {
		return "", err
	}
	if err := s.cookies.RenewToken(ctx); err != nil {
		return "", err
	}
	if err := s.cookies.Clear(ctx); err != nil { // nothing from before the sign-in stays
		return "", err
	}
	s.cookies.Put(ctx, signInKey, in.ID)
	s.cookies.Put(ctx, hintKey, sealHint(s.cookies.Token(ctx), raw))
	return f.Next, nil
}

// code is the code that the provider sent back, or why there is none.
func (s *Service) code(q url.Values) (string, error) {
	switch {
	case q.Has("iss") && q.Get("iss") != s.cfg.Issuer:
		return "", ErrProviderRefused.With("the answer comes from another identity provider")
	case q.Has("error"):
		return "", ErrProviderRefused.With("the identity provider refused the sign-in (%s)", plain(q.Get("error")))
	case q.Get("code") == "":
		return "", ErrProviderRefused.With("the identity provider sent no code")
	}
	return q.Get("code"), nil
}

// signOut ends the browser's sign-in here and, where the provider offers it,
// there (OpenID Connect RP-Initiated Logout 1.0).
func (s *Service) signOut(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	in, ok := browser(ctx)
	hint := openHint(s.cookies.Token(ctx), s.cookies.GetBytes(ctx, hintKey))
	if ok {
		if err := s.cfg.People.SignOut(ctx, in, source(r)); err != nil {
			problem.Write(w, r, err) // still signed in: the person must know
			return
		}
	}
	if err := s.cookies.Destroy(ctx); err != nil {
		problem.Write(w, r, err)
		return
	}
	// The provider may be down: the sign-in here has ended all the same.
	if p, err := s.provider.discover(ctx); ok && err == nil && p.endSession != "" {
		if u, err := url.Parse(p.endSession); err == nil {
			q := u.Query()
			q.Set("client_id", s.cfg.ClientID)
			q.Set("post_logout_redirect_uri", s.cfg.URL+"/")
			if hint != "" {
				q.Set("id_token_hint", hint)
			}
			u.RawQuery = q.Encode()
			web.Forward(w, r, u.String())
			return
		}
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// localPath is next if it is a path within Sallyport, else "/". Browsers take
// "//host", "/\host" and paths with a tab or newline in between for other hosts.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > 4096 || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.Contains(next, `\`) || strings.ContainsFunc(next, unicode.IsControl) ||
		u.IsAbs() || u.Host != "" || u.User != nil {
		return "/"
	}
	return next
}
