package server

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api"
)

// One person waits for a request as often as they can, to keep everybody else
// from the broker.
func TestLongPollsOfOnePersonStopNobodyElse(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	k.host(t, "web-1", "web", "web")
	r := k.ask(t, "db-1", "dba")
	var waiting sync.WaitGroup
	refused := make(chan answer, 20)
	for range maxAtOnce + 20 {
		waiting.Go(func() {
			if a := k.do(t, "approver", "GET", "/api/v1/requests/"+r.ID+"?state=requested&wait=60s", ""); a.StatusCode == http.StatusTooManyRequests {
				refused <- a
			}
		})
	}
	for range 20 {
		if p := problemOf(t, <-refused, 429); p.Code != "too-many-at-once" {
			t.Errorf("refused with %+v", p)
		}
	}
	problemOf(t, k.do(t, "approver", "GET", "/api/v1/me", ""), 429)
	// Others ask, decide and log in as ever; deciding ends the waiting.
	other := k.ask(t, "web-1", "web")
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+other.ID+"/certificates", k.proven(t, other.ID)), 201)
	get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/cancel", ""), 200)
	waiting.Wait()
	get[api.Me](t, k.do(t, "approver", "GET", "/api/v1/me", ""), 200)
}

// One of two grants is revoked while their person asks for certificates as often as
// they can. A call that begins afterwards gets none, and the other grant goes on.
func TestP9_RevokedAmongManyCalls(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "web-1", "web", "web")
	lost, kept := k.ask(t, "web-1", "web"), k.ask(t, "web-1", "web")
	var revoked atomic.Bool
	var got atomic.Int64
	var all sync.WaitGroup
	for _, r := range []api.Request{lost, kept} {
		in := k.proven(t, r.ID)
		for range 3 {
			all.Go(func() {
				for afterwards := false; !afterwards; {
					afterwards = revoked.Load()
					a := k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/certificates", in)
					switch {
					case r.ID == lost.ID && afterwards:
						if p := problemOf(t, a, 409); p.Code != "grant-ended" {
							t.Errorf("afterwards: %+v", p)
						}
					case a.StatusCode == http.StatusCreated:
						got.Add(1)
					case r.ID == kept.ID:
						t.Errorf("the other grant: %s", a.Status)
					}
				}
			})
		}
	}
	for deadline := time.Now().Add(time.Minute); got.Load() < 50; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("no certificates")
			break
		}
	}
	get[api.Revocation](t, k.do(t, "operator", "POST", "/api/v1/revocations",
		`{"request":"`+lost.ID+`","reason":"it is over"}`), 200)
	revoked.Store(true)
	all.Wait()
}
