package evidence_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/evidence"
)

// Whoever remembers a head from before, a witness or an auditor, is still shown that
// the log only grew since: from within what was pruned, and from the middle of a tile.
func TestAPrunedLogIsConsistentWithItsPast(t *testing.T) {
	t.Parallel()
	s := newStore(t, 700)
	ctx := t.Context()
	verifier, err := note.NewVerifier(s.key.Verifier)
	must(t, err)
	past := map[int64]tlog.Tree{}
	for _, size := range []int64{1, 100, 256, 511, 512, 600} {
		past[size] = s.tree(size, verifier)
	}
	s.prune(512)
	head, err := s.log.Checkpoint(ctx)
	must(t, err)
	now, err := checkpoint.Open(head, verifier)
	must(t, err)
	for size, tree := range past {
		proof, err := tlog.ProveTree(now.N, size, s.log.Hashes(ctx))
		must(t, err)
		if err := tlog.CheckTree(proof, now.N, now.Hash, size, tree.Hash); err != nil {
			t.Errorf("from %d entries on: %v", size, err)
		}
		if again := s.tree(size, verifier); again != tree {
			t.Errorf("the tree of %d entries is another one now", size)
		}
	}
}

// tree is that of the log's first entries.
func (s *store) tree(size int64, verifier note.Verifier) tlog.Tree {
	s.t.Helper()
	msg, err := s.log.CheckpointAt(s.t.Context(), size)
	must(s.t, err)
	tree, err := checkpoint.Open(msg, verifier)
	must(s.t, err)
	return tree
}

// What a stream has not delivered stays, unless somebody says that nobody wants it there.
func TestPruneWaitsForStreams(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	ctx := t.Context()
	s.exec(`INSERT INTO log_streams (name, destination, next) VALUES ('siem', 'https://siem.example.com', 511), ('gone', 'file:/old', 0)`)
	without := func(names ...string) *evidence.Pruner {
		return s.pruner(func(c *evidence.PrunerConfig) { c.Without = names })
	}
	_, err := without("gone").Prune(ctx, evidence.Until{Index: 512})
	refused(t, err, evidence.ErrNotDelivered)
	_, err = without("gone", "siem", "siem2").Prune(ctx, evidence.Until{Index: 512})
	refused(t, err, evidence.ErrUnknownStream)
	if s.oldest() != 0 || len(s.archives()) != 0 {
		t.Fatalf("entries before %d were removed, or archived: %v", s.oldest(), s.archives())
	}
	s.exec(`UPDATE log_streams SET next = 512 WHERE name = 'siem'`)
	_, err = s.pruner(nil).Prune(ctx, evidence.Until{Index: 512})
	refused(t, err, evidence.ErrNotDelivered)
	_, err = without("gone").Prune(ctx, evidence.Until{Index: 512})
	must(t, err)
	must(t, s.check())
}

// A plan is made of the log that there is, however odd what was asked for.
func TestPruneWithOddArguments(t *testing.T) {
	t.Parallel()
	s := newStore(t, 600)
	for name, tt := range map[string]struct {
		until evidence.Until
		want  error
	}{
		"nothing":           {evidence.Until{}, evidence.ErrNothingToPrune},
		"a negative index":  {evidence.Until{Index: -1}, evidence.ErrNothingToPrune},
		"before everything": {evidence.Until{Time: time.Unix(0, 0)}, evidence.ErrNothingToPrune},
		"the far future":    {evidence.Until{Time: now.AddDate(1000, 0, 0)}, evidence.ErrTooYoung},
		"the largest index": {evidence.Until{Index: 1<<63 - 1}, evidence.ErrTooYoung},
	} {
		if _, err := s.pruner(nil).Plan(t.Context(), tt.until); !errors.Is(err, tt.want) {
			t.Errorf("%s: it says %v, want %v", name, err, tt.want)
		}
	}
	cfg := s.config()
	cfg.MinAge = time.Hour
	if _, err := evidence.NewPruner(t.Context(), cfg); !errors.Is(err, evidence.ErrTooYoung) {
		t.Errorf("entries of an hour: %v", err)
	}
}

// Of entries whose times are out of order the youngest counts: here the one at 100.
func TestPruneLooksAtTheYoungest(t *testing.T) {
	t.Parallel()
	s := newStore(t, 100)
	s.record(s.older(400)...)
	_, err := s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 300})
	refused(t, err, evidence.ErrTooYoung)
	if s.oldest() != 0 {
		t.Error("it is gone")
	}
}
