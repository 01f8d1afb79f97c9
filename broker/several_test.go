package broker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// databases makes an ask one for all hosts of the class.
func databases(in *api.RequestInput) {
	in.Host, in.Selector = "", map[string]string{"class": "database"}
}

// on asks for a certificate for one of the hosts.
func on(host string, in api.CertificateInput) api.CertificateInput {
	in.Host = host
	return in
}

// fleet adds two databases to the scene's.
func (s *scene) fleet() (second, third api.Host) {
	s.t.Helper()
	return s.host("db-2", "10.0.3.9", "database", "dba", "root"), s.host("db-3", "10.0.3.10", "database", "dba", "root")
}

// One grant, one key, and for each host a certificate that fits no other.
func TestP2_OneCertificatePerHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	second, third := s.fleet()
	r := s.grant("dba", "", databases)
	key := newKey(t)
	for _, h := range []struct{ wanted, id, name string }{
		{"db-1", s.db.ID, "db-1"}, {second.ID, second.ID, "db-2"}, {"db-3", third.ID, "db-3"}, {"db-1", s.db.ID, "db-1"},
	} {
		got, err := s.Issue(t.Context(), s.engineer, r.ID, on(h.wanted, input(t, key, r.ID)))
		must(t, err)
		cert := parse(t, got.Certificate)
		if !slices.Equal(cert.ValidPrincipals, []string{"dba@" + h.id}) || got.Connect.HostKeyAlias != h.id ||
			got.Connect.Command != "sally ssh dba@"+h.name {
			t.Errorf("for %s came %v, %+v", h.wanted, cert.ValidPrincipals, got.Connect)
		}
		issued := s.events("certificate.issued")
		last := issued[len(issued)-1]
		if data := last.Data.(event.CertificateIssued); last.Subject.HostID != h.id || last.Subject.HostIDs != nil || data.Host != h.name || data.TermsHash != r.TermsHash {
			t.Errorf("the event of %s is about %+v", h.name, last.Subject)
		}
	}
	s.clock.Advance(time.Minute)
	shown, err := s.Request(t.Context(), s.engineer, r.ID)
	must(t, err)
	var n []int
	for _, h := range shown.Hosts {
		n = append(n, h.Certificates)
	}
	if !slices.Equal(n, []int{2, 1, 1}) {
		t.Errorf("certificates by host: %v", n)
	}
	s.checkLog()
}

// Which host is never guessed, and never another than was approved.
func TestP4_OnlyTheHostsOfTheTerms(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	second, _ := s.fleet()
	r := s.grant("dba", "", databases)
	key := newKey(t)
	in := input(t, key, r.ID)
	s.refusedIssue(s.engineer, r.ID, in, broker.ErrWhichHost)
	_, err := s.Issue(t.Context(), s.engineer, r.ID, in)
	if hint := refusal.As(err).Hint; hint != "say for which: db-1, db-2, db-3" {
		t.Errorf("hint %q", hint)
	}
	late := s.host("db-4", "10.0.3.11", "database", "dba") // has the labels, but came after the ask
	for _, other := range []string{late.ID, "db-4", "web-1", s.web.ID, "no-such-host", "db-1,db-2", "*", " db-1", "DB-1", "dba@db-1", "10.0.3.7"} {
		s.refusedIssue(s.engineer, r.ID, on(other, in), broker.ErrOtherHost)
	}
	// Also where there is but one.
	single := s.grant("dba", "db-1")
	s.refusedIssue(s.engineer, single.ID, on("db-2", input(t, key, single.ID)), broker.ErrOtherHost)
	_, err = s.Issue(t.Context(), s.engineer, single.ID, on("db-1", input(t, key, single.ID)))
	must(t, err)

	// Somebody gives another host the name that was approved: it is not what was approved.
	must(t, s.hosts.Remove(t.Context(), s.operator, "db-2"))
	impostor := s.host("db-2", "10.6.6.6", "database", "dba")
	s.refusedIssue(s.engineer, r.ID, on("db-2", in), broker.ErrHostGone)
	s.refusedIssue(s.engineer, r.ID, on(impostor.ID, in), broker.ErrOtherHost)
	s.refusedIssue(s.engineer, r.ID, on(second.ID, in), broker.ErrHostGone)

	// Two hosts exchange their names: each certificate is for the host that had it.
	rename := func(h api.Host, name string) {
		t.Helper()
		_, err := s.hosts.Change(t.Context(), s.operator, h.ID, api.HostInput{Name: name, Address: h.Address, Labels: h.Labels, Logins: h.Logins})
		must(t, err)
	}
	rename(s.db, "db-x")
	rename(late, "db-1")
	got, err := s.Issue(t.Context(), s.engineer, r.ID, on("db-1", in))
	must(t, err)
	if got.Principal != "dba@"+s.db.ID || got.Connect.Address != "10.0.3.7" {
		t.Errorf("for the name that was approved came %s at %s", got.Principal, got.Connect.Address)
	}
	s.checkLog()
}

