package fleet_test

import (
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
	"sallyport/internal/refusal"
)

// at is the machine's enrolment with an address that it chose.
func (m *machine) at(token, address, source string) (*hostapi.Enrolment, *hostapi.Pending, error) {
	m.t.Helper()
	in := hostapi.EnrolmentInput{Token: token, Name: "evil", Address: address, Logins: []string{"root"}}
	must(m.t, hostapi.SignEnrolment(&in, url, m.key, m.clock.Now()))
	return m.Enrol(m.t.Context(), source, in)
}

// here are addresses at which the broker finds itself, its link, or a whole group.
var here = map[string]*refusal.Error{
	"127.0.0.1:6379": fleet.ErrProposedAddress, "127.8.9.10": fleet.ErrProposedAddress, "[::1]:22": fleet.ErrProposedAddress,
	"[::ffff:127.0.0.1]:22": fleet.ErrProposedAddress, "[::127.0.0.1]:22": fleet.ErrProposedAddress, "[64:ff9b::7f00:1]:22": fleet.ErrProposedAddress,
	"169.254.169.254:80": fleet.ErrProposedAddress, "[fe80::1]:22": fleet.ErrProposedAddress, "255.255.255.255:22": fleet.ErrProposedAddress,
	"0.1.2.3:22": fleet.ErrProposedAddress, "localhost:5432": fleet.ErrProposedAddress, "db.localhost": fleet.ErrProposedAddress,
	"0.0.0.0:22": hosts.ErrAddress, "[::]:22": hosts.ErrAddress, "224.0.0.1:22": hosts.ErrAddress, "[ff02::1]:22": hosts.ErrAddress, "[fe80::1%eth0]:22": hosts.ErrAddress,
}

// A host with a join token, which may be stolen, would have the broker look at its own
// services from outside, day by day.
func TestAHostCannotSendTheBrokerToItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.token("evil")
	for address, want := range here {
		m := h.machine()
		if _, _, err := m.at(token, address, from); refusal.As(err) == nil || refusal.As(err).Code != want.Code {
			t.Errorf("%s: %v, want %s", address, err, want.Code)
		}
	}
	// Also by calling from there.
	_, _, err := h.machine().at(token, "", "127.0.0.1")
	refused(t, err, fleet.ErrProposedAddress)
	if n := len(h.events("host.enrolled")); n != 0 {
		t.Errorf("%d hosts are in", n)
	}
	// The token is good still, for an address that may be a host's.
	if _, _, err := h.machine().at(token, "10.0.3.7:22", from); err != nil {
		t.Error(err)
	}
	// An operator may say what a host may not.
	in, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "demo", Address: "127.0.0.7:2222", Logins: []string{"root"}})
	must(t, err)
	e, _, err := h.machine().at(in.Token, "10.0.3.8:22", "127.0.0.7")
	must(t, err)
	if got, err := h.hosts.Get(t.Context(), e.HostID); err != nil || got.Address != "127.0.0.7:2222" {
		t.Errorf("%+v, %v: the token's address counts", got, err)
	}
}

// The same of a host that an operator lets in who looks at its key alone.
func TestAPendingHostCannotSendTheBrokerToItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := h.machine()
	_, p, err := m.at("", "169.254.169.254:80", from)
	must(t, err)
	in := api.PendingDecision{Fingerprint: p.Fingerprint}
	_, err = h.Approve(t.Context(), h.operator, p.ID, in)
	refused(t, err, fleet.ErrProposedAddress)
	in.Address = "169.254.169.254:80" // whoever says so
	if got, err := h.Approve(t.Context(), h.operator, p.ID, in); err != nil || got.Address != in.Address {
		t.Errorf("%+v, %v", got, err)
	}
}

// doors are what there is to look at, by name.
func (h *house) doors() map[string]posture.Door {
	h.t.Helper()
	seen := make(chan posture.Door, 100)
	must(h.t, fleet.LookAtAll(h.Service, h.t.Context(), func(d posture.Door, _ string) posture.Probe {
		seen <- d
		return posture.Probe{Result: hostapi.Pass}
	}))
	close(seen)
	all := map[string]posture.Door{}
	for d := range seen {
		all[d.Name] = d
	}
	return all
}

// Whose word an address is, the look from outside knows: a name can lead to another
// address every time.
func TestALookKnowsWhoseWordAnAddressIs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, _, err := h.machine().at(h.token("evil"), "evil.example.com", from)
	must(t, err)
	in, err := h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Address: "DB-1.example.com"})
	refused(t, err, hosts.ErrAddress)
	in, err = h.MakeToken(t.Context(), h.operator, api.JoinTokenInput{Name: "db-1", Address: "db-1.example.com", Logins: []string{"root"}})
	must(t, err)
	_, _, err = h.machine().at(in.Token, "evil.example.com", from)
	must(t, err)
	doors := h.doors()
	if !doors["evil"].Proposed || doors["db-1"].Proposed || doors["db-1"].Address != "db-1.example.com:22" {
		t.Errorf("%+v", doors)
	}
	_, err = h.hosts.Change(t.Context(), h.operator, "evil", api.HostInput{Name: "evil", Address: "10.0.3.9", Logins: []string{"root"}, HostKey: doors["evil"].HostKey})
	must(t, err)
	h.clock.Advance(posture.Fresh)
	if doors = h.doors(); doors["evil"].Proposed {
		t.Errorf("%+v: an operator said where it is", doors["evil"])
	}
}

// A host that enrols at another's address would be certified for that, and whoever trusts
// the host CA would take it for the other one.
func TestAHostIsNotCertifiedForAnAddressThatItChose(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	principals := func(line string) []string {
		t.Helper()
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		must(t, err)
		return key.(*ssh.Certificate).ValidPrincipals
	}
	m := h.machine()
	e, _, err := m.at(h.token("evil"), "db-1.example.com", from)
	must(t, err)
	if got := principals(e.HostCertificate); slices.Contains(got, "db-1.example.com") || !slices.Contains(got, "evil") {
		t.Errorf("certified for %q", got)
	}
	// A name that an operator gives it, it may have.
	_, err = h.hosts.Change(t.Context(), h.operator, "evil", api.HostInput{Name: "evil", Address: "evil.example.com", Logins: []string{"root"}, HostKey: certs.Line(m.key.PublicKey())})
	must(t, err)
	cert, err := h.broker.IssueHost(t.Context(), h.operator, "evil")
	must(t, err)
	if got := principals(cert.Certificate); !slices.Contains(got, "evil.example.com") {
		t.Errorf("certified for %q", got)
	}
}
