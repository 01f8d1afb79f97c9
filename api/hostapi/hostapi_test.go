package hostapi_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func signed(t *testing.T, key ssh.Signer, method, target, body string) string {
	t.Helper()
	req, err := http.NewRequest(method, "https://broker.example"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := hostapi.Sign(req, "host-7k3m9q2x4f8h", key, []byte(body), now, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return req.Header.Get("Authorization")
}

func TestSignedCalls(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaSigner, err := ssh.NewSignerFromKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []ssh.Signer{signer(t), rsaSigner} {
		header := signed(t, key, "GET", "/api/v1/host/revocations?after=7&wait=55s", "body")
		c, err := hostapi.ParseCredential(header)
		if err != nil || !hostapi.Signed(header) || c.ID != "host-7k3m9q2x4f8h" || !c.Time.Equal(now) {
			t.Fatalf("read as %+v, %v", c, err)
		}
		verify := func(c hostapi.Credential, key ssh.Signer, method, target, body string) error {
			return c.Verify(key.PublicKey(), method, target, []byte(body))
		}
		const target = "/api/v1/host/revocations?after=7&wait=55s"
		if err := verify(c, key, "GET", target, "body"); err != nil {
			t.Errorf("a good call: %v", err)
		}
		later, other := c, c
		later.Time, other.Nonce = now.Add(time.Second), strings.Repeat("0", 32)
		for what, err := range map[string]error{
			"another key":    verify(c, signer(t), "GET", target, "body"),
			"another method": verify(c, key, "POST", target, "body"),
			"another query":  verify(c, key, "GET", strings.Replace(target, "7", "8", 1), "body"),
			"another body":   verify(c, key, "GET", target, "Body"),
			"another time":   verify(later, key, "GET", target, "body"),
			"another nonce":  verify(other, key, "GET", target, "body"),
		} {
			if err == nil {
				t.Errorf("%s: accepted", what)
			}
		}
		if !c.InTime(now.Add(hostapi.MaxSkew-time.Second)) || c.InTime(now.Add(hostapi.MaxSkew)) || c.InTime(now.Add(-hostapi.MaxSkew)) {
			t.Error("the skew is not five minutes")
		}
	}
}

func TestCredentialsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	good := signed(t, signer(t), "GET", "/", "")
	f := strings.Split(good, " ")
	replaced := func(i int, with string) string {
		g := slices.Clone(f)
		g[i] = with
		return strings.Join(g, " ")
	}
	for what, header := range map[string]string{
		"nothing": "", "a bearer": "Bearer x", "too few": strings.Join(f[:4], " "), "too many": good + " x", "two blanks": strings.Replace(good, " ", "  ", 1),
		"no id": replaced(1, ""), "a time with a sign": replaced(2, "+"+f[2]), "a time with zeros": replaced(2, "0"+f[2]),
		"an upper-case nonce": replaced(3, strings.Repeat("A", 32)), "a short nonce": replaced(3, f[3][2:]),
		"no base64": replaced(4, "%"), "10,000 bytes": replaced(1, strings.Repeat("x", 20_000)),
	} {
		if c, err := hostapi.ParseCredential(header); err == nil {
			t.Errorf("%s: read as %+v", what, c)
		}
	}
}

func FuzzParseCredential(f *testing.F) {
	f.Add("Sallyport-Host host-7k3m9q2x4f8h 1772366400 000102030405060708090a0b0c0d0e0f AAAA")
	f.Fuzz(func(t *testing.T, header string) {
		c, err := hostapi.ParseCredential(header)
		if err == nil && c.Verify(signerKey, "GET", "/", nil) == nil {
			t.Errorf("%q verifies", header)
		}
	})
}

var signerKey = func() ssh.PublicKey {
	public, _, _ := ed25519.GenerateKey(rand.Reader)
	key, _ := ssh.NewPublicKey(public)
	return key
}()

func TestEnrolmentProof(t *testing.T) {
	t.Parallel()
	key := signer(t)
	good := hostapi.EnrolmentInput{Token: "t", Name: "db-1", Address: "10.0.0.1", Logins: []string{"root"}, Facts: hostapi.Facts{OS: "Debian"}}
	const url = "https://broker.example"
	if err := hostapi.SignEnrolment(&good, url+"/", key, now); err != nil {
		t.Fatal(err)
	}
	if k, err := hostapi.VerifyEnrolment(good, url); err != nil || !bytes.Equal(k.Marshal(), key.PublicKey().Marshal()) {
		t.Fatalf("a good proof: %v", err)
	}
	for what, change := range map[string]func(*hostapi.EnrolmentInput){
		"token":      func(in *hostapi.EnrolmentInput) { in.Token = "u" },
		"no token":   func(in *hostapi.EnrolmentInput) { in.Token = "" },
		"name":       func(in *hostapi.EnrolmentInput) { in.Name = "db-2" },
		"moved line": func(in *hostapi.EnrolmentInput) { in.Name, in.Address = "db-1\n10.0.0.1", "" },
		"login":      func(in *hostapi.EnrolmentInput) { in.Logins = []string{"root", "dba"} },
		"fact":       func(in *hostapi.EnrolmentInput) { in.Facts.Kernel = "7" },
		"time":       func(in *hostapi.EnrolmentInput) { in.Time = in.Time.Add(time.Second) },
		"another key": func(in *hostapi.EnrolmentInput) {
			in.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signerKey)))
		},
		"comment":  func(in *hostapi.EnrolmentInput) { in.HostKey += " root@db-1" },
		"no key":   func(in *hostapi.EnrolmentInput) { in.HostKey = "" },
		"no proof": func(in *hostapi.EnrolmentInput) { in.Proof = "" },
	} {
		bad := good
		change(&bad)
		if _, err := hostapi.VerifyEnrolment(bad, url); err == nil {
			t.Errorf("%s changed: accepted", what)
		}
	}
	if _, err := hostapi.VerifyEnrolment(good, "https://other.example"); err == nil {
		t.Error("accepted for another broker")
	}
}

