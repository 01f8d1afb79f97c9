package e2e

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/internal/pgtest"
)

// The broker is killed again and again while callers get certificates from it,
// with a database that keeps what it said it has. It comes up by itself each time,
// and whatever reached a caller is in the log (P1, P8).
func TestP1_BrokerKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	_, db := pgtest.NewCluster(t, true)
	h := newHouseOn(t, policy, db)
	h.register("web-1", map[string]string{"class": "web"}, "web")
	erin := h.signIn(engineer)

	const callers, rounds = 6, 20
	got := make(chan api.Certificate)
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range callers {
		var r api.Request
		erin.call("POST", "/requests", api.RequestInput{Host: "web-1", Login: "web", Reason: "it is killed"}, &r, 201)
		key := newSigner(t)
		in := api.CertificateInput{PublicKey: authorized(key.PublicKey()), Proof: prove(t, key, h.URL, r.ID)}
		work.Go(func() {
			for {
				var cert api.Certificate
				err := erin.try("POST", "/requests/"+r.ID+"/certificates", in, &cert)
				var refused *api.Problem
				if errors.As(err, &refused) {
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
	for range rounds {
		for range 1 + rand.IntN(2*callers) {
			keep(<-got)
		}
		broker.Stop(9, 0)
		restarted := make(chan struct{})
		go func() { // what was on its way still counts
			defer close(restarted)
			broker = h.serve(addr)
		}()
		for waiting := true; waiting; {
			select {
			case cert := <-got:
				keep(cert)
			case <-restarted:
				waiting = false
			}
		}
	}
	close(stop)
	work.Wait()

	verifier := h.verifier(t) // and it answers
	if _, err := audit.CheckAll(t.Context(), db.Pool, verifier); err != nil {
		t.Fatalf("the log: %v", err)
	}
	events := h.certificateEvents(t)
	for serial, cert := range reached {
		if e, ok := events[serial]; !ok || e.KeyID != cert.KeyID || e.Principal != cert.Principal {
			t.Errorf("certificate %d reached a caller, and the log says %+v", serial, e)
		}
	}
	var rows int
	if err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM certificates`).Scan(&rows); err != nil || rows != len(events) {
		t.Errorf("%d certificates were intended, the log has %d: %v", rows, len(events), err)
	}
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
