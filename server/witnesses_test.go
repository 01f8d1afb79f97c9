package server

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/cosignature"
	"sallyport/audit/witness"
	"sallyport/evidence/pack"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// A broker with a witness: heads and packs are cosigned; and where certificates wait
// for the witness, they do, with everything else going on.
func TestBrokerWithAWitness(t *testing.T) {
	t.Parallel()
	private, public, err := cosignature.NewKey("one.example")
	if err != nil {
		t.Fatal(err)
	}
	var watching http.Handler
	var down atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		watching.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	lines := "witness one " + public + " " + front.URL + "\nquorum one\n"
	now := clock.NewManual(time.Now())
	k := newKitOn(t, pgtest.New(t), func(c *Config) {
		w, err := witness.New(witness.Config{Key: private, Logs: []string{c.Keys.LogVerifier}, State: filepath.Join(t.TempDir(), "w.json"),
			Clock: clock.System, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		watching = w
		c.Witnesses, c.Clock = Witnesses{Text: lines, Require: 10 * time.Minute}, now
	})
	k.host(t, "web-1", "web", "web")
	web := k.ask(t, "web-1", "web")
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+web.ID+"/certificates", k.proven(t, web.ID)), 201)

	p := k.makePack(t, always)
	zip := k.do(t, "auditor", "GET", "/api/v1/audit/packs/"+p.ID+"/download", "").body
	trust, err := cosignature.ParsePolicy([]byte("log " + k.log.VerifierKey() + "\n" + lines))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := pack.Verify(context.Background(), bytes.NewReader(zip), int64(len(zip)), pack.Options{Trust: trust}); err != nil || v.Found() != 0 {
		t.Errorf("a pack by a policy that wants the witness: %+v, %v", v, err)
	}
	seen := k.do(t, "", "GET", "/log/witnessed", "")
	if _, enough := trust.Witnesses(seen.body); seen.StatusCode != 200 || !enough {
		t.Errorf("%s %s", seen.Status, seen.body)
	}
	if figures := string(k.do(t, "", "GET", "/metrics", "").body); !strings.Contains(figures, `sallyport_witness_up{witness="one"} 1`) ||
		!strings.Contains(figures, "sallyport_witness_wait_seconds ") {
		t.Error("the metrics say nothing of the witness")
	}

	down.Store(true)
	again := k.ask(t, "web-1", "web") // the log grows
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, since := k.asker.Status(); !since.IsZero() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody notices that the witness is gone")
		}
	}
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+again.ID+"/certificates", k.proven(t, again.ID)), 201)
	now.Advance(11 * time.Minute)
	if got := problemOf(t, k.do(t, "engineer", "POST", "/api/v1/requests/"+again.ID+"/certificates", k.proven(t, again.ID)), 503); got.Code != "log-unwitnessed" {
		t.Errorf("after eleven minutes: %+v", got)
	}
	if got := problemOf(t, k.do(t, "operator", "POST", "/api/v1/hosts/web-1/certificate", ""), 503); got.Code != "log-unwitnessed" {
		t.Errorf("a host's certificate after eleven minutes: %+v", got)
	}
	k.ask(t, "web-1", "web") // everything else goes on
}

func TestWithoutWitnesses(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	if got := problemOf(t, k.do(t, "", "GET", "/log/witnessed", ""), 404); got.Code != "not-witnessed" {
		t.Errorf("%+v", got)
	}
}
