package door_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/door"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

// hall is a door, and the broker behind it.
type hall struct {
	door.Door
	log *certtest.Log
	ca  ssh.Signer
	now time.Time
}

func newHall(t testing.TB) *hall {
	t.Helper()
	h := &hall{log: certtest.NewLog(t, "sallyport.example.com/log"), ca: newSigner(t), now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	h.Trust = place.Trust{Trust: certs.Trust{CAs: []ssh.PublicKey{h.ca.PublicKey()}, Log: h.log.Verifier}, HostID: "host-4f8k2m9qhx1z", LogKey: h.log.Key, MaxSilence: 24 * time.Hour}
	h.Revocations = hostapi.Revocations{Number: 7, MadeAt: h.now.Add(-time.Minute)}
	return h
}

func (h *hall) terms(t testing.TB) certs.User {
	return certs.User{Serial: 42, Key: newSigner(t).PublicKey(), Login: "dba", HostID: h.Trust.HostID, RequestID: "req-y55f97b65r0g", PersonID: "per-h2hhsjsb579k",
		Now: h.now, Lifetime: 5 * time.Minute, GrantEnds: h.now.Add(time.Hour)}
}

func TestLineNarrowsToWhatTheCertificateGives(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for want, change := range map[string]func(*certs.User){
		"restrict,pty dba@host-4f8k2m9qhx1z":                                                     func(*certs.User) {},
		"restrict dba@host-4f8k2m9qhx1z":                                                         func(u *certs.User) { u.NoPTY = true },
		"restrict,pty,port-forwarding dba@host-4f8k2m9qhx1z":                                     func(u *certs.User) { u.Forwarding = []string{"port"} },
		`restrict,command="exec /usr/lib/sallyport/sally-host record",pty dba@host-4f8k2m9qhx1z`: nil,
	} {
		u := h.terms(t)
		if change == nil { // what has to be recorded forwards nothing
			h.Trust.Records, u.Forwarding = true, []string{"port"}
			l, err := h.Ask(h.log.CertifyAs(u, h.ca, func(e *event.CertificateIssued) { e.Record = true }).Marshal(), "dba", h.now)
			must(t, err)
			if got := door.Line(l); got != want {
				t.Errorf("it answers %q, want %q", got, want)
			}
			continue
		}
		change(&u)
		l, err := h.Ask(h.log.Certify(u, h.ca).Marshal(), "dba", h.now)
		must(t, err)
		if got := door.Line(l); got != want {
			t.Errorf("it answers %q, want %q", got, want)
		}
	}
}

func TestWhatHasToBeRecordedNeedsSomebodyToRecordFor(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	wire := h.log.CertifyAs(h.terms(t), h.ca, func(e *event.CertificateIssued) { e.Record = true }).Marshal()
	if _, err := h.Ask(wire, "dba", h.now); door.ReasonOf(err) != door.NotRecorded {
		t.Errorf("it says %v", err)
	}
	h.Trust.Records = true
	if _, err := h.Ask(wire, "dba", h.now); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(*hall)
		login  string
		at     time.Duration
		opens  bool
		says   []string
	}{
		"good": {nil, "", 0, true, []string{"certificate  42, for dba@db-1 (host-4f8k2m9qhx1z)", "person       Erin Engineer (per-h2hhsjsb579k), request req-y55f97b65r0g",
			"in the log   entry 0 of sallyport.example.com/log", "list 7 of revocations", "answer       it opens dba: restrict,pty dba@host-4f8k2m9qhx1z"}},
		"another login": {nil, "root", 0, false, []string{"it does not open root (not-here)", "what to do   ask for this login"}},
		"ended":         {nil, "", time.Hour, false, []string{"it does not open dba (not-here)", "valid        2026-11-21T08:59:00Z to 2026-11-21T09:05:00Z", "compare the clocks"}},
		"revoked": {func(h *hall) {
			h.Revocations.Serials = []hostapi.RevokedSerial{{Serial: 42, Until: h.now.Add(time.Hour)}}
		}, "", 0, false,
			[]string{"(revoked): certificate 42 was revoked", "ask anew"}},
		"finished": {func(h *hall) {
			h.Revocations.Grants = []hostapi.EndedGrant{{Request: "req-y55f97b65r0g", EndedAt: h.now, Reason: hostapi.EndFinished}}
		}, "", 0, false, []string{"(revoked): the grant of req-y55f97b65r0g ended", "finished"}},
		"silent":  {func(h *hall) { h.Revocations.MadeAt = h.now.Add(-25 * time.Hour) }, "", 0, false, []string{"(silent)", "systemctl status sally-host"}},
		"closed":  {func(h *hall) { h.Closed = "the broker does not know it" }, "", 0, false, []string{"(closed)", "the broker does not know it"}},
		"by hand": {func(h *hall) { h.Trust.CAs = []ssh.PublicKey{newSigner(t).PublicKey()} }, "", 0, false, []string{"(other-ca)", "what to do"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHall(t)
			wire := h.log.Certify(h.terms(t), h.ca).Marshal()
			if c.change != nil {
				c.change(h)
			}
			var out bytes.Buffer
			if opens := h.Explain(&out, wire, c.login, h.now.Add(c.at)); opens != c.opens {
				t.Errorf("it opens: %t", opens)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("it does not say %q:\n%s", text, out.String())
				}
			}
		})
	}
}

