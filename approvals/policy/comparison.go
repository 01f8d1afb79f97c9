package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"
)

// side is one of the two policies.
type side struct {
	*Policy
	whole   []int            // per rule, what it decides on and how: the same number for the same
	terms   []int            // per rule, how it decides
	byLogin map[string][]int // whole, per login, in the order of the document
}

// comparison is the work of EffectOf.
type comparison struct {
	was, now side
	keys     []string // of labels that any rule goes by

	classes [][]int          // people with the same groups, as far as rules name them
	marks   []mark           // per class
	inGroup map[string][]int // classes, per group

	// Per class, what decide found; only where seen is the round.
	round    int
	seen     []int
	wasRule  []int
	nowRule  []int
	found    map[passageKey]*passage
	inOrder  []*passage
	numbered map[string]int // of texts, for whole and terms
}

// mark is a random-looking number of a class; the sum of a set's marks names it.
type mark [2]uint64

// door is a login on hosts that are alike to both policies.
type door struct {
	login    string
	was, now []int // the rules that fit, in the order of the document
	hosts    []int
}

type passageKey struct {
	login    string
	was, now int
	who      mark
}

type passage struct {
	passageKey
	door   *door // where it was found first: a set of people is large, and found again
	people int   // how many
	hosts  []int
}

func newComparison(was, now *Policy, people [][]string) *comparison {
	c := &comparison{inGroup: map[string][]int{}, found: map[passageKey]*passage{}, numbered: map[string]int{}}
	named, keys := map[string]bool{}, map[string]bool{}
	c.was, c.now = side{Policy: was, byLogin: map[string][]int{}}, side{Policy: now, byLogin: map[string][]int{}}
	for _, to := range []*side{&c.was, &c.now} {
		p := to.Policy
		for i := range p.Rules {
			r := &p.Rules[i]
			terms := c.number(fmt.Sprintf("%q", r.facts()))
			whole := c.number(fmt.Sprintf("%d %q %q", terms, sorted(r.Groups), r.Selector()))
			to.terms, to.whole = append(to.terms, terms), append(to.whole, whole)
			for _, login := range slices.Compact(slices.Sorted(slices.Values(r.Logins))) {
				to.byLogin[login] = append(to.byLogin[login], whole)
			}
			for _, g := range r.Groups {
				named[g] = true
			}
			requirements, _ := r.Where.Requirements()
			for _, q := range requirements {
				keys[q.Key()] = true
			}
		}
	}
	for k := range keys {
		c.keys = append(c.keys, k)
	}
	slices.Sort(c.keys)

	class := map[string]int{}
	for i, groups := range people {
		var counts []string
		for _, g := range groups {
			if named[g] {
				counts = append(counts, g)
			}
		}
		slices.Sort(counts)
		counts = slices.Compact(counts)
		if len(counts) == 0 {
			continue // no rule is for them
		}
		key := fmt.Sprintf("%q", counts)
		n, known := class[key]
		if !known {
			n = len(c.classes)
			class[key] = n
			c.classes = append(c.classes, nil)
			sum := sha256.Sum256([]byte(key))
			c.marks = append(c.marks, mark{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])})
			for _, g := range counts {
				c.inGroup[g] = append(c.inGroup[g], n)
			}
		}
		c.classes[n] = append(c.classes[n], i)
	}
	c.seen = make([]int, len(c.classes))
	c.wasRule, c.nowRule = make([]int, len(c.classes)), make([]int, len(c.classes))
	return c
}

// number gives the same number to the same text.
func (c *comparison) number(text string) int {
	n, known := c.numbered[text]
	if !known {
		n = len(c.numbered)
		c.numbered[text] = n
	}
	return n
}

// doors are those where the policies may differ.
func (c *comparison) doors(hosts []Place) []*door {
	differs := map[string]bool{} // logins
	for _, s := range []side{c.was, c.now} {
		for login := range s.byLogin {
			differs[login] = !slices.Equal(c.was.byLogin[login], c.now.byLogin[login])
		}
	}
	type alike struct {
		labels int // a number for those that rules go by
		login  string
	}
	at := map[alike]*door{}     // hosts that no rule can tell apart
	rules := map[string]*door{} // doors that the same rules fit
	numbers := map[string]int{}
	var out []*door
	var told []byte
	for i, h := range hosts {
		told = told[:0]
		for _, k := range c.keys {
			v, there := h.Labels[k]
			if there { // no value has a comma
				told = append(told, v...)
			} else {
				told = append(told, '!')
			}
			told = append(told, ',')
		}
		number, known := numbers[string(told)]
		if !known {
			number = len(numbers)
			numbers[string(told)] = number
		}
		for n, login := range h.Logins {
			if !differs[login] || slices.Index(h.Logins, login) != n {
				continue
			}
			key := alike{number, login}
			d := at[key]
			if d == nil {
				d = &door{login: login, was: c.was.fit(login, h.Labels), now: c.now.fit(login, h.Labels)}
				same := d.rules()
				if other := rules[same]; other != nil {
					d = other
				} else {
					rules[same] = d
					out = append(out, d)
				}
				at[key] = d
			}
			d.hosts = append(d.hosts, i)
		}
	}
	return out
}

