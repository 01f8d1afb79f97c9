package broker_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/pgtest"
)

func TestIssue(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	got, cert := s.issue(key, r.ID)

	entry, err := s.log.Entry(t.Context(), got.LogIndex)
	must(t, err)
	e, err := entry.Event()
	must(t, err)
	data := e.Data.(event.CertificateIssued)
	if logged := s.logged(cert); !bytes.Equal(logged.Leaf, entry.Leaf) || logged.Index != got.LogIndex || !bytes.Equal(logged.PreCertificate, data.PreCertificate) {
		t.Error("the log does not hold what was signed")
	}
	if e.ID.String() != got.Event || e.Subject.RequestID != r.ID || e.Subject.HostID != s.db.ID || e.Actor.ID != s.engineer.ID ||
		e.Policy.Hash != r.Policy.Hash || e.Source != s.engineer.Source {
		t.Errorf("event %+v", e)
	}
	if data.TermsHash != r.TermsHash || len(data.Decisions) != 1 || data.Login != "dba" || data.Host != "db-1" ||
		data.CA != ssh.FingerprintSHA256(s.house.userCA.PublicKey()) || data.Key != ssh.FingerprintSHA256(key.PublicKey()) {
		t.Errorf("event's data %+v", data)
	}
	want := api.Connect{Address: "10.0.3.7", Port: 2222, Login: "dba", HostKeyAlias: s.db.ID, Command: "sally ssh dba@db-1"}
	if got.Connect != want {
		t.Errorf("connect %+v, want %+v", got.Connect, want)
	}

	s.results(1)
	after, err := s.Request(t.Context(), s.engineer, r.ID)
	must(t, err)
	if after.State != api.Active || after.KeyFingerprint != got.Fingerprint || !slices.Equal(after.Certificates, []api.CertificateInfo{got.CertificateInfo}) {
		t.Errorf("afterwards: %s %s %+v", after.State, after.KeyFingerprint, after.Certificates)
	}
	s.checkLog()
}

func TestP2_OneUserOneHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, c := range []struct {
		login, host, hostID string
		options             map[string]string
	}{
		{"dba", "db-1", s.db.ID, nil},
		{"root", "db-1", s.db.ID, map[string]string{"source-address": "10.0.0.0/8,2001:db8::/32"}},
		{"web", "web-1", s.web.ID, nil},
	} {
		r := s.grant(c.login, c.host)
		got, cert := s.issue(newKey(t), r.ID)
		if p := c.login + "@" + c.hostID; !slices.Equal(cert.ValidPrincipals, []string{p}) || got.Principal != p {
			t.Errorf("principals %q, want %q alone", cert.ValidPrincipals, p)
		}
		if want := r.ID + ":" + s.engineer.ID; cert.KeyId != want || got.KeyID != want {
			t.Errorf("key id %q, want %q", cert.KeyId, want)
		}
		if cert.CertType != ssh.UserCert || fmt.Sprint(own(cert)) != "map[permit-pty:]" || fmt.Sprint(cert.CriticalOptions) != fmt.Sprint(c.options) && len(c.options)+len(cert.CriticalOptions) > 0 {
			t.Errorf("type %d, extensions %q, critical options %q", cert.CertType, cert.Extensions, cert.CriticalOptions)
		}
	}
}

func TestP3_Short(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.ask("dba", "db-1") // for 30 minutes
	s.clock.Advance(40 * time.Minute)
	r, err := s.approvals.Decide(t.Context(), s.approver, r.ID, api.DecisionInput{Verdict: api.Approve})
	must(t, err)
	// The clock started at the approval, not at the ask.
	ends := s.clock.Now().Add(30 * time.Minute)
	if !r.EndsAt.Equal(ends) {
		t.Fatalf("ends %s, want %s", r.EndsAt, ends)
	}
	key := newKey(t)
	to := func(moment time.Time) { s.clock.Advance(moment.Sub(s.clock.Now())) }
	for _, c := range []struct {
		name string
		at   time.Time
		end  time.Time // zero: refused
	}{
		{"at its start", ends.Add(-30 * time.Minute), ends.Add(-25 * time.Minute)},
		{"in the middle", ends.Add(-10 * time.Minute), ends.Add(-5 * time.Minute)},
		{"a lifetime before its end", ends.Add(-5 * time.Minute), ends},
		{"a minute before its end", ends.Add(-time.Minute), ends},
		{"more than a second before its end", ends.Add(-time.Second - time.Microsecond), ends},
		{"the last microsecond in which a whole second begins", ends.Add(-250*time.Millisecond - time.Microsecond), ends},
		{"within its last second", ends.Add(-250 * time.Millisecond), time.Time{}},
		{"a microsecond before its end", ends.Add(-time.Microsecond), time.Time{}},
		{"at its end", ends, time.Time{}},
		{"after its end", ends.Add(time.Hour), time.Time{}},
	} {
		to(c.at)
		if c.end.IsZero() {
			s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrGrantEnded)
			continue
		}
		_, cert := s.issue(key, r.ID)
		after, before := time.Unix(int64(cert.ValidAfter), 0), time.Unix(int64(cert.ValidBefore), 0)
		if early := c.at.Sub(after); early > time.Minute || early < 59*time.Second {
			t.Errorf("%s: starts %s before now", c.name, early)
		}
		if !before.Equal(c.end.Truncate(time.Second)) || before.After(ends) {
			t.Errorf("%s: ends at %s, want %s", c.name, before.UTC(), c.end)
		}
	}
	s.checkLog()
}

