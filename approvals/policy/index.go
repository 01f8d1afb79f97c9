package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// index finds, by login, the rules that may fit without reading all of them. What
// it finds may still not fit; what it does not find does not.
type index map[string]*shelf

// shelf holds the rules that name one login, each in one place: under a label's
// value that it wants, or among those that want none in particular. Rules are
// numbers, their places in the document.
type shelf struct {
	keys    []string                    // of labels
	byValue map[string]map[string][]int // by key and value
	rest    []int
}

// maxValues is how many values a rule is filed under at most. One that wants any
// of more is among the rest, so that the index is no larger than the document.
const maxValues = 8

// newIndex files those of the rules that keep says yes to.
func newIndex(rules []Rule, keep func(*Rule) bool) index {
	x := index{}
	wanted := make([]*labels.Requirement, len(rules))
	values := map[string]map[string]bool{} // that rules want, by key
	for i := range rules {
		requirements, _ := rules[i].Where.Requirements()
		for _, q := range requirements {
			if !wantsValues(q) {
				continue
			}
			for v := range q.Values() {
				if values[q.Key()] == nil {
					values[q.Key()] = map[string]bool{}
				}
				values[q.Key()][v] = true
			}
		}
	}
	for i := range rules {
		requirements, _ := rules[i].Where.Requirements()
		for _, q := range requirements {
			// The best label to go by is the one that tells most rules apart.
			if wantsValues(q) && (wanted[i] == nil || len(values[q.Key()]) > len(values[wanted[i].Key()])) {
				wanted[i] = &q
			}
		}
	}
	for i := range rules {
		if !keep(&rules[i]) {
			continue
		}
		for n, login := range rules[i].Logins {
			if slices.Index(rules[i].Logins, login) != n {
				continue
			}
			if x[login] == nil {
				x[login] = &shelf{byValue: map[string]map[string][]int{}}
			}
			x[login].file(i, wanted[i])
		}
	}
	return x
}

// wantsValues reports whether only hosts match whose label has one of a few values.
func wantsValues(q labels.Requirement) bool {
	switch q.Operator() {
	case selection.Equals, selection.DoubleEquals, selection.In:
		return q.Values().Len() <= maxValues
	}
	return false
}

func (s *shelf) file(rule int, wanted *labels.Requirement) {
	if wanted == nil {
		s.rest = append(s.rest, rule)
		return
	}
	byValue := s.byValue[wanted.Key()]
	if byValue == nil {
		byValue = map[string][]int{}
		s.byValue[wanted.Key()] = byValue
		s.keys = append(s.keys, wanted.Key())
	}
	for v := range wanted.Values() {
		byValue[v] = append(byValue[v], rule)
	}
}

// candidates yields the rules that may fit a host with the labels, in the order of
// the document, each once.
func (s *shelf) candidates(hostLabels map[string]string) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if s == nil {
			return
		}
		var few [16][]int // so that it costs no allocation where rules go by few labels
		lists := append(few[:0], s.rest)
		for _, k := range s.keys {
			if v, there := hostLabels[k]; there {
				lists = append(lists, s.byValue[k][v])
			}
		}
		for {
			next := -1
			for i, list := range lists {
				if len(list) > 0 && (next < 0 || list[0] < lists[next][0]) {
					next = i
				}
			}
			if next < 0 || !yield(lists[next][0]) {
				return
			}
			lists[next] = lists[next][1:]
		}
	}
}
