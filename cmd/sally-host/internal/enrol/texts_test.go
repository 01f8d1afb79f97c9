package enrol

import (
	"net"
	"strings"
	"testing"
)

const debian = `# PAM configuration for the Secure Shell service
@include common-auth
account    required     pam_nologin.so
@include common-account
session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close
session    required     pam_loginuid.so
session    optional     pam_keyinit.so force revoke
@include common-session
session    optional     pam_motd.so noupdate
@include common-password
`

const redHat = `#%PAM-1.0
auth       substack     password-auth
account    required     pam_sepermit.so
account    include      password-auth
password   include      password-auth
session    required     pam_selinux.so close
session    required     pam_loginuid.so
session    required     pam_selinux.so open env_params
session    optional     pam_keyinit.so force revoke
session    include      password-auth
session    include      postlogin
`

func TestHook(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ text, before string }{
		"Debian":        {debian, "@include common-session\n"},
		"Red Hat":       {redHat, "session    include      password-auth\n"},
		"no common one": {"account required pam_unix.so\nsession required pam_unix.so\n", "session required pam_unix.so\n"},
		"no session":    {"account required pam_unix.so", ""},
		"nothing":       {"", ""},
	} {
		got := string(hooked([]byte(c.text)))
		if !strings.Contains(got, marked+"\n"+Hook+"\n"+c.before) {
			t.Errorf("%s:\n%s", what, got)
		}
		if again := string(hooked([]byte(got))); again != got {
			t.Errorf("%s, again:\n%s", what, again)
		}
		if back := string(unmark([]byte(got))); strings.TrimSuffix(back, "\n") != strings.TrimSuffix(c.text, "\n") {
			t.Errorf("%s, taken away:\n%s", what, back)
		}
	}
}

func TestIncludes(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]bool{
		"Include /etc/ssh/sshd_config.d/*.conf\n":                             true,
		"# Debian\n\n  include \"/etc/ssh/sshd_config.d/*.conf\"\n":           true,
		"Include=/etc/ssh/sshd_config.d/*.conf\n":                             true,
		"Include sshd_config.d/*.conf\n":                                      true,
		"Include /etc/other /etc/ssh/sshd_config.d/00-sallyport.conf":         true,
		"PasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\n": false, // it would come too late
		"Match all\nInclude /etc/ssh/sshd_config.d/*.conf\n":                  false,
		"Include /etc/ssh/more.conf\n":                                        false,
		"#Include /etc/ssh/sshd_config.d/*.conf\n":                            false,
		"": false,
	} {
		if got := includes([]byte(config)); got != want {
			t.Errorf("%q: %t", config, got)
		}
	}
}

// Versions differ in what they know, and sshd -t does not tell: %C aborts every login
// before 9.4.
func TestDropKeepsToOldVersions(t *testing.T) {
	t.Parallel()
	for _, v := range []Version{{8, 4}, {8, 6}, {8, 7}, {9, 2}, {9, 9}, {10, 2}} {
		for _, closed := range []bool{true, false} {
			text := Drop{Version: v, Root: true, Closed: closed}.Text()
			if strings.Contains(text, "%C") || strings.Contains(text, "%D") {
				t.Errorf("%s has tokens that came with 9.4", v)
			}
			if strings.Contains(text, "ChallengeResponseAuthentication no") != (closed && v.before(8, 7)) {
				t.Errorf("%s, closed %t:\n%s", v, closed, text)
			}
			if strings.Contains(text, "AuthorizedKeysFile") != closed || strings.Contains(text, "PasswordAuthentication") != closed {
				t.Errorf("%s, closed %t:\n%s", v, closed, text)
			}
			_, block, _ := strings.Cut(text, "\nMatch all\n")
			for _, never := range []string{"UsePAM", "HostCertificate", "PermitUserEnvironment", "LoginGraceTime", "ChallengeResponse"} {
				if strings.Contains(block, never) {
					t.Errorf("%s stands in a Match block, where sshd takes none", never)
				}
			}
		}
	}
	if text := (Drop{Version: Version{9, 2}, Closed: true}).Text(); !strings.Contains(text, "PermitRootLogin no\n") {
		t.Error("root, who is no login, is let in")
	}
}

func TestCheckSeesWhatIsNotInEffect(t *testing.T) {
	t.Parallel()
	d := Drop{Version: Version{9, 2}, Closed: true, Root: true}
	good := func() Effective {
		e := Effective{}
		for _, s := range d.settings() {
			e[strings.ToLower(s.keyword)] = []string{s.value}
		}
		e["permitrootlogin"] = []string{"without-password"}
		return e
	}
	if err := d.check(good()); err != nil {
		t.Error(err)
	}
	for keyword := range good() {
		e := good()
		e[keyword] = []string{"other"}
		if d.check(e) == nil {
			t.Errorf("%s may be anything", keyword)
		}
		delete(e, keyword)
		if d.check(e) == nil {
			t.Errorf("%s may be missing", keyword)
		}
	}
}

func TestListening(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ say, want string }{
		{"0.0.0.0:22", "127.0.0.1:22"}, {"[::]:2222", "[::1]:2222"}, {"10.0.3.7:22", "10.0.3.7:22"}, {"nonsense", ""},
	} {
		host, port, err := Effective{"listenaddress": {c.say}}.listening()
		if got := net.JoinHostPort(host, port); (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%s: %q, %v", c.say, got, err)
		}
	}
}
