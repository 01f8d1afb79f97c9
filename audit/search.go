package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

const (
	// blockSize is how many entries audit.digest sums up together.
	blockSize = 256
	// MaxSearchText is how many characters a search by text may have.
	MaxSearchText = 200
	// textBudget and keyBudget are how many blocks one search reads at most, with
	// and without words: 6,144 and 40,960 entries.
	textBudget, keyBudget = 24, 160
	// digestAtOnce is how many blocks the sequencer has summed up in one go, in its
	// free time.
	digestAtOnce = 4
)

// Found is one page of what a search found, newest first.
type Found struct {
	Entries []Entry
	// Next is where the search goes on: Filter.Before of the next page. 0 says that
	// there is no more.
	Next int64
	// Newer is where the page before this one is: its Filter.After. 0 says that there
	// is no newer one.
	Newer int64
	// Thorough is false if the search stopped before the page was full, because it
	// had read as much as one search may; there may be more from Next on, or with a
	// Filter.After from Newer on.
	Thorough bool
	// Pruned is about the entries that the search did not find because they were
	// pruned, if it came to where they would be.
	Pruned *Pruned
}

// Search finds entries by all that a filter can say, newest first. Its cost does
// not grow with the log: blocks that cannot hold what is looked for are left out
// by one index, and only so many of the others are read (migration 015).
// With a RequestID, events that still wait are there too, first, with index -1.
func (l *Log) Search(ctx context.Context, f Filter) (Found, error) {
	if f.Limit == 0 {
		f.Limit = 50
	}
	if utf8.RuneCountInString(f.Text) > MaxSearchText || strings.ContainsRune(f.Text, 0) {
		return Found{}, ErrFilter.On("text")
	}
	if f.Limit < 0 || f.Limit > 200 {
		return Found{}, ErrFilter.On("limit")
	}
	if f.Before > 0 && f.After > 0 {
		return Found{}, ErrFilter.On("after")
	}
	var found Found
	var err error
	if f.RequestID != "" || f.unfiltered() { // by an index of its own, which knows what waits
		found.Thorough = true
		found.Entries, err = l.Entries(ctx, f)
	} else {
		found, err = l.searchBlocks(ctx, f)
	}
	if err != nil {
		return Found{}, err
	}
	full := len(found.Entries) == f.Limit
	if f.After > 0 && found.Thorough && !full { // there are not so many newer ones: this is the first page
		f.After = 0
		return l.Search(ctx, f)
	}
	found = found.paged(f, full)
	if n := len(found.Entries); found.Next == 0 && (f.RequestID == "" || n == 0 || !found.Entries[n-1].Begins()) {
		if found.Pruned, err = l.LastPruned(ctx, f.From); err != nil {
			return Found{}, err
		}
	}
	return found, nil
}

// paged says where the pages beside a page are. Entries that wait have no index,
// and are on the first page only.
func (found Found) paged(f Filter, full bool) Found {
	newest, oldest := f.Before-1, f.After+1 // of a page with nothing on it
	if n := len(found.Entries); n > 0 {
		newest, oldest = found.Entries[0].Index, found.Entries[n-1].Index
	}
	switch {
	case f.After > 0:
		found.Next = max(0, oldest)
		if full {
			found.Newer = newest
		}
	case full:
		found.Next = max(0, oldest)
	}
	if f.Before > 0 {
		found.Newer = max(0, newest)
	}
	found.Thorough = found.Thorough || full
	return found
}

// unfiltered reports whether every entry fits.
func (f Filter) unfiltered() bool {
	return f.Type == "" && f.PersonID == "" && f.HostID == "" && f.Text == "" && f.From.IsZero() && f.To.IsZero()
}

// keys are what a block must have for the filter to fit any of its entries; see
// audit.keys.
func (f Filter) keys() []string {
	keys := []string{}
	for _, k := range []struct{ name, value string }{{"type:", f.Type}, {"person:", f.PersonID}, {"host:", f.HostID}} {
		if k.value != "" {
			keys = append(keys, k.name+k.value)
		}
	}
	return keys
}

// budget is how many blocks the search reads at most. Words are compared by
// parsing each event's texts.
func (f Filter) budget() int {
	if f.Text != "" {
		return textBudget
	}
	return keyBudget
}

// words is the text as a query: all of its words, the last of which may go on.
const words = `CASE WHEN numnode(plainto_tsquery('pg_catalog.simple', $TEXT)) = 0 THEN NULL
	ELSE (plainto_tsquery('pg_catalog.simple', $TEXT)::text || ':*')::tsquery END`

// stretch is the entries that one search is about: from one index on, below
// another, and in which order it goes through them.
type stretch struct {
	from, below int64
	upward      bool
}

// order is how SQL says it.
func (s stretch) order() string {
	if s.upward {
		return "ASC"
	}
	return "DESC"
}