// A signature of one purpose is worth nothing for another.
func TestSignaturesArePurposeBound(t *testing.T) {
	t.Parallel()
	ca := signer(t)
	signature, err := hostapi.SignKRL([]byte("krl"), ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := hostapi.VerifyKRL([]byte("krl"), signature, ca.PublicKey()); err != nil {
		t.Error(err)
	}
	in := hostapi.EnrolmentInput{}
	if err := hostapi.SignEnrolment(&in, "https://broker.example", ca, now); err != nil {
		t.Fatal(err)
	}
	if hostapi.VerifyKRL(in.Message("https://broker.example"), in.Proof, ca.PublicKey()) == nil {
		t.Error("an enrolment's proof signs a revocation list")
	}
}

// What the documentation tells hosts without the daemon to do.
func TestKRLSignatureVerifiesWithOpenSSH(t *testing.T) {
	t.Parallel()
	ca, dir, krl := signer(t), t.TempDir(), []byte("krl")
	signature, err := hostapi.SignKRL(krl, ca)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", file("allowed", "sallyport "+string(ssh.MarshalAuthorizedKey(ca.PublicKey()))),
		"-I", "sallyport", "-n", hostapi.KRLNamespace, "-s", file("krl.sig", signature))
	cmd.Stdin = bytes.NewReader(krl)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen: %v: %s", err, out)
	}
}

