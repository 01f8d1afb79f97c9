package sshd

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// HostKey is the key pair by which clients know a host.
type HostKey struct {
	// Public is in authorized_keys format, as the broker registers it.
	Public  string
	private []byte // OpenSSH's PEM
}

// NewHostKey makes an Ed25519 key pair.
func NewHostKey() (*HostKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, err
	}
	return &HostKey{
		Public:  strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
		private: pem.EncodeToMemory(block),
	}, nil
}

// sshdConfig is what a host that asks nobody needs: each login's principals are
// in a file, and there is no other way in. Without AuthorizedKeysFile none, who
// has been in once could plant a key and come back without the broker. Before 8.7 it is
// ChallengeResponseAuthentication that says whether PAM may ask for a password; since then
// that is another name of the line above.
const sshdConfig = `%[3]sPort %[2]s
ListenAddress %[1]s
HostKey /etc/ssh/host_key
HostCertificate /etc/ssh/host_key-cert.pub
TrustedUserCAKeys /etc/ssh/sallyport/user_ca.pub
AuthorizedPrincipalsFile /etc/ssh/sallyport/principals/%%u
AuthorizedKeysFile none
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
ChallengeResponseAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
UsePAM yes
PrintMotd no
PrintLastLog no
LogLevel VERBOSE
PidFile none
`

// The host's own PAM: no more than accounts and the message of the day, and the
// same whatever distribution the machine has.
const pam = `account required pam_nologin.so
account required pam_unix.so
session required pam_unix.so
session optional pam_motd.so noupdate motd=/etc/motd
`

const profile = `PATH=/usr/local/bin:/usr/bin:/bin
if [ "$(id -u)" = 0 ]; then PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH; fi
export PATH
PS1='\u@\h:\w\$ '
`

// firstUID is the number of the first login that is not root: far from those of
// the machine's own people, since both are the same to the kernel.
const firstUID = 61100

// files is a tar of what makes this host differ from the machine it runs on.
func (cfg Config) files(addr string) ([]byte, error) {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	passwd := "root:x:0:0:root:/root:/bin/bash\n" +
		"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
		"sshd:x:61000:65534::/run/sshd:/usr/sbin/nologin\n" +
		"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	group := "root:x:0:\ndaemon:x:1:\ntty:x:5:\nutmp:x:43:\nnogroup:x:65534:\n"
	shadow := "root:*:20000:0:99999:7:::\nsshd:!:20000::::::\n"

	var t tarball
	t.folder("run/sshd", 0o755, 0)
	t.folder("etc/ssh/sallyport/principals", 0o755, 0)
	for i, login := range cfg.Logins {
		principals := strings.Join(cfg.Principals[login], "\n") + "\n"
		t.file("etc/ssh/sallyport/principals/"+login, 0o644, principals)
		if login == "root" {
			continue
		}
		uid := firstUID + i
		passwd += fmt.Sprintf("%s:x:%d:%d::/home/%s:/bin/bash\n", login, uid, uid, login)
		group += fmt.Sprintf("%s:x:%d:\n", login, uid)
		shadow += login + ":*:20000:0:99999:7:::\n" // no password, yet not locked
		t.folder("home/"+login, 0o700, uid)
	}
	for i, account := range cfg.Accounts {
		uid := firstUID - 1 - i
		passwd += fmt.Sprintf("%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", account, uid, uid)
		group += fmt.Sprintf("%s:x:%d:\n", account, uid)
		shadow += account + ":!:20000::::::\n"
	}
	t.file("etc/passwd", 0o644, passwd)
	t.file("etc/group", 0o644, group)
	t.file("etc/shadow", 0o600, shadow)
	t.file("etc/hostname", 0o644, cfg.Name+"\n")
	t.file("etc/hosts", 0o644, "127.0.0.1 localhost\n"+ip+" "+cfg.Name+"\n")
	t.file("etc/profile", 0o644, profile)
	t.file("etc/bash.bashrc", 0o644, "")
	t.file("etc/motd", 0o644, fmt.Sprintf("\nThis is %s, a host that a Sallyport certificate opened to you.\nWhat you write here is gone when it stops.\n\n", cfg.Name))
	t.file("etc/pam.d/sshd", 0o644, pam)
	t.file("etc/ssh/sshd_config", 0o644, fmt.Sprintf(sshdConfig, ip, port, cfg.Settings))
	t.file("etc/ssh/host_key", 0o600, string(cfg.HostKey.private))
	t.file("etc/ssh/host_key.pub", 0o644, cfg.HostKey.Public+"\n")
	t.file("etc/ssh/host_key-cert.pub", 0o644, strings.TrimSpace(cfg.HostCertificate)+"\n")
	t.file("etc/ssh/sallyport/user_ca.pub", 0o644, strings.TrimSpace(cfg.UserCA)+"\n")
	return t.close()
}

// tarball collects files and the first error.
type tarball struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func (t *tarball) file(name string, mode int64, text string) {
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text))}, text)
}

func (t *tarball) folder(name string, mode int64, owner int) {
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner}, "")
}

func (t *tarball) add(h tar.Header, text string) {
	if t.w == nil {
		t.w = tar.NewWriter(&t.buf)
	}
	if t.err == nil {
		t.err = t.w.WriteHeader(&h)
	}
	if t.err == nil {
		_, t.err = t.w.Write([]byte(text))
	}
}

func (t *tarball) close() ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	err := t.w.Close()
	return t.buf.Bytes(), err
}