// The key of the first host is the key of all.
func TestP4_OneKeyForAllHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.fleet()
	r := s.grant("dba", "", databases)
	first, other := newKey(t), newKey(t)
	_, err := s.Issue(t.Context(), s.engineer, r.ID, on("db-1", input(t, first, r.ID)))
	must(t, err)
	s.refusedIssue(s.engineer, r.ID, on("db-2", input(t, other, r.ID)), approvals.ErrOtherKey)
	_, err = s.Issue(t.Context(), s.engineer, r.ID, on("db-2", input(t, first, r.ID)))
	must(t, err)

	// Two hosts at once with two keys: one key binds, whichever host it was for.
	r = s.grant("dba", "", databases)
	var all sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		in := on([]string{"db-1", "db-2", "db-3"}[i%3], input(t, newKey(t), r.ID))
		all.Go(func() { _, errs[i] = s.Issue(t.Context(), s.engineer, r.ID, in) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, approvals.ErrOtherKey) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d keys were bound to one grant", won)
	}
	s.checkLog()
}

// A host that is gone, or whose login is, is refused; the others are not.
func TestOneOfSeveralHostsGone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	second, third := s.fleet()
	r := s.grant("dba", "", databases)
	key := newKey(t)
	connect := func() (api.Request, api.Action) {
		t.Helper()
		r, err := s.Request(t.Context(), s.engineer, r.ID)
		must(t, err)
		i := slices.IndexFunc(r.Actions, func(a api.Action) bool { return a.Name == "connect" })
		return r, r.Actions[i]
	}
	must(t, s.hosts.Remove(t.Context(), s.operator, "db-1"))
	_, err := s.hosts.Change(t.Context(), s.operator, "db-2", api.HostInput{Name: "db-2", Address: second.Address, Labels: second.Labels, Logins: []string{"root"}})
	must(t, err)
	in := input(t, key, r.ID)
	s.refusedIssue(s.engineer, r.ID, on("db-1", in), broker.ErrHostGone)
	s.refusedIssue(s.engineer, r.ID, on("db-2", in), broker.ErrLoginGone)
	_, err = s.Issue(t.Context(), s.engineer, r.ID, on("db-3", in))
	must(t, err)
	shown, action := connect()
	if !action.Allowed || shown.Hosts[0].Why == "" || shown.Hosts[1].Why == "" || shown.Hosts[2].Why != "" {
		t.Errorf("connect %+v, hosts %+v", action, shown.Hosts)
	}
	must(t, s.hosts.Remove(t.Context(), s.operator, third.ID))
	if _, action = connect(); action.Allowed || action.Why != broker.ErrHostGone.Detail {
		t.Errorf("connect to nowhere: %+v", action)
	}
}

