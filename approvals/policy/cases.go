package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/names"
)

// runTests runs the document's own cases against it. The first that fails is an
// *Error at its place: a policy that does not do what its author says it does is
// not in force anywhere.
func (p *reader) runTests(policy *Policy, cases []testCase) error {
	if len(cases) > MaxTests {
		return p.fault("tests", "%d cases are more than %d", len(cases), MaxTests)
	}
	for i, c := range cases {
		if err := p.runTest(policy, fmt.Sprintf("tests[%d]", i), c); err != nil {
			return err
		}
	}
	return nil
}

func (p *reader) runTest(policy *Policy, path string, c testCase) error {
	failed := func(key, format string, args ...any) error {
		return p.fault(path+key, "the case %q fails: "+format, append([]any{c.Name}, args...)...)
	}
	want := c.Expect
	switch {
	case strings.TrimSpace(c.Name) == "":
		return p.fault(path+".name", "a case needs a name")
	case !names.Login(c.Login):
		return p.fault(path+".login", "%q is not a login: it must match %s", c.Login, names.LoginForm)
	case want.Refused == (want.Rule != ""):
		return p.fault(path+".expect", "say either refused: true or the rule that decides")
	case want.Refused && (want.Automatic != nil || want.Needs != nil):
		return p.fault(path+".expect", "what is refused is not automatic and needs nobody")
	case c.Emergency && (want.Automatic != nil || want.Needs != nil):
		return p.fault(path+".expect", "an emergency asks nobody first: expect the rule, or refused: true")
	}
	var at time.Time
	if c.At != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, c.At); err != nil {
			return p.fault(path+".at", "%q is not a time such as 2026-03-02T10:00:00Z", c.At)
		}
	}
	r, err := policy.Match(c.Groups, c.Host, c.Login)
	if err == nil && c.Emergency && r.EmergencyFor(c.Groups) == nil {
		err = ErrNoEmergency
	}
	switch {
	case want.Refused && err == nil:
		return failed(".expect.refused", "rule %q allows it", r.Name)
	case want.Refused:
		return nil
	case r == nil:
		return failed(".expect.rule", "no rule fits")
	case r.Name != want.Rule:
		return failed(".expect.rule", "rule %q decides, not %q", r.Name, want.Rule)
	case err != nil:
		return failed(".expect.rule", "rule %q allows these groups no emergency", r.Name)
	case r.During != nil && c.At == "" && (want.Automatic != nil || want.Needs != nil):
		return p.fault(path, "rule %q goes by a schedule: say at which time", r.Name)
	}
	if got := r.AutomaticAt(at); want.Automatic != nil && got != *want.Automatic {
		return failed(".expect.automatic", "at %s automatic is %v", c.At, got)
	}
	if got := r.NeedsAt(at); want.Needs != nil && !slices.Equal(got, want.Needs) {
		return failed(".expect.needs", "it needs %s", quoted(got))
	}
	return nil
}

// NeedsAt are the approvals that an ask at the time needs, slot by slot, in
// words: "1 from approvers or leads", and from the second stage on "stage 2: 2
// from directors". There are none if it is automatic then.
func (r *Rule) NeedsAt(t time.Time) []string {
	needs := []string{}
	if r.AutomaticAt(t) {
		return needs
	}
	for i, stage := range r.Stages {
		for _, slot := range stage.Slots {
			need := fmt.Sprintf("%d from %s", slot.Count, strings.Join(slot.Groups, " or "))
			if i > 0 {
				need = fmt.Sprintf("stage %d: %s", i+1, need)
			}
			needs = append(needs, need)
		}
	}
	return needs
}

func quoted(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return strings.Join(out, " and ")
}
