// Package names says what hosts and logins may be called. Names are restricted
// on the way in, because others expand them unescaped later: sshd in its
// configuration, ssh in known_hosts, people in their shells (P2).
package names

import "regexp"

// LoginForm is the form of a login, as a regular expression. It is stricter than
// useradd's default.
const LoginForm = `^[a-z_][a-z0-9_-]{0,31}$`

var (
	login = regexp.MustCompile(LoginForm)
	host  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
)

// Login reports whether the name may be a login on a host.
func Login(name string) bool { return login.MatchString(name) }

// Host reports whether the name may be a host's. Ids of hosts have the form, too.
func Host(name string) bool { return host.MatchString(name) }
