package e2e

import (
	"bufio"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/api"
)

// extendable lets web on web-1 be extended once, with nobody asked, and makes
// grants so short that a test can outlive one.
var extendable = strings.Replace(policy, `    logins: [web]
    duration: {default: 15m, max: 1h}
    automatic: true
`, `    logins: [web]
    duration: {default: 30s, max: 1h}
    automatic: true
    extend: {times: 1, by: 10m, automatic: true}
`, 1)

// Erin's work takes longer than she thought. She extends her access, from the
// terminal; the session that she has open goes on as if nothing had happened when
// the first grant ends, and the next one opens with the same key.
func TestExtensionCutsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, extendable)
	h.addHost("web-1", map[string]string{"class": "web"}, "web")
	erin := h.at(engineer)
	terminal := newTerminal(t, h)
	erin.open("/requests/new?host=web-1&login=web")
	erin.fill("#reason", "Move the old files away")
	erin.click(`button[value="send"]`)
	erin.read("h1", "web@web-1")
	terminal.login(erin)
	terminal.sally("cert", "web@web-1", "--out", "cert")

	session, say, hear := terminal.session(h, "cert", "web", "web-1")
	if got := say("before"); got != "heard before" {
		t.Fatalf("the session answers %q", got)
	}
	erin.read(".banner", "by 10 minutes")
	erin.read(".banner", "it ends")
	if out := terminal.sally("extend", "web@web-1"); !strings.Contains(out, "approved") {
		t.Fatalf("sally extend: %s", out)
	}
	erin.read(".banner", "it is extended")

	c := h.signIn(engineer)
	var first, second api.Request
	var me api.Me
	c.call(http.MethodGet, "/me", nil, &me, http.StatusOK)
	for _, r := range me.Grants {
		if r.Extends == "" {
			first = r
		} else {
			second = r
		}
	}
	if second.Extends != first.ID || !second.StartsAt.Equal(*first.EndsAt) {
		t.Fatalf("%+v does not follow %+v", second, first)
	}
	for deadline := time.Now().Add(2 * time.Minute); first.State != api.Ended; time.Sleep(100 * time.Millisecond) {
		c.call(http.MethodGet, "/requests/"+first.ID, nil, &first, http.StatusOK)
		if time.Now().After(deadline) {
			t.Fatalf("the first grant is %s", first.State)
		}
	}
	if first.EndReason != "time" {
		t.Errorf("the first grant ended as %s", first.EndReason)
	}
	if got := say("after"); got != "heard after" {
		t.Errorf("after the end of the first grant the open session answers %q", got)
	}
	if out := terminal.sally("ssh", "web@web-1", "id -un"); out != "web\n" {
		t.Errorf("ssh under the extension says %q", out)
	}
	c.call(http.MethodGet, "/requests/"+second.ID, nil, &second, http.StatusOK)
	c.call(http.MethodGet, "/requests/"+first.ID, nil, &first, http.StatusOK)
	if second.State != api.Active || second.KeyFingerprint != first.KeyFingerprint || len(second.Certificates) != 1 || len(first.Certificates) != 1 {
		t.Errorf("%s with %d certificates for %s, after %d for %s", second.State, len(second.Certificates), second.KeyFingerprint, len(first.Certificates), first.KeyFingerprint)
	}
	if got := say("still"); got != "heard still" {
		t.Errorf("after the new login the open session answers %q", got)
	}
	hear.Close()
	if err := session.Wait(); err != nil {
		t.Errorf("the session ended with %v", err)
	}
}

// session logs in with what `sally cert` wrote, and stays: what is said is answered.
func (e *terminal) session(h *house, dir, login, host string) (cmd *exec.Cmd, say func(string) string, end io.Closer) {
	e.t.Helper()
	cmd = exec.Command("ssh", "-F", filepath.Join(e.home, dir, "ssh_config"), "-o", "BatchMode=yes", "-l", login, host,
		"while read -r line; do echo heard $line; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	return cmd, func(word string) string {
		io.WriteString(in, word+"\n")
		line, _ := lines.ReadString('\n')
		return strings.TrimSuffix(line, "\n")
	}, in
}

// Erin leaves. Olga removes her, and nothing that she holds opens anything any
// more: not her browser, not her terminal, not her grant; and the provider, which
// still knows her, cannot let her in.
func TestLeaver(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.addHost("web-1", map[string]string{"class": "web"}, "web")
	erin := h.at(engineer)
	terminal := newTerminal(t, h)
	// A link to a request survives the sign-in: nobody is signed in there yet.
	erin.click(`form[action="/signout"] button`)
	erin.see(`a[href^="/signin"]`)
	erin.open("/requests/new?host=web-1&login=web&ticket=INC-7&reason=a+%26+b&duration=45m")
	erin.fill(`input[name="login"]`, engineer)
	erin.fill(`input[name="password"]`, "sallyport")
	erin.click(`button[type="submit"]`)
	erin.read("#preview", "approved automatically")
	erin.see(`input[name="ticket"][value="INC-7"]`)
	erin.see(`input[name="other"][value="45m"]`)
	erin.click(`button[value="send"]`)
	erin.read("h1", "web@web-1")
	erin.read("aside.column-side", "a & b")
	terminal.login(erin)
	if out := terminal.sally("ssh", "web@web-1", "id -un"); out != "web\n" {
		t.Fatalf("ssh says %q", out)
	}
	request := strings.TrimPrefix(erin.where(), h.URL+"/requests/")

	olga := h.at(operator)
	olga.open("/people?q=engineer")
	olga.click(`main a[href^="/people/per-"]`)
	olga.fill("#reason", "Last day was yesterday")
	olga.picture("leaver")
	olga.click("button.danger")
	olga.read(".banner", "is out")
	olga.read(".banner", request)

	if out, err := terminal.run("ssh", "web@web-1", "id"); err == nil {
		t.Errorf("sally still logs in\n%s", out)
	}
	if out, err := terminal.run("cert", request, "--out", "again"); err == nil {
		t.Errorf("sally still gets certificates\n%s", out)
	}
	erin.open("/requests")
	erin.see(`input[name="login"]`) // at the provider
	erin.fill(`input[name="login"]`, engineer)
	erin.fill(`input[name="password"]`, "sallyport")
	erin.click(`button[type="submit"]`)
	erin.read("main", "an operator has removed you")

	audrey := h.at(auditor)
	audrey.open("/log?request=" + request)
	audrey.read("main", "revoked the grant (the person was removed: Last day was yesterday)")
}
