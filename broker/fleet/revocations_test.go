package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/broker/certs"
	"sallyport/broker/revocations"
)

func TestWhatEndsBeforeItsTimeIsToldToHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	h.enrolled("db-2")
	var have hostapi.Revocations
	hear := func() {
		t.Helper()
		news := h.news(have.Number)
		if news.Since != have.Number || news.Number <= have.Number || !news.MadeAt.Equal(h.clock.Now()) {
			t.Fatalf("after %d came %+v", have.Number, news)
		}
		var err error
		have, err = have.Join(news, nil)
		must(t, err)
	}
	ended := func(request string) hostapi.EndReason {
		end, _ := have.Ended(request)
		return end.Reason
	}
	revoke := func(in api.RevocationInput) {
		t.Helper()
		in.Reason = "odd commands"
		_, err := h.list.Revoke(t.Context(), h.operator, in)
		must(t, err)
	}

	done := h.grant("dba", "db-1")
	_, err := h.approvals.Finish(t.Context(), h.engineer, done.ID)
	must(t, err)
	hear()
	if ended(done.ID) != hostapi.EndFinished {
		t.Errorf("a grant that is done with: %+v", have)
	}

	request := h.grant("dba", "db-1")
	revoke(api.RevocationInput{Request: request.ID})
	hear()
	if ended(request.ID) != hostapi.EndRevoked || ended(done.ID) != hostapi.EndFinished {
		t.Errorf("a request that was revoked: %+v", have)
	}

	one := h.grant("dba", "db-1")
	first := h.certificate(one, newKey(t))
	revoke(api.RevocationInput{Serial: fmt.Sprint(first.Serial)})
	hear()
	if !have.Revoked(first.Serial) || ended(one.ID) != "" {
		t.Errorf("a certificate that was revoked: %+v", have)
	}

	other := h.grant("root", "db-2")
	revoke(api.RevocationInput{Host: "db-1"})
	hear()
	if ended(one.ID) != hostapi.EndRevoked || ended(other.ID) != "" {
		t.Errorf("a host that was revoked: %+v", have)
	}
	revoke(api.RevocationInput{Person: h.engineer.ID})
	hear()
	if ended(other.ID) != hostapi.EndRevoked {
		t.Errorf("a person who was revoked: %+v", have)
	}

	last := h.grant("dba", "db-2")
	c := h.certificate(last, newKey(t))
	must(t, h.hosts.Remove(t.Context(), h.operator, "db-2"))
	hear()
	if !have.Revoked(c.Serial) {
		t.Errorf("a host that was removed: %+v", have)
	}
	// Once more, from nothing: the same.
	if whole := h.news(0); whole.Number != have.Number || !slices.Equal(whole.Serials, have.Serials) || !slices.Equal(whole.Grants, have.Grants) {
		t.Errorf("the whole list\n%+v, want\n%+v", whole, have)
	}
}

func TestP10_RevokingACertificate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	c := h.certificate(h.grant("dba", "db-1"), newKey(t))
	in := api.RevocationInput{Serial: fmt.Sprint(c.Serial), Reason: "lost"}
	_, err := h.list.Revoke(t.Context(), h.colleague, in)
	refused(t, err, revocations.ErrUnknownCertificate)
	_, err = h.list.Revoke(t.Context(), h.auditor, in)
	refused(t, err, approvals.ErrNotOperator)
	for _, serial := range []string{"0", "-1", "x", "01", "99999999999999999999", fmt.Sprint(c.Serial + 1)} {
		_, err := h.list.Revoke(t.Context(), h.operator, api.RevocationInput{Serial: serial, Reason: "x"})
		refused(t, err, revocations.ErrUnknownCertificate)
	}
	_, err = h.list.Revoke(t.Context(), h.operator, api.RevocationInput{Serial: in.Serial})
	refused(t, err, approvals.ErrNoWhy)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.list.Revoke(t.Context(), h.engineer, in); err != nil { // their own
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list := h.events("certificate.revoked"); len(list) != 1 || list[0].Data.(event.CertificateRevoked).Serial != c.Serial || list[0].Actor.ID != h.engineer.ID {
		t.Errorf("events %+v", list)
	}
}

