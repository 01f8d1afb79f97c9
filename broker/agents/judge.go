package agents

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/claims"
	"sallyport/approvals/policy"
)

// verdict says of one entry what it wants otherwise of a token; nothing if it trusts it.
type verdict struct {
	entry  *policy.Agent
	number int // place in the policy, from 1
	unmet  []claims.Failure
}

// judge compares a verified token with the entries for its issuer, in the policy's
// order. The first that trusts it decides. bound is who shows it, nil if that does not
// matter.
func (s *Service) judge(p *policy.Policy, t token, bound *binding, now time.Time) []verdict {
	var out []verdict
	for i := range p.Agents {
		entry := &p.Agents[i]
		if entry.Issuer != t.claims.Issuer {
			continue
		}
		unmet := claims.Match(entry.Wants(), t.claims)
		unmet = append(unmet, claims.Audience(t.claims, s.audience(entry, t.claims, bound))...)
		unmet = append(unmet, claims.Times(t.claims, entry.MaxTokenLife, now)...)
		out = append(out, verdict{entry, i + 1, unmet})
	}
	return out
}

// binding is what a token can be bound to.
type binding struct {
	key   ssh.PublicKey
	nonce string
}

// audience is the one that the entry wants.
func (s *Service) audience(entry *policy.Agent, c claims.Claims, bound *binding) string {
	audience := cmp.Or(entry.Audience, s.cfg.URL)
	switch {
	case entry.Binding != policy.BindAudience:
		return audience
	case bound != nil:
		return api.AgentAudience(audience, bound.key.Marshal(), bound.nonce)
	}
	// Whichever key it is bound to, it must be to one.
	if len(c.Audience) == 1 {
		if hash, ok := strings.CutPrefix(c.Audience[0], audience+"#"); ok && len(hash) == hashLength {
			return c.Audience[0]
		}
	}
	return audience + "#<hash of the job's key>"
}

const hashLength = 43 // SHA-256 in base64url

// decides is the verdict of the entry that trusts the token; nil: none does.
func decides(all []verdict) *verdict {
	if i := slices.IndexFunc(all, func(v verdict) bool { return len(v.unmet) == 0 }); i >= 0 {
		return &all[i]
	}
	return nil
}

// same reports whether the token is of a workload that the entry is about, whatever
// else it wants.
func (v verdict) same() bool {
	return !slices.ContainsFunc(v.unmet, func(f claims.Failure) bool { return f.Identity })
}

// nearest are the verdicts with those first that want the least otherwise.
func nearest(all []verdict) []verdict {
	return slices.SortedStableFunc(slices.Values(all), func(a, b verdict) int {
		if a.same() != b.same() {
			if a.same() {
				return -1
			}
			return 1
		}
		return cmp.Compare(len(a.unmet), len(b.unmet))
	})
}

// refusal is what is said to whoever shows a token that no entry trusts. Only who is of
// the right workload hears which claim it is, and nobody what is listed: tokens of the
// large issuers can be had by anybody.
func refuse(all []verdict) error {
	if len(all) == 0 {
		return ErrUntrusted
	}
	v := nearest(all)[0]
	if !v.same() {
		return ErrUntrusted
	}
	if v.entry.Binding == policy.BindAudience && len(v.unmet) == 1 && v.unmet[0].Claim == "aud" && strings.HasPrefix(v.unmet[0].Got, audienceOf(v.unmet[0])) {
		return ErrNotBound
	}
	return ErrUntrusted.With("the policy's entry %q does not trust this token: %s", v.entry.Name, v.unmet[0])
}

// audienceOf is the wanted audience without the hash.
func audienceOf(f claims.Failure) string {
	audience, _, _ := strings.Cut(f.Want[0], "#")
	return audience + "#"
}
