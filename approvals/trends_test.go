package approvals_test

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// Each request is counted once, in the week in which it was asked for, as what
// became of it by now.
func TestTrends(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, ada, sam, audrey := h.person("erin", "engineers", "oncall"), h.person("ada", "approvers"), h.person("sam", "security"), h.person("audrey", "auditors")
	approvedAfter := func(d time.Duration) {
		r := h.ask(erin, "dba", "db-1")
		h.clock.Advance(d)
		h.approve(ada, r.ID)
	}
	approvedAfter(10 * time.Minute)
	approvedAfter(4 * time.Minute)
	approvedAfter(20 * time.Minute)
	denied := h.ask(erin, "dba", "db-1")
	_, err := h.Decide(t.Context(), ada, denied.ID, api.DecisionInput{Verdict: api.Deny, Comment: "not today"})
	must(t, err)
	cancelled := h.ask(erin, "dba", "db-1")
	_, err = h.Cancel(t.Context(), erin, cancelled.ID)
	must(t, err)
	h.ask(erin, "web", "web-1")
	h.reviewed(sam, h.opened(erin, emergencyInput()).ID, api.Justified)
	h.opened(erin, drillInput())
	h.ask(erin, "dba", "db-1")

	this := func() api.Week {
		t.Helper()
		got, err := h.Trends(t.Context(), audrey, 2)
		must(t, err)
		if len(got.Weeks) != 2 {
			t.Fatalf("%d weeks", len(got.Weeks))
		}
		for _, w := range got.Weeks {
			if w.Week == "2025-W11" {
				return w
			}
		}
		t.Fatalf("not there: %+v", got)
		return api.Week{}
	}
	monday := start.Truncate(24 * time.Hour)
	want := api.Week{Week: "2025-W11", From: monday, To: monday.AddDate(0, 0, 7), Requests: 9, Approved: 3, Automatic: 1,
		Emergencies: 1, Drills: 1, Denied: 1, Cancelled: 1, Waiting: 1, TimeToApprove: &api.Spread{Median: "10m0s", P90: "18m0s"}}
	if got := this(); !reflect.DeepEqual(got, want) {
		t.Errorf("now it is\n%+v, want\n%+v", got, want)
	}
	// A week later what waited has expired, and the drill's review is late.
	h.clock.Advance(7 * 24 * time.Hour)
	want.Waiting, want.Expired, want.ReviewsLate = 0, 1, 1
	for range 2 { // counted, then remembered
		if got := this(); !reflect.DeepEqual(got, want) {
			t.Errorf("a week later it is\n%+v, want\n%+v", got, want)
		}
	}
}

// Weeks are those of ISO 8601, also around a year's end.
func TestTrendsWeeks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	audrey := h.person("audrey", "auditors")
	h.clock.Advance(time.Date(2027, 1, 3, 23, 59, 59, 0, time.UTC).Sub(start)) // a Sunday
	got, err := h.Trends(t.Context(), audrey, 0)
	must(t, err)
	if n := len(got.Weeks); n != 12 || got.Weeks[n-1].Week != "2026-W53" {
		t.Errorf("%d weeks until %s", n, got.Weeks[n-1].Week)
	}
	h.clock.Advance(time.Second)
	got, err = h.Trends(t.Context(), audrey, 52)
	must(t, err)
	for i, w := range got.Weeks[1:] {
		if before := got.Weeks[i]; !w.From.Equal(before.To) || w.From.Weekday() != time.Monday || w.From.Hour() != 0 {
			t.Errorf("%s begins %s, after %s", w.Week, w.From, before.Week)
		}
	}
	if n := len(got.Weeks); n != 52 || got.Weeks[n-1].Week != "2027-W01" || got.Weeks[0].Week != "2026-W03" {
		t.Errorf("%d weeks from %s until %s", n, got.Weeks[0].Week, got.Weeks[n-1].Week)
	}
}

// Auditors and operators read figures about everybody, nobody else does, and that
// somebody else tried is in the log.
func TestP10_TrendsAreForReaders(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, c := range []identity.Caller{h.person("audrey", "auditors"), h.person("oscar", "operators")} {
		if _, err := h.Trends(t.Context(), c, 1); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for _, weeks := range []int{-1, api.MaxTrendWeeks + 1, math.MinInt, math.MaxInt} {
			_, err := h.Trends(t.Context(), c, weeks)
			refused(t, err, approvals.ErrBadFilter)
		}
	}
	for _, c := range []identity.Caller{h.person("erin", "engineers"), h.person("ada", "approvers"), h.person("nobody")} {
		_, err := h.Trends(t.Context(), c, 1)
		refused(t, err, approvals.ErrNotReader)
	}
	h.eventually(func() bool { return len(h.all("access.refused")) == 3 })
}

