package approvals_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/policy"
	"sallyport/internal/refusal"
)

func TestRefusedAsks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, eve := h.person("erin", "engineers"), h.person("eve", "interns")
	past, far := start.Add(-time.Microsecond), start.Add(30*24*time.Hour+time.Microsecond)
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKSmV0pcnvCwTs3JY7FCSYTSZm/5HJvKGGC6Ehk5iMf2"
	for name, tt := range map[string]struct {
		change func(*api.RequestInput)
		want   *refusal.Error
		event  bool
	}{
		"unknown host":             {func(in *api.RequestInput) { in.Host = "db-9" }, approvals.ErrUnknownHost, true},
		"host of no rule":          {func(in *api.RequestInput) { in.Host = "lonely" }, approvals.ErrUnknownHost, true},
		"malformed host":           {func(in *api.RequestInput) { in.Host = "db-1\n%h" }, approvals.ErrBadHost, false},
		"unknown login":            {func(in *api.RequestInput) { in.Login = "postgres" }, policy.ErrNoRule, true},
		"login of no rule":         {func(in *api.RequestInput) { in.Login = "web" }, policy.ErrNoRule, true},
		"malformed login":          {func(in *api.RequestInput) { in.Login = "dba root" }, approvals.ErrBadLogin, false},
		"login with a wildcard":    {func(in *api.RequestInput) { in.Login = "%u" }, approvals.ErrBadLogin, false},
		"too long":                 {func(in *api.RequestInput) { in.Duration = "2h0m1s" }, policy.ErrTooLong, true},
		"negative duration":        {func(in *api.RequestInput) { in.Duration = "-5m" }, policy.ErrBadDuration, false},
		"zero duration":            {func(in *api.RequestInput) { in.Duration = "0s" }, policy.ErrBadDuration, false},
		"no duration":              {func(in *api.RequestInput) { in.Duration = "soon" }, policy.ErrBadDuration, false},
		"endless duration":         {func(in *api.RequestInput) { in.Duration = "9999999999h" }, policy.ErrBadDuration, false},
		"no reason":                {func(in *api.RequestInput) { in.Reason = " \n" }, policy.ErrReason, false},
		"short reason":             {func(in *api.RequestInput) { in.Reason = "fix" }, policy.ErrReason, false},
		"long reason":              {func(in *api.RequestInput) { in.Reason = strings.Repeat("ü", 2001) }, approvals.ErrBadText, false},
		"reason with a zero byte":  {func(in *api.RequestInput) { in.Reason = "restore\x00 it" }, approvals.ErrBadText, false},
		"reason that is no text":   {func(in *api.RequestInput) { in.Reason = "restore \xff" }, approvals.ErrBadText, false},
		"reason that turns around": {func(in *api.RequestInput) { in.Reason = "restore \u202e yllaer" }, approvals.ErrBadText, false},
		"reason that is blank":     {func(in *api.RequestInput) { in.Reason = "\u200d\u2800\u200f \u00a0" + strings.Repeat("\u200d", 20) }, policy.ErrReason, false},
		"reason with a hidden one": {func(in *api.RequestInput) { in.Reason = "restore \U000e0064\U000e0062 it" }, approvals.ErrBadText, false},
		"reason of zero width":     {func(in *api.RequestInput) { in.Reason = strings.Repeat("\u200b", 20) }, approvals.ErrBadText, false},
		"reason of fillers":        {func(in *api.RequestInput) { in.Reason = strings.Repeat("\u3164", 20) }, approvals.ErrBadText, false},
		"host in other letters":    {func(in *api.RequestInput) { in.Host = "d\u044c-1" }, approvals.ErrBadHost, false},
		"login in other letters":   {func(in *api.RequestInput) { in.Login = "db\u0430" }, approvals.ErrBadLogin, false},
		"long ticket":              {func(in *api.RequestInput) { in.Ticket = strings.Repeat("1", 201) }, approvals.ErrBadText, false},
		"wrong ticket":             {func(in *api.RequestInput) { in.Login, in.Ticket = "root", "JIRA 1" }, policy.ErrTicket, false},
		"start in the past":        {func(in *api.RequestInput) { in.NotBefore = &past }, approvals.ErrBadStart, false},
		"start too far ahead":      {func(in *api.RequestInput) { in.NotBefore = &far }, approvals.ErrBadStart, false},
		"no key":                   {func(in *api.RequestInput) { in.PublicKey = "hello" }, approvals.ErrBadKey, false},
		"two keys":                 {func(in *api.RequestInput) { in.PublicKey = key + "\n" + key }, approvals.ErrBadKey, false},
		"key with options":         {func(in *api.RequestInput) { in.PublicKey = `command="sh" ` + key }, approvals.ErrBadKey, false},
		"emergency":                {func(in *api.RequestInput) { in.Emergency = true }, policy.ErrNoEmergency, true},
	} {
		in := input("dba", "db-1")
		tt.change(&in)
		before := h.count(`SELECT count(*) FROM requests`)
		refusedBefore := len(h.all("request.refused"))
		_, err := h.Preview(t.Context(), erin, in)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: preview says %v, want %s", name, err, tt.want.Code)
		}
		if len(h.all("request.refused")) != refusedBefore {
			t.Errorf("%s: the preview left an event", name)
		}
		_, err = h.Request(t.Context(), erin, in)
		if !errors.Is(err, tt.want) || refusal.As(err).Hint == "" {
			t.Errorf("%s: request says %v, want %s", name, err, tt.want.Code)
		}
		events := h.all("request.refused")
		if got := len(events) - refusedBefore; (got == 1) != tt.event || got > 1 {
			t.Errorf("%s: %d events", name, got)
		} else if tt.event && (events[0].Data["code"] != tt.want.Code || events[0].Actor.ID != erin.ID || events[0].Source != erin.Source) {
			t.Errorf("%s: event is %+v", name, events[0])
		}
		if h.count(`SELECT count(*) FROM requests`) != before {
			t.Errorf("%s: a request was made", name)
		}
	}

	// Who may ask for nothing on a host hears the same as of one that is not there.
	in := input("dba", "db-1")
	_, there := h.Request(t.Context(), eve, in)
	in.Host = "db-9"
	_, absent := h.Request(t.Context(), eve, in)
	if there.Error() != absent.Error() || refusal.As(there).Hint != refusal.As(absent).Hint {
		t.Errorf("a host that is there: %v; one that is not: %v", there, absent)
	}
}

