package fleet_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/broker/fleet"
	"sallyport/internal/refusal"
)

func TestP10_AHostIsKnownByItsSignature(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m, other := h.enrolled("db-1"), h.enrolled("db-2")
	const target = hostapi.ReportsPath
	good := m.call(m.id, "POST", target, "x")
	c, err := h.Authenticate(t.Context(), good)
	must(t, err)
	if c.ID != m.id || c.Name != "db-1" {
		t.Errorf("known as %+v", c)
	}
	registered, err := h.hosts.Register(t.Context(), h.operator, api.HostInput{Name: "static", Address: "10.0.0.9", Logins: []string{"dba"},
		HostKey: certs.Line(m.key.PublicKey())})
	must(t, err)
	changed := func(change func(*fleet.Call)) fleet.Call {
		call := m.call(m.id, "POST", target, "x")
		change(&call)
		return call
	}
	for what, c := range map[string]struct {
		call fleet.Call
		want *refusal.Error
	}{
		"another's name":             {m.call(other.id, "POST", target, "x"), fleet.ErrSignature},
		"another body":               {changed(func(c *fleet.Call) { c.Body = []byte("y") }), fleet.ErrSignature},
		"another call":               {changed(func(c *fleet.Call) { c.Target = hostapi.CertificatesPath }), fleet.ErrSignature},
		"another query":              {changed(func(c *fleet.Call) { c.Target += "?x=1" }), fleet.ErrSignature},
		"another method":             {changed(func(c *fleet.Call) { c.Method = "DELETE" }), fleet.ErrSignature},
		"no signature":               {changed(func(c *fleet.Call) { c.Authorization = "" }), fleet.ErrSignature},
		"a bearer token":             {changed(func(c *fleet.Call) { c.Authorization = "Bearer x" }), fleet.ErrSignature},
		"an id with a quote":         {m.call("host-'or'1=1", "POST", target, "x"), fleet.ErrUnknownHost},
		"nobody":                     {m.call("host-000000000000", "POST", target, "x"), fleet.ErrUnknownHost},
		"a host that never enrolled": {m.call(registered.ID, "POST", target, "x"), fleet.ErrUnknownHost},
		"the same call again":        {good, fleet.ErrReplay},
	} {
		if _, err := h.Authenticate(t.Context(), c.call); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", what, err, c.want.Code)
		}
	}
	early := m.call(m.id, "POST", target, "x")
	h.clock.Advance(5 * time.Minute)
	_, err = h.Authenticate(t.Context(), early)
	refused(t, err, fleet.ErrClock)

	// Neither after an operator gave the host another key, nor after it was removed.
	_, err = h.hosts.Change(t.Context(), h.operator, "db-2", api.HostInput{Name: "db-2", Address: "10.0.0.2", Logins: []string{"dba"},
		HostKey: certs.Line(newKey(t).PublicKey())})
	must(t, err)
	_, err = h.Authenticate(t.Context(), other.call(other.id, "POST", target, "x"))
	refused(t, err, fleet.ErrUnknownHost)
	must(t, h.hosts.Remove(t.Context(), h.operator, "db-1"))
	_, err = h.Authenticate(t.Context(), m.call(m.id, "GET", hostapi.RevocationsPath, ""))
	refused(t, err, fleet.ErrUnknownHost)
}

// A call that was recorded is refused for as long as its signature would be in time.
func TestReplayedCallsAreRefusedUntilTheyAreLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	var recorded []fleet.Call
	for range 30 {
		call := m.call(m.id, "POST", hostapi.CertificatesPath, "{}")
		_, err := h.Authenticate(t.Context(), call)
		must(t, err)
		recorded = append(recorded, call)
		h.clock.Advance(time.Minute)
		for _, call := range recorded {
			if _, err := h.Authenticate(t.Context(), call); !errors.Is(err, fleet.ErrReplay) && !errors.Is(err, fleet.ErrClock) {
				t.Fatalf("a call of before: %v", err)
			}
		}
	}
}

func TestSeenHostsAreWrittenDown(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	m.caller()
	must(t, fleet.WriteSeen(h.Service, t.Context()))
	if n := h.count(`SELECT count(*) FROM enrolled_hosts WHERE seen_at = $1`, h.clock.Now()); n != 1 {
		t.Error("nobody knows when the host was last heard of")
	}
}

func TestCredentialsOfManyBytes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.enrolled("db-1")
	call := m.call(m.id, "GET", hostapi.RevocationsPath, "")
	call.Authorization += strings.Repeat("A", 30_000)
	_, err := h.Authenticate(t.Context(), call)
	refused(t, err, fleet.ErrSignature)
}
