// Package server is Sallyport's face: it puts the rooms together and lets HTTP
// reach them. It has no SQL and no rules; what a caller may do is decided by the
// room that does it.
//
//	/                    pages, package pages
//	/signin /oauth …     who is calling, package signin
//	/api/v1              the API, package rest
//	/api/v1/host         what enrolled hosts call, package rest
//	/log /ssh            what anybody may check: checkpoint, hash tiles, CA key, revocations
//	/healthz /readyz     for whatever starts and watches the process
//	/metrics             Prometheus
package server

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/stream"
	"sallyport/audit/witness"
	"sallyport/broker"
	"sallyport/broker/agents"
	"sallyport/broker/agents/jwks"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/keys"
	"sallyport/broker/recordings"
	"sallyport/broker/revocations"
	"sallyport/evidence"
	"sallyport/internal/clock"
	"sallyport/server/pages"
	"sallyport/server/problem"
	"sallyport/server/rest"
	"sallyport/server/signin"
	"sallyport/web"
)

// Config is what a broker needs. Every field without "optional" must be set.
type Config struct {
	// URL is where people and programs reach the broker, without a slash at its
	// end. Sign-in returns to it and proofs of possession name it; with https,
	// cookies are for https only.
	URL string
	// Version of the program, for the API's description and the log. Optional.
	Version string
	// Settings are what the broker was configured with, by name, without any secret,
	// for the log. Optional: then the log does not say.
	Settings map[string]string
	// Pool connects as a member of sallyport_app to a migrated database. New
	// refuses a role that could rewrite the log. The caller closes it after Close.
	Pool *pgxpool.Pool
	// Keys sign certificates, checkpoints and access tokens.
	Keys *keys.Set
	// Policy is the first version, if the database has none. Later ones are proposed
	// and approved.
	Policy *policy.Policy
	// Notify says through which channels people are told what concerns them.
	// Optional: then nobody is told.
	Notify *notify.Setup
	// StateFile keeps the last checkpoint outside the database, so that a database
	// that was put back to an older state is noticed. Evidence packs are kept in a
	// folder beside it. Optional: then it is not, and packs are kept in a temporary one.
	StateFile string
	// Witnesses watch the log. Optional: then nobody does.
	Witnesses Witnesses
	// RecordingKeys are the auditors' public keys (age), to which hosts record sessions
	// whose rules say so. Optional: then none of these sessions begins.
	RecordingKeys []string
	// Streams are where the log goes as it grows. Optional: nowhere.
	Streams []stream.Outlet
	// OIDC is the provider that people sign in with.
	OIDC OIDC
	// SignInIdle and SignInLifetime end a browser's sign-in: after so long unused,
	// and after so long in any case.
	SignInIdle, SignInLifetime time.Duration
	// IssuerRoots are the authorities that certificates of deploy agents' issuers may be
	// from. Optional: the system's.
	IssuerRoots *x509.CertPool
	// TrustedProxies are believed when they say in X-Forwarded-For where a call
	// comes from. Optional: then the peer's address is the source.
	TrustedProxies []netip.Prefix
	// Clock tells the time for everything that is decided.
	Clock clock.Clock
	// Logger receives the process's own log. Optional: slog's default.
	Logger *slog.Logger
}

// OIDC says how the broker is known at the OpenID provider.
type OIDC struct {
	// Issuer is the provider's URL; it must be what the provider calls itself.
	Issuer string
	// ClientID and ClientSecret are the broker's at the provider.
	ClientID, ClientSecret string
	// GroupsClaim is the claim of the ID token that holds a person's groups.
	GroupsClaim string
}

