package posture_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/broker/posture"
	"sallyport/internal/sshd"
)

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	s, err := signer()
	must(t, err)
	return s
}

func signer() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hostCertificate(t *testing.T, key ssh.PublicKey, ca ssh.Signer, id string) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{Key: key, CertType: ssh.HostCert, ValidPrincipals: []string{id}, ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	must(t, c.SignCert(rand.Reader, ca))
	return c
}

// The real sshd, as docs/hosts.md sets it up, refuses whoever has no certificate.
func TestARealHostIsShut(t *testing.T) {
	t.Parallel()
	key, err := sshd.NewHostKey()
	must(t, err)
	public, err := certs.ParseKey(strings.TrimSpace(key.Public))
	must(t, err)
	hostCA, userCA := newSigner(t), newSigner(t)
	host, err := sshd.Start(t.Context(), sshd.Config{Name: "db-1", HostKey: key, UserCA: certs.Line(userCA.PublicKey()), Logins: []string{"dba", "root"},
		HostCertificate: certs.Line(hostCertificate(t, public, hostCA, "host-1")), Principals: map[string][]string{"dba": {"dba@host-1"}}})
	must(t, err)
	t.Cleanup(host.Stop)
	door := posture.Door{HostID: "host-1", Address: host.Addr(), HostKey: certs.Line(public)}
	for _, login := range []string{"dba", "root", "nobody-there"} {
		if p := posture.Look(t.Context(), door, login, hostCA.PublicKey(), nil, time.Now); p.Result != hostapi.Pass || p.Login != login {
			t.Errorf("%s: %+v\n%s", login, p, host.Log())
		}
	}
	for what, change := range map[string]func(*posture.Door, *ssh.PublicKey){
		"another key in the registry": func(d *posture.Door, _ *ssh.PublicKey) { d.HostKey = certs.Line(newSigner(t).PublicKey()) },
		"another host's certificate":  func(d *posture.Door, _ *ssh.PublicKey) { d.HostID = "host-2" },
		"another host CA":             func(_ *posture.Door, ca *ssh.PublicKey) { *ca = newSigner(t).PublicKey() },
		"nobody there":                func(d *posture.Door, _ *ssh.PublicKey) { d.Address = "127.0.0.1:1" },
	} {
		d, ca := door, hostCA.PublicKey()
		change(&d, &ca)
		if p := posture.Look(t.Context(), d, "dba", ca, nil, time.Now); p.Result != hostapi.Unknown || len(p.Findings) != 1 {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// A door that is not as it should be, in each of the ways.
func TestADoorThatIsNotShut(t *testing.T) {
	t.Parallel()
	key, ca := newSigner(t), newSigner(t)
	no := errors.New("no")
	keys := func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, no }
	for what, c := range map[string]struct {
		config ssh.ServerConfig
		want   hostapi.Result
	}{
		"keys only": {ssh.ServerConfig{PublicKeyCallback: keys}, hostapi.Pass},
		"passwords": {ssh.ServerConfig{PublicKeyCallback: keys,
			PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, no }}, hostapi.Fail},
		"questions": {ssh.ServerConfig{PublicKeyCallback: keys,
			KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
				_, err := ask("", "", []string{"Password:"}, []bool{false})
				return nil, err
			}}, hostapi.Fail},
		"any key":        {ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}, hostapi.Fail},
		"no key at all":  {ssh.ServerConfig{NoClientAuth: true}, hostapi.Fail},
		"nothing at all": {ssh.ServerConfig{}, hostapi.Unknown},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c.config.AddHostKey(key)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						if what == "nothing at all" {
							return
						}
						if server, _, _, err := ssh.NewServerConn(conn, &c.config); err == nil {
							server.Wait()
						}
					}()
				}
			}()
			door := posture.Door{HostID: "host-1", Address: l.Addr().String(), HostKey: certs.Line(key.PublicKey())}
			if p := posture.Look(t.Context(), door, "dba", ca.PublicKey(), nil, time.Now); p.Result != c.want {
				t.Errorf("%+v, want %s", p, c.want)
			}
		})
	}
}
