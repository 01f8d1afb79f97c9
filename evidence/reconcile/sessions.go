package reconcile

import (
	"strconv"
	"strings"
	"time"

	"sallyport/evidence/populations"
)

// Sessions are reported by hosts as events session.started, with the data's fields
//
//	serial      of the certificate, as text; missing if sshd accepted something else
//	key_id      of the certificate, as sshd saw it
//	principal   that opened the login, or login and the event's host
//	started_at  when; the event's own time if it is not there
//
// They are read by these names, without the catalogue, so that it does not matter
// which version of the event it is.

// session holds a login against the certificate that it says it was opened by.
func (g *Engine) session(e *populations.Event) {
	serial, err := strconv.ParseUint(e.Text("serial"), 10, 64)
	if err != nil || serial == 0 {
		g.report(SessionWithoutCert, e, -1, "the host accepted something else than a certificate")
		return
	}
	c, ok := g.live[serial]
	if !ok {
		if !g.beforePack(e, "the certificate") {
			g.report(SessionWithoutCert, e, -1, "no certificate %d was issued in the time in which it could be used", serial)
		}
		return
	}
	at := e.Moment("started_at")
	if at.IsZero() {
		at = e.Time
	}
	principal := e.Text("principal")
	if principal == "" {
		principal = e.Text("login") + "@" + e.Subject.HostID
	}
	switch {
	case e.Text("key_id") != "" && e.Text("key_id") != c.keyID:
		g.report(SessionWithoutCert, e, c.index, "certificate %d is another one: its key id is %s", serial, c.keyID)
	case principal != c.principal || !strings.HasSuffix(c.principal, "@"+e.Subject.HostID):
		g.report(SessionOutsideCert, e, c.index, "certificate %d is for %s", serial, c.principal)
	case at.Before(c.after.Add(-clockSkew)) || !at.Before(c.before.Add(clockSkew)):
		g.report(SessionOutsideCert, e, c.index, "certificate %d was good from %s to %s", serial, populations.Time(c.after), populations.Time(c.before))
	case c.opening != nil:
		g.agentSession(e, c, serial, at)
	}
}

// clockSkew is how far a host's clock may be off.
const clockSkew = time.Minute

// sessionPerson is the person of a key id, "<request>:<person>".
func sessionPerson(e *populations.Event) string {
	_, person, _ := strings.Cut(e.Text("key_id"), ":")
	return person
}
