package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/cosignature"
	"sallyport/evidence/pack"
	"sallyport/internal/pgtest"
)

// makePack asks for a pack as the auditor, and waits for it.
func (k *kit) makePack(t *testing.T, in string) api.Pack {
	t.Helper()
	p := get[api.Pack](t, k.do(t, "auditor", "POST", "/api/v1/audit/packs", in), 202)
	for deadline := time.Now().Add(30 * time.Second); p.State == api.PackWaiting || p.State == api.PackRunning; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("pack %s is still %s; the broker says:\n%s", p.ID, p.State, k.logged)
		}
		p = get[api.Pack](t, k.do(t, "auditor", "GET", "/api/v1/audit/packs/"+p.ID, ""), 200)
	}
	return p
}

func (k *kit) verifyPack(t *testing.T, zip []byte) pack.Verdict {
	t.Helper()
	trust, err := cosignature.ParsePolicy([]byte(k.log.VerifierKey() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := pack.Verify(context.Background(), bytes.NewReader(zip), int64(len(zip)), pack.Options{Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	return v
}

const always = `{"from":"2020-01-01","to":"2100-01-01","seed":"4711"}`

// What a real broker does, an evidence pack has, without an exception; and whoever
// has the log's key verifies it.
func TestPackOfARealBroker(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	k := newKitOn(t, pgtest.New(t), func(c *Config) { c.StateFile = filepath.Join(state, "checkpoint") })
	k.host(t, "db-1", "database", "dba")
	k.host(t, "web-1", "web", "web")
	r := k.ask(t, "db-1", "dba")
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+r.ID+"/decisions", `{"verdict":"approve"}`), 200)
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/certificates", k.proven(t, r.ID)), 201)
	get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/finish", ""), 200)
	web := k.ask(t, "web-1", "web")
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+web.ID+"/certificates", k.proven(t, web.ID)), 201)
	denied := k.ask(t, "db-1", "dba")
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+denied.ID+"/decisions", `{"verdict":"deny"}`), 200)
	problemOf(t, k.do(t, "engineer", "POST", "/api/v1/requests/"+denied.ID+"/decisions", `{"verdict":"approve"}`), 403)

	p := k.makePack(t, always)
	if p.State != api.PackReady || p.Exceptions != 0 || p.Missing != 0 || p.Done != p.Total || p.ExpiresAt == nil {
		t.Fatalf("the pack is %+v", p)
	}
	got := k.do(t, "auditor", "GET", "/api/v1/audit/packs/"+p.ID+"/download", "")
	if got.StatusCode != 200 || got.Header.Get("Content-Type") != "application/zip" || int64(len(got.body)) != p.Bytes ||
		!strings.Contains(got.Header.Get("Content-Disposition"), p.File) {
		t.Fatalf("the download is %s, %v, %d bytes of %d", got.Status, got.Header, len(got.body), p.Bytes)
	}
	v := k.verifyPack(t, got.body)
	if v.Found() != 0 || v.Manifest.Seed != "4711" || v.Manifest.MadeBy.ID != k.people["auditor"].ID {
		t.Errorf("the verdict is %+v", v)
	}
	for _, kind := range []string{"pack.requested", "pack.made", "pack.downloaded"} {
		found := get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", "/api/v1/audit/events?type="+kind, ""), 200)
		if len(found.Items) != 1 || found.Items[0].Data["pack_id"] != p.ID {
			t.Errorf("%s: %+v", kind, found.Items)
		}
	}
	// Another replica, which has no such file, makes the same one.
	if err := os.Remove(filepath.Join(state, "packs", p.ID+".zip")); err != nil {
		t.Fatal(err)
	}
	again := k.do(t, "auditor", "GET", "/api/v1/audit/packs/"+p.ID+"/download", "")
	if w := k.verifyPack(t, again.body); again.StatusCode != 200 || w.Manifest.ID != p.ID {
		t.Errorf("made again: %s, %+v", again.Status, w.Manifest)
	}
}

// P10: packs are for auditors, to whom alone it is said whether there are any.
func TestP10_PacksAreForAuditors(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	p := k.makePack(t, always)
	for _, who := range []string{"engineer", "approver", "operator", "stranger"} {
		for _, call := range [][3]string{
			{"POST", "/api/v1/audit/packs", always}, {"GET", "/api/v1/audit/packs", ""}, {"GET", "/api/v1/audit/packs/" + p.ID, ""},
			{"GET", "/api/v1/audit/packs/" + p.ID + "/download", ""}, {"GET", "/api/v1/audit/packs/pack-000000000000/download", ""},
		} {
			if no := problemOf(t, k.do(t, who, call[0], call[1], call[2]), 403); no.Code != "auditors-only" {
				t.Errorf("%s %s %s: %+v", who, call[0], call[1], no)
			}
		}
		for _, page := range []string{"/evidence", "/evidence/" + p.ID} {
			if a := k.do(t, who, "GET", page, ""); a.StatusCode != 403 {
				t.Errorf("%s sees %s: %s", who, page, a.Status)
			}
		}
	}
	problemOf(t, k.do(t, "", "GET", "/api/v1/audit/packs/"+p.ID+"/download", ""), 401)
}

func TestPackInput(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for in, code := range map[string]string{
		`{"from":"2026-01-01","to":"2025-01-01"}`:                                                 "bad-period",
		`{"from":"yesterday","to":"2025-01-01"}`:                                                  "bad-period",
		`{"from":"2099-01-01","to":"2099-02-01"}`:                                                 "period-ahead",
		`{"from":"2026-01-01","to":"2026-01-02","zone":"Moon/Tycho"}`:                             "bad-zone",
		`{"from":"2026-01-01","to":"2026-01-02","zone":"Local"}`:                                  "bad-zone",
		`{"from":"2026-01-01","to":"2026-01-02","controls":["CC9.9"]}`:                            "bad-control",
		`{"from":"2026-01-01","to":"2026-01-02","seed":"a b"}`:                                    "invalid-input",
		fmt.Sprintf(`{"from":"2026-01-01","to":"2026-01-02","seed":%q}`, strings.Repeat("x", 65)): "invalid-input",
	} {
		if p := problemOf(t, k.do(t, "auditor", "POST", "/api/v1/audit/packs", in), 422); p.Code != code {
			t.Errorf("%s: %s", in, p.Code)
		}
	}
	problemOf(t, k.do(t, "auditor", "GET", "/api/v1/audit/packs/pack-000000000000", ""), 404)
	problemOf(t, k.do(t, "auditor", "GET", "/api/v1/audit/packs?cursor=x", ""), 422)
}
