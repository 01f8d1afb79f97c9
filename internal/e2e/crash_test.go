package e2e

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/internal/pgtest"
)

// crashes are how often something is killed, and how many callers there are meanwhile.
// `make soak` sets more.
func crashes(t *testing.T) (rounds, callers int) {
	t.Helper()
	rounds, callers = 18, 8
	for name, value := range map[string]*int{"SALLYPORT_CRASH_ROUNDS": &rounds, "SALLYPORT_CRASH_CALLERS": &callers} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				t.Fatalf("%s=%q is no number", name, text)
			}
			*value = n
		}
	}
	return rounds, callers
}

// door is a grant that callers share, and its key.
type door struct {
	mu  sync.Mutex
	key ssh.Signer
	id  string
	in  api.CertificateInput
}

// open is the grant, a new one if there is none.
func (d *door) open(t *testing.T, p *client) (string, api.CertificateInput, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id != "" {
		return d.id, d.in, nil
	}
	var r api.Request
	if err := p.try("POST", "/requests", api.RequestInput{Host: "web-1", Login: "web", Reason: "it is killed"}, &r); err != nil {
		return "", d.in, err
	}
	if d.key == nil {
		d.key = newSigner(t)
	}
	d.id, d.in = r.ID, api.CertificateInput{PublicKey: authorized(d.key.PublicKey()), Proof: prove(t, d.key, p.url, r.ID)}
	return d.id, d.in, nil
}

// shut is done with a grant that has given all that it may.
func (d *door) shut(p *client, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id == id && p.try("POST", "/requests/"+id+"/finish", nil, new(api.Request)) == nil {
		d.id = ""
	}
}

