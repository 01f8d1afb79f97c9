// Package signin finds out who is calling.
//
// Sallyport is the client of one OIDC provider, and an OAuth authorization
// server for one client, the sally command, so that one registration at the
// provider suffices for both:
//
//   - A browser goes to the provider and comes back (authorization code with PKCE,
//     state and nonce, OpenID Connect Core 1.0). It then holds a cookie, of which
//     the database has a hash.
//   - sally is authorised by a person in such a browser, by loopback redirect
//     (RFC 8252) or device code (RFC 8628). It holds a refresh token that changes
//     with every use and access tokens of ten minutes (RFC 9068).
//
// Both lead to a sign-in in the database, which is looked up at every call: when
// it has ended, or its person is gone, no cookie and no token opens anything. The
// provider may be down at start and later: then nobody signs in anew, and all
// else goes on (P9). Codes, tokens and secrets are in no log, error or event (P11).
package signin

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
	"sallyport/internal/throttle"
	"sallyport/server/problem"
)

// Config is what the service needs. Every field without "optional" must be set.
type Config struct {
	// URL is where people and programs reach the broker, such as
	// https://sallyport.example.com. It is issuer and audience of access tokens.
	// Cookies are Secure, and bound to the host, if it is https.
	URL string
	// Issuer is the OIDC provider's, exactly as its ID tokens name it.
	Issuer string
	// ClientID and ClientSecret are what the provider knows the broker by. Its
	// redirect URI there is URL + CallbackPath. Without a secret the broker is a
	// public client, which PKCE makes safe.
	ClientID     string
	ClientSecret string // optional
	// GroupsClaim is the claim of the ID token that lists the person's groups.
	GroupsClaim string
	// People keeps people and sign-ins.
	People *identity.Store
	// Pool is where cookies' contents are stored.
	Pool *pgxpool.Pool
	// TokenKey signs access tokens. All replicas have the same.
	TokenKey ed25519.PrivateKey
	// Decisions takes what the provider signs.
	Decisions Decisions
	// Roles tells which roles the policy in force gives to members of groups, and
	// which version that is.
	Roles func(groups []string) ([]api.Role, event.PolicyRef)
	// Idle ends a browser's sign-in that has not been used for so long.
	Idle time.Duration
	// Lifetime ends every sign-in so long after the person came from the provider.
	Lifetime time.Duration
	Clock    clock.Clock
	Logger   *slog.Logger // optional
}

// CallbackPath is where the provider sends browsers back to.
const CallbackPath = "/signin/callback"

// Service is the sign-in of one broker. It is safe for concurrent use.
type Service struct {
	cfg      Config
	provider *provider
	cookies  *scs.SessionManager
	tokens   *accessTokens
	// codes bounds how many device codes a person may try: they are short.
	codes *throttle.Throttle
	// refused and refusedAll bound how many refusals become events, from one
	// address and from all, so that garbage cannot fill the log.
	refused, refusedAll *throttle.Throttle
}

// New returns the service. The provider need not be there: it is looked for now,
// for two seconds, and again when somebody signs in.
func New(ctx context.Context, cfg Config) (*Service, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || u.RawQuery != "":
		return nil, errors.New("signin: URL must be http(s)://host[:port] and nothing more")
	case cfg.Issuer == "" || cfg.ClientID == "" || cfg.GroupsClaim == "":
		return nil, errors.New("signin: Issuer, ClientID and GroupsClaim must be set")
	case cfg.People == nil || cfg.Decisions == nil || cfg.Pool == nil || cfg.Roles == nil || cfg.Clock == nil:
		return nil, errors.New("signin: People, Decisions, Pool, Roles and Clock must be set")
	case len(cfg.TokenKey) != ed25519.PrivateKeySize:
		return nil, errors.New("signin: TokenKey must be an Ed25519 private key")
	case cfg.Idle <= 0 || cfg.Lifetime <= 0:
		return nil, errors.New("signin: Idle and Lifetime must be positive")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg:        cfg,
		provider:   newProvider(cfg),
		tokens:     newAccessTokens(cfg.URL, cfg.TokenKey, cfg.Clock),
		codes:      throttle.New(cfg.Clock, rate.Every(30*time.Second), 20),
		refused:    throttle.New(cfg.Clock, rate.Every(10*time.Second), 10),
		refusedAll: throttle.New(cfg.Clock, rate.Every(time.Second), 100),
	}
	s.cookies = newCookies(cfg)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := s.provider.discover(ctx); err != nil {
		cfg.Logger.WarnContext(ctx, "the identity provider does not answer; sign-in waits for it", "issuer", cfg.Issuer, "error", err)
	}
	return s, nil
}

// CookieName is the name of the sign-in cookie of the broker at the URL. With
// https the browser itself binds the cookie to the host (RFC 6265bis section 4.1.3.2).
func CookieName(brokerURL string) string {
	if secure(brokerURL) {
		return "__Host-sallyport"
	}
	return "sallyport"
}

func secure(brokerURL string) bool {
	u, err := url.Parse(brokerURL)
	return err == nil && u.Scheme == "https"
}

func newCookies(cfg Config) *scs.SessionManager {
	m := scs.New()
	// Whether a sign-in lives is decided by its row (identity.Store.Resume), to
	// which the cookie only leads. This is how long the way there is kept. There is
	// no idle time-out here: it would write the cookie's contents back at the end of
	// every call, so that a long one could bring back what a sign-out removed.
	m.Lifetime = cfg.Lifetime
	m.Store = pgxstore.NewWithCleanupInterval(cfg.Pool, 0) // identity.Store.Sweep does it
	m.HashTokenInStore = true
	m.ErrorFunc = problem.Write
	m.Cookie.Name = CookieName(cfg.URL)
	m.Cookie.HttpOnly = true
	m.Cookie.SameSite = http.SameSiteLaxMode
	m.Cookie.Secure = secure(cfg.URL)
	return m
}

