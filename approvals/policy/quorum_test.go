package policy

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func one(groups ...string) Slot { return Slot{Groups: groups, Count: 1} }

func TestP5_OnePersonOneSlot(t *testing.T) {
	t.Parallel()
	both := []Stage{{Slots: []Slot{one("leads"), one("security")}}}
	for _, c := range []struct {
		name      string
		stages    []Stage
		approvals []Approval
		complete  bool
		stage     int
	}{
		{"nobody asked, nobody approves", nil, []Approval{{"a", []string{"leads"}}}, false, 1},
		{"a stage without slots", []Stage{{}}, []Approval{{"a", []string{"leads"}}}, false, 1},
		{"a slot without groups", []Stage{{Slots: []Slot{{Count: 1}}}}, []Approval{{"a", nil}}, false, 1},
		{"none", both, nil, false, 1},
		{"one person in both groups", both, []Approval{{"a", []string{"leads", "security"}}}, false, 1},
		{"the same person twice", both, []Approval{{"a", []string{"leads"}}, {"a", []string{"security"}}}, false, 1},
		{"two people", both, []Approval{{"a", []string{"leads"}}, {"b", []string{"security"}}}, true, 2},
		{"who fits both makes way", both, []Approval{{"a", []string{"leads", "security"}}, {"b", []string{"leads"}}}, true, 2},
		{"two of one kind", both, []Approval{{"a", []string{"leads"}}, {"b", []string{"leads"}}}, false, 1},
		{"overshoot", both, []Approval{{"a", []string{"leads"}}, {"b", []string{"security"}}, {"c", []string{"leads"}}}, true, 2},
		{"stranger", both, []Approval{{"a", []string{"leads"}}, {"b", []string{"x"}}}, false, 1},
		{"stages in order", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("b")}}},
			[]Approval{{"1", []string{"a"}}, {"2", []string{"b"}}}, true, 3},
		{"second stage too early", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("b")}}},
			[]Approval{{"2", []string{"b"}}, {"1", []string{"a"}}}, false, 2},
		{"one person in two stages", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("a")}}},
			[]Approval{{"1", []string{"a"}}, {"1", []string{"a"}}}, false, 2},
		{"count", []Stage{{Slots: []Slot{{Groups: []string{"a"}, Count: 2}}}},
			[]Approval{{"1", []string{"a"}}, {"2", []string{"a"}}}, true, 2},
	} {
		got := Quorum(c.stages, c.approvals)
		if got.Complete != c.complete || got.Stage != c.stage {
			t.Errorf("%s: %+v, want complete %v in stage %d", c.name, got, c.complete, c.stage)
		}
	}
}

// The matching agrees with trying every assignment of people to slots, and the
// answer does not depend on luck: whoever MayFill says fills a place does.
func TestQuorumAgreesWithExhaustiveSearch(t *testing.T) {
	t.Parallel()
	groups := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		var slots []Slot
		for range rapid.IntRange(1, 3).Draw(t, "slots") {
			slots = append(slots, Slot{
				Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 1, 2, rapid.ID[string]).Draw(t, "groups"),
				Count:  rapid.IntRange(1, 2).Draw(t, "count"),
			})
		}
		var approvals []Approval
		for i := range rapid.IntRange(0, 6).Draw(t, "people") {
			approvals = append(approvals, Approval{
				PersonID: fmt.Sprint(i),
				Groups:   rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 3, rapid.ID[string]).Draw(t, "member"),
			})
		}
		stages := []Stage{{Slots: slots}}
		got := Quorum(stages, approvals)
		if want := exhaustive(slots, make([]int, len(slots)), approvals); got.Complete != want {
			t.Fatalf("complete %v, want %v: %+v by %+v", got.Complete, want, slots, approvals)
		}
		filled := 0
		for i, n := range got.Filled[0] {
			if n > slots[i].Count {
				t.Fatalf("slot %d is overfilled: %+v", i, got)
			}
			filled += n
		}
		for i, a := range approvals {
			before, after := Quorum(stages, approvals[:i]), Quorum(stages, approvals[:i+1])
			grew := !slices.Equal(before.Filled[0], after.Filled[0])
			if MayFill(stages, approvals[:i], a) != grew {
				t.Fatalf("MayFill is wrong about person %d", i)
			}
		}
	})
}

func exhaustive(slots []Slot, filled []int, people []Approval) bool {
	done := true
	for i, s := range slots {
		done = done && filled[i] >= s.Count
	}
	if done {
		return true
	}
	if len(people) == 0 {
		return false
	}
	for i, s := range slots {
		if filled[i] < s.Count && overlap(s.Groups, people[0].Groups) {
			filled[i]++
			ok := exhaustive(slots, filled, people[1:])
			filled[i]--
			if ok {
				return true
			}
		}
	}
	return exhaustive(slots, filled, people[1:])
}
