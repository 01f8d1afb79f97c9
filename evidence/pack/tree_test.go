package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree and all its tiles are those of golang.org/x/mod/sumdb/tlog.
func TestRebuiltTreeIsTlogs(t *testing.T) {
	t.Parallel()
	const most = 256*256 + 700
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = stored[index]
		}
		return out, nil
	})
	var leaves []tlog.Hash
	for i := range int64(most) {
		leaf := tlog.RecordHash(fmt.Append(nil, i))
		added, err := tlog.StoredHashesForRecordHash(i, leaf, read)
		if err != nil {
			t.Fatal(err)
		}
		leaves, stored = append(leaves, leaf), append(stored, added...)
	}
	sizes := []int64{0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 1000, 65535, 65536, 65537, 65536 + 256, most}
	for _, size := range sizes {
		seen := map[tlog.Tile]bool{}
		b := &builder{tile: func(tile tlog.Tile, data []byte) error {
			want, err := tlog.ReadTileData(tile, read)
			if err != nil {
				return err
			}
			if !slices.Equal(want, data) || seen[tile] {
				t.Errorf("%d: tile %v", size, tile)
			}
			seen[tile] = true
			return nil
		}}
		for n := int64(0); n*tileWidth < size; n++ {
			hashes := slices.Clone(leaves[n*tileWidth : n*tileWidth+int64(widthOf(n, size))])
			var top tlog.Hash
			if len(hashes) == tileWidth {
				top = fold(slices.Clone(hashes))
			}
			if err := b.add(hashes, top); err != nil {
				t.Fatal(err)
			}
		}
		got, err := b.root()
		if err != nil {
			t.Fatal(err)
		}
		want, err := tlog.TreeHash(size, read)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("the root of %d is %s, not %s", size, got, want)
		}
		// The tiles are all that a static log has.
		tiles := 0
		for l, n := 0, size; n > 0; l, n = l+1, n/tileWidth {
			tiles += int((n + tileWidth - 1) / tileWidth)
		}
		if len(seen) != tiles {
			t.Errorf("%d: %d tiles, not %d", size, len(seen), tiles)
		}
	}
}

func TestLeafHash(t *testing.T) {
	t.Parallel()
	text := []byte("\x00\x05hello\x00\x01x")
	if got, want := leafHash(text, 2, 7), tlog.RecordHash([]byte("hello")); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// bundles are entries of some length as packs have them, without their compression.
func bundles(n, length int) [][]byte {
	var out [][]byte
	for i := 0; i < n; i += tileWidth {
		var b []byte
		for j := range tileWidth {
			b = binary.BigEndian.AppendUint16(b, uint16(length))
			b = append(b, make([]byte, length)...)
			binary.BigEndian.PutUint64(b[len(b)-8:], uint64(i+j))
		}
		out = append(out, b)
	}
	return out
}

// Rebuilding the root from entries, per core: hashing and nothing else. Metric
// entries/s/core; the goal is a million, bare is what SHA-256 alone does.
func BenchmarkRebuild(b *testing.B) {
	for _, length := range []int{300, 700, 1500} {
		for _, cores := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("%d-bytes/%d-cores", length, cores), func(b *testing.B) {
				const entries = 64 * tileWidth
				all := bundles(entries, length)
				for b.Loop() {
					rebuild(b, all, length, cores)
				}
				perSecond := float64(entries) * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(perSecond/float64(cores), "entries/s/core")
				b.ReportMetric(perSecond*float64(length)/1e6, "MB/s")
			})
		}
		b.Run(fmt.Sprintf("%d-bytes/bare", length), func(b *testing.B) {
			leaf := make([]byte, 1+length)
			for b.Loop() {
				for range 1000 {
					sha256.Sum256(leaf)
				}
			}
			b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "entries/s/core")
		})
	}
}

func rebuild(t testing.TB, all [][]byte, length, cores int) tlog.Hash {
	type tile struct {
		hashes []tlog.Hash
		top    tlog.Hash
	}
	tiles := make([]tile, len(all))
	var work sync.WaitGroup
	for c := range cores {
		work.Go(func() {
			for i := c; i < len(all); i += cores {
				hashes := make([]tlog.Hash, tileWidth)
				for j := range hashes {
					from := j*(2+length) + 2
					hashes[j] = leafHash(all[i], from, from+length)
				}
				tiles[i] = tile{hashes, fold(slices.Clone(hashes))}
			}
		})
	}
	work.Wait()
	b := &builder{tile: func(tlog.Tile, []byte) error { return nil }}
	for _, x := range tiles {
		if err := b.add(x.hashes, x.top); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
