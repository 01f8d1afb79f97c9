package signin_test

import (
	"crypto/ed25519"
	"testing"

	"sallyport/server/signin"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	k := newKit(t)
	for name, spoil := range map[string]func(*signin.Config){
		"no URL":             func(c *signin.Config) { c.URL = "" },
		"URL with a path":    func(c *signin.Config) { c.URL += "/" },
		"URL without host":   func(c *signin.Config) { c.URL = "https://" },
		"URL of another way": func(c *signin.Config) { c.URL = "ftp://example.com" },
		"no issuer":          func(c *signin.Config) { c.Issuer = "" },
		"no client id":       func(c *signin.Config) { c.ClientID = "" },
		"no groups claim":    func(c *signin.Config) { c.GroupsClaim = "" },
		"no decisions":       func(c *signin.Config) { c.Decisions = nil },
		"no people":          func(c *signin.Config) { c.People = nil },
		"no pool":            func(c *signin.Config) { c.Pool = nil },
		"no roles":           func(c *signin.Config) { c.Roles = nil },
		"no clock":           func(c *signin.Config) { c.Clock = nil },
		"no key":             func(c *signin.Config) { c.TokenKey = nil },
		"half a key":         func(c *signin.Config) { c.TokenKey = ed25519.PrivateKey("short") },
		"no idle limit":      func(c *signin.Config) { c.Idle = 0 },
		"no lifetime":        func(c *signin.Config) { c.Lifetime = -1 },
	} {
		cfg := k.config
		spoil(&cfg)
		if _, err := signin.New(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
