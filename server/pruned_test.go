package server

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/audit/retention"
	"sallyport/internal/audittest"
	"sallyport/internal/pgtest"
)

// aged is a broker with a log whose first partition is for 16 entries.
func aged(t *testing.T) *kit {
	t.Helper()
	db := pgtest.New(t)
	audittest.Partitions(t, db.AdminURL, 16)
	k := busy(t, db, nil)
	k.access(t)
	return k
}

// prune removes the first partition, as the owner, when the log says so. What package
// evidence refuses is not looked at.
func (k *kit) prune(t *testing.T) event.RetentionPruned {
	t.Helper()
	d, err := retention.Vouch(event.RetentionPruned{Before: 16, Count: 16, Earliest: time.Now().Add(-time.Hour), Latest: time.Now(),
		Root: "cm9vdA==", Archive: "log-0-15.zip", ArchiveSHA256: strings.Repeat("ab", 32), ArchiveBytes: 12, By: "root as postgres"}, k.log.Vouch)
	if err != nil {
		t.Fatal(err)
	}
	e := event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, d)
	if _, err := k.log.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	k.owner(t, fmt.Sprintf("SELECT audit.remove(16, '%s')", e.ID))
	return d
}

func (k *kit) owner(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "SET ROLE sallyport_owner"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// verifier is the log's.
func (k *kit) verifier(t *testing.T) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(k.cfg.Keys.LogVerifier)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// unzipped is a file of a pack.
func unzipped(t *testing.T, pack []byte, name string) string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(r, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whoever asks for a pruned entry is told that it was pruned, and where it is; its
// receipt can still be had.
func TestAPrunedEntrySaysWhereItIs(t *testing.T) {
	t.Parallel()
	k := aged(t)
	before := get[api.Event](t, k.do(t, "auditor", "GET", "/api/v1/audit/events/5", ""), 200)
	d := k.prune(t)

	p := problemOf(t, k.do(t, "auditor", "GET", "/api/v1/audit/events/5", ""), 410)
	if p.Code != "pruned" || !strings.Contains(p.Detail, d.Archive) || !strings.Contains(p.Detail, d.ArchiveSHA256) || !strings.Contains(p.Hint, "--pack "+d.Archive) {
		t.Errorf("the entry is %+v", p)
	}
	problemOf(t, k.do(t, "auditor", "GET", "/log/tile/entries/000.p/8", ""), 410)
	for _, path := range []string{"/api/v1/audit/events/5/receipt", "/log/events/5/receipt"} {
		text := k.do(t, "auditor", "GET", path, "")
		if index, err := receipt.Verify(before.Leaf, text.body, k.verifier(t)); err != nil || index != 5 {
			t.Errorf("%s: %s proves entry %d, %v", path, text.Status, index, err)
		}
	}
	for _, path := range []string{"/log/events/5", "/log/events/5/leaf"} {
		page := k.do(t, "auditor", "GET", path, "", "Accept", "text/html")
		if page.StatusCode != 410 || !strings.Contains(string(page.body), d.Archive) || !strings.Contains(string(page.body), d.ArchiveSHA256) {
			t.Errorf("%s: %s\n%s", path, page.Status, page.body)
		}
	}
	problemOf(t, k.do(t, "auditor", "GET", "/api/v1/audit/events/9999", ""), 404)
	problemOf(t, k.do(t, "engineer", "GET", "/api/v1/audit/events/5", ""), 403)
}

// Lists of events say that there were older ones, unless they are about a time after
// all that was pruned.
func TestListsSayWhatWasPruned(t *testing.T) {
	t.Parallel()
	k := aged(t)
	d := k.prune(t)
	for query, want := range map[string]bool{
		"":                      true,
		"?type=host.":           true,
		"?text=nothing-of-that": true,
		"?limit=1":              false, // there are older ones first
		"?from=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): false,
	} {
		found := get[api.EventPage](t, k.do(t, "auditor", "GET", "/api/v1/audit/events"+query, ""), 200)
		if (found.Pruned != nil) != want {
			t.Errorf("%q: %+v", query, found.Pruned)
		}
		if want && (found.Pruned.Archive != d.Archive || found.Pruned.ArchiveSHA256 != d.ArchiveSHA256 || found.Pruned.Before != 16) {
			t.Errorf("%q: %+v", query, found.Pruned)
		}
	}
	host := get[api.Page[api.Host]](t, k.do(t, "auditor", "GET", "/api/v1/hosts", ""), 200).Items[0]
	for _, path := range []string{"/log", "/log?host=" + host.ID} {
		page := k.do(t, "auditor", "GET", path, "", "Accept", "text/html")
		if page.StatusCode != 200 || !strings.Contains(string(page.body), d.Archive) {
			t.Errorf("%s: %s\n%s", path, page.Status, page.body)
		}
	}
}

// A request whose beginning was pruned says so beside its timeline.
func TestTheTimelineOfAPrunedRequest(t *testing.T) {
	t.Parallel()
	k := aged(t)
	requests := get[api.Page[api.Request]](t, k.do(t, "auditor", "GET", "/api/v1/requests", ""), 200).Items
	older, newer := requests[len(requests)-1], requests[0]
	d := k.prune(t)
	for id, want := range map[string]bool{older.ID: true, newer.ID: false} {
		r := get[api.Request](t, k.do(t, "auditor", "GET", "/api/v1/requests/"+id, ""), 200)
		page := k.do(t, "auditor", "GET", "/requests/"+id, "", "Accept", "text/html")
		if (r.Pruned != nil) != want || strings.Contains(string(page.body), d.Archive) != want {
			t.Errorf("%s: %+v, %+v\n%s", id, r.Timeline, r.Pruned, page.body)
		}
	}
}

// A pack of a period of which something was pruned names the archive.
func TestPackOfAPrunedPeriod(t *testing.T) {
	t.Parallel()
	k := aged(t)
	d := k.prune(t)
	p := k.makePack(t, always)
	if p.State != api.PackReady || p.Missing != 0 {
		t.Fatalf("the pack is %+v", p)
	}
	zip := k.download(t, p)
	v, failed := k.verdict(t, zip, "")
	if failed != "" || v.Exceptions["pruned-in-period"] != 1 || v.Exceptions["pruned-without-record"] != 0 || v.Manifest.Log.First != 16 {
		t.Errorf("%v\n%s", v.Exceptions, failed)
	}
	if said := unzipped(t, zip, "exceptions.csv"); !strings.Contains(said, d.Archive) || !strings.Contains(said, d.ArchiveSHA256) {
		t.Errorf("exceptions.csv says %s", said)
	}
}

// A superuser drops a partition, without a word or with a record that the log's key does
// not vouch for: every pack says so.
func TestAttackDroppedPartition(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(*kit) error{
		"without a word": func(*kit) error { return nil },
		"with a forged record": func(k *kit) error {
			_, err := k.log.Record(t.Context(), event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{},
				event.RetentionPruned{Before: 16, Count: 16, Root: base64.StdEncoding.EncodeToString([]byte("root")), Archive: "lost.zip", Note: "believe me"}))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := aged(t)
			if err := say(k); err != nil {
				t.Fatal(err)
			}
			k.owner(t, "DROP TABLE audit.entries_0")
			problemOf(t, k.do(t, "auditor", "GET", "/api/v1/audit/events/5", ""), 404)
			p := k.makePack(t, always)
			if p.State != api.PackReady || p.Exceptions == 0 {
				t.Fatalf("the pack is %+v", p)
			}
			if v, _ := k.verdict(t, k.download(t, p), ""); v.Exceptions["pruned-without-record"] == 0 || v.Exceptions["pruned-in-period"] != 0 {
				t.Errorf("exceptions %v", v.Exceptions)
			}
		})
	}
}
