package policy

import (
	"slices"
	"testing"
	"time"
)

func TestTold(t *testing.T) {
	t.Parallel()
	p := &Policy{Rules: []Rule{
		{Groups: []string{"askers"}, Stages: []Stage{{Slots: []Slot{{Groups: []string{"a", "b"}}}}, {Slots: []Slot{{Groups: []string{"b", "c"}}}}},
			Escalate: []Escalation{{After: time.Minute, Groups: []string{"d", "a"}}}},
		{Automatic: true, Emergency: &Emergency{Groups: []string{"askers"}, Tell: []string{"e"}, ReviewBy: []string{"f", "c"}}},
	}}
	if got, want := p.Told(), []string{"a", "b", "c", "d", "e", "f"}; !slices.Equal(got, want) {
		t.Errorf("told are %q, want %q", got, want)
	}
}
