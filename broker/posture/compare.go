package posture

import (
	"slices"

	"sallyport/api/hostapi"
)

// maxShown is how many findings an event repeats, of all checks together: an event has
// 64 KiB at most, and the posture has them all.
const maxShown = 60

// Change is how one check is different from before.
type Change struct {
	Check         string
	Before, After hostapi.Result
	New, Gone     []string // findings
}

// Compare says what is different from the posture before, check by check. Before the
// first one everything passed: what does not is different.
func Compare(before, after []hostapi.Check) []Change {
	was := map[string]hostapi.Check{}
	for _, c := range before {
		was[c.ID] = c
	}
	var changes []Change
	left := maxShown
	without := func(findings, others []string) (out []string) {
		for _, f := range findings {
			if !slices.Contains(others, f) && left > 0 {
				out, left = append(out, f), left-1
			}
		}
		return out
	}
	for _, c := range after {
		b, known := was[c.ID]
		delete(was, c.ID)
		if !known {
			b.Result = hostapi.Pass
		}
		if b.Result == c.Result && slices.Equal(b.Findings, c.Findings) {
			continue
		}
		changes = append(changes, Change{Check: c.ID, Before: b.Result, After: c.Result,
			New: without(c.Findings, b.Findings), Gone: without(b.Findings, c.Findings)})
	}
	for _, b := range before { // in their order
		if _, gone := was[b.ID]; gone && b.Result != hostapi.Pass {
			changes = append(changes, Change{Check: b.ID, Before: b.Result, After: hostapi.Pass, Gone: without(b.Findings, nil)})
		}
	}
	return changes
}

// Drift are the changes that open a host: checks that fail now and did not before, or for
// other reasons. That a connection lasts is none.
func Drift(changes []Change) []Change {
	var drift []Change
	for _, c := range changes {
		if c.After == hostapi.Fail && c.Check != sessionsCheck && (c.Before != c.After || len(c.New) > 0) {
			drift = append(drift, c)
		}
	}
	return drift
}

// Count is how many checks have each result.
func Count(checks []hostapi.Check) (passed, failed, unknown int) {
	for _, c := range checks {
		switch c.Result {
		case hostapi.Pass:
			passed++
		case hostapi.Fail:
			failed++
		default:
			unknown++
		}
	}
	return passed, failed, unknown
}