// rules names the login and the rules that fit.
func (d *door) rules() string {
	name := append([]byte(d.login), ' ')
	for _, list := range [][]int{d.was, d.now} {
		for _, i := range list {
			name = append(strconv.AppendInt(name, int64(i), 10), ',')
		}
		name = append(name, ';')
	}
	return string(name)
}

// fit are the rules that let somebody through to the login.
func (s side) fit(login string, hostLabels map[string]string) []int {
	var out []int
	for i := range s.index[login].candidates(hostLabels) {
		if s.Rules[i].Where.Matches(labels.Set(hostLabels)) {
			out = append(out, i)
		}
	}
	return out
}

// none is the rule that lets nobody through.
const none = -1

// compare finds out for whom the outcome at the door differs.
func (c *comparison) compare(d *door) {
	alike := len(d.was) == len(d.now)
	for i := 0; alike && i < len(d.was); i++ {
		alike = c.was.whole[d.was[i]] == c.now.whole[d.now[i]]
	}
	if alike {
		return
	}
	sets := map[[2]int]*passage{}
	var inOrder []*passage
	for _, n := range c.decide(d) {
		was, now := c.wasRule[n], c.nowRule[n]
		if was != none && now != none && c.was.terms[was] == c.now.terms[now] {
			continue
		}
		p := sets[[2]int{was, now}]
		if p == nil {
			p = &passage{passageKey: passageKey{login: d.login, was: was, now: now}, door: d}
			sets[[2]int{was, now}] = p
			inOrder = append(inOrder, p)
		}
		p.people += len(c.classes[n])
		p.who[0] += c.marks[n][0]
		p.who[1] += c.marks[n][1]
	}
	for _, p := range inOrder {
		if known := c.found[p.passageKey]; known != nil {
			p = known
		} else {
			c.found[p.passageKey] = p
			c.inOrder = append(c.inOrder, p)
		}
		p.hosts = append(p.hosts, d.hosts...)
	}
}

// decide finds the rules that decide at the door, under either policy, for each
// of the classes that it returns. None decides for the others.
func (c *comparison) decide(d *door) (classes []int) {
	c.round++
	first := func(s side, rules []int, decides []int) {
		for _, rule := range rules {
			for _, g := range s.Rules[rule].Groups {
				for _, n := range c.inGroup[g] {
					if c.seen[n] != c.round {
						c.seen[n], c.wasRule[n], c.nowRule[n] = c.round, none, none
						classes = append(classes, n)
					}
					if decides[n] == none {
						decides[n] = rule
					}
				}
			}
		}
	}
	first(c.was, d.was, c.wasRule)
	first(c.now, d.now, c.nowRule)
	return classes
}

func (p *passage) change() Change {
	switch {
	case p.was == none:
		return Gains
	case p.now == none:
		return Loses
	}
	return Changes
}

// passages are the changes found, the widest first.
func (c *comparison) passages(limit int) (out []Passage, more int) {
	order := map[Change]int{Gains: 0, Changes: 1, Loses: 2}
	slices.SortStableFunc(c.inOrder, func(a, b *passage) int {
		return cmp.Or(cmp.Compare(order[a.change()], order[b.change()]),
			cmp.Compare(b.people*len(b.hosts), a.people*len(a.hosts)),
			cmp.Compare(a.login, b.login), cmp.Compare(a.now, b.now), cmp.Compare(a.was, b.was))
	})
	if more = len(c.inOrder) - limit; more > 0 {
		c.inOrder = c.inOrder[:limit]
	}
	for _, p := range c.inOrder {
		found := Passage{Change: p.change(), Login: p.login, Hosts: p.hosts}
		if p.was != none {
			found.Was = &c.was.Rules[p.was]
		}
		if p.now != none {
			found.Now = &c.now.Rules[p.now]
		}
		for _, n := range c.decide(p.door) {
			if c.wasRule[n] == p.was && c.nowRule[n] == p.now {
				found.People = append(found.People, c.classes[n]...)
			}
		}
		slices.Sort(found.People)
		slices.Sort(found.Hosts)
		out = append(out, found)
	}
	return out, max(more, 0)
}
