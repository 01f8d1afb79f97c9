package pages

import (
	"fmt"
	"strings"
	"time"

	"sallyport/api"
)

// batchView is a batch as the line has it.
type batchView struct {
	api.DeploymentBatch
	Now        time.Time
	deployment string // its state
}

// Name is what the batch is called.
func (b batchView) Name() string {
	switch {
	case b.Canary:
		return "Canary"
	case b.Rollback:
		return "Rollback"
	}
	return fmt.Sprintf("Batch %d", b.Number)
}

// Cells are its hosts.
func (b batchView) Cells() []cell {
	list := make([]cell, len(b.Hosts))
	for i, h := range b.Hosts {
		list[i] = cell{h, b.look(h)}
	}
	return list
}

// Few reports whether there are so few hosts that each is shown with its name.
func (b batchView) Few() bool { return len(b.Hosts) <= 8 }

// Sum counts the hosts by what they look like.
func (b batchView) Sum() []cellCount {
	count := map[string]int{}
	for _, c := range b.Cells() {
		count[c.Look]++
	}
	return counted(count)
}

// Done is how many hosts the batch has behind it: neither waiting nor open.
func (b batchView) Done() (n int) {
	for _, c := range b.Cells() {
		if c.Look != "waiting" && c.Look != "open" {
			n++
		}
	}
	return n
}

// Quiet reports whether nobody need look at its gates: they have passed, or are not due.
func (b batchView) Quiet() bool {
	return b.State != "gating" && b.State != "failed" && b.State != "inconclusive"
}

// GateNames are the names of its gates.
func (b batchView) GateNames() string {
	names := make([]string, len(b.Gates))
	for i, g := range b.Gates {
		names[i] = g.Name
	}
	return strings.Join(names, ", ")
}

// Reported is how many hosts the agent has said something of.
func (b batchView) Reported() (n int) {
	for _, h := range b.Hosts {
		if h.Result != "" && h.Result != "missing" {
			n++
		}
	}
	return n
}

// Proved is how many hosts have shown that they are sealed, or that they are not.
func (b batchView) Proved() (n int) {
	for _, h := range b.Hosts {
		if h.State != "verifying" {
			n++
		}
	}
	return n
}

// Elapsed and Length are of the bar that shows how far its state is on its way to Until,
// in seconds.
func (b batchView) Elapsed() int {
	return min(b.Length(), max(0, int(b.Now.Sub(*b.Begun()).Seconds())))
}

// Length is described at Elapsed.
func (b batchView) Length() int { return max(1, int(b.Until.Sub(*b.Begun()).Seconds())) }

// Begun is when that began; nil, if nothing counts down.
func (b batchView) Begun() *time.Time {
	switch {
	case b.Until == nil:
	case b.State == "open":
		return b.OpenedAt
	case b.State == "soaking":
		return b.SealedAt
	}
	return nil
}

// cell is one host of a batch, and what it looks like.
type cell struct {
	api.DeploymentHost
	Look string // a key of looks
}

// looks are how hosts are drawn: by a mark, a word and a colour, in this order.
var looks = []struct{ look, mark, word string }{
	{"waiting", "·", "waiting"},
	{"open", "○", "open"},
	{"reported", "◐", "reported ok"},
	{"closing", "◒", "to show that it is sealed"},
	{"sealed", "✓", "sealed and verified"},
	{"skipped", "–", "sealed, skipped"},
	{"missing", "…", "sealed, not reported"},
	{"failed", "✗", "failed"},
	{"unknown", "?", "unknown: has not shown in time that it is sealed"},
	{"drifted", "!", "drifted: it can be opened"},
}

// look is what the host looks like. What can be opened comes before what failed.
func (b batchView) look(h api.DeploymentHost) string {
	switch {
	case h.State == "drifted":
		return "drifted"
	case h.State == "quarantined":
		return "unknown"
	case h.Result == "failed":
		return "failed"
	case h.State == "verifying":
		return "closing"
	case h.State == "deployed" || h.State == "open" && h.Result != "":
		return "reported"
	case h.State == "open":
		return "open"
	case h.Result == "skipped", h.Result == "missing":
		return h.Result
	case h.Result == "ok" || h.State == "sealed" && b.deployment == "complete":
		return "sealed"
	}
	return "waiting"
}

// Mark stands in the cell.
func (c cell) Mark() string { return markOf(c.Look) }

// Word says it.
func (c cell) Word() string { return wordOf(c.Look) }

func markOf(look string) string {
	for _, l := range looks {
		if l.look == look {
			return l.mark
		}
	}
	return "?"
}

func wordOf(look string) string {
	for _, l := range looks {
		if l.look == look {
			return l.word
		}
	}
	return look
}

// cellCount is how many hosts look alike.
type cellCount struct {
	Look, Mark, Word string
	N                int
}

func counted(count map[string]int) (list []cellCount) {
	for _, l := range looks {
		if n := count[l.look]; n > 0 {
			word, _, _ := strings.Cut(l.word, ":")
			list = append(list, cellCount{l.look, l.mark, word, n})
		}
	}
	return list
}