// However many wait, they are woken together and share one note; the database is asked
// as often as if one waited.
func TestThousandsWaitAndOneReadAnswersThem(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	r := h.grant("dba", "db-1")
	const hosts = 5000
	notes := make([][]byte, hosts)
	var ready, done sync.WaitGroup
	ready.Add(hosts)
	for i := range hosts {
		done.Go(func() {
			ready.Done()
			var err error
			if notes[i], err = h.list.News(t.Context(), 0, time.Minute, nil); err != nil {
				t.Error(err)
			}
		})
	}
	ready.Wait()
	before := h.db.Pool.Stat().AcquireCount()
	began := time.Now()
	_, err := h.approvals.Finish(t.Context(), h.engineer, r.ID)
	must(t, err)
	done.Wait()
	took := time.Since(began)
	// The end itself, the log, and one look each 200 ms.
	if asked := h.db.Pool.Stat().AcquireCount() - before; asked > 100+5*int64(took/(100*time.Millisecond)) {
		t.Errorf("the database was asked %d times in %s", asked, took)
	}
	for i := range notes {
		if &notes[i][0] != &notes[0][0] {
			t.Fatal("hosts that had the same list got different notes")
		}
	}
}

func TestNoNewsIsSignedNews(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	closing := make(chan struct{})
	close(closing)
	for what, ask := range map[string]func() ([]byte, error){
		"at once":              func() ([]byte, error) { return h.list.News(t.Context(), 0, 0, nil) },
		"after a wait":         func() ([]byte, error) { return h.list.News(t.Context(), 0, time.Millisecond, nil) },
		"when the broker ends": func() ([]byte, error) { return h.list.News(t.Context(), 0, time.Minute, closing) },
	} {
		note, err := ask()
		must(t, err)
		text, err := vouch.Open(hostapi.RevocationsKind, note, h.log.VerifierKey())
		must(t, err)
		if r, err := hostapi.ParseRevocations(text); err != nil || r.Number != 0 || r.Since != 0 || r.MadeAt.IsZero() || len(r.Grants) != 0 {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.list.News(gone, 0, time.Minute, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone: %v", err)
	}
}

// A host that waits hears when the database was last asked, and nothing while it does not
// answer: silence is what it acts on.
func TestAListThatNobodyLookedAtIsNotGivenOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if _, err := h.list.News(t.Context(), 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	h.db.Pool.Close()
	h.clock.Advance(11 * time.Second)
	if _, err := h.list.News(t.Context(), 0, 0, nil); !errors.Is(err, revocations.ErrUnknown) {
		t.Errorf("without a database: %v", err)
	}
}

// A database that was put back to an older state is noticed, by the broker that knew
// better, and by each host that did; and no number is given out twice.
func TestTheListNeverGoesBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	_, err := h.approvals.Finish(t.Context(), h.engineer, h.grant("dba", "db-1").ID)
	must(t, err)
	number := h.news(0).Number
	if _, err := h.list.News(t.Context(), number+1, 0, nil); !errors.Is(err, revocations.ErrBehind) {
		t.Errorf("to a host that knows more: %v", err)
	}
	root, err := pgx.Connect(t.Context(), h.db.AdminURL)
	must(t, err)
	t.Cleanup(func() { root.Close(context.Background()) })
	for _, attack := range []string{
		`UPDATE revocation_head SET number = number - 1`,
		`UPDATE revocation_head SET number = number`,
		`DELETE FROM revocation_head`,
		`TRUNCATE revocation_head`,
		`DELETE FROM revocations`,
		`UPDATE revocations SET until = now()`,
		`TRUNCATE revocations`,
	} {
		if _, err := h.db.Pool.Exec(t.Context(), attack); err == nil {
			t.Errorf("%s went through", attack)
		}
		if _, err := root.Exec(t.Context(), attack); err == nil {
			t.Errorf("%s went through for the superuser", attack)
		}
	}
	for _, sql := range []string{
		`ALTER TABLE revocation_head DISABLE TRIGGER revocation_number_grows`,
		`UPDATE revocation_head SET number = 0`,
	} {
		_, err := root.Exec(t.Context(), sql)
		must(t, err)
	}
	h.eventually(func() bool {
		_, err := h.list.News(t.Context(), 0, 0, nil)
		return errors.Is(err, revocations.ErrBehind)
	})
	if _, err := h.list.KRL(t.Context()); !errors.Is(err, revocations.ErrBehind) {
		t.Errorf("the KRL: %v", err)
	}
}

// What the real ssh-keygen makes of the KRL and its signature.
func TestKRLs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enrolled("db-1")
	empty, err := h.list.KRL(t.Context())
	must(t, err)
	var all, revoked []api.Certificate
	for i := range 12 {
		c := h.certificate(h.grant("dba", "db-1"), newKey(t))
		all = append(all, c)
		if i%4 != 0 {
			_, err := h.list.Revoke(t.Context(), h.operator, api.RevocationInput{Serial: fmt.Sprint(c.Serial), Reason: "x"})
			must(t, err)
			revoked = append(revoked, c)
		}
	}
	ended := h.grant("dba", "db-1")
	revoked = append(revoked, h.certificate(ended, newKey(t)))
	all = append(all, revoked[len(revoked)-1])
	_, err = h.approvals.Finish(t.Context(), h.engineer, ended.ID)
	must(t, err)
	var last uint64
	h.eventually(func() bool { last = h.news(0).Number; return last == uint64(len(revoked)) })
	krl, err := h.list.KRL(t.Context())
	must(t, err)
	if krl.Number != last {
		t.Errorf("KRL %d of list %d", krl.Number, last)
	}
	for _, c := range all {
		want := slices.ContainsFunc(revoked, func(r api.Certificate) bool { return r.Serial == c.Serial })
		if got := h.revokedBy(krl.Bytes, c.Certificate); got != want {
			t.Errorf("certificate %d: revoked %v, want %v", c.Serial, got, want)
		}
		if h.revokedBy(empty.Bytes, c.Certificate) {
			t.Errorf("certificate %d is revoked by an empty list", c.Serial)
		}
	}
	h.verifiesKRL(krl, true)
	bad := krl
	bad.Bytes = append(slices.Clone(krl.Bytes), 0)
	h.verifiesKRL(bad, false)

	// What has expired needs nobody to revoke it.
	h.clock.Advance(10 * time.Minute)
	h.eventually(func() bool {
		krl, err = h.list.KRL(t.Context())
		return err == nil && len(krl.Bytes) == len(empty.Bytes)
	})
}

