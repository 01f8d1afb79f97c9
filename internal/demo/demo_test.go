package demo

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/approvals/policy"
	"sallyport/internal/dex"
)

func TestThePolicyIsTheOneThatTheTextTellsOf(t *testing.T) {
	t.Parallel()
	pipeline, err := newJobs("http://localhost:8080")
	if err != nil {
		t.Fatal(err)
	}
	text, err := pipeline.policyOf(policyText)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Deployment("shop"); d == nil || d.Login != "deploy" {
		t.Errorf("the shop's deployment is %+v", d)
	}
	database := map[string]string{"class": "database", "env": "demo"}
	web := map[string]string{"class": "web", "env": "demo"}
	for _, c := range []struct {
		labels map[string]string
		login  string
		rule   string
	}{
		{database, "dba", "databases"}, {database, "root", "root"}, {web, "root", "root"}, {web, "web", "web"},
		{database, "web", ""}, {web, "dba", ""},
	} {
		rule, err := p.Match([]string{"engineers"}, c.labels, c.login)
		switch {
		case c.rule == "" && err == nil:
			t.Errorf("%s on %v is allowed by %s", c.login, c.labels, rule.Name)
		case c.rule != "" && (err != nil || rule.Name != c.rule):
			t.Errorf("%s on %v: %v, %v; want rule %s", c.login, c.labels, rule, err, c.rule)
		}
	}
	for _, group := range []string{"approvers", "security", "auditors", "operators"} {
		if _, err := p.Match([]string{group}, database, "dba"); err == nil {
			t.Errorf("%s may ask, too", group)
		}
	}
}

// The demo as a person starts it, ended once as a person ends it, and once so
// that no code of ours runs.
func TestTheDemoComesUpAndLeavesNothing(t *testing.T) {
	t.Parallel()
	programs := t.TempDir()
	program := filepath.Join(programs, "sallyportd")
	if out, err := exec.Command("go", "build", "-o", programs+"/", "sallyport/cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	provider, err := dex.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name   string
		signal syscall.Signal
	}{{"Ctrl-C", syscall.SIGINT}, {"kill -9", syscall.SIGKILL}} {
		t.Run(end.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			cmd := exec.Command(program, "demo")
			cmd.Dir = folder
			cmd.Env = append(os.Environ(), dex.BinaryVariable+"="+provider)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { cmd.Process.Kill() })

			env := awaitEnv(t, filepath.Join(folder, ".demo", "env"), ended, &out)
			resp, err := http.Get(env["SALLYPORT_URL"] + "/readyz")
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("the broker: %v, %v", resp, err)
			} else {
				resp.Body.Close()
			}
			addrs := []string{env["HOST_WEB_1_ADDR"], env["HOST_DB_1_ADDR"]}
			for _, addr := range addrs {
				if got := banner(addr); !strings.HasPrefix(got, "SSH-2.0-OpenSSH") {
					t.Errorf("the host at %q says %q", addr, got)
				}
			}
			for _, name := range []string{"SALLYPORT_URL", "SALLYPORT_DATABASE_URL", "SALLYPORT_OIDC_ISSUER"} {
				u, err := url.Parse(env[name])
				if err != nil || u.Port() == "" {
					t.Fatalf("%s is %q", name, env[name])
				}
				addrs = append(addrs, u.Host)
			}

			cmd.Process.Signal(end.signal)
			select {
			case err := <-ended:
				if end.signal == syscall.SIGINT && err != nil {
					t.Errorf("it ended with %v\n%s", err, out.String())
				}
			case <-time.After(60 * time.Second):
				t.Fatal("it does not end")
			}
			deadline := time.Now().Add(20 * time.Second)
			for _, addr := range addrs {
				for open(addr) {
					if time.Now().After(deadline) {
						t.Fatalf("something still answers at %s", addr)
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
			if end.signal == syscall.SIGINT {
				for _, gone := range []string{"env", "keys", "postgres"} {
					if _, err := os.Stat(filepath.Join(folder, ".demo", gone)); err == nil {
						t.Errorf("%s is still there", gone)
					}
				}
			}
		})
	}
}

// awaitEnv waits for the file that says that the demo is up, and reads it.
func awaitEnv(t *testing.T, file string, ended <-chan error, out *strings.Builder) map[string]string {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		text, err := os.ReadFile(file)
		if err == nil {
			env := map[string]string{}
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				env[name] = value
			}
			return env
		}
		select {
		case err := <-ended:
			t.Fatalf("the demo ended: %v\n%s", err, out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the demo does not come up")
		}
	}
}

func banner(addr string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}

func open(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}
