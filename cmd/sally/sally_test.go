package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/api"
	"sallyport/cmd/sally/internal/brokertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sally":   main,
		"browser": browser,
		// What a pipeline has for its jobs.
		"buildkite-agent": buildkiteAgent,
	})
}

// browser opens a page like a browser that follows redirects, and prints what
// it shows at the end into the file that BROWSER_SHOWS names.
func browser() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	page, _ := io.ReadAll(resp.Body)
	if file := os.Getenv("BROWSER_SHOWS"); file != "" {
		os.WriteFile(file, page, 0o600)
	}
}

// TestScripts runs the sessions in testdata/script, each with a broker of its
// own at $SALLYPORT_URL and nobody signed in.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			b := brokertest.New()
			env.Defer(b.Close)
			env.Values["broker"] = b
			home := filepath.Join(env.WorkDir, "home")
			for name, value := range map[string]string{
				"HOME": home, "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "XDG_RUNTIME_DIR": "",
				"SALLYPORT_URL": b.URL, "SALLYPORT_TOKEN": "", "SSH_AUTH_SOCK": "", "TZ": "UTC",
				"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "TERM": "xterm", "SHELL": "/bin/sh",
				// The race detector makes each process wait a second at its end.
				"GORACE": "atexit_sleep_ms=0",
			} {
				env.Setenv(name, value)
			}
			program, err := exec.LookPath("sally")
			if err != nil {
				return err
			}
			action, err := filepath.Abs("../../deploy/github-action/deploy.sh")
			if err != nil {
				return err
			}
			env.Setenv("ACTION", action)
			env.Setenv("SALLYDIR", filepath.Dir(program)) // where there is nothing else
			// Scripts put a false ssh there.
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+":"+env.Getenv("PATH"))
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"broker":   brokerCommand,
			"rollout":  rolloutCommand,
			"agent":    agentCommand,
			"exits":    exitsCommand,
			"help":     helpCommand,
			"mode":     modeCommand,
			"terminal": terminalCommand,
		},
	})
}

// brokerCommand changes what the broker does.
func brokerCommand(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value("broker").(*brokertest.Broker)
	set := func(f func()) { b.Lock(); defer b.Unlock(); f() }
	switch args[0] {
	case "awaited": // broker awaited REQUEST: until a sally waits for a decision
		eventually(ts, "somebody who waits for "+args[1], func() bool { return b.Waiting(args[1]) })
	case "approve": // broker approve REQUEST
		b.Approve(args[1])
	case "state": // broker state REQUEST STATE
		if !b.Change(args[1], func(r *api.Request) { r.State = api.State(args[2]) }) {
			ts.Fatalf("no request %s", args[1])
		}
	case "reason": // broker reason REQUEST FILE
		b.Change(args[1], func(r *api.Request) { r.Reason = ts.ReadFile(args[2]) })
	case "extendable": // broker extendable REQUEST: once, by a second
		b.Change(args[1], func(r *api.Request) { r.Extend = &api.ExtendRule{Times: 1, By: "30m", Automatic: true} })
	case "ends": // broker ends REQUEST: its time is up, and what extends it begins
		b.Change(args[1], func(r *api.Request) {
			now := time.Now().UTC()
			r.State, r.EndReason, r.EndsAt = api.Ended, "time", &now
		})
		b.Change(args[2], func(r *api.Request) { now := time.Now().UTC(); r.StartsAt = &now })
	case "old-sign-ins":
		set(func() { b.OldSignIns = true })
	case "end-sign-ins":
		b.EndSignIns()
	case "down":
		set(func() { b.Down = true })
	case "up":
		set(func() { b.Down = false })
	case "refuse-sign-in":
		set(func() { b.AuthorizeError = args[1] })
	case "access-life":
		life, err := time.ParseDuration(args[1])
		ts.Check(err)
		set(func() { b.AccessLife = life })
	case "device-polls":
		set(func() { b.DevicePolls = args[1:] })
	case "signed": // decisions need the provider's signature
		set(func() { b.Signed = true })
	case "continue-at": // broker continue-at URL
		set(func() { b.ContinueAt = args[1] })
	case "in-browser": // broker in-browser VERDICT: what the person decides there
		set(func() { b.InBrowser = api.Verdict(args[1]) })
	case "other-host":
		set(func() { b.OtherHost = true })
	case "spoil":
		set(func() { b.Spoil = spoils[args[1]] })
	case "counts": // broker counts REFRESHES REUSES REVOKED
		set(func() {
			if got := fmt.Sprint(b.Refreshes, b.Reuses, b.Revoked); got != strings.Join(args[1:], " ") {
				ts.Fatalf("refreshes, reuses, revoked: %s", got)
			}
		})
	default:
		ts.Fatalf("unknown: broker %s", args[0])
	}
}