func (c *Config) check() error {
	switch {
	case c.URL == "":
		return errors.New("server: no URL")
	case c.Pool == nil:
		return errors.New("server: no database")
	case c.Keys == nil:
		return errors.New("server: no keys")
	case c.Policy == nil:
		return errors.New("server: no policy")
	case c.Clock == nil:
		return errors.New("server: no clock")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

// Server is a running broker: it sequences the log and keeps time from New to
// Close. It is an http.Handler; Serve is the usual way to let it answer.
type Server struct {
	cfg         Config
	handler     http.Handler
	log         *audit.Log
	asker       *witness.Asker  // nil: nobody watches the log
	streams     *stream.Streams // nil: it goes nowhere
	requests    *approvals.Service
	broker      *broker.Broker
	revocations *revocations.List
	fleet       *fleet.Service
	signin      *signin.Service

	closing chan struct{} // closed when no more calls shall begin to wait
	stop    context.CancelFunc
	work    *errgroup.Group // sequencer and timekeeper
	failed  <-chan struct{} // closed when one of them gave up
}

// New puts the rooms together and starts what runs in the background. It fails
// closed: with a log that it cannot trust or keys that do not fit, there is no
// broker (P9). ctx bounds the start only.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, closing: make(chan struct{})}
	signer, err := note.NewSigner(cfg.Keys.LogSigner)
	if err != nil {
		return nil, fmt.Errorf("reading the log's key: %w", err)
	}
	s.log, err = audit.Open(ctx, audit.Config{Pool: cfg.Pool, Signer: signer, VerifierKey: cfg.Keys.LogVerifier,
		Clock: cfg.Clock, StateFile: cfg.StateFile, Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	// The rooms write to the log while they start, so that the sequencer must run.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	work, background := errgroup.WithContext(background)
	s.stop, s.work, s.failed = stop, work, background.Done()
	s.work.Go(func() error { return untilStopped(background, "sequencer", s.log.Run) })

	if err := s.askWitnesses(ctx, background); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.startStreams(background); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.assemble(ctx, background); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// assemble makes the rooms, from the ground up, and the handler on top.
func (s *Server) assemble(ctx, background context.Context) error {
	cfg := s.cfg
	people, err := identity.New(identity.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock})
	if err != nil {
		return err
	}
	registry, err := hosts.New(hosts.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock})
	if err != nil {
		return err
	}
	messages := newMessageFigures()
	s.requests, err = approvals.New(ctx, approvals.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock,
		People: people, Hosts: registry, Policy: cfg.Policy, Logger: cfg.Logger, Notify: cfg.Notify, URL: cfg.URL,
		Told: func(channel, outcome string) { messages.WithLabelValues(channel, outcome).Inc() }})
	if err != nil {
		return fmt.Errorf("opening the approvals: %w", err)
	}
	for _, doubt := range s.requests.Doubts() {
		cfg.Logger.Warn("notifications may not reach somebody", "why", doubt)
	}
	s.work.Go(func() error { return untilStopped(background, "timekeeper", s.requests.Run) })
	s.broker, err = broker.New(ctx, broker.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock, Approvals: s.requests,
		Hosts: registry, UserCA: cfg.Keys.UserCA, HostCA: cfg.Keys.HostCA, URL: cfg.URL, Logger: cfg.Logger, Hold: s.unwitnessed()})
	if err != nil {
		return fmt.Errorf("opening the broker: %w", err)
	}
	issuers, err := jwks.New(jwks.Config{Clock: cfg.Clock, Roots: cfg.IssuerRoots, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	deployers, err := agents.New(agents.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock, Keys: issuers, Policy: s.requests.InForce,
		URL: cfg.URL, Logger: cfg.Logger})
	if err != nil {
		return fmt.Errorf("opening the agents: %w", err)
	}
	s.revocations, err = revocations.New(ctx, revocations.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock, Approvals: s.requests,
		UserCA: cfg.Keys.UserCA, Logger: cfg.Logger})
	if err != nil {
		return fmt.Errorf("opening the list of revocations: %w", err)
	}
	s.work.Go(func() error { return untilStopped(background, "revocations", s.revocations.Run) })
	enrolled, err := fleet.New(fleet.Config{Pool: cfg.Pool, Log: s.log, Clock: cfg.Clock, Hosts: registry, Broker: s.broker,
		Approvals: s.requests, URL: cfg.URL, RecordingKeys: cfg.RecordingKeys, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	s.fleet = enrolled
	recorded, err := recordings.New(recordings.Config{Pool: cfg.Pool, Log: s.log, Approvals: s.requests, Clock: cfg.Clock, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	s.work.Go(func() error { return untilStopped(background, "recordings", recorded.Run) })
	s.work.Go(func() error { return untilStopped(background, "fleet", enrolled.Run) })
	packs, err := evidence.New(evidence.Config{Pool: cfg.Pool, Log: s.log, Approvals: s.requests, Clock: cfg.Clock,
		Dir: packsDir(cfg.StateFile), Version: cmp.Or(cfg.Version, "(devel)"), Logger: cfg.Logger,
		Witnessed: s.witnessed(), Trust: cfg.Witnesses.Text})
	if err != nil {
		return fmt.Errorf("opening the evidence room: %w", err)
	}
	s.work.Go(func() error { return untilStopped(background, "evidence", packs.Run) })
	deployments, err := s.openDeployments(people, registry, deployers)
	if err != nil {
		return err
	}
	s.work.Go(func() error { return untilStopped(background, "deployments", deployments.Run) })
	s.signin, err = signin.New(ctx, signin.Config{URL: cfg.URL, Issuer: cfg.OIDC.Issuer, ClientID: cfg.OIDC.ClientID,
		ClientSecret: cfg.OIDC.ClientSecret, Decisions: deployments, GroupsClaim: cfg.OIDC.GroupsClaim, People: people, Pool: cfg.Pool,
		TokenKey: cfg.Keys.Token, Idle: cfg.SignInIdle, Lifetime: cfg.SignInLifetime, Clock: cfg.Clock, Logger: cfg.Logger,
		Roles: s.requests.Roles})
	if err != nil {
		return fmt.Errorf("opening the sign-in: %w", err)
	}
	calls, err := rest.New(rest.Config{URL: cfg.URL, Version: cfg.Version, Approvals: s.requests, Broker: s.broker,
		Hosts: registry, Agents: deployers, Log: s.log, Evidence: packs, Fleet: enrolled, Revocations: s.revocations,
		Deployments: deployments, Recordings: recorded, Closing: s.closing})
	if err != nil {
		return err
	}
	site, err := pages.New(pages.Config{Decisions: s.signin, Approvals: s.requests, Broker: s.broker, Fleet: s.fleet, Registry: registry,
		Deployments: deployments, Log: s.log, Evidence: packs, Recordings: recorded, Clock: cfg.Clock, URL: cfg.URL, Closing: s.closing})
	if err != nil {
		return err
	}
	s.handler = s.routes(calls, site, newMetrics(s.log, s.collectors(messages)...))
	return s.recordStart(ctx)
}

// packsDir is where evidence packs are kept: beside the last known checkpoint.
func packsDir(stateFile string) string {
	if stateFile == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(stateFile), "packs")
}

// routes is the order in which a call passes the middlewares, and where it ends.
func (s *Server) routes(calls *rest.API, site *pages.Pages, figures *metrics) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(refuse(problem.ErrCrossOrigin))

	mux := chi.NewMux()
	mux.Use(
		sourceAddress(s.cfg.TrustedProxies),
		logged(s.cfg.Logger, s.cfg.Clock, figures),
		recovered,
		guarded(strings.HasPrefix(s.cfg.URL, "https://")),
		limitBody,
		origin.Handler,
		limitSignIn(s.cfg.Clock),
	)
	signedIn := chi.Chain(s.signin.Middleware, named, limitAtOnce(), site.Chrome)
	mux.NotFound(signedIn.HandlerFunc(refuse(problem.ErrRoute)).ServeHTTP)
	mux.MethodNotAllowed(refuse(problem.ErrMethod))
	mux.Group(func(r chi.Router) {
		r.Use(signedIn...)
		r.Group(s.signin.Routes)
		site.Routes(r)
		r.Mount(rest.Prefix, calls)
		r.Get("/log/tile/entries/*", s.bundles)
	})
	mux.Handle(rest.HostPrefix+"*", calls.HostCalls())
	// These need nobody's sign-in, and answer while the database does not.
	s.public(mux)
	mux.Get("/healthz", healthz)
	mux.Get("/readyz", s.readyz)
	mux.Method(http.MethodGet, "/metrics", figures.handler())
	mux.Handle(web.StaticPath+"*", web.Static())
	return mux
}

// refuse answers everything with one problem.
func refuse(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, err) }
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	writeTimeout    = 90 * time.Second // a long poll takes 60 s
	maxHeader       = 32 << 10
	shutdownTimeout = 20 * time.Second
	resultsTimeout  = 5 * time.Second
)

