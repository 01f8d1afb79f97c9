package policy

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// An entry's own cases are decided by the code that decides on tokens, and a document
// whose cases fail is in force nowhere.
func TestAgentCases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, now, at, says string }{
		{"the entry lists another branch", "ref: [refs/heads/main]", "ref: [refs/heads/stable]", "trusted: true", "does not trust it for ref"},
		{"the entry lists more than the case fears", "event_name: pull_request, head_ref: fix", "event_name: workflow_dispatch", "trusted: false", "the entry trusts it"},
		{"another claim is to blame", "unmet: [event_name, head_ref]", "unmet: [event_name]", "unmet: [event_name]", "for event_name, head_ref"},
		{"a claim is missing", ", actor_id: \"1201\"}\n        trusted: true", "}\n        trusted: true", "trusted: true", "does not trust it for actor_id"},
		{"trusted, and yet not", "trusted: false\n        unmet", "trusted: true\n        unmet", "unmet: [event", "has nothing"},
		{"undecided", "        trusted: true\n", "", "name: the main branch", "trusted"},
		{"no token", "event_name: push, ref", "exp: soon, event_name: push, ref", "", "no token has"},
		{"no name", "name: a pull request is not", "name: ' '", "name: ' '", "needs a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			changed := strings.Replace(string(text), c.old, c.now, 1)
			if changed == string(text) {
				t.Fatalf("the document has no %q", c.old)
			}
			_, err := Parse([]byte(changed))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want it to say %q", err, c.says)
			}
			if c.at == "" {
				return
			}
			if want := 1 + strings.Count(changed[:strings.Index(changed, c.at)], "\n"); e.Line != want {
				t.Errorf("at line %d, want %d: %v", e.Line, want, err)
			}
		})
	}
}
