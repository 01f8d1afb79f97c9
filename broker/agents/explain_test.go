package agents_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/internal/agenttest"
)

func (k *kit) explain(operator bool, token string) api.AgentExplanation {
	k.t.Helper()
	e, err := k.Explain(k.t.Context(), operator, "192.0.2.7", api.AgentExplainInput{Token: token})
	must(k.t, err)
	return e
}

func (k *kit) token(p policy.AgentProvider, values map[string]any) string {
	k.t.Helper()
	claims := k.issuers[p].Claims(url)
	if p == policy.GitHub {
		claims["aud"] = k.job().Audience(url)
	}
	set(values)(claims)
	return k.issuers[p].Token(k.t, claims)
}

// Explain says of every provider's token what Redeem does with it, and takes none.
func TestExplainAgreesWithRedeem(t *testing.T) {
	t.Parallel()
	k := newKit(t, agenttest.Providers()...)
	for _, p := range agenttest.Providers() {
		j := k.job()
		token := j.Token(t, k.issuers[p])
		for range 2 {
			if e := k.explain(false, token); !e.Admitted || !e.Verified || e.Entry != string(p) || e.Issuer != k.issuers[p].URL || len(e.Claims) == 0 || e.Code != "" {
				t.Errorf("%s: %+v", p, e)
			}
		}
		if _, err := k.redeem(j, token); err != nil {
			t.Errorf("%s: it was taken: %v", p, err)
		}
	}
	if n := len(k.leaves("agent.admitted")); n != len(agenttest.Providers()) {
		t.Errorf("%d runs", n)
	}
}

func TestExplainNamesTheClaimThatFails(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	k.inForce(noAgents + strings.ReplaceAll(k.issuers[policy.GitHub].Entry("other"), "74061", "11") + k.issuers[policy.GitHub].Entry("web"))
	token := k.token(policy.GitHub, map[string]any{"ref": "refs/heads/dev", "workflow_ref": nil})
	for _, operator := range []bool{false, true} {
		e := k.explain(operator, token)
		if e.Admitted || !e.Verified || e.Code != "agent-not-trusted" || e.Claims["sha"] == "" {
			t.Errorf("%+v", e)
		}
		want := []string{"web: ref=refs/heads/dev, workflow_ref="}
		if operator {
			want = []string{"web: ref=refs/heads/dev!refs/heads/main, workflow_ref=!acme/web/.github/workflows/deploy.yml@refs/heads/main",
				"other: repository_id=74061!11, ref=refs/heads/dev!refs/heads/main, workflow_ref=!acme/web/.github/workflows/deploy.yml@refs/heads/main"}
		}
		var got []string
		for _, v := range e.Entries {
			var unmet []string
			for _, u := range v.Unmet {
				text := u.Claim + "=" + u.Got
				if len(u.Want) > 0 {
					text += "!" + strings.Join(u.Want, "!")
				}
				unmet = append(unmet, text)
			}
			got = append(got, v.Entry+": "+strings.Join(unmet, ", "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("operator %v:\n%q\nwant\n%q", operator, got, want)
		}
	}
}

// Anybody can get a token of GitHub, and write down one of anybody.
func TestExplainTellsStrangersNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	for what, token := range map[string]string{
		"another repository": k.token(policy.GitHub, map[string]any{"repository_id": "666"}),
		"not signed": agenttest.Sign(t, agenttest.NewKey(t, "key-1"), map[string]any{"alg": "ES256", "kid": "key-1"},
			mustJSON(t, k.issuers[policy.GitHub].Claims(url))),
	} {
		e := k.explain(false, token)
		text := mustJSON(t, e)
		if e.Admitted || len(e.Entries) != 0 || len(e.Claims) != 0 || strings.Contains(text, "refs/heads/main") || strings.Contains(text, `"github"`) {
			t.Errorf("%s: %s", what, text)
		}
		// Operators can read the policy anyway.
		if e := k.explain(true, token); len(e.Entries) != 1 || e.Admitted {
			t.Errorf("%s: an operator hears %s", what, mustJSON(t, e))
		}
	}
	stranger := agenttest.New(t, policy.GitHub, k.clock)
	e := k.explain(true, stranger.Token(t, stranger.Claims(url)))
	if e.Verified || e.Admitted || !strings.Contains(e.Detail, "issuer") || stranger.Asked.Load() != 0 {
		t.Errorf("an issuer that is not named: %+v", e)
	}
	if _, err := k.Explain(t.Context(), true, "192.0.2.7", api.AgentExplainInput{Token: "x.y.z"}); !errors.Is(err, agents.ErrTokenForm) {
		t.Errorf("no token: %v", err)
	}
	for range 100 {
		_, err := k.Explain(t.Context(), false, "192.0.2.9", api.AgentExplainInput{Token: "x.y.z"})
		if errors.Is(err, agents.ErrTooMany) {
			return
		}
	}
	t.Error("as often as one likes")
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return string(text)
}
