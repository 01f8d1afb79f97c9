package notify

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/mailtest"
	"sallyport/internal/standardwebhooks"
)

// hostile is a request whose every text tries to be more than text.
func hostile() api.Request {
	r := asked()
	evil := "<!channel> <https://evil.example|Approve> *bold* & @here\r\nBcc: eve@evil.example\r\n\r\n--b\n<script>alert(1)</script><img src=x onerror=y>"
	r.Requester.Name, r.Reason, r.Ticket = evil, evil, evil
	r.Requester.Email = "erin@example.com\r\nBcc: eve@evil.example"
	r.Approvers[0].People[0].Name = evil
	return r
}

// receiver is a real HTTP receiver that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	status int
	answer string
}

func newReceiver(t testing.TB, status int, answer string) *receiver {
	r := &receiver{status: status, answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.bodies, r.heads = append(r.bodies, string(body)), append(r.heads, q.Header.Clone())
		r.mu.Unlock()
		w.WriteHeader(r.status)
		io.WriteString(w, r.answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func TestSlackLinksAndNeverDecides(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, 200, "ok")
	s := &slack{url: rec.URL, client: newHTTPClient()}
	if err := s.Send(t.Context(), messageOf(Waiting, asked())); err != nil {
		t.Fatal(err)
	}
	var got slackMessage
	if err := json.Unmarshal([]byte(rec.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	var buttons []slackElement
	for _, b := range got.Blocks {
		buttons = append(buttons, b.Elements...)
	}
	if len(buttons) != 1 || buttons[0].URL != "https://sp.example.com/requests/req-4f8k2m9qhx1z" {
		t.Errorf("buttons are %+v, want one that links to the page", buttons)
	}
	for _, want := range []string{"Erin Engineer", "dba@db-1", "30m", "Replication lag", "INC-7", "13:00 UTC", "Arne"} {
		if !strings.Contains(rec.bodies[0], want) {
			t.Errorf("nothing about %q in %s", want, rec.bodies[0])
		}
	}
}

// No text of a person becomes a mention, a link or another field in Slack, whose
// control characters are &, < and >, and whose limits the blocks keep.
func TestSlackInjection(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Waiting, Closed, EmergencyStarted, ReviewOverdue, GrantEnding} {
		r := hostile()
		r.Emergency = &api.Emergency{Drill: true, ReviewGroups: []string{"<!here>"}, ReviewBy: soon}
		r.Decisions = []api.Decision{{Approver: r.Requester, Verdict: api.Deny, Comment: r.Reason}}
		got := slackPayload(messageOf(kind, r))
		texts := []string{got.Text}
		for _, b := range got.Blocks {
			if len(b.Fields) > maxFields {
				t.Errorf("%s: a section has %d fields", kind, len(b.Fields))
			}
			for _, f := range append(slices.Clone(b.Fields), valueOf(b.Text)...) {
				if f.Type != "plain_text" {
					t.Errorf("%s: %q is %s", kind, f.Text, f.Type)
				}
				texts = append(texts, f.Text)
				if strings.Count(f.Text, "\n") > 1 || len(f.Text) > maxField {
					t.Errorf("%s: %q has more lines or characters than a field", kind, f.Text)
				}
			}
		}
		for _, text := range texts {
			if strings.ContainsAny(text, "<>") || strings.Contains(strings.NewReplacer("&amp;", "", "&lt;", "", "&gt;", "").Replace(text), "&") {
				t.Errorf("%s: unescaped: %q", kind, text)
			}
		}
		if head := got.Blocks[0].Text.Text; len(head) > maxHeader {
			t.Errorf("%s: the header has %d bytes, more than Slack takes", kind, len(head))
		}
		if got.LinkNames || got.Parse != "none" {
			t.Error("Slack may look for names in the text")
		}
	}
	// Names of characters that grow when they are escaped break no limit.
	for _, c := range []string{"&", "<", "中", "😀"} {
		r := asked()
		r.Requester.Name, r.Reason = strings.Repeat(c, 1000), strings.Repeat(c, 2000)
		for _, b := range slackPayload(messageOf(Waiting, r)).Blocks {
			for _, f := range b.Fields {
				if len(f.Text) > maxField || strings.HasSuffix(f.Text, "&") {
					t.Errorf("a field of %s has %d bytes", c, len(f.Text))
				}
			}
			if b.Type == "header" && len(b.Text.Text) > maxHeader {
				t.Errorf("a header of %s has %d bytes", c, len(b.Text.Text))
			}
		}
	}
	// The one mention there is, is ours.
	r := asked()
	r.Emergency = &api.Emergency{ReviewGroups: []string{"security"}, ReviewBy: soon}
	body, _ := json.Marshal(slackPayload(messageOf(EmergencyStarted, r)))
	if !strings.Contains(string(body), `\u003c!channel\u003e`) {
		t.Errorf("a real emergency interrupts nobody: %s", body)
	}
}

func valueOf(t *slackText) []slackText {
	if t == nil {
		return nil
	}
	return []slackText{*t}
}

// The address of a Slack webhook is a secret: no error has it, whatever fails.
func TestP11_ErrorsHaveNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "/services/T000/B000/sesame"
	echo := newReceiver(t, 404, "no such path "+secret)
	word := newReceiver(t, 403, "invalid_token")
	closed := httptest.NewServer(nil)
	closed.Close()
	for name, c := range map[string]struct {
		url       string
		permanent bool
		words     string
	}{
		"echo":     {echo.URL + secret, true, "404 Not Found"},
		"word":     {word.URL + secret, true, "403 Forbidden: invalid_token"},
		"nobody":   {closed.URL + secret, false, "refused"},
		"bad name": {"http://no such host" + secret, true, "cannot be used"},
	} {
		err := (&slack{url: c.url, client: newHTTPClient()}).Send(t.Context(), messageOf(Test, asked()))
		if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), c.words) || errors.Is(err, errPermanent) != c.permanent {
			t.Errorf("%s: error is %v, permanent %v", name, err, errors.Is(err, errPermanent))
		}
	}
}