// revokedBy asks ssh-keygen.
func (h *house) revokedBy(krl []byte, certificate string) bool {
	h.t.Helper()
	dir := h.t.TempDir()
	list, cert := filepath.Join(dir, "krl"), filepath.Join(dir, "cert.pub")
	must(h.t, os.WriteFile(list, krl, 0o600))
	must(h.t, os.WriteFile(cert, []byte(certificate+"\n"), 0o600))
	out, err := exec.Command("ssh-keygen", "-Q", "-f", list, cert).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "REVOKED") {
		h.t.Fatalf("ssh-keygen cannot read the KRL: %v\n%s", err, out)
	}
	return err != nil
}

func (h *house) verifiesKRL(krl revocations.KRL, want bool) {
	h.t.Helper()
	ca, err := certs.ParseKey(strings.Join(strings.Fields(h.broker.UserCA())[:2], " "))
	must(h.t, err)
	if err := hostapi.VerifyKRL(krl.Bytes, string(krl.Signature), ca); (err == nil) != want {
		h.t.Errorf("hostapi: %v", err)
	}
	dir := h.t.TempDir()
	signature, signers := filepath.Join(dir, "krl.sig"), filepath.Join(dir, "signers")
	must(h.t, os.WriteFile(signature, krl.Signature, 0o600))
	must(h.t, os.WriteFile(signers, []byte("sallyport "+string(ssh.MarshalAuthorizedKey(ca))), 0o600))
	cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "sallyport", "-n", hostapi.KRLNamespace, "-s", signature)
	cmd.Stdin = strings.NewReader(string(krl.Bytes))
	if out, err := cmd.CombinedOutput(); (err == nil) != want {
		h.t.Errorf("ssh-keygen: %v\n%s", err, out)
	}
}