// The policy changes so that it no longer gives one of the hosts: what runs was
// approved as it is; what is asked for anew is without that host.
func TestPolicyChangeForOneHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	_, third := s.fleet()
	r := s.grant("dba", "", databases)
	key := newKey(t)
	_, err := s.hosts.Change(t.Context(), s.operator, third.ID, api.HostInput{Name: "db-3", Address: third.Address,
		Labels: map[string]string{"class": "options"}, Logins: third.Logins})
	must(t, err)
	for _, host := range []string{"db-1", "db-2", "db-3"} {
		_, err := s.Issue(t.Context(), s.engineer, r.ID, on(host, input(t, key, r.ID)))
		must(t, err)
	}
	again := s.grant("dba", "", databases)
	s.refusedIssue(s.engineer, again.ID, on("db-3", input(t, key, again.ID)), broker.ErrOtherHost)
}

// However many ask at once, a grant for single use gives one certificate for each host.
func TestSingleUseOnEachHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, name := range []string{"box-1", "box-2"} {
		s.host(name, "10.0.4."+name[4:], "options", "once")
	}
	r := s.grant("once", "", func(in *api.RequestInput) { in.Host, in.Selector = "", map[string]string{"class": "options"} })
	in := input(t, newKey(t), r.ID)
	var all sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		host := []string{"box-1", "box-2"}[i%2]
		all.Go(func() { _, errs[i] = s.Issue(t.Context(), s.engineer, r.ID, on(host, in)) })
	}
	all.Wait()
	won := map[int]int{}
	for i, err := range errs {
		if err == nil {
			won[i%2]++
		} else if !errors.Is(err, broker.ErrUsed) || !strings.Contains(err.Error(), "on this one") {
			t.Error(err)
		}
	}
	if !maps.Equal(won, map[int]int{0: 1, 1: 1}) {
		t.Errorf("certificates by host: %v", won)
	}
	s.checkLog()
}

// Somebody who may write the broker's tables adds a host to what was approved.
func TestForgedHostsYieldNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx, key := t.Context(), newKey(t)
	second, third := s.fleet()
	honest := s.grant("dba", "db-1")
	sum := func(text []byte) string { h := sha256.Sum256(text); return hex.EncodeToString(h[:]) }
	terms := func(id string) (parsed approvals.Terms) {
		t.Helper()
		var text []byte
		must(t, s.pool.QueryRow(ctx, `SELECT terms FROM requests WHERE id = $1`, id).Scan(&text))
		parsed, err := approvals.ParseTerms(text)
		must(t, err)
		return parsed
	}

	// To the row that there is: the database refuses.
	for _, attack := range []string{
		`UPDATE requests SET more_host_ids = ARRAY['` + second.ID + `'] WHERE id = $1`,
		`UPDATE requests SET host_id = '` + second.ID + `' WHERE id = $1`,
	} {
		if _, err := s.pool.Exec(ctx, attack, honest.ID); err == nil {
			t.Errorf("the database allows: %s", attack)
		}
	}

	// To a row of their own, copied from an honest one with its decision: by the
	// column alone, and by terms that fit it.
	forge := func(t approvals.Terms, more []string) string {
		s.t.Helper()
		text, err := t.Encode()
		must(s.t, err)
		_, err = s.pool.Exec(ctx, `
			INSERT INTO requests (id, person_id, host_id, more_host_ids, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, key)
			SELECT $2, person_id, host_id, $3, policy_version, $4, $5, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, key
			FROM requests WHERE id = $1`, honest.ID, t.RequestID, more, text, sum(text))
		must(s.t, err)
		_, err = s.pool.Exec(ctx, `
			INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
			SELECT $2, $3, position, requester_id, approver_id, statement, statement_hash, decided_at FROM decisions WHERE request_id = $1`,
			honest.ID, ids.New(ids.Decision), t.RequestID)
		must(s.t, err)
		return t.RequestID
	}
	forged := terms(honest.ID)
	forged.RequestID = ids.New(ids.Request)
	id := forge(forged, []string{second.ID})
	for _, host := range []string{"db-1", "db-2", second.ID} {
		s.refusedIssue(s.engineer, id, on(host, input(t, key, id)), approvals.ErrEvidence)
	}
	forged.RequestID, forged.Selector = ids.New(ids.Request), map[string]string{"class": "database"}
	forged.MoreHosts = []approvals.TermsHost{{ID: second.ID, Name: "db-2"}, {ID: third.ID, Name: "db-3"}}
	id = forge(forged, []string{second.ID, third.ID})
	s.refusedIssue(s.engineer, id, on("db-3", input(t, key, id)), approvals.ErrEvidence)

	// One host more under an automatic rule, where no decision is missing: only the
	// log knows what was asked for.
	s.host("web-2", "10.0.3.20", "web", "web")
	plain := terms(s.grant("web", "web-1").ID)
	plain.RequestID, plain.Selector = ids.New(ids.Request), map[string]string{"class": "web"}
	plain.MoreHosts = []approvals.TermsHost{{ID: third.ID, Name: "web-3"}}
	text, err := plain.Encode()
	must(t, err)
	_, err = s.pool.Exec(ctx, `
		INSERT INTO requests (id, person_id, host_id, more_host_ids, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
			state, waiting_groups, starts_at, ends_at, key)
		VALUES ($1, $2, $3, $4, $5, $6, $7, '{}', $8, $9, 'approved', '{}', $8, $10, '')`,
		plain.RequestID, s.engineer.ID, plain.Host.ID, []string{third.ID}, plain.PolicyVersion, text, sum(text),
		plain.CreatedAt, plain.ApproveBy, plain.CreatedAt.Add(20*time.Minute))
	must(t, err)
	g, _, err := s.approvals.Grant(ctx, s.engineer, plain.RequestID)
	must(t, err)
	must(t, errors.Join(g.Check(s.clock.Now()), s.approvals.CheckPolicy(ctx, g))) // the forgery is good enough for the test
	s.refusedIssue(s.engineer, plain.RequestID, on("web-3", input(t, key, plain.RequestID)), approvals.ErrEvidence)

	s.checkLog()
}

