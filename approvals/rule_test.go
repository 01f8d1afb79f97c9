package approvals_test

import (
	"encoding/json"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
)

const schedulePolicy = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
rules:
  - name: office
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {max: 1h}
    automatic: {zone: Europe/Berlin, times: [{days: [mon, tue], from: "09:00", to: "17:00"}]}
    approvals: [{slots: [{groups: [approvers]}]}]
  - name: strict
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {max: 1h}
    approvals: [{slots: [{groups: [approvers]}]}]
    assurance: provider
    max_age: 15m
    acr_values: [phr]
    max_sign_in_age: 8h
    single_use: true
    at_end: keep
    record: true
    certificate:
      pty: false
      forwarding: [x11, port]
      key_types: [sk-ssh-ed25519@openssh.com]
      verify_required: true
    extend: {times: 2, by: 20m, automatic: true}
`

// start is Monday, 13:00 in Berlin.
func TestScheduleDecidesWhenItIsAsked(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, schedulePolicy)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	ask := func(notBefore ...time.Time) api.Request {
		t.Helper()
		in := input("web", "web-1")
		if len(notBefore) > 0 {
			in.NotBefore = &notBefore[0]
		}
		pre, err := h.Preview(t.Context(), erin, in)
		must(t, err)
		r, err := h.Request(t.Context(), erin, in)
		must(t, err)
		if pre.Automatic != (r.State == api.Approved) || len(pre.Approvers) != len(r.Approvers) {
			t.Errorf("foreseen %+v, and it became %+v", pre, r)
		}
		return r
	}
	if r := ask(); r.State != api.Approved || len(r.Approvers) != 0 {
		t.Errorf("in office hours: %+v", r)
	}
	if r := ask(start.Add(24 * time.Hour)); r.State != api.Approved {
		t.Errorf("for tomorrow, in office hours: %s", r.State)
	}
	for _, later := range []time.Duration{4 * time.Hour, 48 * time.Hour} {
		if r := ask(start.Add(later)); r.State != api.Requested || len(r.Approvers) != 1 {
			t.Errorf("in office hours for %s later, which is outside: %+v", later, r)
		}
	}
	h.clock.Advance(4*time.Hour - time.Microsecond)
	if r := ask(); r.State != api.Approved {
		t.Errorf("just before its end: %s", r.State)
	}
	h.clock.Advance(time.Microsecond)
	late := ask()
	if late.State != api.Requested {
		t.Errorf("at its end: %s", late.State)
	}
	// What was asked in the evening does not become automatic in the morning.
	must(t, h.use(erin, h.approve(ann, late.ID).ID, "SHA256:k"))
	if r := ask(start.Add(24 * time.Hour)); r.State != api.Requested {
		t.Errorf("in the evening for office hours: %s", r.State)
	}
}

// Everything that a rule says of a grant stands in the terms (P4).
func TestP4_TermsHaveAllOfTheRule(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, schedulePolicy)
	erin := h.person("erin", "engineers")
	r := h.ask(erin, "dba", "db-1")
	var text []byte
	must(t, h.db.Pool.QueryRow(t.Context(), `SELECT terms FROM requests WHERE id = $1`, r.ID).Scan(&text))
	terms, err := approvals.ParseTerms(text)
	must(t, err)
	got, err := json.Marshal(terms.Rule)
	must(t, err)
	const want = `{"name":"strict","automatic":false,"stages":[{"slots":[{"groups":["approvers"],"count":1}]}],"certificate_lifetime":"5m","source_address":[],` +
		`"no_pty":true,"forwarding":["port","x11"],"key_types":["sk-ssh-ed25519@openssh.com"],"verify_required":true,"single_use":true,"at_end":"keep","record":true,` +
		`"max_sign_in_age":"8h","assurance":"provider","max_age":"15m","acr_values":["phr"],"extend":{"times":2,"by":"20m","automatic":true}}`
	if string(got) != want {
		t.Errorf("terms have\n%s, want\n%s", got, want)
	}
}

func TestKeysOfOtherTypesAreRefusedEarly(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, schedulePolicy)
	erin := h.person("erin", "engineers")
	in := input("dba", "db-1")
	in.PublicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILUypHmr9/nJkLGXSXkQOJgkXLhSrLtVA4KqnHBLxnS erin"
	_, err := h.Request(t.Context(), erin, in)
	refused(t, err, approvals.ErrBadKey)
}
