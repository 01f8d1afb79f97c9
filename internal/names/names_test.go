package names_test

import (
	"regexp"
	"strings"
	"testing"

	"sallyport/internal/names"
)

func TestP2_NamesAreHarmless(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for name, may := range map[string]struct{ login, host bool }{
		"dba": {true, true}, "_apt": {true, false}, "web-1": {true, true}, "web_1": {true, false}, "db-1.eu-west": {false, true},
		"1password": {false, true}, "host-4f8k2m9qhx1z": {true, true}, long[:32]: {true, true}, long[:33]: {false, true}, long[:63]: {false, true},
		"": {}, long: {}, "DBA": {}, "dba,root": {}, "dba root": {}, "dba\n": {}, "dba@db-1": {}, "../x": {}, "$(id)": {}, "%u": {}, "*": {}, "?": {},
		"-oProxyCommand": {}, "dbä": {}, "dba\x00": {}, "db-1:22": {}, "~root": {}, "db-1;id": {},
	} {
		if names.Login(name) != may.login || names.Host(name) != may.host {
			t.Errorf("%q: login %t, host %t, want %+v", name, names.Login(name), names.Host(name), may)
		}
	}
}

// The forms are those of these expressions.
func FuzzNames(f *testing.F) {
	login := regexp.MustCompile(names.LoginForm)
	host := regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	for _, name := range []string{"dba", "_apt", "db-1.eu", "-x", "x-", ".", "a\n", "", strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if names.Login(name) != login.MatchString(name) || names.Host(name) != host.MatchString(name) {
			t.Errorf("%q: login %t, host %t", name, names.Login(name), names.Host(name))
		}
	})
}
