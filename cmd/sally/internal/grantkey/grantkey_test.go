package grantkey_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/internal/clock"
)

const broker = "https://sallyport.example.com"

// ring is a ring without an agent.
func ring(t *testing.T) (*grantkey.Ring, string, *clock.Manual) {
	t.Helper()
	now := clock.NewManual(time.Now())
	dir := filepath.Join(t.TempDir(), "keys")
	return grantkey.NewRing(grantkey.Config{Dir: dir, Clock: now}), dir, now
}

// sshAgent starts a real ssh-agent and returns its socket.
func sshAgent(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// That the socket is there is not enough: the agent must listen on it.
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func grant(id string, now *clock.Manual) grantkey.Grant {
	return grantkey.Grant{Broker: broker, RequestID: id, EndsAt: now.Now().Add(30 * time.Minute)}
}

// TestP6_PrivateKeysStayHome: what leaves is a public key and a proof that
// OpenSSH's own tool accepts, whether the key is in a file or in an agent, for
// this broker and this request and no other.
func TestP6_PrivateKeysStayHome(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"file", "agent"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			now := clock.NewManual(time.Now())
			cfg := grantkey.Config{Dir: filepath.Join(t.TempDir(), "keys"), Clock: now}
			if where == "agent" {
				cfg.Agent = sshAgent(t)
			}
			key, err := grantkey.NewRing(cfg).Key(t.Context(), grant("req-1", now), false)
			if err != nil || key.InAgent != (where == "agent") {
				t.Fatal(key, err)
			}
			proof, err := key.Prove()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(proof+key.Public(), "PRIVATE") {
				t.Error("a private key would leave")
			}
			if out, err := verify(t, key.Public(), proof, api.ProofNamespace, api.ProofMessage(broker, "req-1")); err != nil {
				t.Errorf("ssh-keygen refuses the proof: %s", out)
			}
			for what, message := range map[string][]byte{
				"another request": api.ProofMessage(broker, "req-2"),
				"another broker":  api.ProofMessage("https://evil.example", "req-1"),
			} {
				if _, err := verify(t, key.Public(), proof, api.ProofNamespace, message); err == nil {
					t.Errorf("the proof is also good for %s", what)
				}
			}
			if _, err := verify(t, key.Public(), proof, "file", api.ProofMessage(broker, "req-1")); err == nil {
				t.Error("the proof is good in another namespace")
			}
			_, err = os.Stat(filepath.Join(cfg.Dir, "req-1", "id"))
			if (err == nil) != (where == "file") {
				t.Errorf("private key on disk: %v", err)
			}
		})
	}
}

// verify asks ssh-keygen whether a proof is good.
func verify(t *testing.T, public, proof, namespace string, message []byte) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"signers": "me " + public + "\n", "proof": proof} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", filepath.Join(dir, "signers"), "-I", "me",
		"-n", namespace, "-s", filepath.Join(dir, "proof"))
	cmd.Stdin = bytes.NewReader(message)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Many at once, as from a script that opens ten sessions, make one key: the
// grant is bound to the first, and the others would be refused.
func TestOneKeyForManyAtOnce(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{"", sshAgent(t)} {
		now := clock.NewManual(time.Now())
		dir := filepath.Join(t.TempDir(), "keys")
		var (
			all   sync.WaitGroup
			mu    sync.Mutex
			found = map[string]int{}
		)
		for range 16 {
			all.Go(func() {
				r := grantkey.NewRing(grantkey.Config{Dir: dir, Agent: agent, Clock: now})
				key, err := r.Key(t.Context(), grant("req-1", now), false)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				found[key.Fingerprint()]++
			})
		}
		all.Wait()
		if len(found) != 1 {
			t.Errorf("agent %q: keys %v", agent, found)
		}
	}
}

func TestBoundGrantNeedsItsKey(t *testing.T) {
	t.Parallel()
	r, dir, now := ring(t)
	g := grant("req-1", now)
	key, err := r.Key(t.Context(), g, false)
	if err != nil {
		t.Fatal(err)
	}
	g.Fingerprint = key.Fingerprint()
	if again, err := r.Key(t.Context(), g, false); err != nil || again.Fingerprint() != g.Fingerprint {
		t.Fatal(again, err)
	}
	// Bound elsewhere, to a key that was never here: ours is not shown.
	other := g
	other.Fingerprint = "SHA256:0000000000000000000000000000000000000000000"
	if _, err := r.Key(t.Context(), other, false); !errors.Is(err, grantkey.ErrGone) {
		t.Fatal(err)
	}
	// Gone from here.
	if err := os.RemoveAll(filepath.Join(dir, "req-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Key(t.Context(), g, false); !errors.Is(err, grantkey.ErrGone) {
		t.Fatal(err)
	}
	// The files are gone, but the agent still has the key.
	g = grant("req-2", now)
	socket := sshAgent(t)
	r = grantkey.NewRing(grantkey.Config{Dir: dir, Agent: socket, Clock: now})
	if key, err = r.Key(t.Context(), g, false); err != nil {
		t.Fatal(err)
	}
	g.Fingerprint = key.Fingerprint()
	if err := os.RemoveAll(filepath.Join(dir, "req-2")); err != nil {
		t.Fatal(err)
	}
	if key, err = r.Key(t.Context(), g, false); err != nil || !key.InAgent {
		t.Fatal(key, err)
	}
}

func TestKeyOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	r, dir, now := ring(t)
	if _, err := r.Key(t.Context(), grant("req-1", now), false); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "req-1", "id"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Key(t.Context(), grant("req-1", now), false); err == nil {
		t.Fatal("a key that others can read was used")
	}
}

