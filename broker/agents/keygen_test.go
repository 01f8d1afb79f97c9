package agents_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/approvals/policy"
	"sallyport/broker/agents"
)

// A shell script with OpenSSH's own ssh-keygen can be an agent: the message is put
// together here as docs/agents.md has it, by nobody else's code.
func TestCallSignedBySSHKeygen(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return string(text)
	}
	run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", "id")
	token := k.token(policy.GitLab, nil)
	call := agents.Call{Method: "POST", URL: url + opening, Body: body, Time: "2026-03-01T12:00:00Z", Nonce: k.job().Nonce,
		Key: strings.Join(strings.Fields(read("id.pub"))[:2], " "), Source: "192.0.2.7"}
	message := fmt.Sprintf("sallyport agent call v1\nPOST\n%s\n%x\n%x\n%s\n%s\n", call.URL, sha256.Sum256(body), sha256.Sum256([]byte(token)), call.Time, call.Nonce)
	must(t, os.WriteFile(filepath.Join(dir, "message"), []byte(message), 0o600))
	run("ssh-keygen", "-q", "-Y", "sign", "-n", "sallyport-agent", "-f", "id", "message")
	lines := strings.Split(strings.TrimSpace(read("message.sig")), "\n")
	call.Signature = strings.Join(lines[1:len(lines)-1], "")
	if _, err := k.Redeem(t.Context(), token, call, nothing); err != nil {
		t.Error(err)
	}
}
