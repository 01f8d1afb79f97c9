package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
)

// newcomer is a host that is not in yet.
func (h *house) newcomer() *hostapi.Client {
	h.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	signer, err := ssh.NewSignerFromKey(key)
	h.must(err)
	return &hostapi.Client{URL: h.URL, Key: signer, HTTP: http.DefaultClient, Now: time.Now}
}

// An operator lets two hosts in, at a browser: one by a token, and one by the fingerprint
// of its key; and finds both, with their labels, in the list.
func TestAnOperatorLetsHostsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, phonePolicy)
	otto := h.at(operator)

	otto.open("/hosts/join-tokens")
	otto.fill("#name", "db-1")
	otto.fill("#labels", "class=database, env=prod")
	otto.fill("#logins", "dba, root")
	otto.fill("#address", "127.0.0.1:1")
	otto.click("form.lend button")
	otto.read(".banner", "db-1 may enrol")
	otto.picture("join-tokens")
	command := do(otto, "reading the command", chromedp.Evaluate[string](`document.querySelector(".banner code").innerText`))
	words := strings.Fields(command)
	if len(words) != 6 || words[3] != h.URL {
		t.Fatalf("the page says to run %q", command)
	}
	e, _, err := h.newcomer().Enrol(t.Context(), hostapi.EnrolmentInput{Token: words[5]})
	if err != nil || e.Name != "db-1" || e.Labels["env"] != "prod" {
		t.Fatalf("%+v, %v", e, err)
	}

	waiting := h.newcomer()
	_, p, err := waiting.Enrol(t.Context(), hostapi.EnrolmentInput{Name: "db-2", Address: "127.0.0.1:2", Logins: []string{"dba"},
		Facts: hostapi.Facts{OS: "Debian GNU/Linux 12 (bookworm)", OpenSSH: "OpenSSH_9.2p1"}})
	h.must(err)
	otto.open("/hosts/pending")
	otto.click(`a.row[href="/hosts/pending/` + p.ID + `"]`)
	otto.fill("#fingerprint", "SHA256:of-another-host")
	otto.fill("#labels", "class=database")
	otto.click("form.lend button")
	otto.read("#fingerprint-fault", "another key")
	otto.picture("pending")
	do(otto, "clearing", chromedp.Evaluate[string](`document.querySelector("#fingerprint").value = ""`))
	otto.fill("#fingerprint", p.Fingerprint)
	otto.click("form.lend button")
	otto.read("#address-fault", "let an operator say where the host is")
	otto.fill("#address", "127.0.0.1:2")
	otto.click("form.lend button")
	otto.read(".column-side", "let in by")

	otto.open("/hosts/labels")
	otto.fill("#selector", "class=database,!env")
	otto.fill("#set", "env=test")
	otto.click(`button[value="preview"]`)
	otto.read(".preview", "1 host would be different")
	otto.click(`button[value="change"]`)
	otto.read(".banner", "1 host changed")
	otto.open("/hosts?state=unknown&labels=env%3Dtest")
	otto.read(".rows", "db-2")
	otto.picture("fleet")
}
