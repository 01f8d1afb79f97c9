package policy

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

const effectHead = "sallyport: 1\nroles: {operator: [ops]}\nrules:\n"

func parsed(t interface{ Fatal(...any) }, text string) *Policy {
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err, "\n"+text)
	}
	return p
}

func TestEffectInWords(t *testing.T) {
	t.Parallel()
	was := parsed(t, effectHead+`
- {name: root, who: [leads], where: class=db, logins: [root], duration: {max: 1h}, approvals: [{slots: [{groups: [security]}]}]}
- {name: dba, who: [engineers], where: class=db, logins: [dba], duration: {max: 1h}, approvals: [{slots: [{groups: [leads]}]}]}
- {name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}
`)
	now := parsed(t, effectHead+`
- {name: root, who: [leads, engineers], where: class=db, logins: [root], duration: {max: 1h}, approvals: [{slots: [{groups: [security]}]}]}
- {name: dba, description: the same, who: [engineers], where: class=db, logins: [dba], duration: {max: 1h}, approvals: [{slots: [{groups: [leads], count: 2}]}]}
`)
	people := [][]string{{"engineers"}, {"leads"}, {"engineers", "chess"}, {"engineers", "leads"}, {}}
	hosts := []Place{
		{map[string]string{"class": "db", "rack": "1"}, []string{"root", "dba"}},
		{map[string]string{"class": "web"}, []string{"root", "web"}},
		{map[string]string{"class": "db", "rack": "2"}, []string{"root"}},
	}
	e := EffectOf(was, now, people, hosts, 100)
	var got []string
	for _, p := range e.Reach {
		got = append(got, fmt.Sprint(p.Change, " ", p.Login, " ", p.People, p.Hosts))
	}
	want := []string{
		"gains root [0 2] [0 2]", // and not 3, who could before
		"changes dba [0 2 3] [0]",
		"loses web [0 2 3] [1]",
	}
	if !slices.Equal(got, want) || e.More != 0 {
		t.Errorf("reach is %q", got)
	}
	var rules []string
	for _, r := range e.Rules {
		rules = append(rules, fmt.Sprintf("%s: %s was [%s] is [%s]", r.Name, r.Differences[0].Key, r.Differences[0].Was, r.Differences[0].Now))
	}
	if want := []string{
		"root: who was [leads] is [engineers, leads]",
		"dba: approvals was [1 from leads] is [2 from leads]",
		"web: who was [engineers] is []",
	}; !slices.Equal(rules, want) {
		t.Errorf("rules are %q", rules)
	}
	if cut := EffectOf(was, now, people, hosts, 1); len(cut.Reach) != 1 || cut.More != 2 {
		t.Errorf("cut to one: %d and %d more", len(cut.Reach), cut.More)
	}

	roles := parsed(t, strings.Replace(string(was.Text), "[ops]", "[leads]", 1))
	r := EffectOf(was, roles, people, hosts, 100)
	if len(r.Roles) != 1 || !slices.Equal(r.Roles[0].Gains, []int{1, 3}) || len(r.Reach)+len(r.Rules) != 0 {
		t.Errorf("roles: %+v", r)
	}
}

// outcome is what the policy says to one person at one login: the terms of the
// rule that decides.
func outcome(p *Policy, groups []string, h Place, login string) string {
	for i := range p.Rules { // not by the index that EffectOf uses
		r := &p.Rules[i]
		if overlap(r.Groups, groups) && slices.Contains(r.Logins, login) && r.Where.Matches(labels.Set(h.Labels)) {
			return fmt.Sprint(r.facts())
		}
	}
	return ""
}

