package posture_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/broker/posture"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// checks all pass, but for those that are given.
func checks(but ...hostapi.Check) []hostapi.Check {
	p := hostapi.Posture{Checks: but}
	for _, id := range hostapi.Checks {
		if !slices.ContainsFunc(but, func(c hostapi.Check) bool { return c.ID == id }) {
			p.Checks = append(p.Checks, hostapi.Check{ID: id, Result: hostapi.Pass})
		}
	}
	return p.Full()
}

func sealed() posture.Facts {
	return posture.Facts{Enrolled: true, SeenAt: now, LastSession: 6, LastSessionAt: now.Add(-10 * time.Minute), LastSealing: 30,
		LastSealingAt: now.Add(-10 * time.Minute), Posture: &posture.Report{Number: 7, BootID: "b", List: 30, TakenAt: now.Add(-time.Minute), ReceivedAt: now.Add(-time.Minute), Checks: checks()},
		Probe: &posture.Probe{At: now.Add(-5 * time.Minute), Result: hostapi.Pass}}
}

// A host is sealed only while everything that seals it holds; each thing that does not
// hold makes it something else.
func TestStates(t *testing.T) {
	t.Parallel()
	failing := func(id string) func(*posture.Facts) {
		return func(f *posture.Facts) {
			f.Posture.Checks = checks(hostapi.Check{ID: id, Result: hostapi.Fail, Findings: []string{"x"}})
		}
	}
	and := func(all ...func(*posture.Facts)) func(*posture.Facts) {
		return func(f *posture.Facts) {
			for _, change := range all {
				change(f)
			}
		}
	}
	granted := func(f *posture.Facts) { f.Granted = true }
	live := func(f *posture.Facts) { f.Live = 1 }
	quarantined := func(f *posture.Facts) { f.Quarantined = true }
	silent := func(f *posture.Facts) { f.SeenAt = now.Add(-posture.SilentAfter - time.Second) }
	static := func(f *posture.Facts) { *f = posture.Facts{} }
	for what, c := range map[string]struct {
		change func(*posture.Facts)
		want   api.HostState
	}{
		"all is well":                          {func(*posture.Facts) {}, api.HostSealed},
		"a grant":                              {granted, api.HostOpen},
		"a session":                            {live, api.HostOpen},
		"a deployment":                         {func(f *posture.Facts) { f.Deploying = true }, api.HostOpen},
		"no posture since it was sealed":       {func(f *posture.Facts) { f.LastSealing = 31 }, api.HostUnknown},
		"no outside look since it was sealed":  {func(f *posture.Facts) { f.LastSealingAt = now }, api.HostUnknown},
		"a session, which its posture shows":   {and(live, failing("sessions")), api.HostOpen},
		"a connection that nobody reported":    {failing("sessions"), api.HostDrifted},
		"a failed check":                       {failing("keys"), api.HostDrifted},
		"a failed check while somebody is on":  {and(granted, failing("keys")), api.HostDrifted},
		"a failed check that we do not know":   {failing("zebra"), api.HostDrifted},
		"a failed check of long ago":           {and(failing("keys"), func(f *posture.Facts) { f.Posture.ReceivedAt = now.Add(-time.Hour) }), api.HostDrifted},
		"the outside look found a way in":      {func(f *posture.Facts) { f.Probe.Result = hostapi.Fail }, api.HostDrifted},
		"a collector failed":                   {func(f *posture.Facts) { f.Posture.Checks = checks(hostapi.Check{ID: "keys", Result: hostapi.Unknown}) }, api.HostUnknown},
		"a check that was left out":            {func(f *posture.Facts) { f.Posture.Checks = hostapi.Posture{Checks: checks()[1:]}.Full() }, api.HostUnknown},
		"no posture":                           {func(f *posture.Facts) { f.Posture = nil }, api.HostUnknown},
		"an old posture":                       {func(f *posture.Facts) { f.Posture.ReceivedAt = now.Add(-posture.Fresh - time.Second) }, api.HostUnknown},
		"a posture kept in a spool":            {func(f *posture.Facts) { f.Posture.TakenAt = now.Add(-posture.Fresh - time.Second) }, api.HostUnknown},
		"no posture since the last session":    {func(f *posture.Facts) { f.LastSession = 8 }, api.HostUnknown},
		"no outside look":                      {func(f *posture.Facts) { f.Probe = nil }, api.HostUnknown},
		"an outside look that saw nothing":     {func(f *posture.Facts) { f.Probe.Result = hostapi.Unknown }, api.HostUnknown},
		"an old outside look":                  {func(f *posture.Facts) { f.Probe.At = now.Add(-posture.Fresh - time.Second) }, api.HostUnknown},
		"no outside look since the session":    {func(f *posture.Facts) { f.LastSessionAt = now.Add(-time.Minute) }, api.HostUnknown},
		"silence":                              {silent, api.HostSilent},
		"silence with a grant":                 {and(silent, granted), api.HostSilent},
		"silence after a failed check":         {and(failing("keys"), silent), api.HostSilent},
		"quarantine":                           {and(silent, granted, quarantined), api.HostQuarantined},
		"no helper":                            {static, api.HostUnknown},
		"no helper, a grant":                   {and(static, granted), api.HostOpen},
		"no helper, quarantine":                {and(static, granted, quarantined), api.HostQuarantined},
		"a host that was enrolled, never seen": {func(f *posture.Facts) { *f = posture.Facts{Enrolled: true, SeenAt: now} }, api.HostUnknown},
	} {
		f := sealed()
		c.change(&f)
		state, why := f.State(now)
		if state != c.want {
			t.Errorf("%s: %s %q, want %s", what, state, why, c.want)
		}
		if needs := state == api.HostDrifted || state == api.HostUnknown || state == api.HostSilent; needs && len(why) == 0 {
			t.Errorf("%s: %s, and nobody knows why", what, state)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	fails := func(id string, findings ...string) hostapi.Check {
		return hostapi.Check{ID: id, Result: hostapi.Fail, Findings: findings}
	}
	if changes := posture.Compare(nil, checks()); len(changes) != 0 {
		t.Errorf("a first posture that passes: %+v", changes)
	}
	first := posture.Compare(nil, checks(fails("keys", "a", "b")))
	if len(first) != 1 || first[0].Before != hostapi.Pass || first[0].After != hostapi.Fail || !slices.Equal(first[0].New, []string{"a", "b"}) {
		t.Errorf("a first posture that fails: %+v", first)
	}
	if changes := posture.Compare(checks(fails("keys", "a")), checks(fails("keys", "a"))); len(changes) != 0 {
		t.Errorf("the same: %+v", changes)
	}
	other := posture.Compare(checks(fails("keys", "a", "b")), checks(fails("keys", "b", "c")))
	if len(other) != 1 || !slices.Equal(other[0].New, []string{"c"}) || !slices.Equal(other[0].Gone, []string{"a"}) || len(posture.Drift(other)) != 1 {
		t.Errorf("other findings: %+v", other)
	}
	fewer := posture.Compare(checks(fails("keys", "a", "b")), checks(fails("keys", "b")))
	if len(fewer) != 1 || len(posture.Drift(fewer)) != 0 {
		t.Errorf("fewer findings: %+v", fewer)
	}
	gone := posture.Compare(checks(fails("zebra", "x")), checks())
	if len(gone) != 1 || gone[0].After != hostapi.Pass || len(posture.Drift(gone)) != 0 {
		t.Errorf("a check that is gone: %+v", gone)
	}
	if changes := posture.Compare(checks(), checks(fails("sessions", "one"))); len(changes) != 1 || len(posture.Drift(changes)) != 0 {
		t.Errorf("a connection: %+v", changes)
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = string(rune('a'+i/10)) + string(rune('0'+i%10))
	}
	if changes := posture.Compare(checks(), checks(fails("keys", many...), fails("sudo", many...))); len(changes) != 2 ||
		len(changes[0].New)+len(changes[1].New) != 60 {
		t.Errorf("so many findings: %d, %d", len(changes[0].New), len(changes[1].New))
	}
}