func TestP3_FutureStart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	begins := start.Add(2 * time.Hour)
	r := s.grant("dba", "db-1", func(in *api.RequestInput) { in.NotBefore = &begins })
	key := newKey(t)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrNotStarted)
	s.clock.Advance(2*time.Hour - time.Microsecond)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrNotStarted)
	s.clock.Advance(time.Microsecond)
	s.issue(key, r.ID)
}

func TestP4_KeyBinding(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first, second := newKey(t), newKey(t)

	// The first key used binds.
	r := s.grant("dba", "db-1")
	s.issue(first, r.ID)
	s.refusedIssue(s.engineer, r.ID, input(t, second, r.ID), approvals.ErrOtherKey)
	s.issue(first, r.ID)

	// A key named in the terms binds from the start.
	r = s.grant("dba", "db-1", func(in *api.RequestInput) { in.PublicKey = certs.Line(second.PublicKey()) })
	s.refusedIssue(s.engineer, r.ID, input(t, first, r.ID), approvals.ErrOtherKey)
	s.issue(second, r.ID)

	// Of two keys at once, one binds.
	r = s.grant("web", "web-1")
	const callers = 8
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		in := input(t, newKey(t), r.ID)
		all.Go(func() { _, errs[i] = s.Issue(t.Context(), s.engineer, r.ID, in) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d keys were bound to one grant: %v", won, errs)
	}
	s.checkLog()
}

func TestP6_ProofOfPossession(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r, other := s.grant("dba", "db-1"), s.grant("dba", "db-1")
	key, thief := newKey(t), newKey(t)
	for name, proof := range map[string]string{
		"none":             "",
		"another key's":    proof(t, thief, url, r.ID),
		"another request":  proof(t, key, url, other.ID),
		"another broker":   proof(t, key, "https://evil.example.com", r.ID),
		"of a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
	} {
		s.refusedIssue(s.engineer, r.ID, api.CertificateInput{PublicKey: certs.Line(key.PublicKey()), Proof: proof}, certs.ErrProof)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	// The refusal names the key that somebody tried to have certified.
	list := s.events("certificate.refused")
	if got := list[len(list)-1].Data.(event.CertificateRefused).Key; got != ssh.FingerprintSHA256(key.PublicKey()) {
		t.Errorf("the event names key %q", got)
	}
	// One made by the real ssh-keygen is good.
	dir := t.TempDir()
	keygen(t, dir, "", "-q", "-t", "ecdsa", "-N", "", "-f", "id")
	message := string(api.ProofMessage(url, r.ID))
	signed := keygen(t, dir, message, "-q", "-Y", "sign", "-n", api.ProofNamespace, "-f", "id")
	public, err := os.ReadFile(filepath.Join(dir, "id.pub"))
	must(t, err)
	line := strings.Join(strings.Fields(string(public))[:2], " ")
	if _, err := s.Issue(t.Context(), s.engineer, r.ID, api.CertificateInput{PublicKey: line, Proof: signed}); err != nil {
		t.Error(err)
	}
}

func keygen(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh-keygen %v: %v", args, err)
	}
	return string(out)
}

func TestWeakKeysRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	weak, err := ssh.NewSignerFromKey(private)
	must(t, err)
	s.refusedIssue(s.engineer, r.ID, input(t, weak, r.ID), certs.ErrKeyWeak)
	good := newKey(t)
	in := input(t, good, r.ID)
	in.PublicKey = "no key"
	s.refusedIssue(s.engineer, r.ID, in, certs.ErrKeyUnreadable)
	in.PublicKey = certs.Line(good.PublicKey()) + " erin@laptop"
	s.refusedIssue(s.engineer, r.ID, in, certs.ErrKeyUnreadable)
	_, cert := s.issue(good, r.ID)
	in.PublicKey = certs.Line(cert)
	s.refusedIssue(s.engineer, r.ID, in, certs.ErrKeyIsCertificate)
}

