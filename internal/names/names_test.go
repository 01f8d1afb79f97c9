package names_test

import (
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
