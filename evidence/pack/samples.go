package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"sallyport/evidence/populations"
)

// sampler keeps the rows of one list that its seed chooses: those with the least
// hashes, so that no row can be favoured by where it stands, and anybody can do it
// again with sha256sum.
type sampler struct {
	prefix string
	chosen []sample // in the order of their hashes
}

type sample struct {
	hash  [sha256.Size]byte
	index int64
	time  string
	event string
}

func newSampler(seed, list string) *sampler { return &sampler{prefix: seed + "\n" + list + "\n"} }

func (s *sampler) add(e *populations.Event) {
	x := sample{hash: sha256.Sum256(strconv.AppendInt([]byte(s.prefix), e.Index, 10)), index: e.Index}
	at, _ := slices.BinarySearchFunc(s.chosen, x, func(a, b sample) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	if at >= MaxSamples {
		return
	}
	x.time, x.event = populations.Time(e.Time), e.Type
	if s.chosen = slices.Insert(s.chosen, at, x); len(s.chosen) > MaxSamples {
		s.chosen = s.chosen[:MaxSamples]
	}
}

// inOrder are the chosen rows by their place in the list.
func (s *sampler) inOrder() []sample {
	out := slices.Clone(s.chosen)
	slices.SortFunc(out, func(a, b sample) int { return int(a.index - b.index) })
	return out
}

func (s sample) hex() string { return hex.EncodeToString(s.hash[:]) }
