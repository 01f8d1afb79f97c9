package main

import (
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/internal/certtest"
)

func TestEnroll(t *testing.T) {
	t.Parallel()
	for name, top := range map[string]string{
		"where the configuration has drop-ins": include,
		"where it has none":                    "# old",
		"where others come first":              "Include /etc/ssh/more.conf",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := join(t, top)
			before := j.files()
			out := j.enroll("--token", j.token)
			for _, said := range []string{"enrolled     as db-1", "rehearsed ", "opened ", "closed "} {
				if !strings.Contains(out, said) {
					t.Errorf("it does not say %q:\n%s", said, out)
				}
			}
			j.opens(j.issue(nil), "dba")
			j.opens(j.issue(func(u *certs.User) { u.Login = "root" }), "root")
			j.notByKey("root")
			j.notByKey("dba") // the Match block does not bring it back
			j.refuses(j.issue(func(u *certs.User) { u.HostID = "host-000000000000" }), "dba", "not-here")

			// Again, and nothing changes.
			after := j.files()
			again := j.enroll()
			if now := j.files(); !maps.Equal(after, now) {
				t.Errorf("enrolling again changed files:\n%s", again)
			}
			j.opens(j.issue(nil), "dba")
			j.notByKey("root")

			if out, code := j.run("unenroll"); code != exitDone {
				t.Fatalf("unenroll ended with %d\n%s", code, out)
			}
			if now := j.files(); !maps.Equal(before, now) {
				t.Errorf("unenrolling left %v, before it was %v", now, before)
			}
			wait(t, "the administrator's key opens again", func() bool { return j.asAdmin("root") == nil && j.asAdmin("dba") == nil })
			if err := j.enter(j.issue(nil), "dba"); err == nil {
				t.Error("a certificate still opens the host")
			}
		})
	}
}

