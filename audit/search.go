package audit

import (
	"context"
	"fmt"
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
	digestAtOnce = 16
)

// Found is one page of what a search found, newest first.
type Found struct {
	Entries []Entry
	// Next is where the search goes on: Filter.Before of the next page. 0 says that
	// there is no more.
	Next int64
	// Thorough is false if the search stopped before the page was full, because it
	// had read as much as one search may; there may be more from Next on.
	Thorough bool
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
	if f.RequestID != "" || f.unfiltered() {
		entries, err := l.Entries(ctx, f) // by an index of its own, which knows what waits
		if err != nil {
			return Found{}, err
		}
		return page(entries, f.Limit), nil
	}
	if f.Limit < 0 || f.Limit > 200 {
		return Found{}, ErrFilter.On("limit")
	}
	return l.searchBlocks(ctx, f)
}

// page is a page of entries that are all there are, up to the limit.
func page(entries []Entry, limit int) Found {
	out := Found{Entries: entries, Thorough: true}
	if n := len(entries); n == limit && entries[n-1].Index > 0 {
		out.Next = entries[n-1].Index
	}
	return out
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

// searchBlocks goes through the blocks from the newest on. Those that are not
// summed up yet could hold anything.
func (l *Log) searchBlocks(ctx context.Context, f Filter) (Found, error) {
	where, args := f.where()
	from, to := f.From, f.To
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	if to.IsZero() {
		to = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	var next int64 // entries from here on have been looked at, or are not wanted
	var digested int64
	if err := l.cfg.Pool.QueryRow(ctx, `
		SELECT h.size, (SELECT coalesce(max(block) + 1, 0) FROM audit.blocks) FROM audit.head AS h WHERE h.one_row`,
	).Scan(&next, &digested); err != nil {
		return Found{}, fmt.Errorf("searching: %w", err)
	}
	if f.Before > 0 {
		next = min(next, f.Before)
	}

	blocks, err := l.candidates(ctx, f, from, to, next, digested)
	if err != nil {
		return Found{}, err
	}
	found := Found{Thorough: len(blocks) <= f.budget()}
	blocks = blocks[:min(len(blocks), f.budget())]
	for read, chunk := 0, 2; read < len(blocks); read, chunk = read+chunk, 2*chunk {
		entries, err := l.inBlocks(ctx, where, args, blocks[read:min(read+chunk, len(blocks))], next, f.Limit-len(found.Entries))
		if err != nil {
			return Found{}, err
		}
		found.Entries = append(found.Entries, entries...)
		if len(found.Entries) == f.Limit {
			found.Next, found.Thorough = found.Entries[f.Limit-1].Index, true
			return found, nil
		}
	}
	if !found.Thorough {
		found.Next = blocks[len(blocks)-1] * blockSize
	}
	return found, nil
}

// candidates are the blocks, from the newest on, that could hold what fits below
// the index: one more than a search reads, if there are so many.
func (l *Log) candidates(ctx context.Context, f Filter, from, to time.Time, below, digested int64) ([]int64, error) {
	most := f.budget() + 1
	newest := (below - 1) / blockSize
	var blocks []int64
	for b := newest; b >= digested && b >= 0 && len(blocks) < most; b-- {
		blocks = append(blocks, b)
	}
	where, args := "block + 0 <= $1 AND until >= $2 AND since < $3", []any{newest, from, to}
	if keys := f.keys(); len(keys) > 0 {
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
	unpacks := len(args) > 3
	var more []int64
	err := pgx.BeginTxFunc(ctx, l.cfg.Pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if unpacks {
			if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			WITH fitting AS MATERIALIZED (SELECT block FROM audit.blocks WHERE %s)
			SELECT block FROM fitting ORDER BY block DESC LIMIT %d`, where, most-len(blocks)), args...)
		if err != nil {
			return err
		}
		more, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("searching blocks: %w", err)
	}
	return append(blocks, more...), nil
}

// inBlocks reads the entries of the blocks, below the index, that fit.
func (l *Log) inBlocks(ctx context.Context, where string, args []any, blocks []int64, below int64, limit int) ([]Entry, error) {
	n := len(args)
	rows, err := l.cfg.Pool.Query(ctx, fmt.Sprintf(`
		SELECT e.index, e.event_id, e.type, e.time, e.leaf
		FROM unnest($%d::bigint[]) AS b (block) CROSS JOIN LATERAL (
			SELECT index, event_id, type, time, leaf FROM audit.entries
			WHERE index >= %d * b.block AND index < least(%d * b.block + %d, $%d) AND %s
			ORDER BY index DESC LIMIT $%d) AS e
		ORDER BY e.index DESC LIMIT $%d`, n+1, blockSize, blockSize, blockSize, n+2, where, n+3, n+3),
		append(args[:n:n], blocks, below, limit)...)
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

// digestAll sums up blocks until the context ends: at once while there are full
// ones, and else now and then.
func (l *Log) digestAll(ctx context.Context) {
	ticker := time.NewTicker(digestEvery)
	defer ticker.Stop()
	for {
		for l.digest(ctx) {
			if ctx.Err() != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// digestEvery is how often a log looks for blocks that have become full.
const digestEvery = 2 * time.Second
