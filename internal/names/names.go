// Package names says what hosts and logins may be called. Names are restricted
// on the way in, because others expand them unescaped later: sshd in its
// configuration, ssh in known_hosts, people in their shells (P2).
package names

// LoginForm is the form of a login, as a regular expression. It is stricter than
// useradd's default.
const LoginForm = `^[a-z_][a-z0-9_-]{0,31}$`

// maxLogin and maxHost are the most bytes of a name.
const maxLogin, maxHost = 32, 63

// Login reports whether the name may be a login on a host: whether it has LoginForm.
// Nothing is compiled for it, since sally-host is started at every login.
func Login(name string) bool {
	return name != "" && len(name) <= maxLogin && (lower(name[0]) || name[0] == '_') &&
		all(name, func(c byte) bool { return lower(c) || digit(c) || c == '_' || c == '-' })
}

// Host reports whether the name may be a host's: letters, digits, dots and hyphens,
// the last two not at an end. Ids of hosts have the form, too.
func Host(name string) bool { return Dotted(name, maxHost) }

// Dotted reports whether the name has the form of a host's, and so many bytes at most.
func Dotted(name string, most int) bool {
	if name == "" || len(name) > most {
		return false
	}
	first, last := name[0], name[len(name)-1]
	return (lower(first) || digit(first)) && (lower(last) || digit(last)) &&
		all(name, func(c byte) bool { return lower(c) || digit(c) || c == '.' || c == '-' })
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