// The test vector that the Standard Webhooks libraries share.
func TestStandardWebhooksVector(t *testing.T) {
	t.Parallel()
	key, err := standardwebhooks.Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := standardwebhooks.Sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature is %s, want %s", got, want)
	}
}

func TestWebhookIsSigned(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, 202, "")
	key, err := standardwebhooks.Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	w := &webhook{url: rec.URL, key: key, client: newHTTPClient()}
	m := messageOf(Waiting, asked())
	if err := w.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.At = noon.Add(time.Minute)
	if err := w.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for i, h := range rec.heads {
		if h.Get("Webhook-Id") != m.ID {
			t.Errorf("attempt %d has id %q", i, h.Get("Webhook-Id"))
		}
		if h.Get("Webhook-Signature") != standardwebhooks.Sign(key, m.ID, h.Get("Webhook-Timestamp"), []byte(rec.bodies[i])) {
			t.Errorf("attempt %d is not signed over what came", i)
		}
	}
	if rec.heads[0].Get("Webhook-Timestamp") == rec.heads[1].Get("Webhook-Timestamp") {
		t.Error("the second attempt has the first one's time, and would be refused as old")
	}
	var p Payload
	if err := json.Unmarshal([]byte(rec.bodies[0]), &p); err != nil {
		t.Fatal(err)
	}
	if p.Type != Waiting || p.Data.Request.Login != "dba" || p.Data.Request.Waiting[0].Groups[0] != "approvers" || len(p.Data.Request.Waiting) != 1 {
		t.Errorf("payload is %s", rec.bodies[0])
	}
}

// A receiver cannot send us on to an address inside, nor keep us for ever.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	inside := newReceiver(t, 200, "secrets of the cloud")
	outside := httptest.NewServer(http.RedirectHandler(inside.URL+"/latest/meta-data", http.StatusTemporaryRedirect))
	t.Cleanup(outside.Close)
	err := (&webhook{url: outside.URL, key: make([]byte, 24), client: newHTTPClient()}).Send(t.Context(), messageOf(Test, asked()))
	if !errors.Is(err, errPermanent) || len(inside.bodies) > 0 {
		t.Errorf("error is %v, and the address inside was asked %d times", err, len(inside.bodies))
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(endless.Close)
	err := (&webhook{url: endless.URL, key: make([]byte, 24), client: newHTTPClient()}).Send(t.Context(), messageOf(Test, asked()))
	if err == nil || errors.Is(err, errPermanent) || !strings.Contains(err.Error(), "500") {
		t.Errorf("error is %v", err)
	}
}

