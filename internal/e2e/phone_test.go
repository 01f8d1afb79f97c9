package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"sallyport/api"
	"sallyport/api/hostapi"
	trust "sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
)

// phonePolicy has something of everything that pages show.
const phonePolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: databases
    description: Repairs of databases, with a description that is long enough to need more than one line on a phone
    who: [engineers]
    where: class=database
    logins: [dba, root]
    duration: {default: 30m, max: 2h}
    approvals:
      - slots: [{groups: [approvers]}]
      - slots: [{groups: [security]}]
    extend: {times: 2, by: 30m}
    emergency: {who: [engineers], duration: {max: 1h}, review: {by: [security]}}
    reason: {required: true, min_length: 5, message: Say why.}
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {max: 1h}
    automatic: true
`

// phoneDeployments has one that waits for approval, and one of hosts with long names.
const phoneDeployments = `
deployments:
  - name: web-prod
    service: web
    environment: prod
    agents: [ci]
    where: class=web
    login: web
    command: /usr/local/bin/deploy {digest}
    certificate: {source_address: [127.0.0.0/8]}
    plan: {batches: [{hosts: 1}]}
    approvals: [{slots: [{groups: [approvers]}]}]
  - name: db-prod
    service: db
    environment: prod
    agents: [ci]
    where: class=database
    login: dba
    command: /usr/local/bin/deploy --with=an-option-that-is-long-enough-to-need-more-than-one-line {digest}
    certificate: {source_address: [127.0.0.0/8]}
    plan: {batches: [{hosts: 2}], on_failure: hold}
    gates:
      - {name: a-gate-with-a-name-that-is-as-long-as-gates-may-have-names, prometheus: {url: "https://prometheus.example.com", query: 'sum(rate(errors_total{job="{service}",environment="{environment}"}[5m]))', is: "< 0.01"}}
      - {name: people, approval: {slots: [{groups: [security]}]}}
