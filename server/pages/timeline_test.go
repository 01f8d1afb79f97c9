package pages

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
)

// happened writes events around midnights: two requests whose events take turns,
// an emergency with its review, and what else there is.
func (h *house) happened() {
	at := h.clock.Now().Add(-50 * time.Hour)
	write := func(after time.Duration, who, request string, behalf *event.Actor, d event.Data) {
		at = at.Add(after)
		actor := event.Actor{Kind: event.Broker}
		if who != "" {
			actor = h.people[who].Actor()
		}
		e := event.New(at, actor, "192.0.2.17", event.Subject{RequestID: request, HostID: h.hosts[0].ID}, d)
		e.OnBehalfOf = behalf
		leaf, err := e.Encode()
		if err != nil {
			panic(err)
		}
		h.leaves = append(h.leaves, audit.Entry{Index: int64(len(h.leaves)), ID: e.ID, Type: e.Type, Time: e.Time, Leaf: leaf, LeafHash: tlog.RecordHash(leaf)})
	}
	const one, two = "req-4f8k2m9qhx1z", "req-7m2n8p4qrstv"
	sam := h.people["security"].Actor()
	hash := strings.Repeat("0123456789abcdef", 4)
	write(0, "engineer", "", nil, event.PersonSignedIn{Via: "web", Issuer: "https://id.example.com", Subject: "engineer", AuthTime: at})
	write(2*time.Minute, "engineer", one, nil, event.RequestCreated{TermsHash: hash, Host: "db-1", Login: "dba", Duration: "30m", Rule: "databases", Reason: "Long-running migration holds a lock on orders; find and end the blocking backend."})
	write(time.Minute, "natarajan", two, nil, event.RequestCreated{TermsHash: hash, Host: "db-1", Login: "root", Duration: "15m", Rule: "root-anywhere", Reason: "Kernel update did not come back cleanly."})
	write(3*time.Minute, "approver", one, nil, event.RequestDecided{Verdict: "approve", Comment: "Go ahead. Leave the replica alone, please.", TermsHash: hash})
	write(0, "", one, nil, event.GrantStarted{TermsHash: hash, StartsAt: at, EndsAt: at.Add(30 * time.Minute)})
	write(40*time.Second, "engineer", one, nil, event.CertificateIssued{Serial: 1042, Login: "dba", Host: "db-1", ValidAfter: at, ValidBefore: at.Add(5 * time.Minute)})
	write(2*time.Minute, "approver", two, &sam, event.RequestDecided{Verdict: "deny", Comment: "web is enough for reading logs.", TermsHash: hash, For: "Sam Security"})
	write(0, "", two, nil, event.RequestClosed{State: "denied"})
	write(22*time.Hour, "", one, nil, event.GrantEnded{Reason: "time"})
	write(time.Hour, "engineer", two, nil, event.RequestRefused{Host: "db-1", Login: "root", Reason: "no rule lets you ask for that", Code: "no-rule"})
	write(time.Hour, "operator", "", nil, event.HostChanged{Name: "db-1", Address: "10.0.3.7:22", Logins: []string{"dba", "root"}})
	write(2*time.Hour, "engineer", two, nil, event.RequestCreated{TermsHash: hash, Host: "db-1", Login: "dba", Duration: "30m", Rule: "databases", Emergency: true, Reason: "the primary is down"})
	write(0, "engineer", two, nil, event.EmergencyStarted{Host: "db-1", Login: "dba", Reason: "the primary is down", Told: []string{"approvers"}, ReviewGroups: []string{"security"}, ReviewBy: at.Add(4 * time.Hour)})
	write(5*time.Hour, "", two, nil, event.ReviewOverdue{ReviewGroups: []string{"security"}, ReviewBy: at})
	write(time.Hour, "security", two, nil, event.ReviewGiven{Verdict: api.NotJustified, Comment: "The standby had taken over <b>minutes</b> before.", Late: true})
	write(time.Minute, "", "", nil, event.MessageFailed{Notice: "review.given", Channel: "dba-chat", Attempts: 10, Error: "the receiver answered 503"})
}