func TestKeysGoWithTheirGrants(t *testing.T) {
	t.Parallel()
	now := clock.NewManual(time.Now())
	dir := filepath.Join(t.TempDir(), "keys")
	socket := sshAgent(t)
	r := grantkey.NewRing(grantkey.Config{Dir: dir, Agent: socket, Clock: now})
	short := grant("req-short", now)
	short.EndsAt = now.Now().Add(time.Minute)
	for _, g := range []grantkey.Grant{short, grant("req-long", now)} {
		if _, err := r.Key(t.Context(), g, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := inAgent(t, socket); got != 2 {
		t.Fatalf("%d keys in the agent", got)
	}
	// To the very end, and not after it.
	now.Advance(time.Minute - time.Microsecond)
	if err := r.Sweep(t.Context()); err != nil || folders(t, dir) != 2 {
		t.Fatal(err, folders(t, dir))
	}
	now.Advance(time.Microsecond)
	if err := r.Sweep(t.Context()); err != nil || folders(t, dir) != 1 || inAgent(t, socket) != 1 {
		t.Fatal(err, folders(t, dir), inAgent(t, socket))
	}
	if _, err := r.Key(t.Context(), short, false); err == nil {
		t.Fatal("a key was made for a grant that has ended")
	}
	// Signing out of one broker leaves the keys for another.
	other := grant("req-other", now)
	other.Broker = "https://other.example.com"
	if _, err := r.Key(t.Context(), other, false); err != nil {
		t.Fatal(err)
	}
	if err := r.ForgetAll(t.Context(), broker); err != nil || folders(t, dir) != 1 || inAgent(t, socket) != 1 {
		t.Fatal(err, folders(t, dir), inAgent(t, socket))
	}
	if err := r.Forget(t.Context(), "req-other"); err != nil || folders(t, dir) != 0 || inAgent(t, socket) != 0 {
		t.Fatal(err, folders(t, dir), inAgent(t, socket))
	}
}

func TestHostileRequestIDs(t *testing.T) {
	t.Parallel()
	r, dir, now := ring(t)
	for _, id := range []string{"", ".", "..", "../req-1", "a/b", "/etc", "req-1\n", "-x", "REQ"} {
		if _, err := r.Key(t.Context(), grant(id, now), false); err == nil {
			t.Errorf("%q was taken for an id", id)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("something was written")
	}
}

// ssh itself must be able to use what Keep writes.
func TestKeptFilesAreReadBySSH(t *testing.T) {
	t.Parallel()
	r, _, now := ring(t)
	key, err := r.Key(t.Context(), grant("req-1", now), false)
	if err != nil {
		t.Fatal(err)
	}
	files, err := key.Keep("", key.Public(), []string{"@cert-authority host-1 " + key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-y", "-f", files.Identity).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, comment, _, _, err := ssh.ParseAuthorizedKey(out)
	if err != nil || ssh.FingerprintSHA256(got) != key.Fingerprint() || comment != "sallyport req-1" {
		t.Fatal(comment, err)
	}
}

func folders(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

func inAgent(t *testing.T, socket string) int {
	t.Helper()
	cmd := exec.Command("ssh-add", "-L")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	out, _ := cmd.Output()
	return strings.Count(string(out), "sallyport req-")
}

// A grant that extends another is bound to its key: that is found wherever it is,
// stays as long as it may be needed, and goes with the last grant that needs it.
func TestExtensionsGoOnWithTheKey(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"file", "agent"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			now := clock.NewManual(time.Now())
			dir := filepath.Join(t.TempDir(), "keys")
			cfg := grantkey.Config{Dir: dir, Clock: now}
			if where == "agent" {
				cfg.Agent = sshAgent(t)
			}
			r := grantkey.NewRing(cfg)
			first := grant("req-first", now)
			first.KeyUntil = first.EndsAt.Add(20 * time.Minute)
			key, err := r.Key(t.Context(), first, false)
			if err != nil {
				t.Fatal(err)
			}
			now.Advance(35 * time.Minute)
			if err := r.Sweep(t.Context()); err != nil || folders(t, dir) != 1 {
				t.Fatal("the key went with the first grant", err)
			}
			next := grant("req-next", now)
			next.Fingerprint = key.Fingerprint()
			same, err := r.Key(t.Context(), next, false)
			if err != nil || same.Fingerprint() != key.Fingerprint() || same.InAgent != (where == "agent") {
				t.Fatalf("the extension's key: %+v, %v", same, err)
			}
			if _, err := same.Prove(); err != nil {
				t.Error(err)
			}
			// Nobody else's grant inherits it, and none that is bound to another.
			other := grant("req-other", now)
			if key, err := r.Key(t.Context(), other, false); err != nil || key.Fingerprint() == same.Fingerprint() {
				t.Errorf("another grant got the key: %v", err)
			}
			foreign := grant("req-foreign", now)
			foreign.Fingerprint = "SHA256:somebody-elses"
			if _, err := r.Key(t.Context(), foreign, false); !errors.Is(err, grantkey.ErrGone) {
				t.Errorf("a key that is not here: %v", err)
			}
			// The first goes, and the key stays for the second.
			if err := r.Forget(t.Context(), "req-first"); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Key(t.Context(), next, false); err != nil {
				t.Errorf("without the first: %v", err)
			}
		})
	}
}
