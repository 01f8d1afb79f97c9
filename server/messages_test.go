package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/notify"
	"sallyport/internal/pgtest"
)

// A running broker tells people, says at its start whom it cannot tell, counts
// what it sent, shows operators what failed, and lets no secret out (P11).
func TestTheBrokerTellsPeople(t *testing.T) {
	t.Parallel()
	const secret = "/services/T000/B000/sesame"
	bodies := make(chan string, 10)
	slack := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != secret {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		bodies <- string(body)
	}))
	t.Cleanup(slack.Close)
	settings, err := notify.Parse([]byte(`
channels:
  chat: {slack: {url_env: GOOD}}
  broken: {slack: {url_env: BAD}}
routes: {approvers: [chat, broken], nobody: [chat]}
`))
	if err != nil {
		t.Fatal(err)
	}
	setup, err := settings.Open(func(name string) (string, bool) {
		return slack.URL + map[string]string{"GOOD": secret, "BAD": secret + "2"}[name], true
	})
	if err != nil {
		t.Fatal(err)
	}
	k := newKitOn(t, pgtest.New(t), func(c *Config) { c.Notify = setup })
	for _, want := range []string{"routes.nobody", "no operators channel"} {
		if !strings.Contains(k.logged.String(), want) {
			t.Errorf("the broker starts without a word about %q", want)
		}
	}
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	select {
	case body := <-bodies:
		for _, want := range []string{k.cfg.URL + "/requests/" + r.ID, "dba@db-1", "engineer"} {
			if !strings.Contains(body, want) {
				t.Errorf("the message has nothing about %q: %s", want, body)
			}
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	figures := func() string { return string(k.do(t, "", "GET", "/metrics", "").body) }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text := figures()
		if strings.Contains(text, `sallyport_messages_total{channel="chat",outcome="sent"} 1`) &&
			strings.Contains(text, `sallyport_messages_total{channel="broken",outcome="failed"} 1`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the figures are\n%s", text)
		}
	}
	failed := get[api.Page[api.Notification]](t, k.do(t, "operator", "GET", "/api/v1/notifications?state=failed", ""), 200)
	if len(failed.Items) != 1 || failed.Items[0].Channel != "broken" || failed.Items[0].Request != r.ID {
		t.Errorf("operators see %+v", failed.Items)
	}
	page := k.do(t, "operator", "GET", "/notifications?state=failed", "", "Accept", "text/html")
	for _, text := range []string{string(page.body), string(k.do(t, "auditor", "GET", "/api/v1/audit/events", "").body), k.logged.String(), figures()} {
		if strings.Contains(text, "sesame") {
			t.Errorf("the secret address stands in %s", text)
		}
	}
	if !strings.Contains(string(page.body), "404 Not Found") {
		t.Errorf("the page does not say what failed: %s", page.body)
	}
}
