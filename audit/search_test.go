package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

// searched is an event as the model of the search knows it.
type searched struct {
	entry audit.Entry
	event event.Event
	words []string
}

// fits is the model: what Search says it finds, said again without an index.
func (s searched) fits(f audit.Filter) bool {
	e := s.event
	if strings.HasSuffix(f.Type, ".") && !strings.HasPrefix(e.Type, f.Type) || !strings.HasSuffix(f.Type, ".") && f.Type != "" && e.Type != f.Type {
		return false
	}
	if p := f.PersonID; p != "" && e.Actor.ID != p && e.Subject.PersonID != p && (e.OnBehalfOf == nil || e.OnBehalfOf.ID != p) {
		return false
	}
	if h := f.HostID; h != "" && e.Subject.HostID != h && !slices.Contains(e.Subject.HostIDs, h) {
		return false
	}
	if !f.From.IsZero() && e.Time.Before(f.From) || !f.To.IsZero() && !e.Time.Before(f.To) {
		return false
	}
	wanted := strings.Fields(lower(f.Text))
	for i, w := range wanted {
		if !slices.ContainsFunc(s.words, func(has string) bool { return has == w || i == len(wanted)-1 && strings.HasPrefix(has, w) }) {
			return false
		}
	}
	return true
}

// lower is what every locale of PostgreSQL thinks of small letters, C included.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, text)
}