// Serve answers on l until ctx ends, then lets calls that have begun finish, and
// closes the server. It returns early, with the error, when the log's sequencer
// or the timekeeper gives up: a broker without them must be started anew.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	front := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- front.Serve(l) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	case <-s.failed:
	}
	close(s.closing)
	// ctx is over; what was begun gets its own time to finish.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if cut := front.Shutdown(finish); cut != nil {
		s.cfg.Logger.Warn("some calls were cut off", "error", cut)
		front.Close()
	}
	return errors.Join(err, s.Close())
}

// Close stops the background work and returns the error that ended it early, if
// one did. Events that were committed stay pending and are sequenced after the
// next start, or by another replica.
func (s *Server) Close() error {
	s.lastResults()
	s.stop()
	return s.work.Wait()
}

// lastResults lets the broker tell the log what came of the last certificates. If
// that cannot be, as the database is gone, it is no reason not to stop.
func (s *Server) lastResults() {
	if s.broker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resultsTimeout)
	defer cancel()
	if err := s.broker.Close(ctx); err != nil {
		s.cfg.Logger.Warn("stopping", "error", err)
	}
}

// untilStopped runs background work. Ending because it was told to is no error.
func untilStopped(ctx context.Context, name string, run func(context.Context) error) error {
	err := run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return fmt.Errorf("%s: %w", name, err)
}