// The log of one thing is its story: by days, requests together; as a table when
// that is wanted.
func TestTimeline(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.happened()
	h.lent = nil
	host := v.page("auditor", "/log?host=db-1")
	contains(t, host, "<title>Timeline of db-1", "timeline of a host", "<h2>Friday, 20 November 2026</h2>", "<h2>Wednesday, 18 November 2026</h2>",
		`<span class="target">dba@db-1</span> <span class="id">req-4f8k2m9qhx1z</span>`, `class="told tone-bad"`, "Go ahead. Leave the replica alone, please.",
		"on behalf of <a", "&lt;b&gt;minutes&lt;/b&gt;", "data-own-clock", `href="/hosts/`+h.hosts[0].ID)
	_, wednesday, _ := strings.Cut(host, "<h2>Wednesday")
	wednesday, _, _ = strings.Cut(wednesday, "<h2>")
	if n := strings.Count(wednesday, `class="together"`); n != 2 {
		t.Errorf("what took turns is in %d groups", n)
	}
	if strings.Contains(host, "<table") {
		t.Error("there is a table, too")
	}
	// The same events, on other days.
	kiritimati := v.page("auditor", "/log?host=db-1&zone=Pacific/Kiritimati")
	contains(t, kiritimati, "on the clock of Pacific/Kiritimati", "<h2>Saturday, 21 November 2026</h2>")
	if strings.Contains(kiritimati, "data-own-clock") {
		t.Error("the script would put another zone in than was asked for")
	}
	// As a table.
	table := v.page("auditor", "/log?host=db-1&view=table")
	contains(t, table, "<table", `href="/log?host=db-1">Timeline</a>`, `name="view" value="table"`)
	if strings.Contains(table, `class="story"`) {
		t.Error("the table is a story")
	}

	r := h.first(api.Active, "engineer")
	contains(t, v.page("auditor", "/log?request="+r.ID), "timeline of a request", "dba@db-1", `href="/requests/`+r.ID+`"`)
	contains(t, v.page("auditor", "/log?text="+r.ID), "timeline of a request") // pasted where one looks for anything
	contains(t, v.page("auditor", "/log?person="+h.people["engineer"].ID), "timeline of a person", "<h1>Erin Engineer</h1>")
	contains(t, v.page("auditor", "/log?person=per-gone"), "<h1>per-gone</h1>")
	contains(t, v.page("auditor", "/log?host=host-gone&text=x"), `<span class="target">host-gone</span>`, `<details class="narrow" open>`)
	if page := v.page("auditor", "/log"); strings.Contains(page, `class="story"`) {
		t.Error("the whole log is a story")
	}
	for _, zone := range []string{"Local", "Mars/Olympus", "../../etc/passwd", strings.Repeat("a", 4000)} {
		if w := v.get("auditor", "/log?host=db-1&zone="+url.QueryEscape(zone)); w.Code != 422 {
			t.Errorf("zone %.20s: %d", zone, w.Code)
		}
	}

	// Older and newer, in the same view.
	older := v.page("auditor", "/log?host=db-1&view=table&before=30")
	contains(t, older, `rel="prev" href="/log?after=29&amp;host=db-1&amp;view=table"`, `href="/log?host=db-1&amp;view=table">Newest`)
	for _, cursors := range []string{"before=x", "after=x", "after=0", "after=-3", "before=99999999999999999999"} {
		if w := v.get("auditor", "/log?"+cursors); w.Code != 422 {
			t.Errorf("%s: %d", cursors, w.Code)
		}
	}

	// The ways there, for those who may go.
	for path, want := range map[string]string{
		"/requests/" + r.ID:                  `href="/log?request=` + r.ID,
		"/hosts/db-1":                        `href="/log?host=` + h.hosts[0].ID,
		"/people/" + h.people["engineer"].ID: `href="/log?person=` + h.people["engineer"].ID,
	} {
		contains(t, v.page("auditor", path), want)
		if strings.Contains(v.page("operator", path), want) {
			t.Errorf("%s offers an operator what only auditors may read", path)
		}
	}
}

// Pages are told in the same order as they were found, whatever the zone, and no
// event is lost or told twice.
func TestTimelineTellsEverything(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	h.happened()
	var events []api.Event
	for i := range h.leaves {
		events = append(events, h.leaves[len(h.leaves)-1-i].API(false))
	}
	for _, name := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"} {
		zone, err := clockOf(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, oneRequest := range []bool{false, true} {
			seen := map[int64]bool{}
			for _, day := range tell(events, zone, oneRequest) {
				for _, g := range day.Groups {
					last := int64(1 << 62)
					for _, e := range g.Events {
						if seen[e.Index] || e.Index >= last && !oneRequest {
							t.Errorf("event %d stands in the wrong place", e.Index)
						}
						if got := e.At.Format("Monday, 2 January 2006"); got != day.Name {
							t.Errorf("event %d of %s is told on %s", e.Index, got, day.Name)
						}
						seen[e.Index], last = true, e.Index
					}
				}
			}
			if len(seen) != len(events) {
				t.Errorf("%s: %d of %d events are told", name, len(seen), len(events))
			}
		}
	}
}

// Whatever an event is, also one of a later version, the page can tell it.
func TestTimelineTellsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.leaves = nil
	for _, kind := range []string{"", "x", "future.thing", "person.signed_in", "person.sign_in_failed", "person.signed_out", "request.refused", "request.created",
		"request.decided", "request.closed", "grant.started", "grant.ended", "emergency.started", "review.given", "review.overdue", "certificate.signed",
		"broker.keys_loaded", "provider.keys_seen", "token.reused", "policy.withdrawn", "policy.activated", "delegation.made", "delegation.ended",
		"pack.made", "host.registered", "host.removed", "message.failed", "person.removed"} {
		for _, data := range []string{`null`, `{}`, `[]`, `{"drill":true,"emergency":true}`, `{"verdict":7,"state":null,"reason":[]}`, `{"state":"expired","reason":"revoked","verdict":"deny","automatic":true}`} {
			h.leaves = append(h.leaves, audit.Entry{Index: int64(len(h.leaves)), Type: kind, Time: h.clock.Now(),
				Leaf: fmt.Appendf(nil, `{"type":%q,"subject":{"host_id":%q},"data":%s}`, kind, h.hosts[0].ID, data)})
		}
	}
	for before := len(h.leaves); before > 0; before -= pageSize {
		page := v.page("auditor", fmt.Sprint("/log?host=db-1&before=", before))
		if n := strings.Count(page, `class="told`); n != min(pageSize, before) {
			t.Errorf("%d events before %d are told", n, before)
		}
	}
}
