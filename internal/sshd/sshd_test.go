package sshd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/sshd"
)

// Two hosts and a CA of the test's own, tried with the ssh that people use.
func TestOnlyTheRightCertificateEnters(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	db, dbHosts := startHost(t, ca, "db-1", "127.0.0.3:0")
	web, webHosts := startHost(t, ca, "web-1", "127.0.0.2:0")

	erin := newPerson(t)
	now := time.Now()
	good := ca.sign(t, erin, []string{"dba@db-1"}, now.Add(-time.Minute), now.Add(5*time.Minute))

	out, err := erin.ssh(t, good, db, dbHosts, "dba", `echo "$(id -un)@$(hostname):$PWD"; ls /home`)
	if err != nil {
		t.Fatalf("the right certificate was refused: %v\n%s\n%s", err, out, db.Log())
	}
	if want := "dba@db-1:/home/dba\ndba\n"; out != want {
		t.Errorf("the host says\n%s, want\n%s", out, want)
	}
	if err := db.WaitLog(t.Context(), "Accepted publickey for dba from"); err != nil {
		t.Errorf("%v\n%s", err, db.Log())
	}

	expired := ca.sign(t, erin, []string{"dba@db-1"}, now.Add(-time.Hour), now.Add(-time.Second))
	early := ca.sign(t, erin, []string{"dba@db-1"}, now.Add(time.Hour), now.Add(2*time.Hour))
	bare := ca.sign(t, erin, []string{"dba"}, now.Add(-time.Minute), now.Add(5*time.Minute))
	empty := ca.sign(t, erin, nil, now.Add(-time.Minute), now.Add(5*time.Minute))
	foreign := newAuthority(t).sign(t, erin, []string{"dba@db-1"}, now.Add(-time.Minute), now.Add(5*time.Minute))
	other := newPerson(t)
	for _, refused := range []struct {
		what  string
		from  *person
		cert  string
		host  *sshd.Host
		known string
		login string
		log   string
	}{
		{"on another host", erin, good, web, webHosts, "dba", "Invalid user dba"},
		{"for another login", erin, good, db, dbHosts, "root", "does not contain an authorized principal"},
		{"for another login of another host", erin, good, web, webHosts, "web", "does not contain an authorized principal"},
		{"after its end", erin, expired, db, dbHosts, "dba", "Certificate invalid: expired"},
		{"before its time", erin, early, db, dbHosts, "dba", "Certificate invalid: not yet valid"},
		{"with the login as its principal", erin, bare, db, dbHosts, "dba", "does not contain an authorized principal"},
		{"without a principal", erin, empty, db, dbHosts, "dba", "does not contain an authorized principal"},
		{"of another CA", erin, foreign, db, dbHosts, "dba", "Failed publickey for dba"},
		{"with another key", other, good, db, dbHosts, "dba", ""},
		{"a plain key", erin, "", db, dbHosts, "dba", ""},
	} {
		t.Run(refused.what, func(t *testing.T) {
			t.Parallel()
			out, err := refused.from.ssh(t, refused.cert, refused.host, refused.known, refused.login, "true")
			if err == nil || !strings.Contains(out, "Permission denied") {
				t.Errorf("ssh said %v\n%s", err, out)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := refused.host.WaitLog(ctx, refused.log); err != nil {
				t.Errorf("%v\n%s", err, refused.host.Log())
			}
		})
	}
	t.Run("a planted key", func(t *testing.T) {
		t.Parallel()
		plant := "mkdir -p .ssh && cat >.ssh/authorized_keys && chmod -R go= .ssh"
		if out, err := erin.sshWith(t, erin.public, good, db, dbHosts, "dba", plant); err != nil {
			t.Fatalf("planting: %v\n%s", err, out)
		}
		if out, err := erin.ssh(t, "", db, dbHosts, "dba", "true"); err == nil {
			t.Errorf("the planted key opened the host\n%s", out)
		}
	})
	t.Run("a password", func(t *testing.T) {
		t.Parallel()
		_, err := ssh.Dial("tcp", db.Addr(), &ssh.ClientConfig{User: "dba", HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			Auth: []ssh.AuthMethod{ssh.Password("sallyport"), ssh.KeyboardInteractive(
				func(string, string, []string, []bool) ([]string, error) { return []string{"sallyport"}, nil })}})
		if err == nil || !strings.Contains(err.Error(), "attempted methods [none], no supported methods remain") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a host with another name", func(t *testing.T) {
		t.Parallel()
		out, err := erin.ssh(t, good, db, webHosts, "dba", "true")
		if err == nil || !strings.Contains(out, "Host key verification failed") {
			t.Errorf("ssh took db-1 for web-1: %v\n%s", err, out)
		}
	})
}

// A person sees where they are, and root of a host is not root of the machine.
func TestTheHostIsAPlaceOfItsOwn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	host, known := startHost(t, ca, "db-1", "")
	person := newPerson(t)
	cert := ca.sign(t, person, []string{"root@db-1"}, time.Now().Add(-time.Minute), time.Now().Add(time.Minute))

	client := person.dial(t, cert, host, "root")
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	session.Stdin = strings.NewReader("exit\n")
	var screen bytes.Buffer
	session.Stdout = &screen
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := session.Wait(); err != nil {
		t.Errorf("an interactive shell: %v", err)
	}
	if seen := screen.String(); !strings.Contains(seen, "This is db-1") || !strings.Contains(seen, "root@db-1:~# ") {
		t.Errorf("who comes in sees\n%s", seen)
	}

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the machine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, try := range []string{
		"cat " + secret,
		"mount -t tmpfs none /mnt",
		"cat /proc/1/root" + secret,
		"hostname other",
		"kill -9 " + fmt.Sprint(os.Getpid()),
		"mknod /tmp/disk b 254 0",
	} {
		if out, err := person.ssh(t, cert, host, known, "root", try); err == nil {
			t.Errorf("root of the host could: %s\n%s", try, out)
		}
	}
	if _, err := person.ssh(t, cert, host, known, "root", "echo x >/usr/bin/written-by-a-host"); err != nil {
		t.Errorf("root of the host cannot write there: %v", err)
	}
	if _, err := os.Stat("/usr/bin/written-by-a-host"); err == nil {
		t.Error("what the host wrote is on the machine")
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("left-%d", os.Getpid())
	ca := newAuthority(t)
	host, known := startHost(t, ca, name, "")
	person := newPerson(t)
	cert := ca.sign(t, person, []string{"dba@" + name}, time.Now().Add(-time.Minute), time.Now().Add(time.Minute))
	// A process that outlives its session, as far as the host's end goes.
	sleeper := fmt.Sprintf("86399.%d", os.Getpid())
	if out, err := person.ssh(t, cert, host, known, "dba", "setsid sleep "+sleeper+" >/dev/null 2>&1 </dev/null & sleep 0.1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !runs(t, sleeper) {
		t.Fatal("the process did not start")
	}
	host.Stop()
	if runs(t, sleeper) {
		t.Error("a process of the host is still there")
	}
	if answers(host.Addr()) {
		t.Error("the host's port is still open")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "/tmp/root") {
		t.Errorf("a mount of the host is still there:\n%s", mounts)
	}
}

func TestTheHostDiesWithItsMaker(t *testing.T) {
	t.Parallel()
	maker := exec.Command(os.Args[0])
	maker.Env = append(os.Environ(), makerVariable+"=1")
	maker.Stderr = os.Stderr
	out, err := maker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(line)
	if !answers(addr) {
		t.Fatalf("the host at %q does not answer", addr)
	}
	maker.Process.Kill() // kill -9: no handler of ours runs
	maker.Wait()
	for deadline := time.Now().Add(10 * time.Second); answers(addr); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the host outlived the killed process that made it")
		}
	}
}

