package jobssh_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobssh"
	"sallyport/internal/clock"
)

// The test's own program is the sally that ssh runs.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == "deploy" && os.Args[2] == "certify" {
		if err := jobssh.Certify(os.Args[5], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bench is a batch of two hosts, which are one server: it lets in whoever has a certificate
// of the CA that it has not seen yet, as a host does that counts uses.
type bench struct {
	key, userCA, hostCA ssh.Signer
	address             string

	mu     sync.Mutex
	serial uint64
	minted []string
	refuse error
	seen   map[uint64]bool
	logins []string // by their keys' ids
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{key: signer(t), userCA: signer(t), hostCA: signer(t), seen: map[uint64]bool{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	b.address = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go b.serve(conn)
		}
	}()
	return b
}

// certificates are those that were minted, and ids are who logged in by them.
func (b *bench) certificates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.minted)
}
func (b *bench) ids() []string { b.mu.Lock(); defer b.mu.Unlock(); return slices.Clone(b.logins) }

func (b *bench) serve(conn net.Conn) {
	defer conn.Close()
	checker := &ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool {
		return bytes.Equal(key.Marshal(), b.userCA.PublicKey().Marshal())
	}, SupportedCriticalOptions: []string{"force-command"}}
	config := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		c, ok := key.(*ssh.Certificate)
		if !ok {
			return nil, errors.New("no certificate")
		}
		for _, host := range []string{"host-web1", "host-web2"} {
			if err := checker.CheckCert(m.User()+"@"+host, c); err == nil {
				return &ssh.Permissions{Extensions: map[string]string{"id": c.KeyId, "serial": fmt.Sprint(c.Serial)}}, nil
			}
		}
		return nil, errors.New("no principal of this host")
	}}
	host := signerWith(b.hostCA)
	config.AddHostKey(host)
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	var serial uint64
	fmt.Sscan(server.Permissions.Extensions["serial"], &serial)
	b.mu.Lock()
	again := b.seen[serial]
	b.seen[serial] = true
	b.logins = append(b.logins, server.Permissions.Extensions["id"])
	b.mu.Unlock()
	for n := range channels {
		channel, requests, err := n.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			status := []byte{0, 0, 0, 0}
			if again {
				status[3] = 77
			}
			fmt.Fprintln(channel, "deployed")
			channel.SendRequest("exit-status", false, status)
			channel.Close()
		}
	}
}

// signerWith is a host's key with a certificate for both of the batch's hosts.
func signerWith(ca ssh.Signer) ssh.Signer {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	key, _ := ssh.NewSignerFromSigner(private)
	c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"host-web1", "host-web2"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		panic(err)
	}
	s, err := ssh.NewCertSigner(c, key)
	if err != nil {
		panic(err)
	}
	return s
}

func (b *bench) mint(_ context.Context, host string) (api.Certificate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return api.Certificate{}, b.refuse
	}
	b.serial++
	b.minted = append(b.minted, host)
	id := "host-" + strings.ReplaceAll(host, "-", "")
	now := time.Now()
	c := &ssh.Certificate{Key: b.key.PublicKey(), Serial: b.serial, CertType: ssh.UserCert, KeyId: fmt.Sprintf("%s %d", host, b.serial),
		ValidPrincipals: []string{"deploy@" + id}, ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(5 * time.Minute).Unix()),
		Permissions: ssh.Permissions{CriticalOptions: map[string]string{"force-command": "deploy"}}}
	if err := c.SignCert(rand.Reader, b.userCA); err != nil {
		return api.Certificate{}, err
	}
	address, port, _ := net.SplitHostPort(b.address)
	out := api.Certificate{Certificate: string(ssh.MarshalAuthorizedKey(c)),
		KnownHosts: []string{"@cert-authority " + id + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(b.hostCA.PublicKey())))},
		Connect:    api.Connect{Address: address, Login: "deploy", HostKeyAlias: id}}
	fmt.Sscan(port, &out.Connect.Port)
	return out, nil
}

func (b *bench) open(t *testing.T) *jobssh.Door { return b.openIn(t, "with spaces") }