// The effect names exactly those people, hosts and logins whose outcome differs,
// each once; so it is empty if and only if both policies decide alike.
func TestEffectIsExact(t *testing.T) {
	t.Parallel()
	empty, full := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		group := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		value := rapid.SampledFrom([]string{"1", "2", "3"})
		login := rapid.SampledFrom([]string{"x", "y", "z"})
		rule := rapid.Custom(func(t *rapid.T) string {
			where := rapid.OneOf(rapid.Just("'*'"), rapid.Map(value, func(v string) string { return "'k=" + v + "'" }),
				rapid.Map(value, func(v string) string { return "'k!=" + v + ", m in (1, 2)'" }), rapid.Just("'!m'")).Draw(t, "where")
			return fmt.Sprintf("who: [%s], where: %s, logins: [%s], duration: {max: %s}, approvals: [{slots: [{groups: [%s], count: %s}]}]",
				strings.Join(rapid.SliceOfNDistinct(group, 1, 3, rapid.ID).Draw(t, "who"), ", "), where,
				strings.Join(rapid.SliceOfNDistinct(login, 1, 2, rapid.ID).Draw(t, "logins"), ", "),
				rapid.SampledFrom([]string{"1h", "2h"}).Draw(t, "max"), group.Draw(t, "by"), value.Draw(t, "count"))
		})
		rules := rapid.SliceOfN(rule, 1, 6).Draw(t, "rules")
		changed := slices.Clone(rules)
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			i, j := rapid.IntRange(0, len(changed)-1).Draw(t, "i"), rapid.IntRange(0, len(changed)-1).Draw(t, "j")
			switch rapid.SampledFrom([]string{"swap", "replace", "insert", "drop"}).Draw(t, "change") {
			case "swap":
				changed[i], changed[j] = changed[j], changed[i]
			case "replace":
				changed[i] = rule.Draw(t, "rule")
			case "insert":
				changed = slices.Insert(changed, i, rule.Draw(t, "rule"))
			case "drop":
				if len(changed) > 1 {
					changed = slices.Delete(changed, i, i+1)
				}
			}
		}
		write := func(prefix string, rules []string) *Policy {
			var b strings.Builder
			for i, r := range rules {
				fmt.Fprintf(&b, "- {name: %s%d, %s}\n", prefix, i, r)
			}
			return parsed(t, effectHead+b.String())
		}
		was, now := write("r", rules), write(rapid.SampledFrom([]string{"r", "s"}).Draw(t, "prefix"), changed)
		people := rapid.SliceOfN(rapid.SliceOfNDistinct(group, 0, 3, rapid.ID), 0, 6).Draw(t, "people")
		hosts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Place {
			h := Place{Labels: map[string]string{}, Logins: rapid.SliceOfNDistinct(login, 0, 3, rapid.ID).Draw(t, "host logins")}
			for _, k := range []string{"k", "m", "other"} {
				if v := rapid.OneOf(value, rapid.Just("")).Draw(t, k); v != "" {
					h.Labels[k] = v
				}
			}
			return h
		}), 0, 6).Draw(t, "hosts")

		want := map[string]Change{}
		for i, groups := range people {
			for j, h := range hosts {
				for _, l := range h.Logins {
					before, after := outcome(was, groups, h, l), outcome(now, groups, h, l)
					key := fmt.Sprint(i, j, l)
					switch {
					case before == after:
					case before == "":
						want[key] = Gains
					case after == "":
						want[key] = Loses
					default:
						want[key] = Changes
					}
				}
			}
		}
		got := map[string]Change{}
		e := EffectOf(was, now, people, hosts, 1<<30)
		for _, p := range e.Reach {
			if len(p.People) == 0 || len(p.Hosts) == 0 {
				t.Fatalf("a change for nobody: %+v", p)
			}
			for _, i := range p.People {
				for _, j := range p.Hosts {
					key := fmt.Sprint(i, j, p.Login)
					if got[key] != "" {
						t.Fatalf("%s stands twice", key)
					}
					got[key] = p.Change
				}
			}
		}
		if !maps.Equal(got, want) || e.More != 0 {
			t.Fatalf("the effect is %v, the difference %v", got, want)
		}
		if len(want) == 0 {
			empty++
		} else {
			full++
		}
	})
	if empty == 0 || full == 0 {
		t.Errorf("%d effects were empty, %d were not", empty, full)
	}
}

