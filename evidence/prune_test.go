package evidence_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/evidence"
	"sallyport/evidence/pack"
	"sallyport/internal/refusal"
)

func refused(t testing.TB, err error, want *refusal.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("it says %v, want %v", err, want)
	}
}

// What is pruned is in the archive, and the log says so; all of its hashes stay.
func TestPrunedEntriesKeepTheirReceipts(t *testing.T) {
	t.Parallel()
	s := newStore(t, 700)
	ctx := t.Context()
	verifier, err := note.NewVerifier(s.key.Verifier)
	must(t, err)
	earlier, err := s.log.Receipt(ctx, 7)
	must(t, err)
	var said []string
	plan, err := s.pruner(func(c *evidence.PrunerConfig) {
		c.Progress = func(format string, args ...any) { said = append(said, format) }
	}).Prune(ctx, evidence.Until{Time: began.Add(600 * time.Second)})
	must(t, err)
	if plan.First != 0 || plan.Before != 512 || !plan.Since.Equal(began) || len(plan.Partitions) != 2 || len(said) < 4 {
		t.Errorf("the plan was %+v, and it said %q", plan, said)
	}
	if s.oldest() != 512 || s.count(`SELECT count(*) FROM audit.entries WHERE index < 512`) > 0 ||
		s.count(`SELECT count(*) FROM audit.blocks WHERE block < 2`) > 0 {
		t.Error("what was to go is there")
	}
	must(t, s.check())

	record := *plan.Recorded
	if record.First != 0 || record.Before != 512 || record.Count != 512 || record.Archive != "sallyport.example.com-log-0-511.zip" || record.By == "" {
		t.Errorf("the record is %+v", record)
	}
	_, err = s.log.Entry(ctx, 7)
	refused(t, err, audit.ErrPruned)
	if r := refusal.As(err); r == nil || !strings.Contains(r.Detail, "2027-01-05") || !strings.Contains(r.Detail, record.Archive) ||
		!strings.Contains(r.Detail, record.ArchiveSHA256) {
		t.Errorf("it says of the pruned entry: %v", err)
	}
	_, err = s.log.Bundle(ctx, "001")
	refused(t, err, audit.ErrPruned)
	if _, err := s.log.Bundle(ctx, "002.p/100"); err != nil {
		t.Errorf("the bundle of what is kept: %v", err)
	}
	if _, err := s.log.Tile(ctx, "0/000"); err != nil {
		t.Errorf("the tile of what was pruned: %v", err)
	}
	for _, index := range []int64{0, 7, 255, 511, 512} {
		text, err := s.log.Receipt(ctx, index)
		must(t, err)
		if got, err := receipt.Verify(s.old[index].Leaf, text, verifier); err != nil || got != index {
			t.Errorf("the new receipt of entry %d: %d, %v", index, got, err)
		}
	}
	if _, err := receipt.Verify(s.old[7].Leaf, earlier, verifier); err != nil {
		t.Errorf("the receipt from before: %v", err)
	}
	if err := s.log.Healthy(ctx); err != nil {
		t.Error(err)
	}
	found, err := s.log.Search(ctx, audit.Filter{Text: "expired", Limit: 200})
	must(t, err)
	if !found.Thorough || len(found.Entries) != 189 {
		t.Errorf("%d entries are found", len(found.Entries))
	}

	f, err := os.Open(filepath.Join(s.dir, record.Archive))
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	trust, err := cosignature.ParsePolicy([]byte(s.key.Verifier))
	must(t, err)
	v, err := pack.Verify(ctx, f, info.Size(), pack.Options{Trust: trust})
	must(t, err)
	if !v.OK || v.Found() > 0 || info.Size() != int64(record.ArchiveBytes) {
		t.Errorf("the archive: %+v", v)
	}
	for _, index := range []int64{0, 7, 255, 256, 511} {
		leaf, proof, err := pack.Entry(f, info.Size(), index)
		must(t, err)
		if got, err := receipt.Verify(leaf, proof, verifier); err != nil || got != index || !bytes.Equal(leaf, s.old[index].Leaf) {
			t.Errorf("entry %d in the archive: %s, %v", index, leaf, err)
		}
	}
}