// An extension keeps hosts and key.
func TestExtensionOnSeveralHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, name := range []string{"job-1", "job-2"} {
		s.host(name, "10.0.5."+name[4:], "web", "batch")
	}
	r := s.grant("batch", "", func(in *api.RequestInput) { in.Host, in.Selector = "", map[string]string{"class": "web"} })
	key := newKey(t)
	_, err := s.Issue(t.Context(), s.engineer, r.ID, on("job-1", input(t, key, r.ID)))
	must(t, err)
	next, err := s.approvals.Extend(t.Context(), s.engineer, r.ID, api.ExtendInput{})
	must(t, err)
	s.clock.Advance(20 * time.Minute)
	s.refusedIssue(s.engineer, r.ID, on("job-2", input(t, key, r.ID)), approvals.ErrGrantEnded)
	s.refusedIssue(s.engineer, next.ID, on("job-2", input(t, newKey(t), next.ID)), approvals.ErrOtherKey)
	s.refusedIssue(s.engineer, next.ID, on("web-1", input(t, key, next.ID)), broker.ErrOtherHost)
	for _, host := range []string{"job-1", "job-2"} {
		_, err := s.Issue(t.Context(), s.engineer, next.ID, on(host, input(t, key, next.ID)))
		must(t, err)
	}
}

// A door that is opened before approval may be several doors.
func TestEmergencyOnSeveralHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.fleet()
	r := s.ask("dba", "", databases, func(in *api.RequestInput) { in.Emergency = true })
	key := newKey(t)
	for _, host := range []string{"db-1", "db-3"} {
		got, err := s.Issue(t.Context(), s.engineer, r.ID, on(host, input(t, key, r.ID)))
		must(t, err)
		issued := s.events("certificate.issued")
		if !issued[len(issued)-1].Data.(event.CertificateIssued).Emergency {
			t.Errorf("certificate %d is not marked", got.Serial)
		}
	}
	// The counts that a page shows come from what was issued.
	if n := s.count(`SELECT count(DISTINCT host_id) FROM certificates`); n != 2 {
		t.Errorf("%d hosts have certificates", n)
	}
}
