package server

import (
	"container/list"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sallyport/internal/clock"
	"sallyport/server/problem"
	"sallyport/server/rest"
)

const (
	// bodyTimeout is how long a request's body may take to arrive.
	bodyTimeout = 15 * time.Second
	// Sign-in and token endpoints take signInRate calls a second from one address,
	// and signInBurst at once. An office behind one address signs in within that,
	// with five calls a person and `sally login --device` asking every five seconds.
	// What could be guessed is bounded more tightly by package signin.
	signInRate  = 5
	signInBurst = 120
	// limiterSize is how many addresses are remembered, the latest.
	limiterSize = 10_000
)

// limitBody bounds the size of a request's body and the time it takes to come.
// The deadline is lifted at the body's end: a long poll may take longer.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			// One byte more than allowed, so that the API sees that it is too much.
			r.Body = &timedBody{http.MaxBytesReader(w, r.Body, rest.MaxBody+1), rc}
		}
		next.ServeHTTP(w, r)
	})
}

type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// limiter bounds how often one address may call, in bounded memory.
type limiter struct {
	clock clock.Clock

	mu     sync.Mutex
	byAddr map[netip.Prefix]*list.Element // of bucket, guarded by mu
	recent *list.List                     // latest first, guarded by mu
}

type bucket struct {
	addr netip.Prefix
	rate *rate.Limiter
}

func newLimiter(c clock.Clock) *limiter {
	return &limiter{clock: c, byAddr: map[netip.Prefix]*list.Element{}, recent: list.New()}
}

// allow reports whether the address may call now.
func (l *limiter) allow(addr netip.Addr) bool {
	key := network(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byAddr[key]
	if ok {
		l.recent.MoveToFront(e)
	} else {
		e = l.recent.PushFront(&bucket{key, rate.NewLimiter(signInRate, signInBurst)})
		l.byAddr[key] = e
		if l.recent.Len() > limiterSize {
			oldest := l.recent.Back()
			delete(l.byAddr, l.recent.Remove(oldest).(*bucket).addr)
		}
	}
	return e.Value.(*bucket).rate.AllowN(l.clock.Now(), 1)
}

// network is what counts as one caller: an IPv4 address, or an IPv6 /64, which
// one machine has to itself.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// limited are the addresses where secrets can be guessed or work be caused by
// people who are not signed in.
var limited = map[string]bool{
	"/signin": true, "/signin/callback": true, "/device": true,
	"/oauth/authorize": true, "/oauth/token": true, "/oauth/device_authorization": true, "/oauth/revoke": true,
}

func (l *limiter) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if limited[r.URL.Path] {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			addr, _ := netip.ParseAddr(host)
			if !l.allow(addr) {
				w.Header().Set("Retry-After", "30")
				problem.Write(w, r, problem.ErrTooMany)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
