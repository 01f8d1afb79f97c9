package posture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// host is a root folder with these files.
func host(t *testing.T, files map[string]string) *Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Host{Place: place.Place{Root: root, Owner: uint32(os.Geteuid())}, Now: time.Now, Run: func(context.Context, string, ...string) ([]byte, error) {
		return nil, errors.New("there is no such program")
	}}
}

const someone = "root:x:0:0::/root:/bin/bash\ndba:x:1000:1000::/home/dba:/bin/bash\nwww:x:33:33::/var/www:/usr/sbin/nologin\n"

func TestPasswords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ passwd, shadow, want string }{
		"locked":         {someone, "root:*:1::::::\ndba:!:1::::::\nwww:!*:1::::::\n", ""},
		"a password":     {someone, "root:*:\ndba:$y$x:1:\n", "dba has a password"},
		"none needed":    {someone, "root::1:\n", "root needs no password"},
		"in /etc/passwd": {strings.Replace(someone, "dba:x:", "dba:abJnggxhB/yWI:", 1), "root:*:\n", "dba has a password, or none to be asked for, in /etc/passwd"},
		"empty there":    {strings.Replace(someone, "dba:x:", "dba::", 1), "root:*:\n", "dba has a password, or none to be asked for, in /etc/passwd"},
	} {
		h := host(t, map[string]string{"etc/passwd": c.passwd, "etc/shadow": c.shadow})
		got, err := h.lookAtPasswords(t.Context())
		if err != nil || strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, h := range map[string]*Host{
		"no shadow":   host(t, map[string]string{"etc/passwd": someone}),
		"not a line":  host(t, map[string]string{"etc/passwd": someone, "etc/shadow": "root\n"}),
		"not a user":  host(t, map[string]string{"etc/passwd": "root:x:0\n", "etc/shadow": "root:*:\n"}),
		"a directory": host(t, map[string]string{"etc/passwd": someone, "etc/shadow": "root:*:\n", "etc/nsswitch.conf": "group: files\npasswd: files [NOTFOUND=continue] sss\n"}),
	} {
		if got, err := h.lookAtPasswords(t.Context()); err == nil {
			t.Errorf("%s: %q, and it can tell", name, got)
		}
	}
}

func TestSudo(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"etc/passwd": someone, "etc/sudoers": "dba ALL=(ALL) ALL\n"})
	h.Run = func(_ context.Context, _ string, args ...string) ([]byte, error) {
		if args[len(args)-1] == "dba" {
			return []byte("User dba may run the following commands on here:\n    (ALL) ALL\n"), nil
		}
		return []byte("User www is not allowed to run sudo on here.\n"), errors.New("exit status 1")
	}
	if got, err := h.lookAtSudo(t.Context()); err != nil || strings.Join(got, "; ") != "dba may use sudo" {
		t.Errorf("%q, %v", got, err)
	}
	h.Settings.Logins = []string{"dba"}
	if got, err := h.lookAtSudo(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("of a login: %q, %v", got, err)
	}
	h.Run = func(context.Context, string, ...string) ([]byte, error) { return []byte("Sorry\n"), nil }
	if got, err := h.lookAtSudo(t.Context()); err == nil {
		t.Errorf("%q, and it can tell", got)
	}
	if got, err := host(t, map[string]string{"etc/passwd": someone}).lookAtSudo(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("without sudo: %q, %v", got, err)
	}
}