func TestOnlyTheGrantsPerson(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	for _, c := range []identity.Caller{s.colleague, s.approver, s.operator, s.auditor} {
		s.refusedIssue(c, r.ID, input(t, newKey(t), r.ID), approvals.ErrUnknownRequest)
	}
	s.refusedIssue(identity.Caller{Person: identity.Person{ID: ids.New(ids.Person), Name: "nobody"}, Source: "192.0.2.9",
		Policy: event.PolicyRef{Version: r.Policy.Version, Hash: r.Policy.Hash}}, r.ID, input(t, newKey(t), r.ID), approvals.ErrUnknownRequest)
	for _, id := range []string{"", "req-000000000000", "req-' OR ''='", r.ID + "\n", strings.ToUpper(r.ID)} {
		s.refusedIssue(s.engineer, id, input(t, newKey(t), id), approvals.ErrUnknownRequest)
	}
}

func TestNoGrantNoCertificate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx, key := t.Context(), newKey(t)

	waiting := s.ask("dba", "db-1")
	s.refusedIssue(s.engineer, waiting.ID, input(t, key, waiting.ID), approvals.ErrNoGrant)

	half := s.ask("root", "db-1") // needs two people
	_, err := s.approvals.Decide(ctx, s.security, half.ID, api.DecisionInput{Verdict: api.Approve})
	must(t, err)
	s.refusedIssue(s.engineer, half.ID, input(t, key, half.ID), approvals.ErrNoGrant)

	denied := s.ask("dba", "db-1")
	_, err = s.approvals.Decide(ctx, s.approver, denied.ID, api.DecisionInput{Verdict: api.Deny})
	must(t, err)
	s.refusedIssue(s.engineer, denied.ID, input(t, key, denied.ID), approvals.ErrNoGrant)

	cancelled := s.ask("dba", "db-1")
	_, err = s.approvals.Cancel(ctx, s.engineer, cancelled.ID)
	must(t, err)
	s.refusedIssue(s.engineer, cancelled.ID, input(t, key, cancelled.ID), approvals.ErrNoGrant)

	finished := s.grant("dba", "db-1")
	s.issue(key, finished.ID)
	_, err = s.approvals.Finish(ctx, s.engineer, finished.ID)
	must(t, err)
	s.refusedIssue(s.engineer, finished.ID, input(t, key, finished.ID), approvals.ErrGrantEnded)
}

func TestTwiceAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	const callers = 16
	got, errs := make([]api.Certificate, callers), make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		in := input(t, key, r.ID)
		all.Go(func() { got[i], errs[i] = s.Issue(t.Context(), s.engineer, r.ID, in) })
	}
	all.Wait()
	serials, indexes := map[uint64]bool{}, map[int64]bool{}
	for i := range callers {
		must(t, errs[i])
		serials[got[i].Serial], indexes[got[i].LogIndex] = true, true
	}
	if len(serials) != callers || len(indexes) != callers {
		t.Errorf("%d callers got %d serials at %d places of the log", callers, len(serials), len(indexes))
	}
	s.checkLog()
}

// Two brokers on one database issue at the same time: indexes without gap, one
// certificate for each event, no serial twice, one checkpoint.
func TestTwoBrokers(t *testing.T) {
	t.Parallel()
	c := clock.NewManual(start)
	h := newHouse(t, pgtest.New(t), c)
	s := &scene{t: t, clock: c, process: h.open()}
	s.fill()
	brokers := []*process{s.process, h.open()}
	type grant struct {
		id  string
		key ssh.Signer
	}
	var grants []grant
	for range 6 {
		grants = append(grants, grant{s.grant("dba", "db-1").ID, newKey(t)})
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	serials := map[uint64]bool{}
	for i, g := range grants {
		for _, b := range brokers {
			for range 4 {
				in := input(t, g.key, g.id)
				all.Go(func() {
					cert, err := b.Issue(t.Context(), s.engineer, g.id, in)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Errorf("grant %d: %v", i, err)
					}
					if serials[cert.Serial] {
						t.Errorf("serial %d twice", cert.Serial)
					}
					serials[cert.Serial] = true
				})
			}
		}
	}
	all.Wait()
	if n := len(s.events("certificate.issued")); n != 48 || len(serials) != 48 {
		t.Errorf("%d events and %d serials, want 48", n, len(serials))
	}
	// The keys of both are the same, and were news once.
	if n := len(s.events("broker.keys_loaded")); n != 1 {
		t.Errorf("%d events broker.keys_loaded, want 1", n)
	}
	old := h.hostCA
	h.hostCA = newKey(t)
	h.open()
	if n := len(s.events("broker.keys_loaded")); n != 2 {
		t.Errorf("%d events broker.keys_loaded with a new key, want 2", n)
	}
	h.hostCA = old // in use again, which is news, too
	h.open()
	h.open()
	again := s.events("broker.keys_loaded")
	if len(again) != 3 || !slices.Equal(again[2].Data.(event.KeysLoaded).Replaced, []string{"host_ca"}) {
		t.Errorf("the first key again: %+v", again)
	}
	s.checkLog()
}
