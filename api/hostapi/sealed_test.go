package hostapi_test

import (
	"testing"
	"time"

	"sallyport/api/hostapi"
)

// Of a host and a deployment the last sealing counts, however the news of it come, and
// only for what was issued until then.
func TestSealedHosts(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sealing := func(host, deployment string, after, kept time.Duration) hostapi.SealedHost {
		return hostapi.SealedHost{Host: host, Deployment: deployment, At: at.Add(after), Until: at.Add(kept)}
	}
	had := hostapi.Revocations{Number: 3, MadeAt: at, Sealed: hostapi.LastSealings([]hostapi.SealedHost{
		sealing("host-b", "dep-1", time.Minute, time.Hour), sealing("host-a", "dep-1", 2*time.Minute, time.Hour),
		sealing("host-a", "dep-2", 0, time.Minute), sealing("host-a", "dep-1", 0, time.Hour)})}
	news := hostapi.Revocations{Number: 4, Since: 3, MadeAt: at.Add(10 * time.Minute), Sealed: []hostapi.SealedHost{sealing("host-b", "dep-1", 9*time.Minute, 2*time.Hour)}}
	list, err := had.Join(news, nil)
	if err != nil || len(list.Sealed) != 2 {
		t.Fatalf("%+v, %v", list.Sealed, err)
	}
	for _, c := range []struct {
		host, deployment string
		issued           time.Duration
		sealed           bool
	}{
		{"host-a", "dep-1", 0, true},
		{"host-a", "dep-1", 2 * time.Minute, true},
		{"host-a", "dep-1", 2*time.Minute + 1, false},
		{"host-b", "dep-1", 9 * time.Minute, true},
		{"host-b", "dep-1", 10 * time.Minute, false},
		{"host-b", "dep-2", 0, false},
		{"host-a", "dep-2", 0, false}, // hosts forget what cannot matter any more
		{"host-a", "", 0, false},
	} {
		if _, sealed := list.SealedAt(c.host, c.deployment, at.Add(c.issued)); sealed != c.sealed {
			t.Errorf("%s, %s, issued after %s: sealed is %v", c.host, c.deployment, c.issued, sealed)
		}
	}
}
