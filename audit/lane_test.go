package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/audit/receipt"
	"sallyport/internal/pgtest"
)

var errNoTurn = errors.New("not this one")

// lane is a log with a lane for numbers, whose rows are in a table that takes none
// above 1000. Negative ones are refused by the lane's write itself.
func lane(t *testing.T, db *pgtest.DB, k keys, change ...func(*audit.Config)) (*audit.Log, *audit.Lane[int]) {
	t.Helper()
	execute(t, connect(t, db.AdminURL), `CREATE TABLE IF NOT EXISTS numbers (n integer PRIMARY KEY CHECK (n <= 1000));
		GRANT SELECT, INSERT ON numbers TO sallyport_app`)
	cfg := config(db.Pool, k)
	for _, f := range change {
		f(&cfg)
	}
	l := open(t, cfg)
	return l, audit.NewLane(l, func(rows []int) audit.Writing { return rowsOf(rows) })
}

// rowsOf writes numbers, but for those below 0.
type rowsOf []int

// Look implements audit.Writing.
func (rowsOf) Look(*pgx.Batch) {}

// Write implements audit.Writing.
func (r rowsOf) Write(batch *pgx.Batch) []error {
	refused := make([]error, len(r))
	var taken []int
	for i, n := range r {
		if n < 0 {
			refused[i] = errNoTurn
		} else {
			taken = append(taken, n)
		}
	}
	batch.Queue(`INSERT INTO numbers SELECT * FROM unnest($1::int[])`, taken)
	return refused
}

// numbers compares the rows with the events: one for each.
func numbers(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	var rows, events int
	err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM numbers),
		(SELECT count(*) FROM audit.entries e JOIN numbers ON e.request_id = 'num-' || n)`).Scan(&rows, &events)
	if err != nil || rows != want || events != want {
		t.Errorf("%d rows and %d events of them, %v; want %d", rows, events, err, want)
	}
}

func TestP1_RowAndEventTogetherOrNeither(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l, numbered := lane(t, db, k)
	run(t, l)
	var all sync.WaitGroup
	var taken atomic.Int64
	for i := range 200 {
		n := i
		switch {
		case i%10 == 3:
			n = -i // refused by the write
		case i%10 == 7:
			n = 1000 + i // refused by the database: it must not take the others with it
		}
		all.Go(func() {
			e, err := numbered.Append(t.Context(), closed(fmt.Sprint("num-", n)), n)
			switch {
			case n < 0 && !errors.Is(err, errNoTurn), n > 1000 && (err == nil || !strings.Contains(err.Error(), "numbers_n_check")):
				t.Errorf("%d: %v", n, err)
			case n >= 0 && n <= 1000:
				taken.Add(1)
				if err != nil {
					t.Errorf("%d: %v", n, err)
				} else if at, err := receipt.Verify(e.Leaf, e.Receipt, k.verifier); err != nil || at != e.Index {
					t.Errorf("%d: the receipt: %d, %v", n, at, err)
				}
			}
		})
	}
	record(t, l, 5) // the other way at the same time
	all.Wait()
	numbers(t, db.Pool, int(taken.Load()))
	checkAll(t, db.Pool, k)
}

// Whether a batch was committed is not known when the answer is lost: it is found out,
// and nothing is there twice.
func TestLaneAfterLostAnswers(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"lock", "append", "commit", "committed"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			var failed atomic.Int64
			l, numbered := lane(t, db, k, func(cfg *audit.Config) {
				cfg.Fault = func(at string) error {
					if at == step && failed.Add(1) <= 3 {
						return errors.New("the answer is lost")
					}
					return nil
				}
			})
			run(t, l)
			var all sync.WaitGroup
			for n := range 50 {
				all.Go(func() {
					if _, err := numbered.Append(t.Context(), closed(fmt.Sprint("num-", n)), n); err != nil {
						t.Errorf("%d: %v", n, err)
					}
				})
			}
			all.Wait()
			numbers(t, db.Pool, 50)
			if tree := checkAll(t, db.Pool, k); tree.N != 50 {
				t.Errorf("the log has %d entries", tree.N)
			}
		})
	}
}

func TestLaneIsBounded(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l, numbered := lane(t, db, k) // nobody sequences
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var busy, gone atomic.Int64
	for range 16384/64 + 4 {
		all.Go(func() {
			for range 64 {
				all.Go(func() {
					switch _, err := numbered.Append(ctx, closed("num-1"), 1); {
					case errors.Is(err, audit.ErrBusy):
						if busy.Add(1) == 256 {
							cancel()
						}
					case errors.Is(err, audit.ErrUnavailable):
						gone.Add(1)
					}
				})
			}
		})
	}
	all.Wait()
	if busy.Load() != 256 || gone.Load() != 16384 {
		t.Errorf("%d were told that it is busy, %d that it is unavailable", busy.Load(), gone.Load())
	}
	// Whoever left is not written.
	run(t, l)
	if _, err := numbered.Append(t.Context(), closed("num-2"), 2); err != nil {
		t.Error(err)
	}
	numbers(t, db.Pool, 1)
}

// Two processes on one database, both ways in, answers lost now and then.
func TestP8_LanesOfTwoReplicas(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	var all sync.WaitGroup
	for replica := range 2 {
		var calls atomic.Int64
		l, numbered := lane(t, db, k, func(cfg *audit.Config) {
			cfg.Fault = func(string) error {
				if calls.Add(1)%13 == 0 {
					return errors.New("no")
				}
				return nil
			}
		})
		run(t, l)
		for i := range 100 {
			n := 2*i + replica
			all.Go(func() {
				if _, err := numbered.Append(t.Context(), closed(fmt.Sprint("num-", n)), n); err != nil {
					t.Errorf("%d: %v", n, err)
				}
			})
			if i%10 == 0 {
				all.Go(func() {
					if _, err := l.Record(t.Context(), closed("req-staged")); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	all.Wait()
	numbers(t, db.Pool, 200)
	if tree := checkAll(t, db.Pool, k); tree.N != 220 {
		t.Errorf("the log has %d entries", tree.N)
	}
}
