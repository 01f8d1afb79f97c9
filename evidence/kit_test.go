package evidence

import (
	"bytes"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/broker/hosts"
	"sallyport/evidence/pack"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

const document = `
sallyport: 1
assurance: session
roles: {auditor: [auditors]}
rules:
  - {name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}
`

// room is the evidence room above real ones, of one or more replicas.
type room struct {
	*Service
	t       *testing.T
	db      *pgtest.DB
	clock   *clock.Manual
	log     *audit.Log
	below   *approvals.Service
	auditor identity.Caller
}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{t: t, db: pgtest.New(t), clock: clock.NewManual(time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC))}
	r.log = audittest.Open(t, r.db.Pool, r.clock)
	people, err := identity.New(identity.Config{Pool: r.db.Pool, Log: r.log, Clock: r.clock})
	r.must(err)
	registry, err := hosts.New(hosts.Config{Pool: r.db.Pool, Log: r.log, Clock: r.clock})
	r.must(err)
	p, err := policy.Parse([]byte(document))
	r.must(err)
	r.below, err = approvals.New(t.Context(), approvals.Config{Pool: r.db.Pool, Log: r.log, Clock: r.clock, People: people, Hosts: registry, Policy: p})
	r.must(err)
	groups := []string{"auditors"}
	person, err := people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: "ada", Name: "Ada Auditor", Groups: groups,
		AuthTime: r.clock.Now()}, "web", "192.0.2.1")
	r.must(err)
	r.auditor = identity.Caller{Person: person, Source: "192.0.2.1", AuthTime: r.clock.Now(), Via: "web"}
	r.auditor.Roles, r.auditor.Policy = r.below.Roles(groups)
	r.Service = r.replica()
	return r
}

// replica is one more, with a folder of its own. Nobody runs it but the test.
func (r *room) replica() *Service {
	r.t.Helper()
	s, err := New(Config{Pool: r.db.Pool, Log: r.log, Approvals: r.below, Clock: r.clock, Dir: r.t.TempDir(), Version: "test"})
	r.must(err)
	return s
}

// ask asks for a pack of everything.
func (r *room) ask() api.Pack {
	r.t.Helper()
	r.clock.Advance(time.Second)
	p, err := r.Make(r.t.Context(), r.auditor, "test", api.PackInput{From: "2026-01-01", To: "2026-12-31", Seed: "1"})
	r.must(err)
	return p
}

func (r *room) state(id string) api.Pack {
	r.t.Helper()
	p, err := r.Service.Pack(r.t.Context(), r.auditor, "test", id)
	r.must(err)
	return p
}

// turn has a replica look for work once.
func (r *room) turn(s *Service) bool {
	r.t.Helper()
	worked, err := s.next(r.t.Context())
	r.must(err)
	return worked
}

// download is a pack's zip from a replica; it must verify.
func (r *room) download(s *Service, id string) pack.Verdict {
	r.t.Helper()
	content, err := s.Download(r.t.Context(), r.auditor, "test", id)
	r.must(err)
	defer content.Close()
	var b bytes.Buffer
	r.must(content.WriteTo(r.t.Context(), &b))
	trust, err := cosignature.ParsePolicy([]byte(r.log.VerifierKey()))
	r.must(err)
	v, err := pack.Verify(r.t.Context(), bytes.NewReader(b.Bytes()), int64(b.Len()), pack.Options{Trust: trust})
	r.must(err)
	if !v.OK {
		r.t.Errorf("it does not verify: %+v", v.Checks)
	}
	return v
}

// events are the types of those in the log that are about packs.
func (r *room) events(of string) int {
	r.t.Helper()
	return len(audittest.Leaves(r.t, r.log, r.clock.Now(), of))
}

// grow adds events to the log.
func (r *room) grow(n int) {
	r.t.Helper()
	for range n {
		_, err := r.log.Record(r.t.Context(), event.New(r.clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{}))
		r.must(err)
	}
}

func (r *room) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}
