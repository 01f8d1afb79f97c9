package posture

import "testing"

// Somebody's title is one that is not known to be something else.
func TestWhoEntered(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"sshd: root [priv]":              "root",
		"sshd-session: unknown [priv]":   "unknown", // nobody, while it has a child that asks
		"sshd: root":                     "root",
		"sshd: root@notty":               "root",
		"sshd-session: root@pts/0,pts/1": "root",
		"sshd: dba@internal-sftp":        "dba",
		"sshd: erin@example.com@pts/12":  "erin@example.com",
		"sshd: erin@example.com":         "erin@example.com",
		"sshd: domain users@notty":       "domain users",
		"sshd: [accepted]":               "",
		"sshd: dba [net]":                "",
		"sshd-auth: dba [net]":           "",
		"sshd: dba [pam]":                "",
		"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups":              "",
		"sshd: /usr/sbin/sshd -o Banner=a@pts/0 [listener] 0 of 10-100 startu": "",
		"/usr/sbin/sshd -D -o Banner=: root [priv]":                            "",
		"sshd -T -C user=root,host=::1,addr=::1":                               "",
		"":                                                                     "",
	} {
		if got := (process{name: "sshd", line: line}).entered(); got != want {
			t.Errorf("%q is of %q, want %q", line, got, want)
		}
	}
	if got := (process{name: "vi", line: "sshd: root [priv]"}).entered(); got != "" {
		t.Errorf("another program is sshd's for %s", got)
	}
}