// Ready says why nobody can sign in now, or nil, and never waits. All else works
// nevertheless: a broker without a provider must stay in service (P9).
func (s *Service) Ready() error { return s.provider.ready() }

// Routes adds the service's own addresses to r, which must be behind Middleware.
func (s *Service) Routes(r chi.Router) {
	r = r.With(noStore)
	r.Get("/signin", s.begin)
	r.Get(CallbackPath, s.callback)

	// What only a page of ours may send: these act for whoever holds the cookie.
	pages := r.With(sameOrigin)
	pages.Post("/signout", s.signOut)
	pages.Get("/oauth/authorize", s.authorizePage)
	pages.Post("/oauth/authorize", s.authorize)
	pages.Get("/device", s.devicePage)
	pages.Post("/device", s.device)

	// What sally sends.
	r.Post("/oauth/token", s.token)
	r.Post("/oauth/device_authorization", s.deviceAuthorization)
	r.Post("/oauth/revoke", s.revoke)
	r.Get("/oauth/jwks", s.jwks)
	r.Get("/.well-known/oauth-authorization-server", s.metadata)
}

// noStore keeps codes, tokens and redirects with state out of every cache.
func noStore(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func sameOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.ErrCrossOrigin)
	}))
	return p.Handler(next)
}

type callerKey struct{}
type browserKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, c identity.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Caller is who makes the request, if anybody is signed in.
func Caller(ctx context.Context) (identity.Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(identity.Caller)
	return c, ok
}

// browser is the browser's sign-in that the request's cookie leads to. A bearer
// token is none: sally cannot authorise another sally.
func browser(ctx context.Context) (identity.SignedIn, bool) {
	in, ok := ctx.Value(browserKey{}).(identity.SignedIn)
	return in, ok
}

// signInKey is where a cookie's contents have the id of the sign-in.
const signInKey = "sign_in"

// Middleware finds out who calls, by bearer token or else by cookie. A bad token
// is refused with 401; without either the request goes on without a caller.
//
// A call that a deploy agent has signed has no caller, whatever else comes with it: its
// token is for the room that it calls, and an agent is never a person.
//
// RemoteAddr must be the caller's own address, not that of a proxy.
func (s *Service) Middleware(next http.Handler) http.Handler {
	return s.cookies.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if r.Header.Get(api.AgentKeyHeader) != "" {
			next.ServeHTTP(w, r)
			return
		}
		if header := r.Header.Get("Authorization"); header != "" {
			in, err := s.bearer(ctx, header)
			if err != nil {
				s.refuse(w, r, identity.ViaCLI, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(With(ctx, s.caller(r, in))))
			return
		}
		if id := s.cookies.GetString(ctx, signInKey); id != "" {
			in, err := s.cfg.People.Resume(ctx, id, s.cfg.Idle)
			switch {
			case err == nil:
				ctx = context.WithValue(With(ctx, s.caller(r, in)), browserKey{}, in)
			case !errors.Is(err, identity.ErrSignedOut):
				problem.Write(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	}))
}

func (s *Service) caller(r *http.Request, in identity.SignedIn) identity.Caller {
	via := identity.ViaCLI
	if in.Via == identity.ViaWeb {
		via = identity.ViaWeb
	}
	roles, policy := s.cfg.Roles(in.Person.Groups)
	return identity.Caller{Person: in.Person, Source: source(r), AuthTime: in.AuthTime, AMR: in.AMR, ACR: in.ACR, Via: via,
		Roles: roles, Policy: policy}
}

// bearer is the sally's sign-in that an Authorization header proves.
func (s *Service) bearer(ctx context.Context, header string) (identity.SignedIn, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return identity.SignedIn{}, ErrBadToken.With("the Authorization header is not a bearer token")
	}
	claims, err := s.tokens.verify(strings.TrimSpace(token))
	if err != nil {
		return identity.SignedIn{}, err
	}
	in, err := s.cfg.People.Resume(ctx, claims.SignIn, 0)
	if err == nil && (in.Person.ID != claims.Subject || in.Via == identity.ViaWeb) {
		return identity.SignedIn{}, ErrBadToken
	}
	return in, err
}

// refuse answers with err and, if it is a refusal that somebody should know of,
// records it.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, via string, err error) {
	s.record(r, via, err)
	problem.Write(w, r, err)
}

// ordinary are refusals that happen to honest people every day, or are recorded
// where they are found.
var ordinary = []*refusal.Error{ErrTokenExpired, identity.ErrSignedOut, identity.ErrRemoved, ErrProviderDown}

// record makes a refused sign-in an event, unless there are too many. What fails
// because of us, or is an everyday matter, is none. Recording changes nothing
// about the refusal.
func (s *Service) record(r *http.Request, via string, err error) {
	why := refusal.As(err)
	if _, already := errors.AsType[recorded](err); already || why == nil {
		return
	}
	for _, o := range ordinary {
		if why.Is(o) {
			return
		}
	}
	ctx := context.WithoutCancel(r.Context()) // who hangs up is recorded too
	if !s.refused.Allow(throttle.Network(source(r))) || !s.refusedAll.Allow("") {
		s.cfg.Logger.WarnContext(ctx, "sign-in refused; too many to record all", "source", source(r), "code", why.Code)
		return
	}
	in, _ := browser(ctx)
	if err := s.cfg.People.SignInFailed(ctx, in.Person, via, source(r), why); err != nil {
		s.cfg.Logger.ErrorContext(ctx, "a refused sign-in could not be recorded", "source", source(r), "code", why.Code, "error", err)
	}
}

// source is the caller's IP address.
func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