func TestP11_PastedPrivateKeyGoesNowhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	in := input("dba", "db-1")
	secret := randomHex(32)
	in.PublicKey = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret + "\n-----END OPENSSH PRIVATE KEY-----\n"
	_, err := h.Request(t.Context(), erin, in)
	refused(t, err, approvals.ErrBadKey)
	if strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
		t.Error("the refusal repeats the key")
	}
	for _, e := range h.all("") {
		if strings.Contains(string(e.Leaf), secret) {
			t.Errorf("event %s repeats the key", e.Type)
		}
	}
}

func TestRequestKeepsWhatWasAsked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	edge := start.Add(30 * 24 * time.Hour)
	in := api.RequestInput{Host: h.hosts["db-1"].ID, Login: "root", Duration: "60m", Ticket: " INC-12 ",
		Reason: "line one\n<b>line two</b> & \u2028 \"三\"\t", NotBefore: &edge}
	r, err := h.Request(t.Context(), erin, in)
	must(t, err)
	if r.Host != "db-1" || r.Duration != "1h" || r.Ticket != "INC-12" || r.Reason != strings.TrimSpace(in.Reason) ||
		!r.NotBefore.Equal(edge) || r.CertificateLifetime != "2m" || r.Requester.Name != "erin" || r.Policy.Version != 1 {
		t.Errorf("request is %+v", r)
	}
	g, err := h.grant(erin, r.ID)
	must(t, err)
	if g.Terms.Rule.SourceAddress[0] != "10.0.0.0/8" || g.Terms.Person.Subject != "erin" {
		t.Errorf("terms are %s", g.TermsText)
	}
	created := h.all("request.created")[0]
	if created.Data["terms"] != string(g.TermsText) || created.Data["terms_hash"] != r.TermsHash {
		t.Errorf("event is %+v", created)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers", "approvers"), h.person("ann", "approvers")
	h.all("") // everything is sequenced
	before := h.count(`SELECT count(*) FROM audit.entries`)

	p, err := h.Preview(t.Context(), erin, input("root", "db-1"))
	must(t, err)
	if p.Rule != "database-root" || p.Automatic || p.Duration != "30m" || !p.ApproveBy.Equal(start.Add(time.Hour)) ||
		p.Host.Name != "db-1" || p.Host.State != "sealed" || len(p.Approvers) != 2 {
		t.Errorf("preview is %+v", p)
	}
	// The requester is in the group, and yet not among those who could approve.
	if got := p.Approvers[0].People; len(got) != 1 || got[0].ID != ann.ID || got[0].Groups != nil {
		t.Errorf("people who could approve: %+v", got)
	}
	p, err = h.Preview(t.Context(), erin, input("web", "web-1"))
	must(t, err)
	if !p.Automatic || len(p.Approvers) != 0 {
		t.Errorf("preview of an automatic rule is %+v", p)
	}
	for _, table := range []string{"requests", "decisions", "jobs.river_job", "audit.pending"} {
		if n := h.count(`SELECT count(*) FROM ` + table); n != 0 {
			t.Errorf("the preview left %d rows in %s", n, table)
		}
	}
	if n := h.count(`SELECT count(*) FROM audit.entries`); n != before {
		t.Errorf("the preview left %d events", n-before)
	}
}

