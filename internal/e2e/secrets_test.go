package e2e

import (
	"bufio"
	"encoding/hex"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/internal/dex"
)

// Everything that somebody could act with, after everything that is usually done
// with it, is in nothing that the broker keeps or says (P11).
func TestP11_SecretsAreNowhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.register("web-1", map[string]string{"class": "web"}, "web")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"client secret": dex.ClientSecret}
	browser := h.signIn(auditor)
	for _, line := range append(browser.cookies(), h.signIn(engineer).cookies()...) {
		secrets["cookie "+line[:4]] = line
	}

	e := newTerminal(t, h)
	e.env = append(e.env, "BROWSER="+self, "SALLYPORT_E2E_BROWSER="+engineer, "XDG_STATE_HOME="+filepath.Join(e.home, "state"))
	e.sally("login")
	e.gather(secrets)
	e.loginByDevice(engineer, secrets)
	e.gather(secrets)
	out, err := e.run("request", "web@web-1", "-r", "look at the log", "--no-wait")
	request := requestID.FindString(out)
	if err != nil || request == "" {
		t.Fatalf("sally request: %v\n%s", err, out)
	}
	e.sally("cert", request, "--out", "cert")
	e.gather(secrets)
	e.sally("whoami")
	e.sally("finish", request)
	e.sally("logout")
	for _, name := range []string{"user_ca", "host_ca", "log.key", "token.key"} {
		text, err := os.ReadFile(filepath.Join(h.keys, name))
		if err != nil {
			t.Fatal(err)
		}
		keepLines(secrets, name, string(text))
	}
	metrics := (&client{t: t, url: h.URL, http: plain}).text("/metrics")
	log := browser.text("/log") + browser.text("/requests/"+request)
	if len(secrets) < 12 {
		t.Errorf("only %d secrets were gathered: %v", len(secrets), secrets)
	}
	dump := h.db.Dump(t)
	if !strings.Contains(dump, request) || !strings.Contains(h.said.String(), request) {
		t.Fatal("the dump is not of this database, or the broker says nothing")
	}
	for where, text := range map[string]string{"the database": dump, "the broker's log": h.said.String(), "the metrics": metrics, "the pages": log} {
		for what, secret := range secrets {
			if strings.Contains(text, secret) || strings.Contains(text, hex.EncodeToString([]byte(secret))) {
				t.Errorf("%s has the %s", where, what)
			}
		}
	}
}

var devicePage = regexp.MustCompile(`http://\S+/device\?user_code=(\S+)`)

// loginByDevice signs in with a code that somebody enters in another browser, and
// adds that to the secrets.
func (e *terminal) loginByDevice(person string, secrets map[string]string) {
	e.t.Helper()
	cmd := e.command("login", "--device")
	said, err := cmd.StderrPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	for lines := bufio.NewScanner(said); lines.Scan(); {
		m := devicePage.FindStringSubmatch(lines.Text())
		if m == nil || secrets["user code"] != "" {
			continue
		}
		secrets["user code"] = m[1]
		if err := letSallyIn(e.t.Context(), person, m[0]); err != nil {
			cmd.Process.Kill()
			e.t.Errorf("entering the code: %v", err)
		}
	}
	if err := cmd.Wait(); err != nil || secrets["user code"] == "" {
		e.t.Fatalf("sally login --device: %v", err)
	}
}

// cookies are the values that the browser would send.
func (c *client) cookies() []string {
	c.t.Helper()
	var values []string
	u, err := url.Parse(c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, cookie := range c.http.Jar.Cookies(u) {
		values = append(values, cookie.Value)
	}
	if len(values) == 0 {
		c.t.Fatal("somebody is signed in without a cookie")
	}
	return values
}

// tokens are what sally keeps in its file.
var tokens = regexp.MustCompile(`"(\w*token)":\s*"([^"]{16,})"`)

// gather adds what the person's files have that nobody else may see.
func (e *terminal) gather(secrets map[string]string) {
	e.t.Helper()
	err := filepath.WalkDir(e.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range tokens.FindAllStringSubmatch(string(text), -1) {
			secrets[m[1]+" "+m[2][len(m[2])-6:]] = m[2]
		}
		if strings.Contains(string(text), "PRIVATE KEY") {
			keepLines(secrets, filepath.Base(path), string(text))
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// keepLines adds each long line of a key's file, for not all of it may leak.
func keepLines(secrets map[string]string, name, text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); len(line) >= 32 && !strings.HasPrefix(line, "-----") {
			secrets[name+" "+line[len(line)-6:]] = line
		}
	}
}