// population stages many events of few people, hosts and words, most of them in
// blocks that are full.
func population(t *testing.T, l *audit.Log, n int) []searched {
	t.Helper()
	reasons := []string{"restart after crash", "disk full again", "Übung nach Plan", "crash of the indexer", "quarterly review"}
	var all []searched
	for i := range n {
		subject := event.Subject{}
		actor := event.Actor{Kind: event.Person, ID: fmt.Sprintf("per-%d", i*i%7), Name: "Erin"}
		reason := reasons[i*i%31%len(reasons)]
		words := append(strings.Fields(lower(reason)), "erin")
		var data event.Data
		switch i % 3 {
		case 0:
			subject.HostID, subject.HostIDs = fmt.Sprintf("host-%d", i%5), []string{fmt.Sprintf("host-%d", i%5), fmt.Sprintf("host-%d", (i+1)%5)}
			data = event.GrantEnded{Reason: "revoked", Comment: reason}
		case 1:
			subject.PersonID = fmt.Sprintf("per-%d", i%11)
			data = event.PersonRemoved{Reason: reason}
		case 2:
			subject.HostID = fmt.Sprintf("host-%d", i%9)
			data = event.GrantEnded{Reason: "finished", Comment: reason}
		}
		e := event.New(at.Add(time.Duration(i)*time.Second), actor, "", subject, data)
		if i%13 == 0 {
			e.OnBehalfOf = &event.Actor{Kind: event.Person, ID: "per-lent"}
		}
		all = append(all, searched{event: e, words: words})
	}
	for chunk := range slices.Chunk(all, 200) {
		events := make([]event.Event, len(chunk))
		for i := range chunk {
			events[i] = chunk[i].event
		}
		entries, err := l.Record(t.Context(), events...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range chunk {
			chunk[i].entry = entries[i]
		}
	}
	return all
}

// Whatever is looked for, page by page, Search finds what a look at every event
// finds, in the log's order, also where blocks have not been summed up.
func TestSearchFindsWhatFits(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	all := population(t, l, 1300)
	for digested := range 2 {
		if digested == 1 {
			eventually(t, "blocks are summed up", func() bool { return count(t, db, "SELECT count(*) FROM audit.blocks") == 1300/256 })
		}
		rapid.Check(t, func(t *rapid.T) {
			pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
			f := audit.Filter{
				Type:     pick("type", "", "", "grant.", "grant.ended", "person.removed", "person.", "request.", "gran"),
				PersonID: pick("person", "", "", "per-1", "per-4", "per-10", "per-lent", "per-none"),
				HostID:   pick("host", "", "", "host-0", "host-4", "host-7", "host-none"),
				Text:     pick("text", "", "", "crash", "CRASH ind", "Übung", "full disk", "erin revie", "cras again", "nowhere"),
				Limit:    rapid.SampledFrom([]int{0, 1, 7, 200}).Draw(t, "limit"),
			}
			if rapid.Bool().Draw(t, "from") {
				f.From = at.Add(time.Duration(rapid.IntRange(0, 1400).Draw(t, "since")) * time.Second)
			}
			if rapid.Bool().Draw(t, "to") {
				f.To = at.Add(time.Duration(rapid.IntRange(0, 1400).Draw(t, "until")) * time.Second)
			}
			whole := f
			var want, got []int64
			for _, s := range slices.Backward(all) {
				if s.fits(f) {
					want = append(want, s.entry.Index)
				}
			}
			for range 4 { // pages; the last pages of small ones are not read
				found, err := l.Search(context.Background(), f)
				if err != nil {
					t.Fatal(err)
				}
				if limit := f.Limit; limit > 0 && len(found.Entries) > limit || len(found.Entries) > 200 {
					t.Fatalf("a page has %d entries", len(found.Entries))
				}
				for _, e := range found.Entries {
					got = append(got, e.Index)
				}
				if f.Before = found.Next; f.Before == 0 {
					break
				}
			}
			if f.Before > 0 {
				want = want[:min(len(got), len(want))]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("found %d entries %v, want %d %v", len(got), got, len(want), want)
			}
			comesBack(t, l, whole, got)
		})
	}
}

// comesBack goes from the last page of what was found back to the first, which
// finds the same; what stands on two pages does so only at the top, where the first
// page is as full as it can be.
func comesBack(t *rapid.T, l *audit.Log, f audit.Filter, found []int64) {
	if n := len(found); n > 0 && found[n-1] == 0 {
		found = found[:n-1] // nothing is after what no cursor names
	}
	if len(found) == 0 {
		return
	}
	f.After = found[len(found)-1]
	got := map[int64]bool{f.After: true}
	for range 500 {
		page, err := l.Search(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range page.Entries {
			if i > 0 && page.Entries[i-1].Index <= e.Index {
				t.Fatalf("a newer page is in the wrong order at %d", e.Index)
			}
			got[e.Index] = true
		}
		if f.After = page.Newer; f.After == 0 {
			break
		}
	}
	for _, index := range found {
		if !got[index] {
			t.Fatalf("on the way back %d is not found again", index)
		}
	}
	for index := range got {
		if index >= found[len(found)-1] && !slices.Contains(found, index) {
			t.Fatalf("on the way back %d is found for the first time", index)
		}
	}
}

// What nobody could mean is refused, and what could be SQL or a query is text.
func TestSearchTextIsText(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	record(t, l, 3)
	if _, err := l.Search(t.Context(), audit.Filter{Before: 3, After: 1}); !errors.Is(err, audit.ErrFilter) {
		t.Errorf("both ways at once: %v", err)
	}
	for _, text := range []string{strings.Repeat("a", audit.MaxSearchText+1), "a\x00b"} {
		if _, err := l.Search(t.Context(), audit.Filter{Text: text}); !errors.Is(err, audit.ErrFilter) {
			t.Errorf("%q: %v", text[:3], err)
		}
	}
	for _, text := range []string{"' | '", "zz & ! (", ":*", "%", "'; DROP TABLE audit.blocks; --", `\`, "\u202e", "!!!", strings.Repeat("ü", audit.MaxSearchText)} {
		found, err := l.Search(t.Context(), audit.Filter{Text: text})
		if err != nil || len(found.Entries) != 0 {
			t.Errorf("%q finds %d, %v", text, len(found.Entries), err)
		}
	}
	for _, text := range []string{"expired", "EXPI", "request.closed"} {
		if found, err := l.Search(t.Context(), audit.Filter{Text: text}); err != nil || len(found.Entries) != 3 {
			t.Errorf("%q finds %d, %v", text, len(found.Entries), err)
		}
	}
}

// A search reads so much and no more, says so, and goes on where it stopped.
func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	fill(t, db, 40*256+3) // none of it summed up
	found, err := l.Search(t.Context(), audit.Filter{Text: "nowhere"})
	if err != nil || found.Thorough || len(found.Entries) != 0 || found.Next == 0 {
		t.Fatalf("found %d, next %d, thorough %t, %v", len(found.Entries), found.Next, found.Thorough, err)
	}
	rest, err := l.Search(t.Context(), audit.Filter{Text: "nowhere", Before: found.Next})
	if err != nil || !rest.Thorough || rest.Next != 0 || rest.Newer != found.Next-1 {
		t.Fatalf("next %d, newer %d, thorough %t, %v", rest.Next, rest.Newer, rest.Thorough, err)
	}
	up, err := l.Search(t.Context(), audit.Filter{Text: "nowhere", After: 1})
	if err != nil || up.Thorough || len(up.Entries) != 0 || up.Newer == 0 || up.Next != 2 {
		t.Fatalf("upward: found %d, newer %d, next %d, thorough %t, %v", len(up.Entries), up.Newer, up.Next, up.Thorough, err)
	}
}

// The broker's role can neither write blocks nor change them.
func TestP7_BlocksCannotBeMadeUp(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	record(t, l, 300)
	eventually(t, "a block is summed up", func() bool { return count(t, db, "SELECT count(*) FROM audit.blocks") == 1 })
	for _, sql := range []string{
		"INSERT INTO audit.blocks VALUES (1, now(), now(), '{}', '')", "UPDATE audit.blocks SET keys = '{}'",
		"DELETE FROM audit.blocks", "TRUNCATE audit.blocks",
	} {
		if _, err := db.Pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is allowed", sql)
		}
	}
	// Nor is there a block before all of its entries are in the log.
	if n := count(t, db, "SELECT audit.digest(100)"); n != 0 {
		t.Errorf("%d blocks too many", n)
	}
}

func count(t testing.TB, db *pgtest.DB, sql string) (n int) {
	t.Helper()
	if err := db.Pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
