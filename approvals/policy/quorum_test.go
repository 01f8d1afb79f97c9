package policy

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func one(groups ...string) Slot { return Slot{Groups: groups, Count: 1} }

func by(person string, groups ...string) Approval { return Approval{PersonID: person, Groups: groups} }

// also is the approval with others who stand behind it.
func also(a Approval, people ...string) Approval { a.Also = people; return a }

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
		{"nobody asked, nobody approves", nil, []Approval{by("a", "leads")}, false, 1},
		{"a stage without slots", []Stage{{}}, []Approval{by("a", "leads")}, false, 1},
		{"a slot without groups", []Stage{{Slots: []Slot{{Count: 1}}}}, []Approval{by("a")}, false, 1},
		{"none", both, nil, false, 1},
		{"one person in both groups", both, []Approval{by("a", "leads", "security")}, false, 1},
		{"the same person twice", both, []Approval{by("a", "leads"), by("a", "security")}, false, 1},
		{"two people", both, []Approval{by("a", "leads"), by("b", "security")}, true, 2},
		{"who fits both makes way", both, []Approval{by("a", "leads", "security"), by("b", "leads")}, true, 2},
		{"two of one kind", both, []Approval{by("a", "leads"), by("b", "leads")}, false, 1},
		{"overshoot", both, []Approval{by("a", "leads"), by("b", "security"), by("c", "leads")}, true, 2},
		{"stranger", both, []Approval{by("a", "leads"), by("b", "x")}, false, 1},
		{"stages in order", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("b")}}},
			[]Approval{by("1", "a"), by("2", "b")}, true, 3},
		{"second stage too early", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("b")}}},
			[]Approval{by("2", "b"), by("1", "a")}, false, 2},
		{"one person in two stages", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("a")}}},
			[]Approval{by("1", "a"), by("1", "a")}, false, 2},
		{"count", []Stage{{Slots: []Slot{{Groups: []string{"a"}, Count: 2}}}},
			[]Approval{by("1", "a"), by("2", "a")}, true, 2},
		{"for another", both, []Approval{by("a", "leads"), also(by("b", "security"), "c")}, true, 2},
		{"for oneself", both, []Approval{by("a", "leads"), also(by("b", "security"), "a")}, false, 1},
		{"for another, who comes too", both, []Approval{also(by("b", "security"), "a"), by("a", "leads")}, false, 1},
		{"two for one", both, []Approval{also(by("a", "leads"), "x"), also(by("b", "security"), "x")}, false, 1},
		{"one for two", both, []Approval{also(by("a", "leads"), "x"), also(by("a", "security"), "y")}, false, 1},
		{"for each other", both, []Approval{also(by("a", "leads"), "b"), also(by("b", "security"), "a")}, false, 1},
		{"for another, in the next stage", []Stage{{Slots: []Slot{one("a")}}, {Slots: []Slot{one("a")}}},
			[]Approval{by("1", "a"), also(by("2", "a"), "1"), also(by("2", "a"), "3")}, true, 3},
		{"what filled nothing occupies nobody", both, []Approval{also(by("a", "interns"), "b"), by("b", "leads"), by("a", "security")}, true, 2},
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

// Of approvals behind which one person stands twice, the first that fills a place
// counts, and everything else is as in the search for those that are left.
func TestP5_QuorumOfDistinctPeopleAgreesWithExhaustiveSearch(t *testing.T) {
	t.Parallel()
	groups, people := []string{"a", "b", "c"}, []string{"1", "2", "3", "4", "5", "6"}
	rapid.Check(t, func(t *rapid.T) {
		var stages []Stage
		for range rapid.IntRange(1, 2).Draw(t, "stages") {
			var slots []Slot
			for range rapid.IntRange(1, 2).Draw(t, "slots") {
				slots = append(slots, Slot{
					Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 1, 2, rapid.ID[string]).Draw(t, "groups"),
					Count:  rapid.IntRange(1, 2).Draw(t, "count"),
				})
			}
			stages = append(stages, Stage{Slots: slots})
		}
		var given []Approval
		var counted []Approval // in the current stage
		behind := map[string]bool{}
		stage := 0
		for range rapid.IntRange(0, 8).Draw(t, "approvals") {
			who := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 1, 2, rapid.ID[string]).Draw(t, "people")
			a := also(by(who[0], rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 3, rapid.ID[string]).Draw(t, "member")...), who[1:]...)
			counts := stage < len(stages) && !behind[who[0]] && !behind[who[len(who)-1]] &&
				placeable(stages[stage].Slots, append(slices.Clone(counted), a))
			if got := MayFill(stages, given, a); got != counts {
				t.Fatalf("MayFill is %v, want %v: %+v after %+v in %+v", got, counts, a, given, stages)
			}
			given = append(given, a)
			if counts {
				counted = append(counted, a)
				for _, p := range who {
					behind[p] = true
				}
				if slots := stages[stage].Slots; exhaustive(slots, make([]int, len(slots)), counted) {
					stage, counted = stage+1, nil
				}
			}
		}
		if got := Quorum(stages, given); got.Complete != (stage == len(stages)) || got.Stage != stage+1 {
			t.Fatalf("%+v, want stage %d: %+v by %+v", got, stage+1, stages, given)
		}
	})
}

// placeable tries all ways to give each of the people a place.
func placeable(slots []Slot, people []Approval) bool {
	if len(people) == 0 {
		return true
	}
	for i, s := range slots {
		if s.Count > 0 && overlap(s.Groups, people[0].Groups) {
			rest := slices.Clone(slots)
			rest[i].Count--
			if placeable(rest, people[1:]) {
				return true
			}
		}
	}
	return false
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