func TestWhichAnswersAreFinal(t *testing.T) {
	t.Parallel()
	for status, final := range map[int]bool{400: true, 401: true, 404: true, 410: true, 302: true, 408: false, 425: false, 429: false, 500: false, 503: false} {
		rec := newReceiver(t, status, "")
		err := (&webhook{url: rec.URL, key: make([]byte, 24), client: newHTTPClient()}).Send(t.Context(), messageOf(Test, asked()))
		if err == nil || errors.Is(err, errPermanent) != final {
			t.Errorf("%d: error %v, final %v", status, err, !final)
		}
	}
}

func newMailer(s *mailtest.Server, security string) *mailer {
	host, _, _ := net.SplitHostPort(s.Addr)
	m := &mailer{address: s.Addr, host: host, security: security, from: mail.Address{Name: "Sallyport", Address: "sallyport@example.com"}}
	m.tls = clientTLS(host)
	m.tls.RootCAs = s.Roots
	return m
}

func TestMailArrives(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		security string
		server   mailtest.Config
	}{{startTLS, mailtest.Config{}}, {implicitTLS, mailtest.Config{Implicit: true}}, {noTLS, mailtest.Config{}}} {
		s := mailtest.New(t, c.server)
		m := newMailer(s, c.security)
		m.username, m.password = "sp", "hunter2"
		msg := messageOf(Waiting, asked())
		msg.To = &mail.Address{Name: "Arne Approver", Address: "arne@example.com"}
		if err := m.Send(t.Context(), msg); err != nil {
			t.Fatalf("%s: %v", c.security, err)
		}
		got := s.Mails()
		if len(got) != 1 || got[0].TLS != (c.security != noTLS) || got[0].Auth != "sp:hunter2" ||
			got[0].From != "sallyport@example.com" || !slices.Equal(got[0].To, []string{"arne@example.com"}) {
			t.Fatalf("%s: received %+v", c.security, got)
		}
		head, parts := parseMail(t, got[0].Data)
		if head.Get("Subject") != "Erin Engineer asks for dba@db-1 for 30m" || head.Get("Message-Id") != "<msg-000000000001@example.com>" ||
			head.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("header is %v", head)
		}
		for _, kind := range []string{"text/plain", "text/html"} {
			for _, want := range []string{"Erin Engineer", "dba@db-1", "Replication lag", "INC-7", "13:00 UTC", msg.Link} {
				if !strings.Contains(parts[kind], want) {
					t.Errorf("%s has nothing about %q:\n%s", kind, want, parts[kind])
				}
			}
		}
	}
}

// parseMail reads a message with the standard library, as a mail program would.
func parseMail(t *testing.T, data string) (mail.Header, map[string]string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("%s: %v", kind, err)
	}
	parts := map[string]string{}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		parts[kind] = string(text)
	}
	if len(parts) != 2 {
		t.Fatalf("the mail has %d parts", len(parts))
	}
	return m.Header, parts
}

