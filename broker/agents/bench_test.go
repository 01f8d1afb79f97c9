package agents_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/approvals/policy"
)

// percentile reports the p99 of what was measured, beside the mean.
func percentile(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// A token from its first call to the committed run: RS256, one transaction, its event.
func BenchmarkRedeem(b *testing.B) {
	for _, p := range []policy.AgentProvider{policy.GitHub, policy.SPIFFE} {
		b.Run(string(p), func(b *testing.B) {
			k := newKit(b, p)
			k.admitted(p) // so that the keys are known
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				k.clock.Advance(time.Second) // so that there are not too many at once
				j := k.job()
				token := j.Token(b, k.issuers[p])
				call := j.First(b, "POST", opening, body, token)
				b.StartTimer()
				began := time.Now()
				if _, err := k.Redeem(b.Context(), token, call, nothing); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			percentile(b, took)
		})
	}
}

// What a token costs without the database: its signature, and the comparison with as many
// entries for one issuer as a policy may have.
func BenchmarkExplain(b *testing.B) {
	k := newKit(b, policy.GitHub)
	text := noAgents
	for i := range policy.MaxAgents {
		text += k.issuers[policy.GitHub].Entry("entry-"+string(rune('a'+i%26))+string(rune('a'+i/26)), "description: one of many")
	}
	k.inForce(text)
	j := k.job()
	token := j.Token(b, k.issuers[policy.GitHub])
	for b.Loop() {
		k.clock.Advance(time.Millisecond * 600)
		if e := k.explain(false, token); e.Issuer == "" {
			b.Fatal(e)
		}
	}
}

// A later call: its signature, and one round trip that records its nonce.
func BenchmarkAuthenticate(b *testing.B) {
	k := newKit(b, policy.GitLab)
	j, _ := k.admitted(policy.GitLab)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		call := j.Call(b, "POST", opening, body)
		b.StartTimer()
		began := time.Now()
		if _, err := k.Authenticate(b.Context(), call); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	percentile(b, took)
}
