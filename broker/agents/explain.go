package agents

import (
	"context"

	"sallyport/api"
	"sallyport/approvals/claims"
	"sallyport/internal/refusal"
	"sallyport/internal/throttle"
)

// Explain says which entry of the policy trusts a token, and which claim fails of those
// that do not. What it says comes from the code that decides; it takes nothing and grants
// nothing, and whose key the token is bound to does not matter.
//
// Operators, who can read the policy anyway, hear of every entry for the issuer and what
// it lists. Whoever else has the token hears of those that are about the same workload,
// by its ids, and not what they list; and only if the issuer has signed it: anybody can
// write down a token, and anybody can get one of the large issuers for their own workload.
func (s *Service) Explain(ctx context.Context, operator bool, source string, in api.AgentExplainInput) (api.AgentExplanation, error) {
	if !s.tokens.Allow(throttle.Network(source)) {
		return api.AgentExplanation{}, ErrTooMany
	}
	p, err := s.cfg.Policy(ctx)
	if err != nil {
		return api.AgentExplanation{}, err
	}
	out := api.AgentExplanation{Entries: []api.AgentVerdict{}, Policy: api.PolicyRef{Version: p.Version, Hash: p.Hash}}
	t, err := readToken(in.Token)
	if err != nil {
		return api.AgentExplanation{}, ErrTokenForm.With("the token cannot be read: %v", err)
	}
	out.Issuer, out.Subject = t.claims.Issuer, t.claims.Subject
	err = s.verify(ctx, p, t)
	why := refusal.As(err)
	if err != nil && (why == nil || why.Kind == refusal.Unavailable) {
		return api.AgentExplanation{}, err
	}
	var verdicts []verdict
	if out.Verified = err == nil; out.Verified || operator {
		verdicts = s.judge(p, t, nil, s.cfg.Clock.Now())
	}
	decided := decides(verdicts)
	if err == nil && decided == nil {
		err = refuse(verdicts)
		why = refusal.As(err)
	}
	if out.Admitted = err == nil; out.Admitted {
		out.Entry = decided.entry.Name
		out.Claims = claims.Told(decided.entry.Wants(), t.claims)
	} else {
		out.Code, out.Detail, out.Hint = why.Code, why.Detail, why.Hint
	}
	for _, v := range nearest(verdicts) {
		if !operator && !v.same() {
			continue
		}
		if out.Claims == nil {
			out.Claims = claims.Told(v.entry.Wants(), t.claims)
		}
		out.Entries = append(out.Entries, v.told(operator))
	}
	return out, nil
}

func (v verdict) told(lists bool) api.AgentVerdict {
	out := api.AgentVerdict{Entry: v.entry.Name, Number: v.number, Fits: len(v.unmet) == 0, Unmet: []api.AgentUnmet{}}
	for _, f := range v.unmet {
		unmet := api.AgentUnmet{Claim: f.Claim, Got: f.Got, Detail: f.Why}
		if lists {
			unmet.Want = f.Want
		}
		out.Unmet = append(out.Unmet, unmet)
	}
	return out
}
