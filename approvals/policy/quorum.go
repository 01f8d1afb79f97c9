package policy

// Approval is one person's approval, with their groups when they gave it.
type Approval struct {
	PersonID string
	Groups   []string
	// Also are others who stand behind it, such as the one whom the person decides
	// for: none of them can stand behind another.
	Also []string
}

// people are all who stand behind the approval.
func (a Approval) people() []string { return append([]string{a.PersonID}, a.Also...) }

// Progress says how far approvals have come.
type Progress struct {
	// Complete: every slot of every stage is filled. Never true without stages:
	// an empty list of approvers means nobody, not anybody.
	Complete bool
	// Stage is the current one, from 1; the number of stages plus 1 when complete.
	Stage int
	// Filled counts, for each stage and slot, the people who fill it.
	Filled [][]int
}

// Quorum tells how far approvals, in the order in which they were given, fill
// the stages. The rules:
//
//  1. Stages are passed in order; an approval counts for the stage that was
//     current when it was given.
//  2. A person fills one place only, however many groups they are in, and neither
//     does anybody else stand behind two approvals that fill one (P5).
//  3. Within a stage people are placed so that as many slots as possible fill:
//     who fits two slots makes way when another fits only one of them.
//  4. A slot without groups is filled by nobody.
//  5. Approvals beyond what is needed change nothing.
func Quorum(stages []Stage, approvals []Approval) Progress {
	q := newQuorum(stages)
	for _, a := range approvals {
		q.add(a)
	}
	return q.progress()
}

// MayFill reports whether a's approval, given now after the others, would fill a
// place in the current stage.
func MayFill(stages []Stage, approvals []Approval, a Approval) bool {
	q := newQuorum(stages)
	for _, earlier := range approvals {
		q.add(earlier)
	}
	return q.add(a)
}

// quorum is a bipartite matching of people to places, stage by stage, grown by
// augmenting paths (Kuhn's algorithm). Stages are small by their limits.
type quorum struct {
	stages []Stage
	stage  int          // current, from 0
	seen   []string     // people who stand behind what is placed
	placed [][]Approval // people per slot of the current stage
	filled [][]int
}

func newQuorum(stages []Stage) *quorum {
	q := &quorum{stages: stages, filled: make([][]int, len(stages))}
	for i, s := range stages {
		q.filled[i] = make([]int, len(s.Slots))
	}
	q.enter(0)
	return q
}

// enter starts a stage, passing over those that need nobody: a stage without
// slots cannot be passed at all.
func (q *quorum) enter(stage int) {
	q.stage = stage
	if stage < len(q.stages) {
		q.placed = make([][]Approval, len(q.stages[stage].Slots))
	}
}

// add places the approval and reports whether it filled a place.
func (q *quorum) add(a Approval) bool {
	if q.stage >= len(q.stages) || overlap(q.seen, a.people()) {
		return false
	}
	if !q.place(a, make([]bool, len(q.placed))) {
		return false
	}
	q.seen = append(q.seen, a.people()...)
	full := len(q.placed) > 0
	for i, people := range q.placed {
		q.filled[q.stage][i] = len(people)
		full = full && len(people) >= q.stages[q.stage].Slots[i].Count
	}
	if full {
		q.enter(q.stage + 1)
	}
	return true
}

// place finds a place for a, moving others to their other slots if need be.
func (q *quorum) place(a Approval, tried []bool) bool {
	for i, slot := range q.stages[q.stage].Slots {
		if tried[i] || !overlap(slot.Groups, a.Groups) {
			continue
		}
		tried[i] = true
		if len(q.placed[i]) < slot.Count {
			q.placed[i] = append(q.placed[i], a)
			return true
		}
		for j, other := range q.placed[i] {
			if q.place(other, tried) {
				q.placed[i][j] = a
				return true
			}
		}
	}
	return false
}

func (q *quorum) progress() Progress {
	return Progress{
		Complete: len(q.stages) > 0 && q.stage == len(q.stages),
		Stage:    q.stage + 1,
		Filled:   q.filled,
	}
}