// spoils are what a hostile broker might try on ssh.
var spoils = map[string]func(*api.Certificate){
	"address": func(c *api.Certificate) { c.Connect.Address = "-oProxyCommand=touch pwned" },
	"newline": func(c *api.Certificate) { c.Connect.Address = "127.0.0.1\nProxyCommand touch pwned" },
	"alias":   func(c *api.Certificate) { c.Connect.HostKeyAlias = "db-1\nProxyCommand touch pwned" },
	"login":   func(c *api.Certificate) { c.Connect.Login = "root" },
	"port":    func(c *api.Certificate) { c.Connect.Port = 0 },
	"known-hosts": func(c *api.Certificate) {
		c.KnownHosts = []string{"* ssh-ed25519 AAAA", "@cert-authority * ssh-ed25519 AAAA"}
	},
	"any-host": func(c *api.Certificate) {
		c.KnownHosts[0] = "@cert-authority * " + strings.SplitN(c.KnownHosts[0], " ", 3)[2]
	},
	"principal": func(c *api.Certificate) { c.Connect.HostKeyAlias = "host-db1" },
	"other-key": func(c *api.Certificate) {
		c.Certificate = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	},
}

// agentCommand: `agent` starts an ssh-agent for the script, `agent forget`
// takes all keys out of it.
func agentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 1 && args[0] == "forget" {
		ts.Check(ts.Exec("ssh-add", "-D"))
		return
	}
	// Sockets have short names: the script's folder may be too deep for one.
	dir, err := os.MkdirTemp("", "agent")
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	eventually(ts, "the agent", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	ts.Setenv("SSH_AUTH_SOCK", socket)
}

// exitsCommand runs a command that must exit with a code: exits CODE COMMAND….
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s exited with %d", strings.Join(args[1:], " "), got)
	}
}

// helpCommand checks that sally's commands explain themselves.
func helpCommand(ts *testscript.TestScript, neg bool, args []string) {
	for _, command := range args {
		ts.Check(ts.Exec("sally", append(strings.Fields(command), "--help")...))
		text := ts.ReadFile("stdout")
		for _, part := range []string{"Usage:\n  sally " + command, "Examples:\n  "} {
			if !strings.Contains(text, part) {
				ts.Fatalf("sally %s --help has no %q", command, part)
			}
		}
	}
}

// modeCommand checks permissions: mode 600 FILE…
func modeCommand(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := fmt.Sprintf("%o", info.Mode().Perm()); (got == args[0]) == neg {
			ts.Fatalf("%s has mode %s", file, got)
		}
	}
}

// terminalCommand runs a command on a terminal and types a file into it:
// [!] terminal FILE COMMAND…; what it shows is the standard output.
func terminalCommand(ts *testscript.TestScript, neg bool, args []string) {
	var quoted []string
	for _, a := range args[1:] {
		quoted = append(quoted, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	err := ts.Exec("sh", "-c", `script -qec "$1" /dev/null < "$2"`, "sh", strings.Join(quoted, " "), ts.MkAbs(args[0]))
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", strings.Join(args[1:], " "), err)
	}
}

func eventually(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not come", what)
		}
	}
}

// Sally is for every laptop: nothing of the broker's database and web is in it. The
// rules by which an auditor verifies are the broker's own, which are pure.
func TestLinksNothingOfTheBroker(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		for _, no := range []string{"jackc/", "go-chi/", "danielgtaylor/", "riverqueue/", "sallyport/server", "sallyport/web", "sallyport/migrations", "sallyport/approvals/identity", "sallyport/approvals/notify"} {
			if strings.Contains(name, no) || slices.Contains([]string{"sallyport/broker", "sallyport/approvals", "sallyport/audit", "sallyport/evidence"}, name) {
				t.Errorf("links %s", name)
			}
		}
	}
}
