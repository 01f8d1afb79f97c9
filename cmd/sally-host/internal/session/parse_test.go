package session

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/cmd/sally-host/internal/place"
)

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0100007F:0016": "127.0.0.1:22", "00000000:1F90": "0.0.0.0:8080",
		"0000000000000000FFFF00000100007F:0016": "127.0.0.1:22", // mapped
		"00000000000000000000000001000000:0016": "[::1]:22",
		"B80D01200000000000000000 1:0016":       "", "": "", ":": "", "0100007F": "", "01:0016": "", "0100007F:10000": "",
	} {
		got, err := Endpoint(text)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q is %s, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	f.Add("0100007F:0016")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := Endpoint(s); err == nil && !got.Addr().IsValid() {
			t.Errorf("%q is no address", s)
		}
	})
}

// A program can have any name: what stands in it is not the kernel's word.
func TestStatOfAProgramWithAHostileName(t *testing.T) {
	t.Parallel()
	p := place.Place{Root: t.TempDir()}
	dir := filepath.Join(p.Root, "proc", "7")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	line := "7 (a) R 1 (b) S) S 5 6 9 34818 8 4194304 1 2 3 4 5 6 7 8 20 0 1 0 424242 1 2 3\n"
	if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := stat(p, 7)
	if err != nil || s.name != "a) R 1 (b) S" || s.parent != 5 || s.session != 9 || s.Start != 424242 {
		t.Errorf("%+v, %v", s, err)
	}
	if n, ok := s.pts(); !ok || n != 2 {
		t.Errorf("terminal %d, %v", n, ok)
	}
	for _, bad := range []string{"", "7", "7 (a", "7 (a) S", "7 )a( S 1 2 3"} {
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := stat(p, 7); err == nil {
			t.Errorf("%q is a process", bad)
		}
	}
}

// What sshd accepted is told as sshd says it, whatever the client sent.
func TestAccepted(t *testing.T) {
	t.Parallel()
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name string
		Key  []byte
	}{ssh.KeyAlgoED25519, make([]byte, 32)}))
	if err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(public.Marshal())
	for info, want := range map[string]string{
		"": "unknown", "\n\n": "unknown", "password": "password", "password\nkeyboard-interactive pam\n": "keyboard-interactive pam",
		"publickey ssh-ed25519 " + key: "publickey ssh-ed25519", "publickey ssh-ed25519 !!!": "publickey ssh-ed25519", "publickey": "publickey",
		"publickey " + strings.Repeat("x", 500): "publickey " + strings.Repeat("x", 90),
	} {
		var s Session
		if wire := s.accepted(info); wire != nil || s.Method != want || s.Serial != 0 {
			t.Errorf("%.60q is %q, serial %d, certificate %x", info, s.Method, s.Serial, wire)
		}
	}
}

func FuzzAccepted(f *testing.F) {
	f.Add("publickey ssh-ed25519-cert-v01@openssh.com AAAA\npassword\n")
	f.Fuzz(func(t *testing.T, info string) {
		var s Session
		s.accepted(info)
		for _, text := range []string{s.Method, s.KeyID, s.Principal} {
			if len(text) > 200 || strings.ContainsAny(text, "\n\x1b\x00") {
				t.Errorf("%q", text)
			}
		}
	})
}
