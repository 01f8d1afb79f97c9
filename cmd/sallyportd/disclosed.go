package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/jackc/pgx/v5"
)

// secretOptions are never written anywhere (P11).
var secretOptions = []string{"oidc-client-secret"}

// disclosed are the settings as the log may have them: without secrets, and of the
// database's address only what says where it is and how it is reached.
func (s settings) disclosed() map[string]string {
	shown := maps.Clone(map[string]string(s))
	for _, name := range secretOptions {
		if shown[name] != "" {
			shown[name] = "(set)"
		}
	}
	for name, value := range shown {
		if u, err := url.Parse(value); err == nil && u.User != nil {
			shown[name] = u.Redacted()
		}
	}
	shown["database-url"] = databaseAddress(s["database-url"])
	return shown
}

// databaseAddress is a connection string's host, port, database and login, and
// whether it goes through TLS. One that cannot be read is not shown at all.
func databaseAddress(connection string) string {
	cfg, err := pgx.ParseConfig(connection)
	if err != nil {
		return "(unreadable)"
	}
	return fmt.Sprintf("%s at %s:%d as %s, %s", cfg.Database, cfg.Host, cfg.Port, cfg.User, encryption(cfg))
}

// encryption is the least that protects a connection.
func encryption(cfg *pgx.ConnConfig) string {
	ways := []*tls.Config{cfg.TLSConfig}
	for _, f := range cfg.Fallbacks {
		ways = append(ways, f.TLSConfig)
	}
	switch {
	case slices.Contains(ways, nil):
		return "perhaps without TLS"
	case slices.ContainsFunc(ways, func(c *tls.Config) bool { return c.InsecureSkipVerify && c.VerifyPeerCertificate == nil }):
		return "with TLS, unverified"
	}
	return "with TLS, verified"
}
