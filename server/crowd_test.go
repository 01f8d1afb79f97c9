package server

import (
	"net/http"
	"sync"
	"testing"

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
