package sshrun_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/sshrun"
)

// hostile is a person's configuration that would, if it were followed, trust
// another host, show other keys or go on under another certificate.
const hostile = `
Host *
  HostName evil.example
  Port 2022
  User root
  HostKeyAlias evil
  IdentityAgent /nowhere
  IdentitiesOnly no
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /etc/evil
  VerifyHostKeyDNS yes
  UpdateHostKeys yes
  NoHostAuthenticationForLocalhost yes
  PreferredAuthentications password
  ControlMaster auto
  ControlPath /tmp/%C
  ServerAliveInterval 17
`

// What ssh itself makes of the command line, with that configuration.
func TestCommandOverrulesConfiguration(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), `with "quotes" and %d`)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(hostile), 0o600); err != nil {
		t.Fatal(err)
	}
	files := grantkey.Files{Identity: filepath.Join(dir, "id.pub"), Certificate: filepath.Join(dir, "id-cert.pub"),
		KnownHosts: filepath.Join(dir, "known_hosts")}
	connect := api.Connect{Address: "127.0.0.3", Port: 22, Login: "dba", HostKeyAlias: "host-1"}
	command, err := sshrun.Command("db-1", connect, files, true, []string{"-F", config, "-G"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if got[name] == "" { // the first identity file is the one that counts
			got[name] = value
		}
	}
	for name, want := range map[string]string{
		"hostname": "127.0.0.3", "port": "22", "user": "dba", "hostkeyalias": "host-1",
		"identityagent": "SSH_AUTH_SOCK", "identitiesonly": "yes", "stricthostkeychecking": "true",
		"globalknownhostsfile": "/dev/null", "verifyhostkeydns": "false", "updatehostkeys": "false",
		"nohostauthenticationforlocalhost": "no", "preferredauthentications": "publickey",
		"controlmaster":       "false",
		"serveraliveinterval": "17", // what is the person's own stays
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if _, shared := got["controlpath"]; shared {
		t.Errorf("controlpath is %q", got["controlpath"])
	}
	for _, name := range []string{"identityfile", "certificatefile", "userknownhostsfile"} {
		// ssh prints per cent signs as they stand in the configuration, or not,
		// depending on its version.
		if value := strings.ReplaceAll(got[name], "%%", "%"); !strings.HasPrefix(value, dir) {
			t.Errorf("%s is %q", name, got[name])
		}
	}
}

func TestCommandRefusesOptionsForHosts(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"-oProxyCommand=id", "", "a b", "a\nb", "*", "db-1;id"} {
		if _, err := sshrun.Command(host, api.Connect{}, grantkey.Files{}, false, nil); err == nil {
			t.Errorf("%q was taken for a host", host)
		}
	}
}
