package audit_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/audit/receipt"
)

// tileReader is a client that knows nothing but the public paths.
type tileReader struct {
	t *testing.T
	l *audit.Log
}

func (r tileReader) Height() int { return 8 }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := r.l.Tile(r.t.Context(), strings.TrimPrefix(tile.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func TestAnOutsiderCanVerifyTheLog(t *testing.T) {
	t.Parallel()
	const size = 2*256 + 37
	l, _, k := start(t)
	var entries []audit.Entry
	for len(entries) < size {
		entries = append(entries, record(t, l, min(61, size-len(entries)))...)
	}

	msg, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(msg, note.VerifierList(k.verifier))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != "log.example.com" || lines[1] != fmt.Sprint(size) || lines[3] != "" {
		t.Fatalf("checkpoint: %q", n.Text)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		t.Fatal(err)
	}

	// Every record by the tiles, which TileHashReader checks against the root.
	tiles := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tileReader{t, l})
	for i, e := range entries {
		hashes, err := tiles.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(i))})
		if err != nil || hashes[0] != tlog.RecordHash(e.Leaf) {
			t.Fatalf("entry %d by tiles: %v", i, err)
		}
	}
	// Every record by its receipt.
	for i, e := range entries {
		text, err := l.Receipt(t.Context(), int64(i))
		if err != nil {
			t.Fatal(err)
		}
		if index, err := receipt.Verify(e.Leaf, text, k.verifier); err != nil || index != int64(i) {
			t.Fatalf("receipt of %d: %d, %v", i, index, err)
		}
		if _, err := receipt.Verify(entries[(i+1)%size].Leaf, text, k.verifier); err == nil {
			t.Fatalf("the receipt of %d proves another leaf", i)
		}
	}
	// Every record by the bundles.
	next := 0
	for _, path := range []string{"000", "001", "002.p/37"} {
		bundle, err := l.Bundle(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for len(bundle) > 0 {
			length := int(binary.BigEndian.Uint16(bundle))
			if leaf := bundle[2 : 2+length]; string(leaf) != string(entries[next].Leaf) {
				t.Fatalf("entry %d in bundle %s: %s", next, path, leaf)
			}
			bundle = bundle[2+length:]
			next++
		}
	}
	if next != size {
		t.Errorf("the bundles have %d entries", next)
	}
}

func TestTilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	record(t, l, 300)
	for path, length := range map[string]int{
		"0/000": 256 * 32, "0/000.p/5": 5 * 32, "0/001.p/44": 44 * 32, "0/001.p/1": 32, "1/000.p/1": 32,
		"0/001": -1, "0/001.p/45": -1, "0/002.p/1": -1, "1/000": -1, "1/000.p/2": -1, "2/000.p/1": -1, "7/000.p/1": -1,
		"8/000.p/1": -1, "63/000": -1, "0/x001/000": -1, "0/x999/x999/x999/x999/x999/x999/999": -1,
		"0/x999/x999/x999/x999/x999/x999/x999/x999/999": -1,
		"": -1, "0": -1, "0/": -1, "0/0": -1, "00/000": -1, "-1/000": -1, "data/000": -1, "0/000.p/0": -1, "0/000.p/256": -1,
		"0/000.p/05": -1, "0/000.p": -1, "0/../0/000": -1, "0/000/": -1, "/0/000": -1, "0/x000/000": -1, "entries/000": -1,
	} {
		data, err := l.Tile(t.Context(), path)
		if length < 0 && !errors.Is(err, audit.ErrNoTile) || length >= 0 && (err != nil || len(data) != length) {
			t.Errorf("tile %q: %d bytes, %v", path, len(data), err)
		}
	}
	for path, ok := range map[string]bool{
		"000": true, "001.p/44": true, "000.p/7": true,
		"001": false, "001.p/45": false, "": false, "0/000": false, "data/000": false, "x000/000": false, "../0/000": false,
	} {
		if _, err := l.Bundle(t.Context(), path); ok != (err == nil) || !ok && !errors.Is(err, audit.ErrNoTile) {
			t.Errorf("bundle %q: %v", path, err)
		}
	}
	for _, index := range []int64{-1, 300, 1 << 62} {
		if _, err := l.Receipt(t.Context(), index); !errors.Is(err, audit.ErrNoEntry) {
			t.Errorf("receipt of %d: %v", index, err)
		}
	}
}
