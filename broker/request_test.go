package broker_test

import (
	"slices"
	"testing"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker"
)

func TestRemovedHostYieldsNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx, key := t.Context(), newKey(t)
	connect := func(id string) api.Action {
		r, err := s.Request(ctx, s.engineer, id)
		must(t, err)
		return r.Actions[slices.IndexFunc(r.Actions, func(a api.Action) bool { return a.Name == "connect" })]
	}
	r := s.grant("dba", "db-1")
	s.issue(key, r.ID)
	if a := connect(r.ID); !a.Allowed {
		t.Errorf("connect: %+v", a)
	}

	in := api.HostInput{Name: "db-1", Address: s.db.Address, Labels: s.db.Labels, Logins: []string{"root"}, HostKey: s.db.HostKey}
	_, err := s.hosts.Change(ctx, s.operator, "db-1", in)
	must(t, err)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), broker.ErrLoginGone)
	if a := connect(r.ID); a.Allowed || a.Why != broker.ErrLoginGone.Detail {
		t.Errorf("connect: %+v", a)
	}

	// A change of name and address does not matter: the id is the same.
	in.Name, in.Address, in.Logins = "db-one", "10.0.3.9", []string{"dba"}
	_, err = s.hosts.Change(ctx, s.operator, "db-1", in)
	must(t, err)
	if got, _ := s.issue(key, r.ID); got.Connect.Address != "10.0.3.9" || got.Connect.Command != "sally ssh dba@db-one" {
		t.Errorf("connect %+v", got.Connect)
	}

	must(t, s.hosts.Remove(ctx, s.operator, "db-one"))
	s.host("db-1", "10.0.3.10", "database", "dba") // a new host takes the old name
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), broker.ErrHostGone)
	if a := connect(r.ID); a.Allowed || a.Why != broker.ErrHostGone.Detail {
		t.Errorf("connect: %+v", a)
	}
}

func TestLimitOfCertificates(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	s.issue(key, r.ID)
	_, err := s.pool.Exec(t.Context(), `
		INSERT INTO certificates (serial, request_id, person_id, host_id, key_id, principal, fingerprint,
			issued_at, valid_after, valid_before, pre_certificate, event_id)
		SELECT nextval('certificate_serial'), request_id, person_id, host_id, key_id, principal, fingerprint,
			issued_at, valid_after, valid_before, pre_certificate, gen_random_uuid()
		FROM certificates, generate_series(1, $1)`, broker.MaxCertificates-2)
	must(t, err)
	s.issue(key, r.ID)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), broker.ErrTooMany)
	s.issue(key, s.grant("dba", "db-1").ID) // another grant has its own limit
}

func TestCertificatesOfARequest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	for range 3 {
		s.issue(key, r.ID)
	}
	s.issue(key, s.grant("dba", "db-1").ID)
	for _, c := range []identity.Caller{s.engineer, s.approver, s.auditor} {
		got, err := s.Request(t.Context(), c, r.ID)
		must(t, err)
		if len(got.Certificates) != 3 || got.Certificates[0].Serial >= got.Certificates[1].Serial {
			t.Errorf("%s sees %+v", c.Name, got.Certificates)
		}
	}
	if _, err := s.Request(t.Context(), s.colleague, r.ID); err == nil {
		t.Error("a colleague sees the request")
	}
}
