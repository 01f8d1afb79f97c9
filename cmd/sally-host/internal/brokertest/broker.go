// Package brokertest plays the broker for the tests of a host: it takes the calls of one
// host as a broker does, and can be told to lie, to be gone and to have another clock.
package brokertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/vouch"
	"sallyport/internal/certtest"
)

// Broker is one that knows one host.
type Broker struct {
	URL string
	Log *certtest.Log
	// Enrolment is what it answers renewals with, but for LastReport.
	Enrolment hostapi.Enrolment

	t   testing.TB
	key ssh.PublicKey
	now func() time.Time

	mu      sync.Mutex
	gone    bool // it does not answer
	forgot  bool // it does not know the host
	replay  []byte
	list    hostapi.Revocations
	numbers map[string]uint64 // of entries of the list, by serial or request
	changed chan struct{}     // closed when anything is
	reports []hostapi.Report
	records map[string][]byte
	heard   int // questions for revocations that were answered
	refused []string
}

// Start starts a broker of the host.
func Start(t testing.TB, log *certtest.Log, hostID string, key ssh.PublicKey, now func() time.Time) *Broker {
	t.Helper()
	b := &Broker{Log: log, t: t, key: key, now: now, numbers: map[string]uint64{}, records: map[string][]byte{}, changed: make(chan struct{}), Enrolment: hostapi.Enrolment{HostID: hostID}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+hostapi.RevocationsPath, b.signed(b.revocations))
	mux.HandleFunc("POST "+hostapi.ReportsPath, b.signed(b.take))
	mux.HandleFunc("POST "+hostapi.CertificatesPath, b.signed(b.renew))
	mux.HandleFunc("POST "+hostapi.RecordingsPath+"/{session}/{number}", b.signed(b.record))
	server := httptest.NewServer(mux)
	b.URL = server.URL
	t.Cleanup(func() {
		b.Leave()
		server.CloseClientConnections()
		server.Close()
	})
	return b
}

// signed lets in what the host signed in time.
func (b *Broker) signed(next func(http.ResponseWriter, *http.Request, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", b.now().UTC().Format(http.TimeFormat))
		if b.isGone() {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		credential, err := hostapi.ParseCredential(r.Header.Get("Authorization"))
		switch {
		case err != nil:
			b.refuse(w, http.StatusUnauthorized, "host-signature", err.Error())
		case !credential.InTime(b.now()):
			b.refuse(w, http.StatusUnauthorized, hostapi.CodeClock, "the clocks differ")
		case credential.ID != b.Enrolment.HostID || b.hasForgotten():
			b.refuse(w, http.StatusUnauthorized, hostapi.CodeUnknownHost, "no host has this id")
		case credential.Verify(b.key, r.Method, r.RequestURI, body) != nil:
			b.refuse(w, http.StatusUnauthorized, "host-signature", "another key signed it")
		default:
			next(w, r, body)
		}
	}
}

func (b *Broker) refuse(w http.ResponseWriter, status int, code, detail string) {
	b.mu.Lock()
	b.refused = append(b.refused, code)
	b.change()
	b.mu.Unlock()
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(hostapi.Problem{Status: status, Code: code, Detail: detail})
}

func (b *Broker) change() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Broker) hasForgotten() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forgot
}

func (b *Broker) isGone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

// Leave has it answer nothing from now on, and Return has it answer again.
func (b *Broker) Leave()  { b.set(func() { b.gone = true }) }
func (b *Broker) Return() { b.set(func() { b.gone = false }) }

// Forget has it not know the host, or know it again.
func (b *Broker) Forget(yes bool) { b.set(func() { b.forgot = yes }) }

// Replay has it answer every question for revocations with this note; nil: no more.
func (b *Broker) Replay(note []byte) { b.set(func() { b.replay = note }) }

func (b *Broker) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	b.change()
}

// End ends a grant before its time.
func (b *Broker) End(request string, reason hostapi.EndReason) {
	b.set(func() {
		b.list.Number++
		b.numbers[request] = b.list.Number
		b.list.Grants = append(b.list.Grants, hostapi.EndedGrant{Request: request, EndedAt: b.now().UTC(), Reason: reason, Until: b.now().Add(time.Hour)})
		slices.SortFunc(b.list.Grants, func(x, y hostapi.EndedGrant) int { return strings.Compare(x.Request, y.Request) })
	})
}

// Revoke revokes a certificate.
func (b *Broker) Revoke(serial uint64, request string) {
	b.set(func() {
		b.list.Number++
		b.numbers[strconv.FormatUint(serial, 10)] = b.list.Number
		b.list.Serials = append(b.list.Serials, hostapi.RevokedSerial{Serial: serial, Request: request, Until: b.now().Add(time.Hour)})
		slices.SortFunc(b.list.Serials, func(x, y hostapi.RevokedSerial) int { return int(x.Serial) - int(y.Serial) })
	})
}

// Seal ends what a deployment may do on the host. It returns the list's number.
func (b *Broker) Seal(deployment string) (number uint64) {
	b.set(func() {
		b.list.Number++
		number = b.list.Number
		b.list.Sealed = hostapi.LastSealings(append(b.list.Sealed, hostapi.SealedHost{Host: b.Enrolment.HostID, Deployment: deployment, At: b.now().UTC(), Until: b.now().Add(time.Hour)}))
	})
	return number
}

