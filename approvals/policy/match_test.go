package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

// naive is the definition: the first rule of the document that names one of the
// groups and the login and whose selector matches decides.
func naive(p *Policy, a Ask) *Rule {
	for i := range p.Rules {
		r := &p.Rules[i]
		who := false
		for _, g := range a.Groups {
			for _, mine := range r.Groups {
				who = who || g == mine
			}
		}
		login := false
		for _, l := range r.Logins {
			login = login || l == a.Login
		}
		if who && login && r.Where.Matches(labels.Set(a.Labels)) {
			return r
		}
	}
	return nil
}

var (
	drawGroup  = rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
	drawLogin  = rapid.SampledFrom([]string{"root", "dba", "web"})
	drawLabels = rapid.MapOf(rapid.SampledFrom([]string{"class", "env", "other"}), rapid.SampledFrom([]string{"", "x", "y", "xy"}))
	drawWhere  = rapid.SampledFrom([]string{"*", "class=x", "class!=x", "class in (x, y)", "class notin (x)", "env", "!env", "class=x, env=y", "class=xy, !env"})
)

// drawPolicy is a policy that Parse accepts.
func drawPolicy(t *rapid.T) *Policy {
	var doc strings.Builder
	doc.WriteString("sallyport: 1\nrules:\n")
	some := func(g *rapid.Generator[string], label string) string {
		return strings.Join(rapid.SliceOfNDistinct(g, 1, 3, rapid.ID[string]).Draw(t, label), ", ")
	}
	for i := range rapid.IntRange(1, 12).Draw(t, "rules") {
		fmt.Fprintf(&doc, "  - {name: r%d, who: [%s], where: %q, logins: [%s], duration: {max: 1h}, automatic: true}\n",
			i, some(drawGroup, "who"), drawWhere.Draw(t, "where"), some(drawLogin, "logins"))
	}
	p, err := Parse([]byte(doc.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, doc.String())
	}
	return p
}

func drawGroups(t *rapid.T) []string {
	return rapid.SliceOfN(drawGroup, 0, 4).Draw(t, "groups") // also the same twice
}

// The index, the explanation, the door seen from inside and the reach of a person
// all say what the definition says, in every case.
func TestExplainAgreesWithTheDecision(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		reach, doors := map[string]*Reach{}, 0
		for range 8 {
			a := Ask{Groups: drawGroups(t), Labels: drawLabels.Draw(t, "labels"), Login: drawLogin.Draw(t, "login")}
			want := naive(p, a)

			if got, err := p.Match(a.Groups, a.Labels, a.Login); got != want || (err == nil) != (want != nil) {
				t.Fatalf("the index says %v, %v; the definition %v of %+v", got, err, want, a)
			}

			verdicts := p.Explain(a)
			if len(verdicts) != len(p.Rules) {
				t.Fatalf("%d verdicts on %d rules", len(verdicts), len(p.Rules))
			}
			first := slices.IndexFunc(verdicts, func(v RuleVerdict) bool { return len(v.Unmet) == 0 })
			for i, v := range verdicts {
				if v.Rule != &p.Rules[i] || v.Decides != (i == first) || v.Decides != (v.Rule == want && want != nil) {
					t.Fatalf("rule %d: %+v; the definition says %v", i, v, want)
				}
				// Each condition is told for what it is: meeting the unmet ones, and
				// nothing else, makes the rule fit.
				b := a
				for _, c := range v.Unmet {
					switch c {
					case Who:
						b.Groups = v.Rule.Groups
					case Logins:
						b.Login = v.Rule.Logins[0]
					case Where:
						b.Labels = meeting(v.Rule)
						if len(v.Rule.UnmetLabels(a.Labels)) == 0 {
							t.Fatalf("rule %d does not match %v, and no part of %q says so", i, a.Labels, v.Rule.Selector())
						}
					}
				}
				if naive(&Policy{Rules: []Rule{*v.Rule}}, b) == nil {
					t.Fatalf("rule %d: %v is not all that %+v fails by", i, v.Unmet, a)
				}
				for j := range v.Unmet {
					c := a
					for k, cond := range v.Unmet {
						switch {
						case k == j:
						case cond == Who:
							c.Groups = b.Groups
						case cond == Where:
							c.Labels = b.Labels
						default:
							c.Login = b.Login
						}
					}
					if naive(&Policy{Rules: []Rule{*v.Rule}}, c) != nil {
						t.Fatalf("rule %d: %s is told, and does not matter to %+v", i, v.Unmet[j], a)
					}
				}
			}

			door := p.WhoCanReach(a.Labels, a.Login)
			if got := door.Rule(a.Groups); got != want {
				t.Fatalf("the door says %v; the definition %v of %+v", got, want, a)
			}
			for _, rg := range door.Rules() {
				for _, g := range rg.Groups {
					doors++
					if naive(p, Ask{[]string{g}, a.Labels, a.Login}) != rg.Rule {
						t.Fatalf("the door lets %s through by %s", g, rg.Rule.Name)
					}
				}
			}

			key := fmt.Sprint(a.Groups)
			if reach[key] == nil {
				reach[key] = p.WhatCanBeReached(a.Groups)
			}
			logins := []string{"web", "root", "nobody", "dba"}
			got, expect := reach[key].Logins(a.Labels, logins), p.Logins(a.Groups, a.Labels, logins)
			if !slices.Equal(got, expect) {
				t.Fatalf("the reach says %v; the policy %v of %+v", got, expect, a)
			}
			if reach[key].Empty() && len(expect) > 0 {
				t.Fatal("an empty reach reaches something")
			}
		}
	})
}

// meeting are labels that the rule's selector matches.
func meeting(r *Rule) map[string]string {
	var values []string
	values = append(values, "-", "", "x", "y", "xy") // "-" is no label
	for _, class := range values {
		for _, env := range values {
			set := map[string]string{"class": class, "env": env}
			for k, v := range set {
				if v == "-" {
					delete(set, k)
				}
			}
			if r.Where.Matches(labels.Set(set)) {
				return set
			}
		}
	}
	return nil
}
