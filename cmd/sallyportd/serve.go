package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"sallyport/approvals/policy"
	"sallyport/audit/recording"
	"sallyport/audit/stream"
	"sallyport/broker/keys"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
	"sallyport/migrations"
	"sallyport/server"
)

var (
	errNoDatabase = refusal.New(refusal.Unavailable, "database-unavailable",
		"the database cannot be reached", "check --database-url, and that PostgreSQL runs and lets this login in")
	errNoPolicy = refusal.New(refusal.Unavailable, "policy-unreadable",
		"the policy cannot be read, so nothing could be decided", "sallyportd policy check FILE shows what is wrong with it")
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Run the broker until SIGINT or SIGTERM; then it answers what it has begun and stops.

It refuses to start without its keys, with a policy that it cannot read, on a
database that is not migrated or older, with a database login that could
rewrite the log, or on a log older than the last checkpoint it has seen. An
OpenID provider that is down keeps it from nothing but new sign-ins.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := resolve(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), set, func(url string) {
				fmt.Fprintf(cmd.OutOrStdout(), "sallyport is ready at %s\n", url)
			})
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

// serve runs the broker until ctx ends. ready is called once it listens.
func serve(ctx context.Context, set settings, ready func(url string)) error {
	go keepGarbage(ctx)
	began := time.Now()
	cfg, err := set.config()
	if err != nil {
		return usageError{err}
	}
	if cfg.Keys, err = set.keys(); err != nil {
		return err
	}
	if cfg.Policy, err = readPolicy(set["policy"]); err != nil {
		return errNoPolicy.Because(err)
	}
	if set["notify"] != "" {
		if cfg.Notify, err = readNotify(set["notify"]); err != nil {
			return errNoNotify.Because(err)
		}
	}
	if cfg.Witnesses, err = set.witnesses(); err != nil {
		return usageError{err}
	}
	if set["recording-keys"] != "" {
		text, err := os.ReadFile(set["recording-keys"])
		if err == nil {
			_, cfg.RecordingKeys, err = recording.ParseRecipients(string(text))
		}
		if err != nil {
			return usageError{fmt.Errorf("--recording-keys: %w", err)}
		}
	}
	if set["streams"] != "" {
		text, err := os.ReadFile(set["streams"])
		if err == nil {
			cfg.Streams, err = stream.Parse(text, clock.System)
		}
		if err != nil {
			return usageError{fmt.Errorf("--streams: %w", err)}
		}
	}
	tlsConfig, err := set.tls()
	if err != nil {
		return usageError{err}
	}
	if cfg.StateFile, err = set.stateFile(); err != nil {
		return err
	}
	if cfg.Pool, err = connect(ctx, set["database-url"]); err != nil {
		return err
	}
	defer cfg.Pool.Close()
	if err := migrations.Check(ctx, cfg.Pool); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", set["listen"])
	if err != nil {
		return err
	}
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	}
	broker, err := server.New(ctx, cfg)
	if err != nil {
		listener.Close()
		return err
	}
	cfg.Logger.Info("started", "address", listener.Addr().String(), "took_ms", time.Since(began).Milliseconds())
	ready(cfg.URL)
	return broker.Serve(ctx, listener)
}

// config reads what can be said without touching keys, policy and database.
func (s settings) config() (server.Config, error) {
	for _, name := range []string{"url", "database-url", "oidc-issuer", "oidc-client-id"} {
		if s[name] == "" {
			return server.Config{}, fmt.Errorf("--%s is not set; neither is $%s", name, variable(name))
		}
	}
	var problems []error
	duration := func(name string) time.Duration {
		d, err := time.ParseDuration(s[name])
		if err != nil || d <= 0 {
			problems = append(problems, fmt.Errorf("--%s: %q is not a duration such as 30m", name, s[name]))
		}
		return d
	}
	logger, err := newLogger(s["log-format"])
	problems = append(problems, err)
	proxies, err := parseNetworks(s["trusted-proxies"])
	problems = append(problems, err)
	secret, err := s.secret("oidc-client-secret")
	problems = append(problems, err)
	cfg := server.Config{
		URL:            strings.TrimRight(s["url"], "/"),
		Version:        version(),
		Settings:       s.disclosed(),
		OIDC:           server.OIDC{Issuer: s["oidc-issuer"], ClientID: s["oidc-client-id"], ClientSecret: secret, GroupsClaim: s["oidc-groups-claim"]},
		SignInIdle:     duration("signin-idle"),
		SignInLifetime: duration("signin-lifetime"),
		TrustedProxies: proxies,
		Clock:          clock.System,
		Logger:         logger,
	}
	return cfg, errors.Join(problems...)
}

