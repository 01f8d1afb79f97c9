package evidence_test

import (
	"archive/zip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/evidence"
)

// The broker's role can neither prune nor drop, and says so before it begins.
func TestPruneByTheBrokersRole(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	cfg := s.config()
	conn, err := s.db.Pool.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	cfg.Admin = conn.Conn()
	_, err = evidence.NewPruner(t.Context(), cfg)
	refused(t, err, evidence.ErrNotOwner)
	for _, sql := range []string{`SELECT audit.remove(512, (SELECT event_id FROM audit.event_ids LIMIT 1))`, `DROP TABLE audit.entries_0`,
		`ALTER TABLE audit.entries DETACH PARTITION audit.entries_0`, `DELETE FROM audit.entries_0`, `TRUNCATE audit.entries_0`} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// The owner's function removes nothing that the log does not say.
func TestRemoveWithoutARecord(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	for _, sql := range []string{
		`SELECT audit.remove(512, gen_random_uuid())`,
		`SELECT audit.remove(512, (SELECT event_id FROM audit.entries WHERE index = 0))`,
		`SELECT audit.remove(NULL, NULL)`,
	} {
		if _, err := s.admin().Exec(t.Context(), "SET ROLE sallyport_owner; "+sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if s.oldest() != 0 {
		t.Error("something was removed")
	}
}

// Between the record and the removal somebody changes the archive, or takes it away.
func TestPruneWithAWrongOrMissingArchive(t *testing.T) {
	t.Parallel()
	stop := errors.New("stopped")
	logged := func(t *testing.T) (*store, string) {
		s := newStore(t, 600)
		_, err := s.pruner(func(c *evidence.PrunerConfig) {
			c.Fault = func(step string) error {
				if step == "logged" {
					return stop
				}
				return nil
			}
		}).Prune(t.Context(), evidence.Until{Index: 512})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		return s, s.archives()[0]
	}
	for name, change := range map[string]func(t *testing.T, s *store, path string){
		"cut off": func(t *testing.T, _ *store, path string) { must(t, os.Truncate(path, 1000)) },
		"empty":   func(t *testing.T, _ *store, path string) { must(t, os.WriteFile(path, nil, 0o600)) },
		"another log's": func(t *testing.T, _ *store, path string) {
			other := newStore(t, 600)
			other.prune(512)
			must(t, os.Rename(other.archives()[0], path))
		},
		"of the same log, made again": func(t *testing.T, s *store, path string) {
			must(t, os.Remove(path))
			_, err := s.pruner(func(c *evidence.PrunerConfig) {
				c.Clock = s.clock
				s.clock.Advance(time.Hour)
				c.Fault = func(step string) error {
					if step == "archived" {
						return stop
					}
					return nil
				}
			}).Prune(t.Context(), evidence.Until{Index: 512})
			if !errors.Is(err, stop) {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, path := logged(t)
			change(t, s, path)
			_, err := s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 512})
			refused(t, err, evidence.ErrArchive)
			if s.oldest() != 0 {
				t.Error("something was removed")
			}
			// Moved away, another one is made and recorded.
			must(t, os.Rename(path, path+".suspicious"))
			plan := s.prune(512)
			records, err := s.log.Prunes(t.Context())
			must(t, err)
			if s.oldest() != 512 || len(records) != 2 || !s.verify(filepath.Join(s.dir, plan.Archive)).OK {
				t.Errorf("after it was moved away: %+v, %+v", plan, records)
			}
			if _, err := s.log.Entry(t.Context(), 3); !strings.Contains(err.Error(), plan.Recorded.ArchiveSHA256) {
				t.Errorf("the newer archive is not named: %v", err)
			}
			must(t, s.check())
		})
	}
}

// Before the record somebody changes one list in the archive, and leaves all else as it is.
func TestPruneWithAnEditedArchive(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	changed := false
	_, err := s.pruner(func(c *evidence.PrunerConfig) {
		c.Fault = func(step string) error {
			if step != "archived" {
				return nil
			}
			path := s.archives()[0]
			old, err := zip.OpenReader(path)
			must(t, err)
			defer old.Close()
			f, err := os.Create(path + ".new")
			must(t, err)
			edited := zip.NewWriter(f)
			for _, file := range old.File {
				if !strings.HasPrefix(file.Name, "populations/") || !strings.HasSuffix(file.Name, ".csv") {
					must(t, edited.Copy(file))
					continue
				}
				w, err := edited.CreateHeader(&zip.FileHeader{Name: file.Name, Method: file.Method, Modified: file.Modified})
				must(t, err)
				r, err := file.Open()
				must(t, err)
				_, err = io.Copy(w, r)
				must(t, err)
				_, err = io.WriteString(w, "one,more,line\n")
				must(t, err)
				changed = true
			}
			must(t, errors.Join(edited.Close(), f.Close()))
			return os.Rename(path+".new", path)
		}
	}).Prune(t.Context(), evidence.Until{Index: 512})
	if !changed {
		t.Fatal("the archive has no lists")
	}
	refused(t, err, evidence.ErrArchive)
	if records, err := s.log.Prunes(t.Context()); err != nil || len(records) > 0 || s.oldest() != 0 {
		t.Errorf("it was recorded or removed: %v, %v", records, err)
	}
}

// Entries that are not those of the log are not archived as if they were.
func TestPruneOfADamagedLog(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"deleted": `DELETE FROM audit.entries WHERE index = 100`,
		"edited":  `UPDATE audit.entries SET leaf = l, leaf_hash = sha256('\x00'::bytea || l) FROM (SELECT replace(encode(leaf, 'escape'), 'expired', 'decided')::bytea AS l FROM audit.entries WHERE index = 100) AS n WHERE index = 100`,
		"moved":   `UPDATE audit.entries SET index = 100000 + index WHERE false; DELETE FROM audit.entries WHERE index < 3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, 600)
			s.exec(`ALTER TABLE audit.entries DISABLE TRIGGER USER; ` + sql + `; ALTER TABLE audit.entries ENABLE TRIGGER USER`)
			_, err := s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 512})
			refused(t, err, evidence.ErrLogDamaged)
			if s.check() == nil {
				t.Error("the whole check does not notice")
			}
		})
	}
}

// A superuser drops a partition without an event, or with one that the log's key does
// not vouch for, which the sequencer logs like any other.
func TestASuperuserRemovesEntriesWithoutARecord(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]func(s *store){
		"silently": func(*store) {},
		"with a forged event": func(s *store) {
			s.record(event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.RetentionPruned{Before: 256, Count: 256,
				Root: "cm9vdA==", Archive: "archive.zip", ArchiveSHA256: "ab12", ArchiveBytes: 1, By: "root as postgres", Note: "trust me"}))
		},
		"with another's record": func(s *store) {
			other := newStore(s.t, 600)
			plan := other.prune(256)
			s.record(event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{}, plan.Recorded.RetentionPruned))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, 600)
			forge(s)
			s.exec(`DROP TABLE audit.entries_0`)
			if err := s.check(); err == nil {
				t.Error("the whole check does not notice")
			}
			_, err := s.log.Entry(t.Context(), 7)
			refused(t, err, audit.ErrNoEntry)
			_, err = s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 512})
			refused(t, err, evidence.ErrLogDamaged)
			if _, err := s.log.Bundle(t.Context(), "000"); !errors.Is(err, audit.ErrBehind) {
				t.Errorf("the bundle of what is gone: %v", err)
			}
		})
	}
}