// Of several archives, each pruned entry's is named, or else the one that names it.
func TestPrunedTwice(t *testing.T) {
	t.Parallel()
	s := newStore(t, 1600)
	one := s.prune(256)
	s.clock.Advance(24 * time.Hour)
	two := s.prune(1024)
	must(t, s.check())
	if two.First != 256 || two.Recorded.Previous != uint64(one.Recorded.Index) || s.oldest() != 1024 {
		t.Errorf("the second plan: %+v", two)
	}
	for index, archive := range map[int64]string{0: one.Archive, 255: one.Archive, 256: two.Archive, 1023: two.Archive} {
		if _, err := s.log.Entry(t.Context(), index); !errors.Is(err, audit.ErrPruned) || !strings.Contains(err.Error(), archive) {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	for _, name := range []string{one.Archive, two.Archive} {
		v := s.verify(filepath.Join(s.dir, name))
		if !v.OK || v.Found() > 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// The record of the first one goes into an archive itself.
	var more []event.Event
	for range 600 {
		more = append(more, closed("req-later", s.clock.Now()))
	}
	s.record(more...)
	s.clock.Advance(365 * 24 * time.Hour)
	s.record(closed("req-now", s.clock.Now()))
	three := s.prune(2048)
	must(t, s.check())
	if _, err := s.log.Entry(t.Context(), 0); !errors.Is(err, audit.ErrPruned) || !strings.Contains(err.Error(), three.Archive) {
		t.Errorf("entry 0, whose record was pruned: %v", err)
	}
}

func (s *store) verify(path string) pack.Verdict {
	s.t.Helper()
	text, err := os.ReadFile(path)
	must(s.t, err)
	trust, err := cosignature.ParsePolicy([]byte(s.key.Verifier))
	must(s.t, err)
	v, err := pack.Verify(s.t.Context(), bytes.NewReader(text), int64(len(text)), pack.Options{Trust: trust})
	must(s.t, err)
	return v
}

// Looking changes nothing.
func TestPruneDryRun(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	before := s.count(`SELECT size FROM audit.head`)
	plan, err := s.pruner(nil).Plan(t.Context(), evidence.Until{Index: 600})
	must(t, err)
	if plan.Before != 512 || s.oldest() != 0 || len(s.archives()) != 0 || s.count(`SELECT size FROM audit.head`) != before {
		t.Errorf("the plan is %+v, and something changed", plan)
	}
}

// What must not go does not.
func TestPruneRefuses(t *testing.T) {
	t.Parallel()
	other := newStore(t, 600)
	foreign, err := other.log.Checkpoint(t.Context())
	must(t, err)
	for name, tt := range map[string]struct {
		until  evidence.Until
		change func(*store, *evidence.PrunerConfig)
		want   *refusal.Error
	}{
		"what is too young, by time":  {evidence.Until{Time: now.Add(-89 * 24 * time.Hour)}, nil, evidence.ErrTooYoung},
		"what is too young, by index": {evidence.Until{Index: 601}, nil, evidence.ErrTooYoung},
		"what is there never":         {evidence.Until{Index: 9999}, nil, evidence.ErrTooYoung},
		"less than a partition":       {evidence.Until{Index: 255}, nil, evidence.ErrNothingToPrune},
		"what the checkpoint outside lacks": {evidence.Until{Index: 512}, func(s *store, c *evidence.PrunerConfig) {
			c.Checkpoint, err = s.log.CheckpointAt(s.t.Context(), 511)
			must(s.t, err)
		}, evidence.ErrUnwitnessed},
		"with another log's checkpoint": {evidence.Until{Index: 512}, func(_ *store, c *evidence.PrunerConfig) { c.Checkpoint = foreign }, evidence.ErrUnwitnessed},
		"with no checkpoint":            {evidence.Until{Index: 512}, func(_ *store, c *evidence.PrunerConfig) { c.Checkpoint = nil }, evidence.ErrUnwitnessed},
		"while packs are being made": {evidence.Until{Index: 512}, func(s *store, _ *evidence.PrunerConfig) {
			s.exec(`INSERT INTO people (id, issuer, subject, name, email, groups, first_signed_in_at, signed_in_at) VALUES ('per-000000000000', 'i', 's', '', '', '{}', now(), now())`)
			s.exec(`INSERT INTO evidence_packs (id, person_id, person_name, created_at, period_from, period_to, zone, controls, seed, event_id)
				VALUES ('pack-000000000000', 'per-000000000000', '', now(), '2026-01-01', '2026-02-01', 'UTC', '{}', '', gen_random_uuid())`)
		}, evidence.ErrPacksBeingMade},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, 600)
			_, err := s.pruner(func(c *evidence.PrunerConfig) {
				if tt.change != nil {
					tt.change(s, c)
				}
			}).Prune(t.Context(), tt.until)
			refused(t, err, tt.want)
			if s.oldest() != 0 {
				t.Errorf("entries before %d were removed", s.oldest())
			}
			must(t, s.check())
		})
	}
}

// The log goes on while its past is removed, and nobody is refused.
func TestPruneRacesWithTheLog(t *testing.T) {
	t.Parallel()
	s := newStore(t, 2000)
	var stop atomic.Bool
	var recorded atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				e := closed("req-now", now)
				entries, err := s.log.Record(t.Context(), e)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.log.Find(t.Context(), e.ID); err != nil {
					t.Error(err)
				}
				if _, err := s.log.Receipt(t.Context(), entries[0].Index%2000); err != nil {
					t.Error(err)
				}
				if _, err := s.log.Search(t.Context(), audit.Filter{Text: "expired"}); err != nil {
					t.Error(err)
				}
				recorded.Add(1)
			}
		})
	}
	for before := int64(256); before <= 1792; before += 512 {
		s.prune(before)
	}
	stop.Store(true)
	wg.Wait()
	must(t, s.check())
	if s.oldest() != 1792 || recorded.Load() == 0 {
		t.Errorf("the oldest entry is %d; %d were recorded", s.oldest(), recorded.Load())
	}
}

// Two at once: one does it.
func TestTwoPruneAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	inside, leave := make(chan struct{}), make(chan struct{})
	one := s.pruner(func(c *evidence.PrunerConfig) {
		c.Fault = func(step string) error {
			if step == "planned" {
				close(inside)
				<-leave
			}
			return nil
		}
	})
	done := make(chan error)
	go func() {
		_, err := one.Prune(t.Context(), evidence.Until{Index: 512})
		done <- err
	}()
	<-inside
	_, err := s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 512})
	refused(t, err, evidence.ErrPruning)
	close(leave)
	must(t, <-done)
}