// witnesses reads who watches the log. Without a file it is nobody.
func (s settings) witnesses() (server.Witnesses, error) {
	var w server.Witnesses
	if s["witnesses"] == "" {
		if s["require-witnesses"] != "" {
			return w, errors.New("--require-witnesses needs --witnesses")
		}
		return w, nil
	}
	text, err := os.ReadFile(s["witnesses"])
	if err != nil {
		return w, fmt.Errorf("--witnesses: %w", err)
	}
	w.Text = string(text)
	if s["require-witnesses"] == "" {
		return w, nil
	}
	if w.Require, err = time.ParseDuration(s["require-witnesses"]); err != nil || w.Require < time.Minute {
		return w, fmt.Errorf("--require-witnesses: %q is not a duration of a minute or more, such as 10m", s["require-witnesses"])
	}
	return w, nil
}

func newLogger(format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
}

func parseNetworks(text string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if a, err := netip.ParseAddr(item); err == nil {
			networks = append(networks, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(item)
		if err != nil {
			return nil, fmt.Errorf("--trusted-proxies: %q is neither an address nor a network", item)
		}
		networks = append(networks, p.Masked())
	}
	return networks, nil
}

// secret is an option's value, or the contents of the file named by NAME-file.
func (s settings) secret(name string) (string, error) {
	file := s[name+"-file"]
	switch {
	case file == "":
		return s[name], nil
	case s[name] != "":
		return "", fmt.Errorf("--%s and --%s-file are both set", name, name)
	}
	text, err := readSecret(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", name, err)
	}
	return string(text), nil
}

// readSecret reads a file without the line feed that editors put at its end.
func readSecret(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(text, "\r\n"), nil
}

func (s settings) keys() (*keys.Set, error) {
	return keys.Load(keys.LoadOptions{
		Dir:         s["keys-dir"],
		AgentSocket: s["ssh-agent"],
		Passphrase:  passphraseFrom(s["ca-passphrase-file"]),
	})
}

func passphraseFrom(file string) func(string) ([]byte, error) {
	return func(key string) ([]byte, error) {
		if file == "" {
			return nil, usageError{fmt.Errorf("%s is encrypted, and --ca-passphrase-file is not set", key)}
		}
		return readSecret(file)
	}
}

func (s settings) tls() (*tls.Config, error) {
	if (s["tls-cert"] == "") != (s["tls-key"] == "") {
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	if s["tls-cert"] == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s["tls-cert"], s["tls-key"])
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

func (s settings) stateFile() (string, error) {
	dir := s["state-dir"]
	if dir == "" {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--state-dir: %w", err)
	}
	return filepath.Join(dir, "checkpoint"), nil
}

func readPolicy(file string) (*policy.Policy, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return policy.Parse(text)
}

// poolSize is how many connections to the database one broker uses at most.
const poolSize = 24

func connect(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, usageError{fmt.Errorf("--database-url: %w", err)} // pgx leaves the password out
	}
	// pgx's own default is one for each core. Callers mostly wait for the disk that
	// holds the log, so that more of them fit; pool_max_conns in the URL wins.
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = poolSize
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, errNoDatabase.Because(err)
	}
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := pool.Ping(ping); err != nil {
		pool.Close()
		return nil, errNoDatabase.Because(err)
	}
	return pool, nil
}
