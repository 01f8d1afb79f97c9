package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Whoever approves a policy is told of every job that it trusts otherwise.
func TestEffectTellsOfAgents(t *testing.T) {
	t.Parallel()
	was := complete(t)
	source := string(was.Text)
	if changes := EffectOf(was, was, nil, nil, 10).Agents; len(changes) != 0 {
		t.Errorf("the same policy: %+v", changes)
	}
	for _, c := range []struct {
		old, new string
		want     []string
	}{
		{"ref: [refs/heads/main]\n      environment: [production]\n      workflow_ref", "ref: [refs/heads/main, refs/heads/dev]\n      workflow_ref",
			[]string{"web-production github.ref: refs/heads/main > refs/heads/dev or refs/heads/main", "web-production github.environment: production > "}},
		{"    binding: audience\n", "    binding: proof\n", []string{"web-production binding: audience > proof"}},
		{"    audience: https://sallyport.example.com\n", "", []string{"web-production audience: https://sallyport.example.com > "}},
		{"description: The deploy", "description: A deploy", nil},
		{`"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`, `"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"EdDSA"`, []string{"cluster keys: 1 in the policy"}},
		{"  - name: mesh\n", "  - name: grid\n", []string{"grid issuer:  > https://spire.example.org", "mesh issuer: https://spire.example.org > "}},
	} {
		if !strings.Contains(source, c.old) {
			t.Fatalf("the document has no %q", c.old)
		}
		now, err := Parse([]byte(strings.Replace(source, c.old, c.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range EffectOf(was, now, nil, nil, 10).Agents {
			for _, d := range a.Differences {
				got = append(got, fmt.Sprintf("%s %s: %s > %s", a.Name, d.Key, d.Was, d.Now))
			}
		}
		if (len(got) == 0) != (len(c.want) == 0) {
			t.Errorf("%q: %q", c.new, got)
		}
		for _, w := range c.want {
			if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) }) {
				t.Errorf("%q: %q lacks %q", c.new, got, w)
			}
		}
	}
}