func (b *bench) openIn(t *testing.T, folder string) *jobssh.Door {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := jobssh.Open(jobssh.Config{Runtime: filepath.Join(t.TempDir(), folder), Program: program, Key: b.key, Mint: b.mint, Clock: clock.System},
		[]jobssh.Host{{ID: "host-web1", Name: "web-1"}, {ID: "host-web2", Name: "web-2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// login runs the ssh of this machine.
func login(t *testing.T, d *jobssh.Door, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh", append([]string{"-F", d.Files().SSHConfig}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "SHELL=/bin/sh", "GORACE=atexit_sleep_ms=0"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Each login has a certificate of its own, got when it is needed.
func TestLoginsByTheMachinesOwnSSH(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.open(t)
	if len(b.certificates()) > 0 {
		t.Fatal("certificates before anybody needs them")
	}
	for _, host := range []string{"web-1", "web-2", "web-1"} {
		if out, err := login(t, d, host, "anything"); err != nil || !strings.Contains(out, "deployed") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if want := []string{"web-1 1", "web-2 2", "web-1 3"}; !slices.Equal(b.ids(), want) {
		t.Errorf("logins %q", b.ids())
	}
}

// A runtime folder that ssh_config has no word for, or too long for a socket, is not used.
func TestOddRuntimeFolders(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"it's", "100%", `a "b"`, `a\b`, strings.Repeat("long", 30)} {
		b := newBench(t)
		d := b.openIn(t, folder)
		if out, err := login(t, d, "web-1", "anything"); err != nil {
			t.Errorf("%s: %v\n%s", folder, err, out)
		}
	}
}

func TestACertificateNobodyUsedIsHandedOutAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.open(t)
	for range 3 {
		if err := jobssh.Certify(d.Files().Socket, "web-1"); err != nil {
			t.Fatal(err)
		}
	}
	if minted := b.certificates(); len(minted) != 1 {
		t.Errorf("minted %q", minted)
	}
}

// What is no host of the batch is not reached, and why is said.
func TestNoOtherHosts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.open(t)
	for _, host := range []string{"web-3", "127.0.0.1", "localhost"} {
		if out, err := login(t, d, host); err == nil || !strings.Contains(out, host+": sally gave no certificate for it, or it is no host of the open batch") {
			t.Errorf("%s: %v\n%s", host, err, out)
		}
	}
	b.mu.Lock()
	b.refuse = errors.New("the batch is not open")
	b.mu.Unlock()
	out, err := login(t, d, "web-1")
	if err == nil || !strings.Contains(out, "the batch is not open") {
		t.Errorf("%v\n%s", err, out)
	}
	if len(b.ids()) > 0 {
		t.Error(b.ids())
	}
}

// Whoever has the socket can log in on the batch's hosts, and do nothing else with the key.
func TestTheAgentSignsNothingElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.open(t)
	conn, err := net.Dial("unix", d.Files().Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	message, err := sshsig.Sign(strings.NewReader("a call"), b.key, sshsig.HashSHA512, api.AgentNamespace)
	if err != nil {
		t.Fatal(err)
	}
	login := func(key []byte) []byte {
		return ssh.Marshal(struct {
			Session               []byte
			Kind                  byte
			User, Service, Method string
			Signed                bool
			Name                  string
			Key                   []byte
		}{[]byte("session"), 50, "root", "ssh-connection", "publickey", true, "ssh-ed25519", key})
	}
	for name, data := range map[string][]byte{
		"a call":                append([]byte("SSHSIG"), message.Signature.Blob...),
		"nothing":               nil,
		"a login by the key":    login(b.key.PublicKey().Marshal()),
		"a login by another":    login(signer(t).PublicKey().Marshal()),
		"a certificate not had": login([]byte("garbage")),
	} {
		if _, err := client.Sign(keys[0], data); err == nil {
			t.Errorf("it signed %s", name)
		}
	}
	for name, change := range map[string]error{
		"add": client.Add(agent.AddedKey{PrivateKey: ed25519.NewKeyFromSeed(make([]byte, 32))}), "remove": client.RemoveAll(), "lock": client.Lock([]byte("x")),
	} {
		if change == nil {
			t.Errorf("%s was let", name)
		}
	}
}

func TestTheKeyIsInNoFileAndAllIsRemoved(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.open(t)
	if err := jobssh.Certify(d.Files().Socket, "web-1"); err != nil {
		t.Fatal(err)
	}
	folder := d.Files().Folder
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		info, statErr := e.Info()
		if err = errors.Join(err, statErr); err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if text, err := os.ReadFile(path); e.Type().IsRegular() && (err != nil || bytes.Contains(text, []byte("PRIVATE"))) {
			t.Errorf("%s: %v %s", path, err, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := jobssh.Certify(d.Files().Socket, "web-1"); err == nil {
		t.Error("it still certifies")
	}
}

// A broker that lies gets nothing into ssh's configuration.
func TestAnswersThatDoNotFit(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(c *api.Certificate){
		"address": func(c *api.Certificate) { c.Connect.Address = "127.0.0.1\nProxyCommand touch pwned" },
		"login":   func(c *api.Certificate) { c.Connect.Login = "root\nProxyCommand x" },
		"host":    func(c *api.Certificate) { c.Connect.HostKeyAlias = "host-web2" },
		"known":   func(c *api.Certificate) { c.KnownHosts = []string{"* ssh-ed25519 AAAA"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			d, err := jobssh.Open(jobssh.Config{Runtime: t.TempDir(), Program: "sally", Key: b.key, Clock: clock.System,
				Mint: func(ctx context.Context, host string) (api.Certificate, error) {
					c, err := b.mint(ctx, host)
					spoil(&c)
					return c, err
				}}, []jobssh.Host{{ID: "host-web1", Name: "web-1"}})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := jobssh.Certify(d.Files().Socket, "web-1"); err == nil {
				t.Error("it was taken")
			}
		})
	}
	for _, name := range []string{"web 1", "-oProxyCommand=x", "web\n1", "", "*"} {
		if d, err := jobssh.Open(jobssh.Config{Runtime: t.TempDir(), Program: "sally", Key: signer(t), Clock: clock.System}, []jobssh.Host{{ID: "host-1", Name: name}}); err == nil {
			d.Close()
			t.Errorf("a host may be called %q", name)
		}
	}
}