// makerVariable makes this program start a host, say where, and wait to be killed.
const makerVariable = "SALLYPORT_SSHD_TEST_MAKER"

func TestMain(m *testing.M) {
	if os.Getenv(makerVariable) == "" {
		os.Exit(m.Run())
	}
	host, err := makeHost(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(host.Addr())
	<-host.Done()
}

func makeHost(ctx context.Context) (*sshd.Host, error) {
	ca, err := makeAuthority()
	if err != nil {
		return nil, err
	}
	key, err := sshd.NewHostKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.certifyHost(key, "orphan")
	if err != nil {
		return nil, err
	}
	return sshd.Start(ctx, sshd.Config{Name: "orphan", HostKey: key, HostCertificate: cert, UserCA: ca.public, Logins: []string{"root"}})
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	key, err := sshd.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	good := sshd.Config{Name: "db-1", HostKey: key, HostCertificate: ca.signHost(t, key, "db-1"), UserCA: ca.public, Logins: []string{"dba"}}
	for what, change := range map[string]func(*sshd.Config){
		"a name with a space":    func(c *sshd.Config) { c.Name = "db 1" },
		"no key":                 func(c *sshd.Config) { c.HostKey = nil },
		"no certificate":         func(c *sshd.Config) { c.HostCertificate = "" },
		"no CA":                  func(c *sshd.Config) { c.UserCA = "" },
		"no logins":              func(c *sshd.Config) { c.Logins = nil },
		"a login with a slash":   func(c *sshd.Config) { c.Logins = []string{"../dba"} },
		"a login twice":          func(c *sshd.Config) { c.Logins = []string{"dba", "dba"} },
		"principals for nobody":  func(c *sshd.Config) { c.Principals = map[string][]string{"web": {"web@db-1"}} },
		"no address":             func(c *sshd.Config) { c.Listen = "nonsense" },
		"an address that is not": func(c *sshd.Config) { c.Listen = "192.0.2.1:0" },
	} {
		cfg := good
		change(&cfg)
		if h, err := sshd.Start(t.Context(), cfg); err == nil {
			h.Stop()
			t.Errorf("%s was accepted", what)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	cfg := good
	cfg.Listen = taken.Addr().String()
	if _, err := sshd.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("on a taken port: %v", err)
	}
}