`

// found is what is wrong with a page for somebody on a phone or without a mouse.
const found = `(() => {
	const wrong = [], width = document.documentElement.clientWidth
	if (document.documentElement.scrollWidth > width) {
		for (const e of document.querySelectorAll('body *')) {
			const r = e.getBoundingClientRect()
			if (r.right > width + 1 && r.width > 0 && !e.closest('.scroll, pre, [role=region]')) wrong.push('wider than the screen: <' + e.tagName.toLowerCase() + ' class="' + e.className + '"> ' + e.textContent.trim().slice(0, 40))
		}
		if (wrong.length === 0) wrong.push('the page scrolls sideways: ' + document.documentElement.scrollWidth + ' > ' + width)
	}
	for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
		if (e.labels.length === 0 && !e.getAttribute('aria-label')) wrong.push('no label: ' + (e.id || e.name))
	}
	for (const e of document.querySelectorAll('button, a[href]')) {
		if (!(e.textContent.trim() || e.getAttribute('aria-label') || e.title)) wrong.push('says nothing: ' + e.outerHTML.slice(0, 80))
	}
	if (document.querySelectorAll('h1').length !== 1) wrong.push(document.querySelectorAll('h1').length + ' main headings')
	const ids = [...document.querySelectorAll('[id]')].map(e => e.id)
	for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) wrong.push('id twice: ' + id)
	return JSON.stringify(wrong.slice(0, 8))
})()`

// Every page fits a phone's screen, and all that can be operated has a name.
func TestEveryPageOnAPhone(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, trust.GitHub, clock.System)
	roots := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(roots, i.Certificate(), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, phonePolicy+"agents:\n"+i.Entry("ci")+phoneDeployments, "SSL_CERT_FILE="+roots)
	op := h.signIn(operator)
	for _, host := range []api.HostInput{ // which nobody connects to
		{Name: "db-1", Labels: map[string]string{"class": "database"}, Logins: []string{"dba", "root"}},
		{Name: "db-with-a-name-as-long-as-names-of-hosts-may-become.example.com", Logins: []string{"dba", "root"},
			Labels: map[string]string{"class": "database", "env": "production", "datacenter": "frankfurt-am-main-2"}},
		{Name: "web-1", Labels: map[string]string{"class": "web"}, Logins: []string{"web"}},
	} {
		host.Address = host.Name
		op.call(http.MethodPost, "/hosts", host, nil, http.StatusCreated)
	}
	erin := h.signIn(engineer)
	ask := func(in api.RequestInput) api.Request {
		t.Helper()
		var r api.Request
		in.Reason = "restore-a-backup/" + strings.Repeat("with-one-very-long-word-", 6) + " and then some"
		erin.call(http.MethodPost, "/requests", in, &r, http.StatusCreated)
		return r
	}
	several := ask(api.RequestInput{Selector: map[string]string{"class": "database"}, Login: "dba"})
	waiting := ask(api.RequestInput{Host: "db-1", Login: "dba", Ticket: "INCIDENT-2026-000000000000000000000000001"})
	emergency := ask(api.RequestInput{Host: "db-1", Login: "root", Emergency: true})
	open := ask(api.RequestInput{Host: "web-1", Login: "web"})
	var me api.Me
	erin.call(http.MethodGet, "/me", nil, &me, http.StatusOK)

	_, pending, err := h.newcomer().Enrol(t.Context(), hostapi.EnrolmentInput{Name: "a-host-that-waits-and-has-a-long-name.example.com", Logins: []string{"dba"}})
	if err != nil {
		t.Fatal(err)
	}
	op.call(http.MethodPost, "/hosts/join-tokens", api.JoinTokenInput{Name: "db-9", Logins: []string{"dba"}, Labels: map[string]string{"class": "database"}}, nil, http.StatusCreated)

	waits := h.deploy(t, i, "web", "sha256:"+strings.Repeat("11", 32))
	rolls := h.deploy(t, i, "db", "sha256:"+strings.Repeat("22", 32))
	for _, host := range rolls.batch(1) {
		rolls.certify(1, host)
	}

	var pack api.Pack
	h.signIn(auditor).call(http.MethodPost, "/audit/packs", map[string]string{"from": "2026-01-01", "to": "2100-01-01"}, &pack, http.StatusAccepted)

	for _, visit := range []struct {
		who   string
		pages []string
	}{
		{engineer, []string{"/", "/requests", "/requests/new", "/requests/new?host=db-1&login=dba", "/requests/new?selector=class%3Ddatabase&login=dba",
			"/requests/" + several.ID, "/requests/" + waiting.ID, "/requests/" + emergency.ID, "/requests/" + open.ID, "/hosts", "/delegations",
			"/why", "/why?host=db-1&login=dba", "/reach", "/nowhere"}},
		{approver, []string{"/", "/approvals", "/deployments", "/deployments/" + waits.id, "/requests/" + waiting.ID, "/requests/" + several.ID, "/delegations"}},
		{security, []string{"/approvals", "/deployments/" + rolls.id, "/requests/" + emergency.ID}},
		{operator, []string{"/", "/hosts", "/hosts/db-1", "/hosts/db-1/reach?login=dba", "/policy", "/policy/proposals/new", "/people", "/people/" + me.Person.ID, "/notifications",
			"/delegations", "/requests", "/hosts?state=sealed", "/hosts/join-tokens", "/hosts/pending", "/hosts/pending/" + pending.ID, "/hosts/labels?selector=class%3Ddatabase",
			"/deployments", "/deployments?service=db&state=active", "/deployments/" + waits.id, "/deployments/" + rolls.id}},
		{auditor, []string{"/deployments", "/deployments/" + rolls.id, "/log?text=" + rolls.id, "/log", "/log/events/0", "/log/events/3", "/log?type=request.", "/log?host=db-1", "/log?request=" + emergency.ID, "/trends", "/evidence", "/evidence/" + pack.ID,
			"/requests/" + emergency.ID, "/policy", "/people", "/reach?person=" + engineer}},
	} {
		t.Run(visit.who, func(t *testing.T) {
			t.Parallel()
			p := h.at(visit.who)
			p.t = t
			do(p, "becoming a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile))
			for _, path := range visit.pages {
				p.open(path)
				var wrong []string
				if err := json.Unmarshal([]byte(do(p, "looking at "+path, chromedp.Evaluate[string](found))), &wrong); err != nil {
					t.Fatal(err)
				}
				for _, w := range wrong {
					t.Errorf("%s, seen by %s: %s", path, visit.who, w)
				}
				name := strings.Trim(strings.NewReplacer("/", "_", "?", "_", "&", "_", "=", "_", "%", "_").Replace(path), "_")
				p.picture("phone-" + visit.who[:4] + "-" + name)
			}
		})
	}
}
