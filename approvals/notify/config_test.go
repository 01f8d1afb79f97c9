package notify

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/approvals/policy"
)

const goodFile = `
channels:
  chat:
    slack: {url_env: CHAT_URL}
  mail:
    smtp: {server: 'mail.example.com:587', from: 'Sallyport <sallyport@example.com>', username: sp, password_env: MAIL_PASSWORD}
  list:
    smtp: {server: '127.0.0.1:25', tls: none, from: a@example.com, to: ['Ops <ops@example.com>', b@example.com]}
  pager:
    webhook: {url: 'https://pager.example.com/hook', secret_env: PAGER_SECRET}
routes:
  approvers: [chat, mail]
  "group with: colon": [pager]
default: [list]
requester: mail
operators: [chat, pager]
`

func env(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}

var goodEnv = map[string]string{
	"CHAT_URL":      "https://hooks.slack.com/services/T0/B0/secret",
	"MAIL_PASSWORD": "hunter2",
	"PAGER_SECRET":  "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}

func opened(t *testing.T, file string, values map[string]string) *Setup {
	t.Helper()
	s, err := Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	setup, err := s.Open(env(values))
	if err != nil {
		t.Fatal(err)
	}
	return setup
}

func TestAGoodFile(t *testing.T) {
	t.Parallel()
	s := opened(t, goodFile, goodEnv)
	if got := s.Channels(); !slices.Equal(got, []string{"chat", "list", "mail", "pager"}) {
		t.Errorf("channels are %q", got)
	}
	if !s.personal("mail") || s.personal("list") || s.personal("chat") {
		t.Error("the wrong channels are personal")
	}
	m := s.channels["mail"].(*mailer)
	if m.security != startTLS || m.password != "hunter2" || m.tls.ServerName != "mail.example.com" {
		t.Errorf("mail is %+v", m)
	}
}

// A fault is told with its place, and never with a secret.
func TestFaultsHaveTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, file, place, words string }{
		{"unknown key", "channels:\n  a:\n    slack: {url_file: x, colour: red}\n", "line 3", "colour"},
		{"unknown top key", "chanels: {}\n", "line 1, column 1", "chanels"},
		{"duplicate key", "default: []\ndefault: []\n", "line 2", "default"},
		{"alias", "default: &x [a]\noperators: *x\n", "line 2", "aliases"},
		{"two kinds", "channels:\n  a:\n    slack: {url_env: X}\n    webhook: {url: 'https://x', secret_env: X}\n", "line 3", "exactly one of"},
		{"no kind", "channels:\n  a: {}\n", "line 2", "exactly one of"},
		{"no secret", "channels:\n  a: {slack: {}}\n", "line 2", "url_file or url_env"},
		{"two secrets", "channels:\n  a: {slack: {url_env: A, url_file: B}}\n", "line 2", "both set"},
		{"plain http", "channels:\n  a: {webhook: {url: 'http://pager.example.com/', secret_env: X}}\n", "line 2", "https"},
		{"other scheme", "channels:\n  a: {webhook: {url: 'file:///etc/passwd', secret_env: X}}\n", "line 2", "https"},
		{"userinfo", "channels:\n  a: {webhook: {url: 'https://u:p@x/', secret_env: X}}\n", "line 2", "plain https"},
		{"mail in clear", "channels:\n  a: {smtp: {server: 'mail.example.com:25', tls: none, from: a@b.c}}\n", "line 2", "this machine"},
		{"bad tls", "channels:\n  a: {smtp: {server: 'h:25', tls: maybe, from: a@b.c}}\n", "line 2", "starttls"},
		{"no port", "channels:\n  a: {smtp: {server: 'h', from: a@b.c}}\n", "line 2", "host:port"},
		{"bad from", "channels:\n  a: {smtp: {server: 'h:25', from: \"a@b.c\\r\\nBcc: d@e.f\"}}\n", "line 2", "address"},
		{"bad to", "channels:\n  a: {smtp: {server: 'h:25', from: a@b.c, to: [nobody]}}\n", "line 2", "address"},
		{"password without username", "channels:\n  a: {smtp: {server: 'h:25', from: a@b.c, password_env: X}}\n", "line 2", "username"},
		{"bad name", "channels:\n  A_B: {slack: {url_env: X}}\n", "line 2", "lower-case"},
		{"unknown channel in a route", "channels:\n  a: {slack: {url_env: X}}\nroutes:\n  g: [a, b]\n", "line 4, column 10", `no channel "b"`},
		{"unknown channel in default", "default: [b]\n", "line 1, column 11", `no channel "b"`},
		{"twice in a route", "channels:\n  a: {slack: {url_env: X}}\nroutes:\n  g: [a, a]\n", "line 4", "twice"},
		{"empty route", "channels:\n  a: {slack: {url_env: X}}\nroutes:\n  g: []\n", "line 4", "no channel"},
		{"requester by chat", "channels:\n  a: {slack: {url_env: X}}\nrequester: a\n", "line 3", "smtp channel without to"},
		{"operators personally", "channels:\n  a: {smtp: {server: 'h:25', from: a@b.c}}\noperators: [a]\n", "line 3", "no address of its own"},
		{"not a mapping", "- a\n", "", ""},
		{"two documents", "default: []\n---\ndefault: []\n", "", "exactly one"},
		{"garbage", "!\n", "", ""},
	} {
		_, err := Parse([]byte(c.file))
		var at *policy.Error
		if !errors.As(err, &at) {
			t.Errorf("%s: error is %v", c.name, err)
			continue
		}
		if !strings.Contains(err.Error(), c.place) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %q says neither %q nor %q", c.name, err, c.place, c.words)
		}
	}
}

func TestSecretsAreReadAndNotRepeated(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("https://hooks.slack.com/services/T0/B0/secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := opened(t, "channels:\n  a: {slack: {url_file: "+file+"}}\n", nil)
	if got := s.channels["a"].(*slack).url; got != "https://hooks.slack.com/services/T0/B0/secret" {
		t.Errorf("the address is %q", got)
	}
	for _, c := range []struct {
		name, file string
		env        map[string]string
	}{
		{"missing variable", "channels:\n  a: {slack: {url_env: X}}\n", nil},
		{"missing file", "channels:\n  a: {slack: {url_file: /no/such/file}}\n", nil},
		{"clear text address", "channels:\n  a: {slack: {url_env: X}}\n", map[string]string{"X": "http://hooks.example.com/sesame"}},
		{"short key", "channels:\n  a: {webhook: {url: 'https://x', secret_env: X}}\n", map[string]string{"X": "whsec_c2VzYW1l"}},
		{"no prefix", "channels:\n  a: {webhook: {url: 'https://x', secret_env: X}}\n", map[string]string{"X": "sesamesesamesesamesesamesesame00"}},
	} {
		parsed, err := Parse([]byte(c.file))
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsed.Open(env(c.env))
		if err == nil {
			t.Errorf("%s: opened", c.name)
			continue
		}
		if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "c2VzYW1l") {
			t.Errorf("%s: the error repeats the secret: %v", c.name, err)
		}
		if !strings.Contains(err.Error(), "channel a") {
			t.Errorf("%s: the error does not name the channel: %v", c.name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(goodFile)
	f.Add("channels:\n  a: {slack: {url_env: X}}\nroutes: {g: [a]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]byte(text))
		var at *policy.Error
		if err != nil && !errors.As(err, &at) {
			t.Errorf("error %v is none of ours", err)
		}
		if err == nil {
			s.Open(func(string) (string, bool) { return "https://x.example", true })
		}
	})
}