// searchBlocks goes through the blocks, from the newest on, or with an After from
// there upward. Those that are not summed up yet could hold anything.
func (l *Log) searchBlocks(ctx context.Context, f Filter) (Found, error) {
	where, args := f.where()
	var size, digested int64
	if err := l.cfg.Pool.QueryRow(ctx, `
		SELECT h.size, (SELECT coalesce(max(block) + 1, 0) FROM audit.blocks) FROM audit.head AS h WHERE h.one_row`,
	).Scan(&size, &digested); err != nil {
		return Found{}, fmt.Errorf("searching: %w", err)
	}
	s := stretch{below: size, upward: f.After > 0}
	if f.Before > 0 {
		s.below = min(size, f.Before)
	}
	if f.After > 0 {
		s.from = f.After + 1
	}
	blocks, err := l.candidates(ctx, f, s, digested)
	if err != nil {
		return Found{}, err
	}
	found := Found{Thorough: len(blocks) <= f.budget()}
	blocks = blocks[:min(len(blocks), f.budget())]
	for read, chunk := 0, 2; read < len(blocks) && len(found.Entries) < f.Limit; read, chunk = read+chunk, 2*chunk {
		entries, err := l.inBlocks(ctx, where, args, blocks[read:min(read+chunk, len(blocks))], s, f.Limit-len(found.Entries))
		if err != nil {
			return Found{}, err
		}
		found.Entries = append(found.Entries, entries...)
	}
	if s.upward {
		slices.Reverse(found.Entries)
	}
	if !found.Thorough {
		last := blocks[len(blocks)-1]
		if s.upward {
			found.Newer = last*blockSize + blockSize - 1
		} else {
			found.Next = last * blockSize
		}
	}
	return found, nil
}

// candidates are the blocks of the stretch, in its order, that could hold what
// fits: one more than a search reads, if there are so many.
func (l *Log) candidates(ctx context.Context, f Filter, s stretch, digested int64) ([]int64, error) {
	if s.from >= s.below {
		return nil, nil
	}
	most := f.budget() + 1
	first, last := s.from/blockSize, (s.below-1)/blockSize
	var fresh []int64 // not summed up
	if s.upward {
		for b := max(first, digested); b <= last && len(fresh) < most; b++ {
			fresh = append(fresh, b)
		}
	} else {
		for b := last; b >= max(first, digested) && len(fresh) < most; b-- {
			fresh = append(fresh, b)
		}
	}
	summed, err := l.fitting(ctx, f, s, first, min(last, digested-1), most)
	if err != nil {
		return nil, fmt.Errorf("searching blocks: %w", err)
	}
	all := append(fresh, summed...)
	if s.upward {
		all = append(summed, fresh...)
	}
	return all[:min(most, len(all))], nil
}

// fitting are the blocks from the first to the last whose sums say that they could
// hold what fits.
func (l *Log) fitting(ctx context.Context, f Filter, s stretch, first, last int64, most int) (blocks []int64, err error) {
	from, to := f.From, f.To
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	if to.IsZero() {
		to = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	where, args := "block + 0 BETWEEN $1 AND $2 AND until >= $3 AND since < $4", []any{first, last, from, to}
	keys := f.keys()
	if len(keys) > 0 {
		args = append(args, keys)
		where += fmt.Sprintf(" AND keys @> $%d", len(args))
	}
	if f.Text != "" {
		args = append(args, f.Text)
		where += " AND words @@ (" + strings.ReplaceAll(words, "$TEXT", fmt.Sprintf("$%d", len(args))) + ")"
	}
	// PostgreSQL believes that the table is small, as keys and words lie beside it,
	// and would rather unpack them block by block. MATERIALIZED, "+ 0" and the
	// setting leave it the index that has both.
	err = pgx.BeginTxFunc(ctx, l.cfg.Pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if len(keys) > 0 || f.Text != "" {
			if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			WITH fitting AS MATERIALIZED (SELECT block FROM audit.blocks WHERE %s)
			SELECT block FROM fitting ORDER BY block %s LIMIT %d`, where, s.order(), most), args...)
		if err != nil {
			return err
		}
		blocks, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return blocks, err
}

// inBlocks reads the entries of the blocks, within the stretch and in its order,
// that fit.
func (l *Log) inBlocks(ctx context.Context, where string, args []any, blocks []int64, s stretch, limit int) ([]Entry, error) {
	n := len(args)
	rows, err := l.cfg.Pool.Query(ctx, fmt.Sprintf(`
		SELECT e.index, e.event_id, e.type, e.time, e.leaf
		FROM unnest($%[1]d::bigint[]) AS b (block) CROSS JOIN LATERAL (
			SELECT index, event_id, type, time, leaf FROM audit.entries
			WHERE index >= greatest(%[5]d * b.block, $%[2]d) AND index < least(%[5]d * b.block + %[5]d, $%[3]d) AND %[6]s
			ORDER BY index %[7]s LIMIT $%[4]d) AS e
		ORDER BY e.index %[7]s LIMIT $%[4]d`, n+1, n+2, n+3, n+4, blockSize, where, s.order()),
		append(args[:n:n], blocks, s.from, s.below, limit)...)
	if err != nil {
		return nil, fmt.Errorf("searching entries: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("searching entries: %w", err)
	}
	return entries, nil
}

// digest sums up the blocks that are full by now, some at a time, and says whether
// there may be more. That nothing is found faster for a while is no reason to stop
// the log.
func (l *Log) digest(ctx context.Context) (more bool) {
	var made int
	if err := l.cfg.Pool.QueryRow(ctx, "SELECT audit.digest($1)", digestAtOnce).Scan(&made); err != nil {
		if ctx.Err() == nil {
			l.logger.WarnContext(ctx, "summing up the log for searches failed", "error", err)
		}
		return false
	}
	return made == digestAtOnce
}