// Whatever a rule can say is a fact or a condition: a change of it is seen.
func TestNothingOfARuleEscapesTheEffect(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	whole := parsed(t, string(text))
	base := func() *Rule { r := whole.Rules[0]; return &r }
	for field := range reflect.TypeFor[Rule]().Fields() {
		r := base()
		v := reflect.ValueOf(r).Elem().FieldByIndex(field.Index)
		switch field.Name {
		case "Name", "Description":
			continue // for people who read; nothing is decided by them
		case "During":
			continue // below: it counts with Automatic only
		case "Where":
			v.Set(reflect.ValueOf(labels.Nothing()))
		default:
			disturb(v)
		}
		if len(differences(base(), r)) == 0 {
			t.Errorf("a change of %s is not seen", field.Name)
		}
	}
	// And what lies deeper.
	for name, change := range map[string]func(*Rule){
		"slot count": func(r *Rule) { r.Stages = []Stage{{[]Slot{{r.Stages[0].Slots[0].Groups, 19}}}} },
		"schedule": func(r *Rule) {
			r.Automatic, r.During = true, &Schedule{Zone: time.UTC, Times: []Hours{{[]time.Weekday{1}, 0, time.Hour}}}
		},
		"emergency reviewers":   func(r *Rule) { e := Emergency{ReviewBy: []string{"q"}}; r.Emergency = &e },
		"text message":          func(r *Rule) { r.Reason.Message += "!" },
		"text length":           func(r *Rule) { r.Ticket.MinLength++ },
		"automatic extension":   func(r *Rule) { r.Extend.Automatic = !r.Extend.Automatic },
		"length of extension":   func(r *Rule) { r.Extend.By++ },
		"escalation to others":  func(r *Rule) { r.Escalate = []Escalation{{time.Minute, []string{"q"}}} },
		"order of acr values":   func(r *Rule) { r.ACRValues = append([]string{"first"}, r.ACRValues...) },
		"a second stage":        func(r *Rule) { r.Stages = append(slices.Clone(r.Stages), r.Stages[0]) },
		"another kind of stage": func(r *Rule) { r.Stages = []Stage{{append(slices.Clone(r.Stages[0].Slots), r.Stages[0].Slots...)}} },
	} {
		r := base()
		change(r)
		if len(differences(base(), r)) == 0 {
			t.Errorf("a change of the %s is not seen", name)
		}
	}
	if d := differences(base(), base()); d != nil {
		t.Errorf("a rule differs from itself: %v", d)
	}
}

// disturb makes a value another one.
func disturb(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int64, reflect.Int:
		v.SetInt(v.Int() + int64(time.Hour))
	case reflect.Slice:
		if v.Len() > 0 {
			v.Set(reflect.Zero(v.Type()))
			return
		}
		more := reflect.New(v.Type().Elem()).Elem()
		disturb(more)
		v.Set(reflect.Append(v, more))
	case reflect.Pointer:
		if !v.IsNil() {
			v.Set(reflect.Zero(v.Type()))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		disturb(v.Field(0))
	default:
		panic("say here how to change a " + v.Type().String())
	}
}

// BenchmarkEffect compares policies over a whole city: with one rule
// in a hundred changed, and with all of them.
func BenchmarkEffect(b *testing.B) {
	c := newCity(b)
	hosts := make([]Place, len(c.hosts))
	for i, h := range c.hosts {
		hosts[i] = Place{h.labels, h.logins}
	}
	for _, each := range []int{100, 1} {
		lines := strings.SplitAfter(string(c.policy.Text), "\n")
		for i := range lines {
			if i%each == 0 { // out of dev, and longer elsewhere
				lines[i] = strings.NewReplacer(", dev)", ", test)", "max: 1h", "max: 2h").Replace(lines[i])
			}
		}
		now := parsed(b, strings.Join(lines, ""))
		b.Run(fmt.Sprintf("every %d", each), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e := EffectOf(c.policy, now, c.people, hosts, 200)
				b.ReportMetric(float64(len(e.Reach)+e.More), "changes")
			}
		})
	}
}