// What is remembered of settled weeks is what counting anew would say, whatever
// happened when.
func TestTrendsRemembered(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, ada, sam, audrey := h.person("erin", "engineers", "oncall"), h.person("ada", "approvers"), h.person("sam", "security"), h.person("audrey", "auditors")
	var waiting, unreviewed []string
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		for range rapid.IntRange(1, 6).Draw(t, "moves") {
			switch rapid.SampledFrom([]string{"ask", "ask", "web", "emergency", "drill", "decide", "review", "time", "time"}).Draw(t, "move") {
			case "ask":
				if r, err := h.Request(ctx, erin, input("dba", "db-1")); err == nil {
					waiting = append(waiting, r.ID)
				}
			case "web":
				_, _ = h.Request(ctx, erin, input("web", "web-1"))
			case "emergency", "drill":
				in := emergencyInput()
				in.Drill = rapid.Bool().Draw(t, "drill")
				if r, err := h.Request(ctx, erin, in); err == nil {
					unreviewed = append(unreviewed, r.ID)
				}
			case "decide":
				for _, id := range waiting {
					_, _ = h.Decide(ctx, ada, id, api.DecisionInput{Verdict: rapid.SampledFrom([]api.Verdict{api.Approve, api.Deny}).Draw(t, "verdict"), Comment: "so be it"})
				}
				waiting = nil
			case "review":
				for _, id := range unreviewed {
					_, _ = h.Review(ctx, sam, id, api.ReviewInput{Verdict: api.Justified, Comment: "read it"})
				}
				unreviewed = nil
			case "time":
				h.clock.Advance(rapid.SampledFrom([]time.Duration{time.Minute, 59 * time.Minute, 5 * time.Hour, 30 * time.Hour, 8 * 24 * time.Hour}).Draw(t, "later"))
			}
		}
		weeks := rapid.IntRange(1, 20).Draw(t, "weeks")
		known, err := h.Trends(ctx, audrey, weeks)
		if err != nil {
			t.Fatal(err)
		}
		h.Forget()
		anew, err := h.Trends(ctx, audrey, weeks)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(known, anew) {
			t.Fatalf("remembered\n%+v, counted\n%+v", known, anew)
		}
		for _, w := range anew.Weeks {
			if w.Approved+w.Automatic+w.Emergencies+w.Drills+w.NotGranted()+w.Waiting != w.Requests {
				t.Fatalf("%+v does not add up", w)
			}
		}
	})
}

// BenchmarkTrends measures a year with a million requests.
func BenchmarkTrends(b *testing.B) {
	h := newHouse(b)
	audrey := h.person("audrey", "auditors")
	admin := h.admin()
	begin := time.Now()
	for _, sql := range []string{
		`INSERT INTO people (id, issuer, subject, name, email, groups, first_signed_in_at, signed_in_at)
			SELECT 'per-' || lpad(i::text, 12, '0'), 'https://id.test', 'p' || i, 'p' || i, '', '{}', now(), now() FROM generate_series(1, 1000) AS i`,
		`INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by, state, waiting_groups, starts_at, ends_at, end_reason, key)
			SELECT 'req-' || lpad(i::text, 12, '0'), 'per-' || lpad((1 + i % 500)::text, 12, '0'), 'host-000000000001', 1, terms, encode(sha256(terms), 'hex'),
				'{approvers}', asked, asked + interval '1 hour', CASE WHEN i % 5 = 0 THEN 'denied' ELSE 'ended' END, '{}',
				CASE WHEN i % 5 > 0 THEN asked + interval '5 minutes' END, CASE WHEN i % 5 > 0 THEN asked + interval '1 hour' END, CASE WHEN i % 5 > 0 THEN 'time' ELSE '' END, 'SHA256:x'
			FROM (SELECT i, timestamptz '2025-03-10 12:00Z' - i * interval '31 seconds' AS asked, convert_to(repeat(md5(i::text), 30), 'UTF8') AS terms
				FROM generate_series(1, 1000000) AS i) AS n`,
		`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
			SELECT 'dec-' || lpad(i::text, 12, '0'), id, 1, person_id, 'per-' || lpad((501 + i % 500)::text, 12, '0'), statement, encode(sha256(statement), 'hex'),
				created_at + interval '1 second' * (i % 1000)
			FROM (SELECT row_number() OVER () AS i, id, person_id, created_at, convert_to(repeat(md5(id), 20), 'UTF8') AS statement FROM requests WHERE right(id, 1) <> '3') AS n`,
		`VACUUM ANALYZE requests`, `VACUUM ANALYZE decisions`,
	} {
		if _, err := admin.Exec(b.Context(), sql); err != nil {
			b.Fatal(sql, err)
		}
	}
	b.Logf("filled in %s", time.Since(begin))
	for _, weeks := range []int{12, 26, 52} {
		b.Run(fmt.Sprint(weeks, " weeks"), func(b *testing.B) {
			var out api.Trends
			for b.Loop() {
				h.Forget() // what a broker has to count after its start
				var err error
				if out, err = h.Trends(b.Context(), audrey, weeks); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for _, w := range out.Weeks {
				n += w.Requests
			}
			b.ReportMetric(float64(n), "requests")
		})
	}
}
