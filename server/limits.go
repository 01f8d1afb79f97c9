package server

import (
	"io"
	"net/http"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/internal/clock"
	"sallyport/internal/throttle"
	"sallyport/server/pages"
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
)

// limitBody bounds the size of a request's body and the time it takes to come.
// The deadline is lifted at the body's end: a long poll may take longer.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			// One byte more than allowed, so that the API sees that it is too much.
			r.Body = &timedBody{http.MaxBytesReader(w, r.Body, maxBody(r)+1), rc}
		}
		next.ServeHTTP(w, r)
	})
}

// maxBody is how many bytes a call's body may have. A policy may be larger than
// all else; who may not propose one is refused before it is read.
func maxBody(r *http.Request) int64 {
	if r.URL.Path == hostapi.ReportsPath {
		return hostapi.MaxBody
	}
	if strings.HasPrefix(r.URL.Path, hostapi.RecordingsPath+"/") {
		return hostapi.MaxPiece
	}
	if r.URL.Path == rest.Prefix+"/policy/proposals" || r.URL.Path == pages.ProposalsPath {
		return api.MaxPolicyBody
	}
	return rest.MaxBody
}

type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	// Only at its end. After an answer to half a body, net/http reads on for the
	// rest, and would wait for it as long as the caller likes.
	if err == io.EOF {
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// limited are the addresses where secrets can be guessed or work be caused by
// people who are not signed in.
var limited = map[string]bool{
	"/signin": true, "/signin/callback": true, "/device": true,
	"/oauth/authorize": true, "/oauth/token": true, "/oauth/device_authorization": true, "/oauth/revoke": true,
	hostapi.EnrolmentsPath: true,
}

// limitSignIn bounds how often one caller may call those addresses.
func limitSignIn(c clock.Clock) func(http.Handler) http.Handler {
	calls := throttle.New(c, signInRate, signInBurst)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if limited[r.URL.Path] && !calls.Allow(throttle.Network(sourceOf(r))) {
				w.Header().Set("Retry-After", "30")
				problem.Write(w, r, problem.ErrTooMany)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
