package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/internal/pgtest"
)

// A host brings a recording over HTTP, and an auditor gets it.
func TestRecordingsComeAndGo(t *testing.T) {
	t.Parallel()
	k := newKitOn(t, pgtest.New(t), func(c *Config) { c.RecordingKeys = []string{"age1example"} })
	m, e := k.enrolled(t, "web-1")
	if len(e.Settings.AuditorKeys) != 1 {
		t.Errorf("the host is told %q", e.Settings.AuditorKeys)
	}
	session := strings.Repeat("ab", 16)
	_, err := m.Record(t.Context(), session, 1, 0, []byte("early"))
	isProblem(t, err, 404, "recording-session")
	text, err := json.Marshal(hostapi.SessionStarted{Session: session, Method: "password", Login: "web", Peer: "192.0.2.9", StartedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Report(t.Context(), []hostapi.Report{{BootID: "boot", Seq: 1, Time: time.Now(), Kind: hostapi.KindSessionStarted, Data: text}}); err != nil {
		t.Fatal(err)
	}
	piece := strings.Repeat("x", hostapi.MaxPiece)
	if r, err := m.Record(t.Context(), session, 1, 0, []byte(piece)); err != nil || r.Bytes != hostapi.MaxPiece {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := m.Record(t.Context(), session, 1, hostapi.MaxPiece, []byte("\x00\xff\r\n")); err != nil || r.Bytes != hostapi.MaxPiece+4 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = m.Record(t.Context(), session, 1, hostapi.MaxPiece+4, []byte(piece+"y")); err == nil {
		t.Error("a piece of any size is taken")
	}
	if _, err = m.Record(t.Context(), "../"+session, 1, 0, []byte("x")); err == nil {
		t.Error("a session of any name is taken")
	}
	page := get[api.Page[api.Session]](t, k.do(t, "auditor", "GET", "/api/v1/hosts/web-1/sessions", ""), 200)
	at := "/api/v1/audit/recordings/" + page.Items[0].ID
	list := get[api.Page[api.Recording]](t, k.do(t, "auditor", "GET", at, ""), 200)
	if len(list.Items) != 1 || list.Items[0].State != api.RecordingGoesOn || list.Items[0].Bytes != hostapi.MaxPiece+4 {
		t.Errorf("%+v", list)
	}
	a := k.do(t, "auditor", "GET", at+"/1", "")
	if a.StatusCode != 200 || string(a.body) != piece+"\x00\xff\r\n" || a.Header.Get("Content-Type") != "application/octet-stream" ||
		!strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment;") {
		t.Errorf("%d, %d bytes, %v", a.StatusCode, len(a.body), a.Header)
	}
	for who, want := range map[string]int{"": 401, "engineer": 403, "operator": 403} {
		for _, path := range []string{at, at + "/1"} {
			if a := k.do(t, who, "GET", path, ""); a.StatusCode != want {
				t.Errorf("%q gets %d from %s", who, a.StatusCode, path)
			}
		}
	}
	if a := k.do(t, "auditor", "GET", at+"/2", ""); a.StatusCode != 404 {
		t.Errorf("one that is not: %d", a.StatusCode)
	}
	if a := k.do(t, "operator", "POST", hostapi.RecordingsPath+"/"+session+"/1?offset=0", "x"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("somebody who is no host: %d", a.StatusCode)
	}
}
