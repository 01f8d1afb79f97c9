package broker_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/pgtest"
)

// The host's certificate is good for it under every name that ssh may look for,
// and for no other host.
func TestHostCertificate(t *testing.T) {
	t.Parallel()
	// The independent reader below goes by the machine's clock.
	s := &scene{t: t, process: newHouse(t, pgtest.New(t), clock.System).open()}
	s.fill()
	ctx := t.Context()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	hostKey, err := ssh.NewSignerFromKey(private)
	must(t, err)
	h, err := s.hosts.Register(ctx, s.operator, api.HostInput{Name: "db-2", Address: "10.0.3.20:2200",
		Labels: map[string]string{"class": "database"}, Logins: []string{"dba"}, HostKey: certs.Line(hostKey.PublicKey())})
	must(t, err)
	issued, err := s.IssueHost(ctx, s.operator, "db-2")
	must(t, err)
	cert := parse(t, issued.Certificate)
	if cert.CertType != ssh.HostCert || !slices.Equal(cert.ValidPrincipals, []string{h.ID, "db-2", "10.0.3.20"}) ||
		issued.Serial != cert.Serial || int64(cert.ValidBefore) != issued.ValidBefore.Unix() {
		t.Errorf("host certificate %+v", cert)
	}
	e := s.events("host.certificate_issued")[0]
	data := e.Data.(event.HostCertificateIssued)
	if !bytes.Equal(s.logged(cert).PreCertificate, data.PreCertificate) || e.Subject.HostID != h.ID || e.Actor.ID != s.operator.ID {
		t.Errorf("event %+v", e)
	}

	r := s.grant("dba", "db-2")
	got, _ := s.issue(newKey(t), r.ID)
	file := filepath.Join(t.TempDir(), "known_hosts")
	must(t, os.WriteFile(file, []byte(strings.Join(got.KnownHosts, "\n")+"\n"), 0o600))
	// ssh-keygen finds the names that ssh would look for.
	for _, name := range []string{h.ID, "[db-2]:2200", "[10.0.3.20]:2200"} {
		if out := keygen(t, ".", "", "-F", name, "-f", file); !strings.Contains(out, "@cert-authority") {
			t.Errorf("ssh-keygen does not find %s", name)
		}
	}
	checkHost, err := knownhosts.New(file)
	must(t, err)
	remote := &net.TCPAddr{IP: net.IPv4(10, 0, 3, 20), Port: 22}
	if err := checkHost(h.ID+":22", remote, cert); err != nil {
		t.Errorf("under its alias: %v", err)
	}
	if err := checkHost(s.db.ID+":22", remote, cert); err == nil {
		t.Error("the lines trust another host")
	}

	// Only operators, and only for a host with a key.
	for _, c := range []identity.Caller{s.engineer, s.auditor} {
		if _, err := s.IssueHost(ctx, c, "db-2"); err == nil {
			t.Errorf("%s got a host certificate", c.Name)
		}
	}
	if n := len(s.events("access.refused")); n != 2 {
		t.Errorf("%d events access.refused, want 2", n)
	}
	_, err = s.hosts.Register(ctx, s.operator, api.HostInput{Name: "bare", Address: "10.0.3.30", Logins: []string{"root"}})
	must(t, err)
	for ref, want := range map[string]error{"bare": broker.ErrNoHostKey, "gone": approvals.ErrUnknownHost, ids.New(ids.Host): approvals.ErrUnknownHost} {
		if _, err := s.IssueHost(ctx, s.operator, ref); err == nil || err.Error() != want.Error() {
			t.Errorf("%s: error %v, want %v", ref, err, want)
		}
	}
	if line := s.UserCA(); !strings.HasPrefix(line, certs.Line(s.house.userCA.PublicKey())) {
		t.Errorf("user CA %q", line)
	}
}

func TestP10_HostsByCaller(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	webPerson := s.person("wanda", "web-people")
	stranger := s.person("stan", "strangers")
	names := func(c identity.Caller) string {
		page, err := s.ListHosts(ctx, c, broker.HostFilter{})
		must(t, err)
		var all []string
		for _, h := range page.Items {
			all = append(all, fmt.Sprintf("%s:%s:%s:%d", h.Name, strings.Join(h.Logins, "+"), h.State, len(h.Rules)))
		}
		return strings.Join(all, " ")
	}
	s.grant("dba", "db-1")
	for _, c := range []struct {
		who  identity.Caller
		want string
	}{
		{s.engineer, "db-1:dba+root:open:2 web-1:web:unknown:1"},
		{webPerson, "web-1:web:unknown:1"},
		{stranger, ""},
		{s.approver, ""},
		{s.operator, "db-1:dba+root:open:0 web-1:web:unknown:0"},
		{s.auditor, "db-1:dba+root:open:0 web-1:web:unknown:0"},
	} {
		if got := names(c.who); got != c.want {
			t.Errorf("%s sees %q, want %q", c.who.Name, got, c.want)
		}
	}
	for _, ref := range []string{"db-1", s.db.ID} {
		if h, err := s.Host(ctx, s.engineer, ref); err != nil || h.State != "open" || len(h.Rules) != 2 {
			t.Errorf("%+v, %v", h, err)
		}
		if _, err := s.Host(ctx, s.auditor, ref); err != nil {
			t.Error(err)
		}
		_, hidden := s.Host(ctx, webPerson, ref)
		_, missing := s.Host(ctx, webPerson, "nothing")
		if hidden == nil || missing == nil || hidden.Error() != missing.Error() {
			t.Errorf("a hidden host answers %v, a missing one %v", hidden, missing)
		}
	}
	s.clock.Advance(31 * time.Minute)
	if got, want := names(s.auditor), "db-1:dba+root:unknown:0 web-1:web:unknown:0"; got != want {
		t.Errorf("after the grant's end %q, want %q", got, want)
	}
}