func TestListeners(t *testing.T) {
	t.Parallel()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := func(local, state, inode string) string {
		return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 " + inode + " 1 0\n"
	}
	h := host(t, map[string]string{
		"proc/net/tcp": head + line("00000000:0016", "0A", "1") + line("0100007F:1538", "0A", "2") + line("00000000:18EB", "0A", "3") + line("00000000:0050", "01", "4"),
		"proc/net/udp": head + line("00000000:0044", "07", "5"),
	})
	for pid, program := range map[string]string{"10": "/usr/sbin/sshd", "11": "/usr/bin/redis-server"} {
		dir := filepath.Join(h.Place.Root, "proc", pid)
		if err := os.MkdirAll(dir+"/fd", 0o755); err != nil {
			t.Fatal(err)
		}
		inode := map[string]string{"10": "1", "11": "3"}[pid]
		if err := errors.Join(os.Symlink("socket:["+inode+"]", dir+"/fd/3"), os.Symlink(program, dir+"/exe")); err != nil {
			t.Fatal(err)
		}
	}
	all, err := h.listeners()
	if err != nil || fmt.Sprint(all) != "[tcp/22 on 0.0.0.0: /usr/sbin/sshd tcp/6379 on 0.0.0.0: /usr/bin/redis-server udp/68 on 0.0.0.0: an unknown program]" {
		t.Fatalf("%v, %v", all, err)
	}
	allowed := func(listen ...hostapi.Listener) (got []bool) {
		h.Settings.Settings.Listen = listen
		for _, l := range all {
			got = append(got, h.sshd(l, []string{"22"}) || h.allowed(l))
		}
		return got
	}
	for want, listen := range map[string][]hostapi.Listener{
		"[true false false]": {{Network: "tcp", Port: 6379, Program: "/usr/bin/memcached"}, {Network: "tcp", Port: 68}, {Network: "udp", Port: 68, Program: "/sbin/dhclient"}},
		"[true true true]":   {{Network: "tcp", Port: 6379, Program: "/usr/bin/redis-*"}, {Network: "udp", Port: 68}},
	} {
		if got := allowed(listen...); fmt.Sprint(got) != want {
			t.Errorf("%v: %v", listen, got)
		}
	}
	if got := allowed(hostapi.Listener{Network: "tcp", Port: 6379, Program: "/usr/*"}); got[1] {
		t.Error("a * stands for more than one name")
	}
	if err := os.Remove(filepath.Join(h.Place.Root, "proc/net/udp")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.listeners(); err == nil {
		t.Error("without the kernel's table it can tell")
	}
}

// Whatever stands on a host, what is reported fits into a report and keeps to its form.
func TestAHostFullOfFindingsFits(t *testing.T) {
	t.Parallel()
	passwd, shadow := someone, ""
	for i := range 500 {
		name := fmt.Sprintf("u%d\x1b%s", i, strings.Repeat("é\"", 100))
		passwd += name + ":x:0:0::/:/bin/sh\n"
		shadow += name + "::1::::::\n"
	}
	p := host(t, map[string]string{"etc/passwd": passwd, "etc/shadow": shadow}).Look(t.Context())
	text, err := json.Marshal(p)
	if err != nil || len(text) > maxText {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	for _, c := range p.Checks {
		if (c.ID == "passwords" || c.ID == "root") && (c.Result != hostapi.Fail || len(c.Findings) < 2) || c.ID == "sshd" && c.Result != hostapi.Unknown {
			t.Errorf("%s is %s with %d findings", c.ID, c.Result, len(c.Findings))
		}
		for _, f := range c.Findings {
			if len(f) > hostapi.MaxFinding || strings.ContainsAny(f, "\x1b\n") {
				t.Errorf("a finding is %q", f)
			}
		}
	}
}

func TestIncludedFilesAreFound(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"etc/ssh/sshd_config": "Include sshd_config.d/*.conf\n# Include nothing\nMatch Address 198.51.100.0/24,203.0.113.9\n",
		"etc/ssh/sshd_config.d/a.conf": "include \"/etc/other\"\nMatch User x Address 2001:db8::1\n", "etc/other": "Include /etc/other\nMatch LocalAddress 10.1.2.3\n"})
	if got := len(h.sshdFiles()); got < 3 {
		t.Errorf("%d files", got)
	}
	if got := strings.Join(h.matched(), " "); !strings.Contains(got, "198.51.100.0 203.0.113.9 2001:db8::1 10.1.2.3") {
		t.Errorf("addresses: %s", got)
	}
}