// Oldest says that what ended before then may be missing from the list.
func (b *Broker) Oldest(at time.Time) { b.set(func() { b.list.Oldest = at }) }

// Note is the signed list since a number.
func (b *Broker) Note(since uint64) []byte {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.note(since)
}

func (b *Broker) note(since uint64) []byte {
	list := b.list
	list.Since, list.MadeAt = since, b.now().UTC()
	list.Serials = slices.DeleteFunc(slices.Clone(list.Serials), func(s hostapi.RevokedSerial) bool { return b.numbers[strconv.FormatUint(s.Serial, 10)] <= since })
	list.Grants = slices.DeleteFunc(slices.Clone(list.Grants), func(g hostapi.EndedGrant) bool { return b.numbers[g.Request] <= since })
	text, err := json.Marshal(list)
	if err != nil {
		b.t.Error(err)
	}
	msg, err := vouch.Sign(hostapi.RevocationsKind, string(text), b.Log.Signer)
	if err != nil {
		b.t.Error(err)
	}
	return msg
}

func (b *Broker) revocations(w http.ResponseWriter, r *http.Request, _ []byte) {
	after, _ := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	up := time.After(wait)
	for {
		b.mu.Lock()
		changed, number, replay, gone := b.changed, b.list.Number, b.replay, b.gone || b.forgot
		b.mu.Unlock()
		switch {
		case gone:
			panic(http.ErrAbortHandler)
		case replay != nil:
			_, _ = w.Write(replay)
			return
		case after > number:
			b.refuse(w, http.StatusServiceUnavailable, hostapi.CodeBehind, "your list is newer")
			return
		case number > after:
			wait = 0
		}
		if wait == 0 {
			b.answer(w, after)
			return
		}
		select {
		case <-changed:
		case <-up:
			wait = 0
		case <-r.Context().Done():
			return
		}
	}
}

func (b *Broker) answer(w http.ResponseWriter, after uint64) {
	b.mu.Lock()
	note := b.note(after)
	b.heard++
	b.change()
	b.mu.Unlock()
	_, _ = w.Write(note)
}

func (b *Broker) take(w http.ResponseWriter, _ *http.Request, body []byte) {
	var in hostapi.Reports
	if err := json.Unmarshal(body, &in); err != nil || len(in.Reports) == 0 || len(in.Reports) > hostapi.MaxReports {
		b.refuse(w, http.StatusUnprocessableEntity, "reports", "these are no reports")
		return
	}
	b.mu.Lock()
	last := b.last()
	for _, r := range in.Reports {
		if r.Seq <= last {
			i := slices.IndexFunc(b.reports, func(have hostapi.Report) bool { return have.Seq == r.Seq })
			if i >= 0 && !same(b.reports[i], r) {
				b.mu.Unlock()
				b.refuse(w, http.StatusConflict, hostapi.CodeConflict, "it said something else before")
				return
			}
			continue
		}
		b.reports, last = append(b.reports, r), r.Seq
	}
	b.change()
	b.mu.Unlock()
	_ = json.NewEncoder(w).Encode(hostapi.Accepted{Seq: last})
}

func same(x, y hostapi.Report) bool {
	a, _ := json.Marshal(x)
	b, _ := json.Marshal(y)
	return bytes.Equal(a, b)
}

func (b *Broker) last() uint64 {
	if n := len(b.reports); n > 0 {
		return b.reports[n-1].Seq
	}
	return 0
}

func (b *Broker) renew(w http.ResponseWriter, _ *http.Request, _ []byte) {
	b.mu.Lock()
	e := b.Enrolment
	e.LastReport = b.last()
	b.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(e)
}

// Patience is how long Wait waits.
const Patience = 30 * time.Second

// Wait waits until what a test looks for is there. It says what else came if it is not.
func (b *Broker) Wait(what string, is func() bool) {
	b.t.Helper()
	deadline := time.After(Patience)
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			var came []string
			for _, r := range b.Reports() {
				came = append(came, strconv.FormatUint(r.Seq, 10)+" "+string(r.Kind)+" "+string(r.Data[:min(len(r.Data), 400)]))
			}
			b.t.Fatalf("the broker waited in vain for %s; refused %q; reports:\n%s", what, b.Refused(), strings.Join(came, "\n"))
		}
	}
}

// Reports are those that it took.
func (b *Broker) Reports() []hostapi.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.reports)
}

// Heard is how many questions for revocations it has answered.
func (b *Broker) Heard() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard
}

// Refused are the codes of what it refused.
func (b *Broker) Refused() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.refused)
}

// Of returns the data of the reports of a kind for which is holds.
func Of[T any](b *Broker, kind hostapi.Kind, is func(T) bool) []T {
	b.t.Helper()
	var all []T
	for _, r := range b.Reports() {
		var v T
		if r.Kind != kind {
			continue
		}
		if err := json.Unmarshal(r.Data, &v); err != nil {
			b.t.Errorf("report %d cannot be read: %v", r.Seq, err)
		}
		if is(v) {
			all = append(all, v)
		}
	}
	return all
}

// WaitFor waits for the first report of a kind for which is holds.
func WaitFor[T any](b *Broker, kind hostapi.Kind, what string, is func(T) bool) T {
	b.t.Helper()
	b.Wait(what, func() bool { return len(Of(b, kind, is)) > 0 })
	return Of(b, kind, is)[0]
}
