package server

import (
	"net/http"
	"sync"

	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

// maxAtOnce is how many calls of one person are answered at a time. Pages and
// terminals that wait for a request hold one each, for up to a minute; without a
// bound one person could have all connections to the database at work for them.
const maxAtOnce = 64

var errAtOnce = refusal.New(refusal.TooMany, "too-many-at-once",
	"too many calls are open in your name", "let some of them end first: close pages and terminals that wait for a request")

// limitAtOnce bounds how many calls each person has open in this process, over
// all that the returned middleware is put before. It belongs behind the
// middleware of package signin.
func limitAtOnce() func(http.Handler) http.Handler {
	var mu sync.Mutex
	open := map[string]int{} // by person, guarded by mu
	enter := func(person string) bool {
		mu.Lock()
		defer mu.Unlock()
		if open[person] >= maxAtOnce {
			return false
		}
		open[person]++
		return true
	}
	leave := func(person string) {
		mu.Lock()
		defer mu.Unlock()
		if open[person]--; open[person] == 0 {
			delete(open, person)
		}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, ok := signin.Caller(r.Context()); ok {
				if !enter(c.ID) {
					w.Header().Set("Retry-After", "5")
					problem.Write(w, r, errAtOnce)
					return
				}
				defer leave(c.ID)
			}
			next.ServeHTTP(w, r)
		})
	}
}
