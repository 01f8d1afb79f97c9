package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
)

func TestALoggedCertificateOpensItsLogin(t *testing.T) {
	t.Parallel()
	g := guard(t)
	cert := g.issue(nil)
	g.opens(cert, "dba")
	if log := g.Log(); !strings.Contains(log, `sally-host[`) || !strings.Contains(log, `certificate 42 of "Erin Engineer"`) {
		t.Errorf("the journal does not say who came in:\n%s", log)
	}
	g.opens(g.issue(func(u *certs.User) { u.Login = "root" }), "root")
}

const receiptOfTests = "tlog-proof@sallyport.example.com"

// Each of these is signed with the true CA's key, stolen.
func TestCertificatesWithTheStolenCAKeyOpenNothing(t *testing.T) {
	t.Parallel()
	g := guard(t)
	stolen := func(change func(*ssh.Certificate)) *ssh.Certificate {
		return certtest.Resign(t, g.issue(nil), g.ca, change)
	}
	for _, c := range []struct {
		what, why string
		cert      *ssh.Certificate
	}{
		{"not logged", "(no-receipt)", stolen(func(c *ssh.Certificate) { delete(c.Extensions, receiptOfTests) })},
		{"receipt of another certificate", "(not-included)", stolen(func(c *ssh.Certificate) {
			c.Extensions[receiptOfTests] = g.issue(nil).Extensions[receiptOfTests]
		})},
		{"receipt cut", "(bad-receipt)", stolen(func(c *ssh.Certificate) {
			c.Extensions[receiptOfTests] = c.Extensions[receiptOfTests][:300]
		})},
		{"logged by another log of the name", "(bad-checkpoint)", certtest.NewLog(t, "sallyport.example.com/log").Certify(g.terms(), g.ca)},
		{"logged by a log of another name", "(other-log)", certtest.NewLog(t, "sallyport.example.net/log").Certify(g.terms(), g.ca)},
		{"another principal", "(not-included)", stolen(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root@" + g.id} })},
		{"two principals", "(not-included)", stolen(func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root@"+g.id) })},
		{"valid for longer", "(not-included)", stolen(func(c *ssh.Certificate) { c.ValidBefore += 3600 })},
		{"a key id of 10,000 bytes", "(not-included)", stolen(func(c *ssh.Certificate) { c.KeyId = strings.Repeat("A\x1b[2J\n", 1667) })},
		{"a key id of 10,000 bytes without a receipt", "(no-receipt)", stolen(func(c *ssh.Certificate) {
			delete(c.Extensions, receiptOfTests)
			c.KeyId = strings.Repeat("K", 10_000)
		})},
		{"60,000 bytes", "(too-large)", stolen(func(c *ssh.Certificate) { c.KeyId = strings.Repeat("K", 60_000) })},
	} {
		for _, login := range []string{"dba", "root"} {
			t.Run(c.what+" as "+login, func(t *testing.T) { // one after another: each looks at the journal
				g := *g
				g.t = t
				g.refuses(c.cert, login, c.why)
			})
		}
	}
	for line := range strings.Lines(g.Log()) {
		if strings.HasPrefix(line, "journal: ") && (len(line) > 1200 || strings.Contains(line, "\x1b")) {
			t.Errorf("a line of the journal has %d bytes: %.200q", len(line), line)
		}
	}
}

// Each of these is in the log, and good for something else.
func TestLoggedCertificatesOpenNothingElse(t *testing.T) {
	t.Parallel()
	g := guard(t)
	for _, c := range []struct {
		what, login, why string
		cert             *ssh.Certificate
	}{
		{"another host", "dba", "not-here", g.issue(func(u *certs.User) { u.HostID = ids.New(ids.Host) })},
		{"another login", "root", "not-here", g.issue(nil)},
		{"by a CA that is not trusted", "dba", "", g.log.Certify(g.terms(), newSigner(t))}, // sshd does not even ask
		{"ended", "dba", "not-here", g.issue(func(u *certs.User) { u.Now = u.Now.Add(-10 * time.Minute) })},
		{"not begun", "dba", "not-here", g.issue(func(u *certs.User) { u.Now, u.GrantEnds = u.Now.Add(10*time.Minute), u.GrantEnds.Add(time.Hour) })},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := *g
			g.t = t
			g.refuses(c.cert, c.login, c.why)
		})
	}
	host := g.log.CertifyHost(certs.Host{Serial: 9, Key: g.key.PublicKey(), HostID: g.id, Names: []string{"dba"}, Now: time.Now(), Lifetime: time.Hour}, g.ca, rand.Reader)
	g.refuses(host, "dba", "")
}

func TestRevokedCertificatesOpenNothing(t *testing.T) {
	t.Parallel()
	g := guard(t)
	cert, other := g.issue(nil), g.issue(func(u *certs.User) { u.Serial = 43 })
	g.opens(cert, "dba")
	request, _, _ := strings.Cut(other.KeyId, ":")
	until := time.Now().Add(time.Hour)
	g.list = hostapi.Revocations{Number: 1, Serials: []hostapi.RevokedSerial{{Serial: 42, Request: request, Until: until}}}
	g.hear(time.Now())
	g.refuses(cert, "dba", "certificate 42 was revoked")
	g.opens(other, "dba")
	g.list = hostapi.Revocations{Number: 2, Grants: []hostapi.EndedGrant{{Request: request, EndedAt: time.Now(), Reason: hostapi.EndFinished, Until: until}}}
	g.hear(time.Now())
	g.refuses(other, "dba", "finished")
}

// Whoever has the network can replay what the broker said; whoever has root has the host.
func TestReplayedRevocationsAreRefused(t *testing.T) {
	t.Parallel()
	g := guard(t)
	begin := time.Now()
	empty := g.note(begin)
	g.list = hostapi.Revocations{Number: 1, Serials: []hostapi.RevokedSerial{{Serial: 42, Until: begin.Add(time.Hour)}}}
	full := g.note(begin.Add(2 * time.Second))
	_, err := g.place.KeepRevocations([]string{full}, g.log.Key)
	must(t, err)
	cert := g.issue(nil)
	g.refuses(cert, "dba", "certificate 42 was revoked")
	for what, list := range map[string][]string{"an older list": {empty}, "older news after it": {full, empty}, "the same with an older time": {g.note(begin)}} {
		if _, err := g.place.KeepRevocations(list, g.log.Key); !errors.Is(err, hostapi.ErrRolledBack) {
			t.Errorf("%s was kept", what)
		}
		g.refuses(cert, "dba", "certificate 42 was revoked")
	}
	// A list that does not add up opens nothing at all.
	for what, text := range map[string]string{
		"older news after it": notes(t, full, empty), "by another log": notes(t, func() string {
			other := *g
			other.log = certtest.NewLog(t, "sallyport.example.com/log")
			return other.note(begin)
		}()), "cut": notes(t, full)[:200], "not signed": notes(t, strings.SplitAfter(full, "\n\n")[0]), "garbage": "\x00\x01", "empty": "",
	} {
		g.put(g.place.Revocations(), text)
		before := len(g.Log())
		if err := g.enter(g.issue(func(u *certs.User) { u.Serial = 44 }), "dba"); err == nil {
			t.Errorf("with a list that is %s the host opened", what)
		}
		g.says(before, "(no-answer)")
	}
}

func TestBrokerUnreachableForADay(t *testing.T) {
	t.Parallel()
	g := guard(t)
	before := g.issue(func(u *certs.User) { u.Now, u.Lifetime = u.Now.Add(-5*time.Minute), 10*time.Minute })
	g.put(g.place.Settings(), strings.Replace(read(t, g.place.Settings()), `"max_silence_seconds": 86400`, `"max_silence_seconds": 60`, 1))
	g.hear(time.Now().Add(-2 * time.Minute))
	g.refuses(g.issue(nil), "dba", "last heard from the broker")
	g.opens(before, "dba") // it was issued when the host still heard
	g.hear(time.Now().Add(-50 * time.Second))
	g.opens(g.issue(nil), "dba")
	must(t, os.Remove(g.place.Revocations()))
	g.refuses(before, "dba", "never heard from the broker")
}

func TestClosedHostsOpenToNobody(t *testing.T) {
	t.Parallel()
	g := guard(t)
	must(t, g.place.Close("the broker does not know this host any more"))
	g.refuses(g.issue(nil), "dba", "(closed)")
	must(t, g.place.Reopen())
	g.opens(g.issue(nil), "dba")
}

// What others than root can write counts for nothing, nor what it stands in.
func TestSettingsWrittenByOthersOpenNothing(t *testing.T) {
	t.Parallel()
	g := guard(t)
	const stranger = 61100 // dba
	for what, c := range map[string]struct{ spoil, mend func() error }{
		"settings of dba's":          chown(g.place.Settings(), stranger),
		"settings for the group":     chmod(g.place.Settings(), 0o664, 0o644),
		"settings for all":           chmod(g.place.Settings(), 0o666, 0o644),
		"a folder for all":           chmod(g.place.Folder(), 0o777, 0o755),
		"a folder of dba's":          chown(g.place.Folder(), stranger),
		"revocations for all":        chmod(g.place.Revocations(), 0o666, 0o644),
		"state of dba's":             chown(g.place.State(), stranger),
		"settings that are a link":   link(g.place.Settings()),
		"settings that nobody reads": chmod(g.place.Settings(), 0o600, 0o644),
	} {
		t.Run(what, func(t *testing.T) {
			g := *g
			g.t = t
			must(t, c.spoil())
			g.refuses(g.issue(nil), "dba", "(no-answer)")
			must(t, c.mend())
			g.opens(g.issue(nil), "dba")
		})
	}
	// sshd itself does not start a helper that others can write.
	must(t, os.Chmod(g.Path("/usr/lib/sallyport"), 0o777))
	g.refuses(g.issue(nil), "dba", "bad ownership or modes for directory")
}

type pair = struct{ spoil, mend func() error }

func chown(name string, id int) pair {
	return pair{func() error { return os.Chown(name, id, -1) }, func() error { return os.Chown(name, 0, -1) }}
}

func chmod(name string, spoilt, good os.FileMode) pair {
	return pair{func() error { return os.Chmod(name, spoilt) }, func() error { return os.Chmod(name, good) }}
}

func link(name string) pair {
	return pair{func() error {
		if err := os.Rename(name, name+".there"); err != nil {
			return err
		}
		return os.Symlink(filepath.Base(name)+".there", name)
	}, func() error {
		return os.Rename(name+".there", name)
	}}
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	return string(text)
}

// A helper that hangs answers no, within its own deadline; sshd does not wait for
// LoginGraceTime.
func TestHungHelperDenies(t *testing.T) {
	t.Parallel()
	g := guard(t)
	settings := read(t, g.place.Settings())
	must(t, os.Remove(g.place.Settings()))
	must(t, syscall.Mkfifo(g.place.Settings(), 0o644)) // opening it waits for a writer
	g.refuses(g.issue(nil), "dba", "no answer within 1s")
	must(t, os.Remove(g.place.Settings()))
	g.put(g.place.Settings(), settings)
	g.opens(g.issue(nil), "dba")
}

// A journal that nobody reads, and one that is gone, change no answer. (With such a
// journal PAM hangs, so that it is the helper itself that is asked.)
func TestHungJournalChangesNothing(t *testing.T) {
	t.Parallel()
	g := guard(t)
	ask := func(login string) string {
		cert := base64.StdEncoding.EncodeToString(g.issue(nil).Marshal())
		out, _ := g.Command(t.Context(), place.Program, "principals", login, cert).Output() // it fails if it refuses
		return string(out)
	}
	check := func() {
		t.Helper()
		if got, want := ask("dba"), "restrict,pty dba@"+g.id+"\n"; got != want {
			t.Errorf("it answered %q, want %q", got, want)
		}
		if got := ask("root"); got != "" {
			t.Errorf("it answered %q", got)
		}
	}
	must(t, os.Remove(g.Path("/dev/log")))
	check()
	nobodyReads, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: g.Path("/dev/log"), Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { nobodyReads.Close() })
	writer, err := net.Dial("unixgram", g.Path("/dev/log"))
	must(t, err)
	t.Cleanup(func() { writer.Close() })
	for err == nil { // until it takes no more
		must(t, writer.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = writer.Write([]byte("full"))
	}
	check()
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	g := guard(t)
	kept := read(t, g.place.Revocations())
	full := []string{"/var/lib/sally-host", "/tmp", "/var/tmp", "/dev/shm"}
	for _, dir := range full {
		if out, err := g.Command(t.Context(), "mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "full", dir).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
	}
	must(t, os.WriteFile(g.place.Revocations(), []byte(kept), 0o644))
	for _, dir := range full {
		// Until nothing more fits: that is the end that is wanted.
		_ = os.WriteFile(g.Path(dir+"/ballast"), make([]byte, 1<<20), 0o644)
	}
	g.list = hostapi.Revocations{Number: 1, Serials: []hostapi.RevokedSerial{{Serial: 42, Until: time.Now().Add(time.Hour)}}}
	for i := range uint64(500) {
		g.list.Serials = append(g.list.Serials, hostapi.RevokedSerial{Serial: 1000 + i, Until: time.Now().Add(time.Hour)})
	}
	if _, err := g.place.KeepRevocations([]string{g.note(time.Now())}, g.log.Key); err == nil {
		t.Error("a full disk took a list")
	}
	if now := read(t, g.place.Revocations()); now != kept {
		t.Error("the list that was there is not there any more")
	}
	g.opens(g.issue(nil), "dba") // as of the list that the host has
}

// The host's clock can be wrong; what the broker signed has the right time.
func TestClockWrongByAnHour(t *testing.T) {
	t.Parallel()
	// The host's clock is the machine's, so that it is the rest of the world that moves.
	g := guard(t)
	// The host is an hour behind: it hears from the broker of an hour later. What the
	// broker issues is not valid yet; and what was good an hour before is over, although
	// the host's clock says otherwise.
	g.hear(time.Now().Add(time.Hour))
	g.refuses(g.issue(func(u *certs.User) { u.Now, u.GrantEnds = u.Now.Add(time.Hour), u.GrantEnds.Add(time.Hour) }), "dba", "(not-here)")
	g.refuses(g.issue(nil), "dba", "(ended)")
	// It is an hour ahead: what the broker issues is over.
	g.hear(time.Now().Add(-time.Hour))
	g.refuses(g.issue(func(u *certs.User) { u.Now = u.Now.Add(-time.Hour) }), "dba", "(not-here)")
}

// Static hosts have one file for each login, and no helper. Both are not meant to go
// together: a file's match would come first.
func TestStaticHostsNeedNoHelper(t *testing.T) {
	t.Parallel()
	g := guardWith(t, "")
	must(t, os.RemoveAll(g.Path("/usr/lib/sallyport")))
	g.opens(g.issue(nil), "dba")
	if err := g.enter(g.issue(func(u *certs.User) { u.HostID = ids.New(ids.Host) }), "dba"); err == nil {
		t.Error("another host's certificate opened it")
	}
}