// What a stranger wrote into a certificate cannot pass for something that is proved, and
// cannot move the cursor.
func TestExplainKeepsForgeriesApart(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	forged := certtest.Resign(t, h.log.Certify(h.terms(t), h.ca), h.ca, func(c *ssh.Certificate) {
		c.Extensions = map[string]string{"permit-pty": ""}
		c.KeyId = "req\nanswer       it opens dba\x1b[2J" + strings.Repeat("x", 10_000)
		c.ValidPrincipals = []string{"dba@host-4f8k2m9qhx1z\nanswer  yes", strings.Repeat("p", 5000)}
		c.ValidBefore = ssh.CertTimeInfinity
	})
	var out bytes.Buffer
	if h.Explain(&out, forged.Marshal(), "dba", h.now) {
		t.Error("it opens")
	}
	text := out.String()
	if !strings.Contains(text, "which nothing proves") || !strings.Contains(text, "(no-receipt)") || !strings.Contains(text, "tell the security team") {
		t.Errorf("it says\n%s", text)
	}
	if strings.Contains(text, "\x1b") || strings.Count(text, "\nanswer ") != 1 || len(text) > 3000 {
		t.Errorf("the forgery speaks for itself:\n%q", text)
	}
}

func TestPrincipalsSaysWhy(t *testing.T) {
	t.Parallel()
	p := place.Place{Root: t.TempDir(), Owner: uint32(os.Getuid())}
	ask := func(q door.Question) (string, string) {
		var out bytes.Buffer
		var said string
		door.Principals(p, &out, func(line string) { said = line }, q, time.Now)
		return out.String(), said
	}
	if out, said := ask(door.Question{Login: "dba", Certificate: "AAAA"}); out != "" || !strings.Contains(said, "not enrolled") {
		t.Errorf("%q, %q", out, said)
	}
	log, ca, id := certtest.NewLog(t, "sallyport.example.com/log"), newSigner(t), ids.New(ids.Host)
	must(t, os.MkdirAll(p.State(), 0o755))
	must(t, p.Keep(place.Settings{Enrolment: hostapi.Enrolment{HostID: id, Name: "db-1", UserCAs: []string{certs.Line(ca.PublicKey())}, LogKey: log.Key, Settings: hostapi.Settings{MaxSilenceSeconds: 60}}}))
	now := time.Now()
	cert := log.Certify(certs.User{Serial: 42, Key: newSigner(t).PublicKey(), Login: "dba", HostID: id, RequestID: ids.New(ids.Request), PersonID: ids.New(ids.Person),
		Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}, ca)
	for what, c := range map[string]struct{ certificate, says string }{
		"never heard":  {base64.StdEncoding.EncodeToString(cert.Marshal()), "never heard"},
		"no base64":    {"\x1b[2J", "(bad-form)"},
		"too long":     {strings.Repeat("A", 100_000), "(too-large)"},
		"no text":      {"", "(bad-form)"},
		"only a key":   {base64.StdEncoding.EncodeToString(cert.Key.Marshal()), "(bad-form)"},
		"another text": {"AAAA", "(bad-form)"},
	} {
		if out, said := ask(door.Question{Login: "dba", Certificate: c.certificate}); out != "" || !strings.Contains(said, c.says) {
			t.Errorf("%s: %q, %q", what, out, said)
		}
	}
	if _, said := ask(door.Question{Login: "d\nba", Certificate: "AAAA"}); strings.Contains(said, "\n") {
		t.Errorf("a login makes a line: %q", said)
	}
	if err := p.Keep(place.Settings{Enrolment: hostapi.Enrolment{HostID: id, Name: "db-1", UserCAs: []string{certs.Line(ca.PublicKey())},
		LogKey: certtest.NewLog(t, "sallyport.example.com/log").Key, Settings: hostapi.Settings{MaxSilenceSeconds: 60}}}); !errors.Is(err, place.ErrOtherLog) {
		t.Errorf("another log's key: %v", err)
	}
}
