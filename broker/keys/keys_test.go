package keys_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/broker/keys"
	"sallyport/internal/refusal"
)

const origin = "sallyport.example.com/log"

func initialised(t *testing.T, passphrase string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := keys.Init(keys.InitOptions{Dir: dir, Origin: origin, Passphrase: []byte(passphrase)}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func give(passphrase string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(passphrase), nil }
}

// content is every file of a folder.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

func signs(t *testing.T, s keys.Signer) {
	t.Helper()
	signature, err := s.Sign(rand.Reader, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PublicKey().Verify([]byte("message"), signature); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, want *refusal.Error, hint string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	if r := refusal.As(err); !strings.Contains(r.Hint, hint) {
		t.Errorf("hint %q does not say %q", r.Hint, hint)
	}
}

func TestInitThenLoad(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "")

	modes := map[string]fs.FileMode{
		"user_ca": 0o600, "host_ca": 0o600, "log.key": 0o600, "token.key": 0o600,
		"user_ca.pub": 0o644, "host_ca.pub": 0o644, "log.vkey": 0o644,
	}
	files := content(t, dir)
	if got, want := slices.Sorted(maps.Keys(files)), slices.Sorted(maps.Keys(modes)); !slices.Equal(got, want) {
		t.Fatalf("files %v, want %v", got, want)
	}
	for name, want := range modes {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v", info.Mode())
	}

	set, err := keys.Load(keys.LoadOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	signs(t, set.UserCA)
	signs(t, set.HostCA)
	signer, err := note.NewSigner(set.LogSigner)
	if err != nil || signer.Name() != origin {
		t.Errorf("the log's signer is %v, %v", signer, err)
	}
	if _, err := note.NewVerifier(set.LogVerifier); err != nil {
		t.Error(err)
	}
	if len(set.Token) != 64 {
		t.Errorf("the tokens' key has %d bytes", len(set.Token))
	}

	// The real ssh-keygen finds the same public half in the private file.
	for _, name := range []string{"user_ca", "host_ca"} {
		out, err := exec.Command("ssh-keygen", "-y", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil || string(out) != files[name+".pub"] {
			t.Errorf("ssh-keygen says of %s: %s %v", name, out, err)
		}
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "")
	before := content(t, dir)
	refused(t, keys.Init(keys.InitOptions{Dir: dir, Origin: origin}), keys.ErrExists, "never overwritten")
	if !maps.Equal(before, content(t, dir)) {
		t.Error("a second init changed the folder")
	}

	for name := range before {
		other := t.TempDir()
		os.Chmod(other, 0o700)
		if err := os.WriteFile(filepath.Join(other, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, keys.Init(keys.InitOptions{Dir: other, Origin: origin}), keys.ErrExists, "")
		if got := content(t, other); !maps.Equal(got, map[string]string{name: "precious"}) {
			t.Errorf("with %s there, init left %v", name, got)
		}
	}
}

// Of several at once, one makes the keys, and they are whole.
func TestInitAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	const callers = 8
	results := make(chan error, callers)
	for range callers {
		go func() { results <- keys.Init(keys.InitOptions{Dir: dir, Origin: origin}) }()
	}
	won := 0
	for range callers {
		err := <-results
		if err == nil {
			won++
		} else if !errors.Is(err, keys.ErrExists) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Fatalf("%d of %d made the keys", won, callers)
	}
	if _, err := keys.Load(keys.LoadOptions{Dir: dir}); err != nil {
		t.Error(err)
	}
	if n := len(content(t, dir)); n != 7 {
		t.Errorf("%d files, want 7", n)
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "a b", "a+b", "https://example.com/log", "Example.com", "example.com/", "-a", "a\nb", strings.Repeat("a", 300),
		"localhost", "localhost/log", "127.0.0.1/log", "log/sallyport.example.com", "example..com/log", "-a.example.com", "example.c-/log"} {
		dir := filepath.Join(t.TempDir(), "keys")
		refused(t, keys.Init(keys.InitOptions{Dir: dir, Origin: bad}), keys.ErrOrigin, "--origin")
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("origin %q left a folder behind", bad)
		}
	}
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	refused(t, keys.Init(keys.InitOptions{Dir: shared, Origin: origin}), keys.ErrOpen, "chmod 700")
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "open sesame")
	if text := content(t, dir)["user_ca"]; strings.Contains(text, "none") || !strings.Contains(text, "OPENSSH PRIVATE KEY") {
		t.Error("user_ca is not an encrypted OpenSSH key")
	}
	out, err := exec.Command("ssh-keygen", "-y", "-P", "open sesame", "-f", filepath.Join(dir, "user_ca")).CombinedOutput()
	if err != nil {
		t.Errorf("ssh-keygen does not open the key: %s", out)
	}
	var asked []string
	set, err := keys.Load(keys.LoadOptions{Dir: dir, Passphrase: func(file string) ([]byte, error) {
		asked = append(asked, filepath.Base(file))
		return []byte("open sesame"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, []string{"user_ca", "host_ca"}) {
		t.Errorf("asked for %v", asked)
	}
	signs(t, set.UserCA)

	_, err = keys.Load(keys.LoadOptions{Dir: dir, Passphrase: give("wrong")})
	refused(t, err, keys.ErrPassphrase, "--ca-passphrase-file")
	_, err = keys.Load(keys.LoadOptions{Dir: dir})
	refused(t, err, keys.ErrPassphrase, "--ca-passphrase-file")
	_, err = keys.Load(keys.LoadOptions{Dir: dir, Passphrase: func(string) ([]byte, error) { return nil, os.ErrNotExist }})
	refused(t, err, keys.ErrPassphrase, "--ca-passphrase-file")

	// A key without a passphrase needs none.
	if _, err := keys.Load(keys.LoadOptions{Dir: initialised(t, ""), Passphrase: func(string) ([]byte, error) {
		t.Error("asked for the passphrase of a plain key")
		return nil, nil
	}}); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	path := func(dir, name string) string { return filepath.Join(dir, name) }
	replace := func(t *testing.T, dir, name, text string) {
		if err := os.WriteFile(path(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := content(t, initialised(t, ""))
	type test struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  *refusal.Error
		hint  string
	}
	tests := []test{
		{"folder writable", func(t *testing.T, dir string) { os.Chmod(dir, 0o770) }, keys.ErrOpen, "chmod 700"},
		{"no folder", func(t *testing.T, dir string) { os.RemoveAll(dir) }, keys.ErrMissing, "ca init"},
		{"folder is a file", func(t *testing.T, dir string) { os.RemoveAll(dir); os.WriteFile(dir, nil, 0o600) }, keys.ErrMissing, "ca init"},
		{"same CA twice", func(t *testing.T, dir string) {
			files := content(t, dir)
			replace(t, dir, "host_ca", files["user_ca"])
			replace(t, dir, "host_ca.pub", files["user_ca.pub"])
		}, keys.ErrUnreadable, "separate"},
		{"public half of another CA", func(t *testing.T, dir string) { replace(t, dir, "user_ca.pub", other["user_ca.pub"]) }, keys.ErrUnreadable, "ssh-keygen -y"},
		{"public half of another log", func(t *testing.T, dir string) { replace(t, dir, "log.vkey", other["log.vkey"]) }, keys.ErrUnreadable, "backup"},
		{"token key of another type", func(t *testing.T, dir string) { replace(t, dir, "token.key", other["user_ca"]) }, keys.ErrUnreadable, "backup"},
		{"key is a folder", func(t *testing.T, dir string) {
			os.Remove(path(dir, "token.key"))
			os.Mkdir(path(dir, "token.key"), 0o700)
		}, keys.ErrUnreadable, ""},
	}
	for name := range other {
		tests = append(tests, test{name + " missing", func(t *testing.T, dir string) { os.Remove(path(dir, name)) }, keys.ErrMissing, "ca init"})
		tests = append(tests, test{name + " garbled", func(t *testing.T, dir string) { replace(t, dir, name, "garbage\n") }, keys.ErrUnreadable, ""})
		if !strings.HasSuffix(name, ".pub") && name != "log.vkey" {
			for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644} {
				tests = append(tests, test{name + " " + mode.String(), func(t *testing.T, dir string) { os.Chmod(path(dir, name), mode) },
					keys.ErrOpen, "chmod 600"})
			}
		}
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := initialised(t, "")
			secret := content(t, dir)["log.key"]
			c.spoil(t, dir)
			_, err := keys.Load(keys.LoadOptions{Dir: dir})
			refused(t, err, c.want, c.hint)
			if strings.Contains(err.Error(), strings.TrimSpace(secret)) {
				t.Error("the error shows a key (P11)")
			}
		})
	}
}

// sshAgent runs the real one at the socket until the returned function is called.
func sshAgent(t *testing.T, socket string) (stop func()) {
	t.Helper()
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait(); os.Remove(socket) }
	t.Cleanup(stop)
	deadline := time.Now().Add(10 * time.Second)
	for {
		// The socket is there before anybody listens on it.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatal("the ssh-agent does not start")
		}
		time.Sleep(time.Millisecond)
	}
}

func sshAdd(t *testing.T, socket string, args ...string) {
	t.Helper()
	cmd := exec.Command("ssh-add", args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
}

func TestAgent(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "")
	// Only the public halves stay in the folder.
	away := t.TempDir()
	for _, name := range []string{"user_ca", "host_ca"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(away, name)); err != nil {
			t.Fatal(err)
		}
	}
	sockets, err := os.MkdirTemp("", "agent") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, "s")
	options := keys.LoadOptions{Dir: dir, AgentSocket: socket}

	_, err = keys.Load(options)
	refused(t, err, keys.ErrAgent, "ssh-add")

	stop := sshAgent(t, socket)
	sshAdd(t, socket, filepath.Join(away, "user_ca"))
	_, err = keys.Load(options)
	refused(t, err, keys.ErrNotInAgent, "ssh-add")
	if !strings.Contains(err.Error(), "host_ca") {
		t.Errorf("the refusal does not name the missing key: %v", err)
	}

	sshAdd(t, socket, filepath.Join(away, "host_ca"))
	set, err := keys.Load(options)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, set.UserCA)
	signs(t, set.HostCA)

	stop()
	_, err = set.UserCA.Sign(rand.Reader, []byte("message"))
	refused(t, err, keys.ErrAgent, "ssh-add")

	sshAgent(t, socket)
	_, err = set.UserCA.Sign(rand.Reader, []byte("message"))
	refused(t, err, keys.ErrNotInAgent, "ssh-add")
	sshAdd(t, socket, filepath.Join(away, "user_ca"))
	signs(t, set.UserCA)
}

