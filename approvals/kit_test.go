package approvals_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/pgtest"
	"sallyport/internal/refusal"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// start is where tests' clocks stand first. It is long ago, so that the job
// queue, which goes by the machine's clock, finds every job due.
var start = time.Date(2025, 3, 10, 12, 0, 0, 0, time.UTC)

const testPolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: databases
    who: [engineers, approvers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers, leads]}]}]
    approve_within: 1h
    reason: {required: true, min_length: 5, message: Say why.}
  - name: database-root
    who: [engineers]
    where: class=database
    logins: [root]
    duration: {max: 1h}
    approvals: [{slots: [{groups: [approvers]}, {groups: [security]}]}]
    ticket: {required: true, pattern: 'INC-[0-9]+'}
    certificate: {lifetime: 2m, source_address: [10.0.0.0/8]}
  - name: staged
    who: [engineers]
    where: class=database
    logins: [staged]
    duration: {default: 30m, max: 1h}
    approvals:
      - slots: [{groups: [approvers], count: 2}]
      - slots: [{groups: [directors]}]
    start_within: 10m
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {default: 20m, max: 1h}
    automatic: true
`

// fakeHosts are the hosts of tests, by name and id.
type fakeHosts map[string]approvals.Target

func (f fakeHosts) Target(_ context.Context, nameOrID string) (approvals.Target, error) {
	for _, t := range f {
		if t.ID == nameOrID || t.Name == nameOrID {
			return t, nil
		}
	}
	return approvals.Target{}, refusal.New(refusal.NotFound, "no-such-host", "no such host", "")
}

func (f fakeHosts) Targets(context.Context) ([]approvals.Target, error) {
	return slices.SortedFunc(maps.Values(f), func(a, b approvals.Target) int { return strings.Compare(a.Name, b.Name) }), nil
}

// house is a database with everything that the service needs.
type house struct {
	*approvals.Service
	t      testing.TB
	db     *pgtest.DB
	clock  *clock.Manual
	log    *audit.Log
	people *identity.Store
	hosts  fakeHosts
}

// newHouse opens the approvals room on a database of its own.
func newHouse(t testing.TB) *house { t.Helper(); return newHouseUnder(t, testPolicy) }

// newHouseUnder is newHouse with another first version of the policy.
func newHouseUnder(t testing.TB, document string) *house {
	t.Helper()
	h := &house{t: t, db: pgtest.New(t), clock: clock.NewManual(start), hosts: fakeHosts{}}
	for name, labels := range map[string]map[string]string{
		"db-1": {"class": "database"}, "db-2": {"class": "database"}, "web-1": {"class": "web"}, "lonely": {"class": "other"},
	} {
		h.hosts[name] = approvals.Target{ID: ids.New(ids.Host), Name: name, Labels: labels,
			Logins: []string{"dba", "root", "staged", "web"}}
	}
	h.log = audittest.Open(t, h.db.Pool, h.clock)
	var err error
	h.people, err = identity.New(identity.Config{Pool: h.db.Pool, Log: h.log, Clock: h.clock})
	must(t, err)
	h.Service = h.open(document)
	return h
}

// open opens another service on the same database, as another process would, after
// the document has come into force, if it is not already.
func (h *house) open(document string) *approvals.Service {
	h.t.Helper()
	s := h.openFile(document)
	if p, err := policy.Parse([]byte(document)); err != nil || p.Hash != s.Policy().Hash {
		must(h.t, err)
		h.force(p)
		s = h.openFile(document)
	}
	return s
}

// openFile opens another service whose file is the document.
func (h *house) openFile(document string) *approvals.Service {
	h.t.Helper()
	return h.openLogging(document, nil)
}

// openLogging is openFile with a log of the process.
func (h *house) openLogging(document string, logger *slog.Logger) *approvals.Service {
	h.t.Helper()
	p, err := policy.Parse([]byte(document))
	must(h.t, err)
	s, err := approvals.New(h.t.Context(), approvals.Config{
		Pool: h.db.Pool, Log: h.log, Clock: h.clock, People: h.people, Hosts: h.hosts, Policy: p, Logger: logger,
	})
	must(h.t, err)
	return s
}

// force brings a document into force as a broker does, without asking anybody.
func (h *house) force(p *policy.Policy) {
	h.t.Helper()
	n := h.count(`SELECT max(version) + 1 FROM policy_versions`)
	e := event.New(h.clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{},
		event.PolicyActivated{Rules: len(p.Rules), Bytes: len(p.Text)}).Under(event.PolicyRef{Version: int64(n), Hash: p.Hash})
	_, err := h.log.Record(h.t.Context(), e)
	must(h.t, err)
	text, err := approvals.Activation{Format: approvals.ActivationFormat, Version: int64(n), Hash: p.Hash,
		EventID: e.ID.String(), Time: h.clock.Now()}.Encode()
	must(h.t, err)
	note, err := h.log.Vouch("policy-activation/1", string(text))
	must(h.t, err)
	must(h.t, h.exec(`INSERT INTO policy_versions (version, hash, document, activated_at) VALUES ($1, $2, $3, $4)`,
		n, p.Hash, p.Text, h.clock.Now()))
	must(h.t, h.exec(`INSERT INTO policy_activations (version, note, event_id) VALUES ($1, $2, $3)`, n, note, e.ID))
}

// person signs somebody in, for the first time or again.
func (h *house) person(name string, groups ...string) identity.Caller {
	h.t.Helper()
	p, err := h.people.SignIn(h.t.Context(), identity.Claims{Issuer: "https://id.test", Subject: name,
		Name: name, Email: name + "@example.com", Groups: groups, AuthTime: h.clock.Now()}, "web", "192.0.2.7")
	must(h.t, err)
	return identity.Caller{Person: p, Source: "192.0.2.7", AuthTime: h.clock.Now(), Via: "web",
		Roles: h.Policy().RolesOf(p.Groups), Policy: event.PolicyRef{Version: h.Policy().Version, Hash: h.Policy().Hash}}
}

// ask makes a request of testPolicy that must succeed.
func (h *house) ask(c identity.Caller, login, host string) api.Request {
	h.t.Helper()
	r, err := h.Request(h.t.Context(), c, input(login, host))
	must(h.t, err)
	return r
}

// input is an ask that every rule of testPolicy takes.
func input(login, host string) api.RequestInput {
	return api.RequestInput{Host: host, Login: login, Reason: "restore a backup", Ticket: "INC-7"}
}

// approve is an approval that must succeed.
func (h *house) approve(c identity.Caller, id string) api.Request {
	h.t.Helper()
	r, err := h.Decide(h.t.Context(), c, id, api.DecisionInput{Verdict: api.Approve})
	must(h.t, err)
	return r
}

// grant reads a grant, as the broker does.
func (h *house) grant(c identity.Caller, id string) (approvals.Grant, error) {
	g, _, err := h.Grant(h.t.Context(), c, id)
	return g, err
}

// use issues nothing, but does to the grant what issuing does.
func (h *house) use(c identity.Caller, id, key string) error {
	for {
		g, seen, err := h.Grant(h.t.Context(), c, id)
		if err != nil {
			return err
		}
		if err := g.Check(h.clock.Now()); err != nil {
			return err
		}
		if g.Key != "" && g.Key != key {
			return approvals.ErrOtherKey
		}
		same := false
		err = pgx.BeginFunc(h.t.Context(), h.db.Pool, func(tx pgx.Tx) error {
			var held, used pgx.Batch
			h.QueueHold(&held, []approvals.Seen{seen}, func(int) { same = true })
			if err := tx.SendBatch(h.t.Context(), &held).Close(); err != nil || !same || g.State == api.Active {
				return err
			}
			h.QueueUse(&used, []string{id}, []string{key})
			return tx.SendBatch(h.t.Context(), &used).Close()
		})
		if err != nil || same {
			return err
		}
		if err := h.Settled(h.t.Context(), id); err != nil {
			return err
		}
	}
}

// see is the request as its reader sees it.
func (h *house) see(c identity.Caller, id string) api.Request {
	h.t.Helper()
	r, err := h.Get(h.t.Context(), c, id)
	must(h.t, err)
	return r
}

// stored is the state in the database, whatever the clock says.
func (h *house) stored(id string) (state string) {
	h.t.Helper()
	must(h.t, h.db.Pool.QueryRow(h.t.Context(), `SELECT state FROM requests WHERE id = $1`, id).Scan(&state))
	return state
}

// events are the types of a request's events, oldest first.
func (h *house) events(id string) []string {
	h.t.Helper()
	list, err := h.log.Entries(h.t.Context(), audit.Filter{RequestID: id, Limit: 200})
	must(h.t, err)
	types := make([]string, len(list))
	for i, e := range list {
		types[len(list)-1-i] = e.Type
	}
	return types
}

// all are the newest events of a type, when everything staged is sequenced.
func (h *house) all(eventType string) []api.Event {
	h.t.Helper()
	h.eventually(func() bool { return h.count(`SELECT count(*) FROM audit.pending`) == 0 })
	list, err := h.log.Entries(h.t.Context(), audit.Filter{Type: eventType, Limit: 200})
	must(h.t, err)
	out := make([]api.Event, len(list))
	for i, e := range list {
		out[i] = e.API(true)
	}
	return out
}

func (h *house) count(sql string, args ...any) (n int) {
	h.t.Helper()
	must(h.t, h.db.Pool.QueryRow(h.t.Context(), sql, args...).Scan(&n))
	return n
}

// exec changes the database by hand, as the broker's role.
func (h *house) exec(sql string, args ...any) error {
	_, err := h.db.Pool.Exec(h.t.Context(), sql, args...)
	return err
}

// admin is a connection as the cluster's superuser.
func (h *house) admin() *pgxpool.Pool {
	h.t.Helper()
	pool, err := pgxpool.New(h.t.Context(), h.db.AdminURL)
	must(h.t, err)
	h.t.Cleanup(pool.Close)
	return pool
}

func (h *house) eventually(done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not happen")
		}
	}
}

// failer is a test, or a game of rapid.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		if r := refusal.As(err); r != nil {
			t.Fatalf("refused: %s: %v", r.Code, err)
		}
		t.Fatal(err)
	}
}

// refused fails unless err is the refusal, with a hint for the caller.
func refused(t failer, err error, want *refusal.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %s", err, want.Code)
	}
	if r := refusal.As(err); r.Hint == "" {
		t.Errorf("refusal %s has no hint", r.Code)
	}
}

// action is what a request says of one action.
func action(t testing.TB, r api.Request, name string) api.Action {
	t.Helper()
	for _, a := range r.Actions {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("request says nothing of %q", name)
	return api.Action{}
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