func TestJoiningRevocations(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return now.Add(time.Duration(minute) * time.Minute) }
	have := hostapi.Revocations{Number: 7, MadeAt: at(0),
		Serials: []hostapi.RevokedSerial{{Serial: 3, Until: at(2)}, {Serial: 5, Until: at(9)}},
		Grants:  []hostapi.EndedGrant{{Request: "req-a", Until: at(1)}, {Request: "req-b", Until: at(1)}}}
	news := hostapi.Revocations{Number: 9, Since: 7, MadeAt: at(3),
		Serials: []hostapi.RevokedSerial{{Serial: 4, Until: at(8)}, {Serial: 5, Until: at(9)}},
		Grants:  []hostapi.EndedGrant{{Request: "req-0", Until: at(9)}}}
	got, err := have.Join(news, func(request string) bool { return request == "req-b" })
	if err != nil {
		t.Fatal(err)
	}
	if got.Number != 9 || got.Revoked(3) || !got.Revoked(4) || !got.Revoked(5) || got.Revoked(6) || len(got.Serials) != 2 {
		t.Errorf("joined to %+v", got)
	}
	for request, want := range map[string]bool{"req-0": true, "req-a": false, "req-b": true, "req-c": false} {
		if _, ended := got.Ended(request); ended != want {
			t.Errorf("%s ended: %t", request, ended)
		}
	}
	if _, err := got.Join(hostapi.Revocations{Number: 9, Since: 9, MadeAt: at(4)}, nil); err != nil {
		t.Errorf("no news: %v", err)
	}
	if _, err := got.Join(hostapi.Revocations{Number: 8, MadeAt: at(9)}, nil); !errors.Is(err, hostapi.ErrRolledBack) {
		t.Errorf("a lower number: %v", err)
	}
	if same, err := got.Join(hostapi.Revocations{Number: 9, MadeAt: at(2)}, nil); err != nil || !same.MadeAt.Equal(at(3)) {
		t.Errorf("another replica's older note: made at %s, %v", same.MadeAt, err)
	}
	if _, err := got.Join(hostapi.Revocations{Number: 12, Since: 10, MadeAt: at(9)}, nil); err == nil {
		t.Error("joined news with a gap before them")
	}
}

func TestNoRandomnessNoSignature(t *testing.T) {
	t.Parallel()
	req, err := http.NewRequest("GET", "https://broker.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if hostapi.Sign(req, "host-7k3m9q2x4f8h", signer(t), nil, now, io.LimitReader(rand.Reader, 8)) == nil {
		t.Error("signed with half a nonce")
	}
}

func TestWhenSessionsEnd(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return now.Add(time.Duration(minute) * time.Minute) }
	var none hostapi.Revocations
	list, err := none.Join(hostapi.Revocations{Number: 1, MadeAt: now,
		Serials: []hostapi.RevokedSerial{{Serial: 8, Until: at(99)}},
		Grants:  []hostapi.EndedGrant{{Request: "req-done", EndedAt: at(1), Reason: hostapi.EndFinished, Until: at(99)}, {Request: "req-3", EndedAt: at(12), Reason: hostapi.EndRevoked, Until: at(99)}},
		Extended: []hostapi.ExtendedGrant{{Request: "req-1", By: "req-2", EndsAt: at(20), Until: at(99)}, {Request: "req-a", By: "req-b", EndsAt: at(20), Until: at(99)},
			{Request: "req-2", By: "req-3", EndsAt: at(30), Until: at(99)},
			{Request: "req-x", By: "req-y", EndsAt: at(20), Until: at(99)}, {Request: "req-y", By: "req-x", EndsAt: at(20), Until: at(99)}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		serial  uint64
		request string
		want    time.Time
		why     hostapi.EndReason
	}{
		{1, "req-0", at(10), hostapi.EndTime},
		{8, "req-0", now, hostapi.EndRevoked},
		{1, "req-done", at(1), hostapi.EndFinished},
		{1, "req-a", at(20), hostapi.EndTime},
		{1, "req-1", at(20), hostapi.EndRevoked}, // what followed has ended before its time, when the second's was not up
		{1, "req-2", at(12), hostapi.EndRevoked}, // and when it was
		{1, "req-x", at(20), hostapi.EndTime},    // two that follow each other cannot be, and do not hang anybody
	} {
		if got, why := list.End(c.serial, c.request, at(10)); !got.Equal(c.want) || why != c.why {
			t.Errorf("%s, serial %d: ends at %s, %s; want %s, %s", c.request, c.serial, got, why, c.want, c.why)
		}
	}
}