func wait(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestEnrollInTwoStages(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	out := j.enroll("--token", j.token, "--keep-other-access")
	if !strings.Contains(out, "open still") {
		t.Errorf("it says\n%s", out)
	}
	j.opens(j.issue(nil), "dba")
	j.byKey("root")
	j.byKey("dba")
	// Who is asked and does not say yes keeps them.
	if out, code := j.run("enroll"); code != exitFailed || !strings.Contains(out, "stay open") {
		t.Errorf("without an answer it ended with %d\n%s", code, out)
	}
	j.byKey("root")
	j.enroll()
	j.opens(j.issue(nil), "dba")
	j.notByKey("root")
	// And back, while somebody can still say so.
	j.enroll("--keep-other-access")
	j.byKey("root")
	j.opens(j.issue(nil), "dba")
}

func TestEnrollWaitsForAnOperator(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	before := j.files()
	for range 2 {
		out, code := j.run("enroll", "--non-interactive", "--url", j.url, "--login", "dba")
		if code != exitWaiting || !strings.Contains(out, "SHA256:") {
			t.Fatalf("it ended with %d\n%s", code, out)
		}
	}
	j.mu.Lock()
	asked := j.asked
	j.mu.Unlock()
	if len(asked) != 1 {
		t.Fatalf("it asked to be let in %d times", len(asked))
	}
	if in := asked[0]; in.Name != "db-1" || in.Facts.OpenSSH == "" || in.Facts.Kernel == "" || in.Logins[0] != "dba" {
		t.Errorf("it said %+v", in)
	}
	if !maps.Equal(before, j.files()) {
		t.Error("it changed files while it waited")
	}
	j.mu.Lock()
	j.let = true
	j.mu.Unlock()
	j.enroll()
	j.opens(j.issue(nil), "dba")
}

func TestEnrollThatIsRefusedChangesNothing(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	before := j.files()
	for what, c := range map[string]struct {
		args []string
		lie  func(*hostapi.Enrolment)
		code int
		says string
	}{
		"a wrong token":            {[]string{"--url", j.url, "--token", "other"}, nil, exitDenied, "join-token"},
		"no URL":                   {nil, nil, exitUsage, "--url"},
		"a URL without TLS":        {[]string{"--url", "http://sallyport.example.com"}, nil, exitFailed, "https://"},
		"a broker that is gone":    {[]string{"--url", "http://127.0.0.1:1", "--token", "x"}, nil, exitFailed, "refused"},
		"another log's key":        {[]string{"--url", j.url, "--token", j.token, "--log-key", "other"}, nil, exitFailed, "somebody may stand between"},
		"no login that is here":    {[]string{"--url", j.url, "--token", j.token}, func(e *hostapi.Enrolment) { e.Logins = []string{"postgres"} }, exitFailed, "none of the logins"},
		"a broker without a CA":    {[]string{"--url", j.url, "--token", j.token}, func(e *hostapi.Enrolment) { e.UserCAs = nil }, exitFailed, "no CA"},
		"a list by another log":    {[]string{"--url", j.url, "--token", j.token}, func(e *hostapi.Enrolment) { e.LogKey = certtest.NewLog(t, "sallyport.example.com/log").Key }, exitFailed, "note"},
		"a flag that is not":       {[]string{"--force"}, nil, exitUsage, "--help"},
		"a certificate for others": {[]string{"--url", j.url, "--token", j.token}, func(e *hostapi.Enrolment) { e.HostCertificate = "nonsense" }, exitFailed, ""},
	} {
		t.Run(what, func(t *testing.T) {
			j.mu.Lock()
			j.lie = c.lie
			j.mu.Unlock()
			out, code := j.run(append([]string{"enroll", "--non-interactive"}, c.args...)...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("it ended with %d, want %d:\n%s", code, c.code, out)
			}
			if !maps.Equal(before, j.files()) {
				t.Error("it changed files")
			}
			j.byKey("root")
			// What it had written down of a broker that lied is no reason to refuse the true one.
			_ = os.RemoveAll(j.Path("/etc/ssh/sallyport"))
			_ = os.RemoveAll(j.Path("/var/lib/sally-host"))
		})
	}
}

// Each of these passes sshd -t, and would have locked everybody out.
func TestEnrollFindsWhatSSHDDoesNotTell(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		spoil func(*testing.T, *joining)
		says  string
	}{
		"a folder above the helper that others write": {func(t *testing.T, j *joining) {
			must(t, os.MkdirAll(j.Path("/usr/lib/sallyport"), 0o755))
			must(t, os.Chmod(j.Path("/usr/lib/sallyport"), 0o777))
		}, "rehearsing"},
		"AllowUsers without the login": {func(t *testing.T, j *joining) {
			j.prepend(t, "/etc/ssh/sshd_config.d/50-cloud.conf", "AllowUsers root\n")
		}, "does not open dba"},
		"a drop-in that comes first": {func(t *testing.T, j *joining) {
			j.prepend(t, "/etc/ssh/sshd_config.d/00-a.conf", "PasswordAuthentication yes\nMatch all\n\tPasswordAuthentication yes\n")
		}, "PasswordAuthentication is \"yes\" in effect"},
		"PAM that keeps everybody out":    {func(t *testing.T, j *joining) { j.prepend(t, "/etc/pam.d/sshd", "session required pam_deny.so\n") }, "does not open dba"},
		"PAM that keeps accounts out":     {func(t *testing.T, j *joining) { j.prepend(t, "/etc/pam.d/sshd", "account required pam_deny.so\n") }, "does not open dba"},
		"a configuration that is no good": {func(t *testing.T, j *joining) { j.prepend(t, "/etc/ssh/sshd_config.d/50-cloud.conf", "Nonsense yes\n") }, "nothing was changed"},
		"a Match block that sshd cannot read beside ours": {func(t *testing.T, j *joining) {
			j.prepend(t, "/etc/ssh/sshd_config.d/50-cloud.conf", "Match User dba\n\tAuthenticationMethods any\n")
		}, `"any" must appear alone`},
		"an sshd that nobody can tell to reload": {func(t *testing.T, j *joining) { must(t, os.Remove(j.Path("/run/sshd.pid"))) }, "cannot be told"},
		"a pid file of somebody else's": {func(t *testing.T, j *joining) {
			must(t, j.Command(t.Context(), "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $! >/run/sshd.pid").Run())
		}, "is not sshd"},
		"SELinux, which confines sshd and no rehearsal": {func(t *testing.T, j *joining) {
			must(t, os.MkdirAll(j.Path("/sys/fs/selinux"), 0o755))
			must(t, os.WriteFile(j.Path("/sys/fs/selinux/enforce"), []byte("1"), 0o644))
		}, "--keep-other-access"},
		"a broken helper": {func(t *testing.T, j *joining) {
			must(t, os.MkdirAll(j.Path("/usr/lib/sallyport"), 0o700)) // sshd's account cannot even see it
			must(t, os.Chmod(j.Path("/usr/lib/sallyport"), 0o700))
		}, "rehearsing"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			j := join(t, include)
			c.spoil(t, j)
			before := j.files()
			out, code := j.run("enroll", "--non-interactive", "--url", j.url, "--token", j.token)
			if code != exitFailed || !strings.Contains(out, c.says) {
				t.Errorf("it ended with %d:\n%s", code, out)
			}
			if now := j.files(); !maps.Equal(before, now) {
				t.Errorf("files are changed: %v", now)
			}
			if !strings.Contains(what, "PAM") && !strings.Contains(what, "AllowUsers") {
				wait(t, "the administrator gets in", func() bool { return j.asAdmin("dba") == nil }) // sshd comes back
			}
			if _, err := os.Stat(j.Path(place.Rehearsal.Root)); !os.IsNotExist(err) {
				t.Error("the rehearsal left something behind")
			}
		})
	}
}