// The broker, and now and then PostgreSQL, is killed again and again while callers get
// certificates, with a database that keeps what it said it has. Everything comes up by
// itself each time, and whatever reached a caller is in the log (P1, P8).
func TestP1_BrokerKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	cluster, db := pgtest.NewCluster(t, true)
	h := newHouseOn(t, policy, db)
	h.register("web-1", map[string]string{"class": "web"}, "web")
	erin := h.signIn(engineer)

	rounds, callers := crashes(t)
	got := make(chan api.Certificate)
	stop := make(chan struct{})
	var work sync.WaitGroup
	doors := make([]door, min(callers, 40)) // a person has at most 50 open requests
	for i := range callers {
		d := &doors[i%len(doors)]
		work.Go(func() {
			for {
				var cert api.Certificate
				id, in, err := d.open(t, erin)
				if err == nil {
					err = erin.try("POST", "/requests/"+id+"/certificates", in, &cert)
				}
				var refused *api.Problem
				switch {
				case errors.As(err, &refused) && refused.Code == "too-many-certificates":
					d.shut(erin, id)
					continue
				case errors.As(err, &refused) && refused.Status != http.StatusServiceUnavailable: // PostgreSQL is gone
					t.Errorf("refused: %s: %v", refused.Code, refused)
				}
				if err != nil {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond): // nobody is there; try again
						continue
					}
				}
				select {
				case got <- cert:
				case <-stop:
					return
				}
			}
		})
	}
	reached := map[uint64]api.Certificate{}
	keep := func(cert api.Certificate) {
		if _, twice := reached[cert.Serial]; twice {
			t.Errorf("serial %d was issued twice", cert.Serial)
		}
		reached[cert.Serial] = cert
	}
	broker, addr := h.first, strings.TrimPrefix(h.URL, "http://")
	for round := range rounds {
		began := time.Now()
		for range 1 + rand.IntN(4*callers) {
			keep(<-got)
		}
		restarted := make(chan struct{})
		restart, killed := func() { broker = h.serve(addr) }, "the broker"
		if round%3 == 2 {
			killed = "PostgreSQL"
			cluster.Kill()
			restart = func() {
				if err := cluster.Restart(context.Background()); err != nil {
					t.Error(err)
				}
			}
		} else {
			broker.Stop(9, 0)
		}
		down := time.Now()
		go func() { // what was on its way still counts
			defer close(restarted)
			restart()
		}()
		for waiting := true; waiting; {
			select {
			case cert := <-got:
				keep(cert)
			case <-restarted:
				waiting = false
			}
		}
		t.Logf("round %d: %s killed after %v, back after %v; %d certificates so far",
			round+1, killed, down.Sub(began).Round(time.Millisecond), time.Since(down).Round(time.Millisecond), len(reached))
	}
	close(stop)
	work.Wait()

	verifier := h.verifier(t) // and it answers
	if _, err := audit.CheckAll(t.Context(), db.Pool, verifier); err != nil {
		t.Fatalf("the log: %v", err)
	}
	rows, err := db.Pool.Query(t.Context(), `
		SELECT (e.data->'data'->>'serial')::bigint, e.data->'data'->>'key_id', e.data->'data'->>'principal', c.serial IS NOT NULL
		FROM audit.entries e LEFT JOIN certificates c ON c.event_id = e.event_id WHERE e.type = 'certificate.issued'`)
	if err != nil {
		t.Fatal(err)
	}
	events := 0
	var serial uint64
	var keyID, principal string
	var intended bool
	_, err = pgx.ForEachRow(rows, []any{&serial, &keyID, &principal, &intended}, func() error {
		events++
		if cert, ok := reached[serial]; ok && cert.KeyID == keyID && cert.Principal == principal {
			delete(reached, serial)
		}
		if !intended {
			t.Errorf("certificate %d is in the log and has no row", serial)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for serial := range reached {
		t.Errorf("certificate %d reached a caller, and is not in the log", serial)
	}
	var intents int
	if err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM certificates`).Scan(&intents); err != nil || intents != events {
		t.Errorf("%d certificates were intended, the log has %d: %v", intents, events, err)
	}
	t.Logf("%d rounds, %d callers, %d certificates", rounds, callers, events)
}

// PostgreSQL crashes below a running broker and comes back. Meanwhile nothing is
// granted and everything says why; afterwards nobody has to do anything (P9).
func TestP9_PostgresGoneAndBack(t *testing.T) {
	t.Parallel()
	cluster, db := pgtest.NewCluster(t, true)
	h := newHouseOn(t, policy+`
  - name: hurried
    who: [engineers]
    where: class=web
    logins: [hurried]
    duration: {max: 1h}
    approve_within: 10s
    approvals: [{slots: [{groups: [approvers]}]}]
`, db)
	h.register("web-1", map[string]string{"class": "web"}, "web", "hurried")
	erin := h.signIn(engineer)
	var r, hurried api.Request
	erin.call("POST", "/requests", api.RequestInput{Host: "web-1", Login: "web"}, &r, 201)
	erin.call("POST", "/requests", api.RequestInput{Host: "web-1", Login: "hurried"}, &hurried, 201)
	key := newSigner(t)
	in := api.CertificateInput{PublicKey: authorized(key.PublicKey()), Proof: prove(t, key, h.URL, r.ID)}
	erin.call("POST", "/requests/"+r.ID+"/certificates", in, nil, 201)
	before := h.checkpoint(t)

	cluster.Kill()
	for _, c := range []struct {
		method, path string
		in           any
	}{
		{"GET", "/me", nil},
		{"POST", "/requests", api.RequestInput{Host: "web-1", Login: "web"}},
		{"POST", "/requests/" + r.ID + "/certificates", in},
		{"POST", "/requests/" + r.ID + "/finish", nil},
	} {
		var p api.Problem
		erin.call(c.method, c.path, c.in, &p, http.StatusServiceUnavailable)
		if p.Code == "" || p.Hint == "" || strings.Contains(p.Detail, "127.0.0.1") {
			t.Errorf("%s %s without a database: %+v", c.method, c.path, p)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200, "/signin": 503, "/log/checkpoint": 503, "/ssh/ca.pub": 200} {
		if got := status(t, h.URL+path); got != want {
			t.Errorf("%s without a database: %d, want %d", path, got, want)
		}
	}

	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready again", func() bool { return status(t, h.URL+"/readyz") == 200 })
	// The sign-in, the grant and its key, from before.
	erin.call("GET", "/me", nil, nil, 200)
	erin.call("POST", "/requests/"+r.ID+"/certificates", in, nil, 201)
	h.signIn(approver).call("GET", "/requests/"+hurried.ID, nil, nil, 200)
	// The job of before, which only writes down what the clock decides.
	eventually(t, "the expiry in the log", func() bool {
		var n int
		err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit.entries WHERE type = 'request.closed' AND request_id = $1`, hurried.ID).Scan(&n)
		return err == nil && n == 1
	})
	if after := h.checkpoint(t); after.N <= before.N {
		t.Errorf("the log went from %d to %d", before.N, after.N)
	}
	if _, err := audit.CheckAll(t.Context(), db.Pool, h.verifier(t)); err != nil {
		t.Errorf("the log: %v", err)
	}
	select {
	case <-h.first.Done():
		t.Errorf("the broker has ended: %v", h.first.Err())
	default:
	}
}

func status(t testing.TB, url string) int {
	t.Helper()
	resp, err := plain.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within a minute there is no %s", what)
		}
	}
}