func TestOpenRequestsAreLimited(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, finn := h.person("erin", "engineers"), h.person("finn", "engineers")
	services := []*approvals.Service{h.Service, h.open(testPolicy)}
	var wg sync.WaitGroup
	var made, tooMany sync.Map
	for i := range approvals.MaxOpen + 10 {
		wg.Go(func() {
			r, err := services[i%2].Request(t.Context(), erin, input("dba", "db-1"))
			switch {
			case err == nil:
				made.Store(r.ID, r)
			case errors.Is(err, approvals.ErrTooManyOpen):
				tooMany.Store(i, true)
			default:
				t.Errorf("asking: %v", err)
			}
		})
	}
	wg.Wait()
	size := func(m *sync.Map) (n int) { m.Range(func(any, any) bool { n++; return true }); return n }
	if size(&made) != approvals.MaxOpen || size(&tooMany) != 10 {
		t.Fatalf("%d requests were made, %d refused", size(&made), size(&tooMany))
	}
	if n := len(h.all("request.refused")); n != 10 {
		t.Errorf("%d refusals in the log", n)
	}
	h.ask(finn, "dba", "db-1") // another person's limit is their own
	_, err := h.Preview(t.Context(), erin, input("dba", "db-1"))
	refused(t, err, approvals.ErrTooManyOpen)

	// What has expired by the clock is not open, although no job has run.
	h.clock.Advance(time.Hour)
	h.ask(erin, "dba", "db-1")
}

func TestNewRefusesMissingFields(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	full := approvals.Config{Pool: h.db.Pool, Log: h.log, Clock: h.clock, People: h.people, Hosts: h.hosts, Policy: h.Policy()}
	for name, drop := range map[string]func(*approvals.Config){
		"pool": func(c *approvals.Config) { c.Pool = nil }, "log": func(c *approvals.Config) { c.Log = nil },
		"clock": func(c *approvals.Config) { c.Clock = nil }, "people": func(c *approvals.Config) { c.People = nil },
		"hosts": func(c *approvals.Config) { c.Hosts = nil }, "policy": func(c *approvals.Config) { c.Policy = nil },
	} {
		cfg := full
		drop(&cfg)
		if _, err := approvals.New(t.Context(), cfg); err == nil {
			t.Errorf("without %s New succeeds", name)
		}
	}
}