func (j *joining) prepend(t *testing.T, name, text string) {
	t.Helper()
	old, err := os.ReadFile(j.Path(name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	must(t, os.WriteFile(j.Path(name), append([]byte(text), old...), 0o644))
}

// A broker that is exchanged, or somebody in its place, cannot exchange the log's key.
func TestTheLogsKeyIsPinned(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	j.enroll("--token", j.token)
	other := certtest.NewLog(t, "sallyport.example.com/log")
	j.mu.Lock()
	mine := j.log
	j.log = other
	j.mu.Unlock()
	out, code := j.run("enroll", "--non-interactive")
	if code != exitFailed || !strings.Contains(out, "another key") {
		t.Errorf("it ended with %d\n%s", code, out)
	}
	j.mu.Lock()
	j.log = mine
	j.mu.Unlock()
	j.opens(j.issue(nil), "dba")
}

func TestPrintConfigChangesNothing(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	before := j.files()
	out, code := j.run("enroll", "--print-config")
	for _, part := range []string{"AuthorizedPrincipalsCommand " + place.Program + " principals %u %k", "AuthorizedKeysFile none", "pam_exec.so", "ExecStart="} {
		if code != exitDone || !strings.Contains(out, part) {
			t.Errorf("%d: it does not print %q\n%s", code, part, out)
		}
	}
	if kept, _ := j.run("enroll", "--print-config", "--keep-other-access"); strings.Contains(kept, "AuthorizedKeysFile none") {
		t.Errorf("the first stage closes\n%s", kept)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.asked) > 0 || !maps.Equal(before, j.files()) {
		t.Error("something was changed")
	}
	if _, err := os.Stat(j.Path("/var/lib/sally-host")); !os.IsNotExist(err) {
		t.Error("something was written")
	}
}

// Whoever enrols the host over ssh may lose the connection, and the host its power: at
// any moment somebody gets in, and the next run ends what was begun.
func TestEnrollKilledLocksNobodyOut(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	rounds := 0
	for delay := 50 * time.Millisecond; ; delay += delay / 4 {
		out, err := j.Command(t.Context(), "timeout", "--signal=KILL", strconv.FormatFloat(delay.Seconds(), 'f', 3, 64), "/usr/local/bin/sally-host",
			"enroll", "--non-interactive", "--url", j.url, "--token", j.token).CombinedOutput()
		wait(t, "somebody gets in", func() bool {
			if j.asAdmin("root") == nil {
				return true
			}
			_, enrolled := os.Stat(j.Path("/etc/ssh/sallyport/host.json"))
			return enrolled == nil && j.enter(j.issue(nil), "dba") == nil
		})
		if err == nil {
			break
		}
		if rounds++; rounds > 40 {
			t.Fatalf("it never ends\n%s", out)
		}
	}
	if rounds < 3 {
		t.Errorf("it was killed %d times only", rounds)
	}
	j.enroll()
	j.opens(j.issue(nil), "dba")
	j.notByKey("root")
	if text := read(t, j.Path("/etc/pam.d/sshd")); strings.Count(text, "sally-host session") != 1 {
		t.Errorf("PAM's file is\n%s", text)
	}
}

// Of several certificates of one key sshd shows the last one, and HostCertificate cannot
// be overridden: a host that had one shows the new one, and has the old one back.
func TestEnrollTakesThePlaceOfAnOlderHostCertificate(t *testing.T) {
	t.Parallel()
	j := join(t, include)
	must(t, os.WriteFile(j.Path("/etc/ssh/sshd_config.d/20-old.conf"), []byte("HostCertificate /etc/ssh/host_key-cert.pub\n"), 0o600))
	before := read(t, j.Path("/etc/ssh/sshd_config.d/20-old.conf"))
	j.enroll("--token", j.token)
	j.opens(j.issue(nil), "dba")
	if out, code := j.run("unenroll"); code != exitDone {
		t.Fatalf("unenroll ended with %d\n%s", code, out)
	}
	if now := read(t, j.Path("/etc/ssh/sshd_config.d/20-old.conf")); now != before {
		t.Errorf("afterwards it is %q", now)
	}
}