// With RSA, an agent must be asked for SHA-2.
func TestAgentRSA(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "")
	if out, err := exec.Command("sh", "-c", "cd "+dir+" && rm user_ca user_ca.pub && ssh-keygen -q -t rsa -b 3072 -N '' -f user_ca").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sockets, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, "s")
	sshAgent(t, socket)
	sshAdd(t, socket, filepath.Join(dir, "user_ca"), filepath.Join(dir, "host_ca"))
	set, err := keys.Load(keys.LoadOptions{Dir: dir, AgentSocket: socket})
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512} {
		signature, err := set.UserCA.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("message"), algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if signature.Format != algorithm {
			t.Errorf("signed with %s, want %s", signature.Format, algorithm)
		}
	}
	if _, err := set.UserCA.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, bytes.Repeat([]byte{1}, 8), "ssh-frodo"); err == nil {
		t.Error("an unknown algorithm was accepted")
	}
}

// A log whose name has no domain is not served either: its certificates could not
// carry their receipts.
func TestLoadRefusesALogWithoutADomain(t *testing.T) {
	t.Parallel()
	dir := initialised(t, "")
	private, public, err := note.GenerateKey(rand.Reader, "localhost/log")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"log.key": private, "log.vkey": public} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = keys.Load(keys.LoadOptions{Dir: dir})
	refused(t, err, keys.ErrOrigin, "--origin")
}