// No text of a person begins another header, part, line or element.
func TestMailInjection(t *testing.T) {
	t.Parallel()
	s := mailtest.New(t, mailtest.Config{})
	m := newMailer(s, startTLS)
	to, err := addressee("Eve\r\nBcc: x@evil.example", "arne@example.com")
	if err != nil {
		t.Fatal(err)
	}
	msg := messageOf(Waiting, hostile())
	msg.To = to
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	got := s.Mails()[0]
	if !slices.Equal(got.To, []string{"arne@example.com"}) {
		t.Errorf("sent to %q", got.To)
	}
	head, parts := parseMail(t, got.Data)
	if head.Get("Bcc") != "" || len(head) > 10 {
		t.Errorf("headers are %v", head)
	}
	html := parts["text/html"]
	for _, never := range []string{"<script", "<img", "<https", "<!channel"} {
		if strings.Contains(html, never) {
			t.Errorf("the HTML has %q:\n%s", never, html)
		}
	}
	for _, line := range strings.Split(parts["text/plain"], "\n") {
		if strings.HasPrefix(line, "Bcc") || strings.HasPrefix(line, "--") {
			t.Errorf("a line of its own: %q", line)
		}
	}
	for _, bad := range []string{"arne@example.com\r\nBcc: x@y.z", "a@b.c, d@e.f", "Arne <arne@example.com>", "", "nobody", "a@b.c\x00"} {
		if a, err := addressee("x", bad); err == nil {
			t.Errorf("%q is taken as %v", bad, a)
		}
	}
}

// Lines of a header have a limit (RFC 5322), and nobody's name is decoded into
// something else than it looks.
func TestMailSubjects(t *testing.T) {
	t.Parallel()
	r := asked()
	for _, name := range []string{strings.Repeat("😀", 60), strings.Repeat("é", 60), "=?utf-8?q?Approved?=", "Zoë =?utf-8?b?QXBwcm92ZWQ=?="} {
		r.Requester.Name = name
		m := messageOf(Waiting, r)
		text, err := compose(m, mail.Address{Address: "a@b.c"}, []mail.Address{{Address: "d@e.f"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\r\n") {
			if len(line) > 200 {
				t.Errorf("a line has %d bytes: %s", len(line), line)
			}
		}
		head, _ := parseMail(t, strings.ReplaceAll(string(text), "\r\n", "\n"))
		decoded, err := new(mime.WordDecoder).DecodeHeader(head.Get("Subject"))
		if err != nil || strings.ReplaceAll(decoded, "= ?", "=?") != m.headline() {
			t.Errorf("the subject of %q reads %q, %v", name, decoded, err)
		}
	}
}

// A password and what people wrote leave over TLS or not at all.
func TestMailIsNotDowngraded(t *testing.T) {
	t.Parallel()
	stripped := mailtest.New(t, mailtest.Config{NoSTARTTLS: true})
	m := newMailer(stripped, startTLS)
	m.username, m.password = "sp", "hunter2"
	if err := m.Send(t.Context(), withTo(messageOf(Test, asked()))); err == nil || errors.Is(err, errPermanent) || len(stripped.Mails()) > 0 {
		t.Errorf("without STARTTLS: %v", err)
	}
	other := mailtest.New(t, mailtest.Config{})
	m = newMailer(other, startTLS)
	m.tls.RootCAs = mailtest.New(t, mailtest.Config{}).Roots
	if err := m.Send(t.Context(), withTo(messageOf(Test, asked()))); err == nil || len(other.Mails()) > 0 {
		t.Errorf("with a certificate of somebody else: %v", err)
	}
}

func withTo(m Message) Message {
	m.To = &mail.Address{Address: "arne@example.com"}
	return m
}

func TestMailRefusals(t *testing.T) {
	t.Parallel()
	for reply, final := range map[string]bool{"550 5.1.1 no such user": true, "450 4.2.1 mailbox busy": false} {
		s := mailtest.New(t, mailtest.Config{Refuse: func(string) string { return reply }})
		err := newMailer(s, startTLS).Send(t.Context(), withTo(messageOf(Test, asked())))
		if err == nil || errors.Is(err, errPermanent) != final || !strings.Contains(err.Error(), reply[4:]) {
			t.Errorf("%s: %v, final %v", reply, err, errors.Is(err, errPermanent))
		}
	}
	s := mailtest.New(t, mailtest.Config{})
	m := newMailer(s, startTLS)
	m.username, m.password = "sp", "wrong"
	if err := m.Send(t.Context(), withTo(messageOf(Test, asked()))); !errors.Is(err, errPermanent) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
	babbler := mailtest.New(t, mailtest.Config{Babble: true})
	if err := newMailer(babbler, startTLS).Send(t.Context(), withTo(messageOf(Test, asked()))); err == nil {
		t.Error("a server that greets without end was heard to the end")
	}
}
