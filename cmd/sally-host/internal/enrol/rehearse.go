package enrol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/internal/ids"
)

// patience is how long one login may take.
const patience = 30 * time.Second

// rehearse proves the new way in before it is opened. It makes up a broker, whose keys
// are gone when it ends, and has sshd serve single connections of its own (sshd -i)
// with the settings that are to come, but for whom to trust. What sshd -t does not see
// shows here: a helper that cannot be started, wrong modes, accounts that PAM or
// AllowUsers keep out, tokens that this version does not know.
//
// Which certificates must not enter is in [staged.wrong].
func (e *Enroller) rehearse(ctx context.Context, d Drop, s place.Settings, logins []string) (err error) {
	r := &staged{e: e, place: place.Rehearsal}
	if err := r.make(d, s); err != nil {
		return errors.Join(err, r.clear())
	}
	defer func() { err = errors.Join(err, r.clear()) }()
	for _, login := range logins {
		if err := r.enter(ctx, login, r.right(login)); err != nil {
			return fmt.Errorf("rehearsing: a right certificate does not open %s: %w", login, err)
		}
	}
	for what, cert := range r.wrong(logins[0]) {
		if err := r.enter(ctx, logins[0], cert); err == nil {
			return fmt.Errorf("rehearsing: a certificate %s opens %s", what, logins[0])
		} else if !errors.Is(err, errRefused) {
			return fmt.Errorf("rehearsing: %w", err)
		}
	}
	return nil
}

// staged is the rehearsal's stage: a broker that is made up, and a folder.
type staged struct {
	e      *Enroller
	place  place.Place
	broker *puppet
	config string
	hostID string
	host   *ssh.Certificate
}

func (r *staged) clear() error { return os.RemoveAll(r.place.Root) }

func (r *staged) make(d Drop, s place.Settings) error {
	if err := r.clear(); err != nil {
		return err
	}
	if err := os.Mkdir(r.place.Root, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.place.State()), 0o755); err != nil {
		return err
	}
	var err error
	if r.host, err = hostCertificate(s); err != nil {
		return err
	}
	r.hostID = s.HostID
	if r.broker, err = newPuppet(r.e.Now); err != nil {
		return err
	}
	group, err := lookUp(place.Account)
	if err != nil {
		return err
	}
	if err := openState(r.place, group); err != nil {
		return err
	}
	s.UserCAs, s.LogKey = []string{certs.Line(r.broker.ca.PublicKey())}, r.broker.logKey
	if err := r.place.Keep(s); err != nil {
		return err
	}
	note, err := r.broker.revocations(hostapi.Revocations{})
	if err != nil {
		return err
	}
	if _, err := r.place.KeepRevocations([]string{note}, s.LogKey); err != nil {
		return err
	}
	text := strings.ReplaceAll(d.Text(), place.Here.Folder()+"/", r.place.Folder()+"/")
	text = strings.ReplaceAll(text, place.Program+" principals ", place.Program+" rehearse ")
	drop := filepath.Join(r.place.Root, "drop.conf")
	r.config = filepath.Join(r.place.Root, "sshd_config")
	return errors.Join(place.Write(drop, []byte(text), 0o644),
		place.Write(r.config, []byte("Include "+drop+"\nInclude "+r.e.Server.Config+"\n"), 0o644))
}

func (r *staged) right(login string) certs.User { return r.broker.terms(login, r.hostID) }

// wrong are certificates that must not open the login, each signed with the true CA's key.
func (r *staged) wrong(login string) map[string]certs.User {
	otherHost, otherLogin, ended := r.right(login), r.right(login), r.right(login)
	otherHost.HostID = ids.New(ids.Host)
	otherLogin.Login = "nobody"
	ended.Now = ended.Now.Add(-time.Hour)
	unlogged := r.right(login)
	unlogged.Serial = unloggedSerial
	return map[string]certs.User{"for another host": otherHost, "for another login": otherLogin, "that has ended": ended, "that is not in the log": unlogged}
}

// errRefused says that sshd did not take the certificate.
var errRefused = errors.New("sshd refused it")

// enter logs in at an sshd that serves this connection only, and runs true.
func (r *staged) enter(ctx context.Context, login string, u certs.User) error {
	signer, err := r.broker.sign(u)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, server, err := pipe()
	if err != nil {
		return err
	}
	defer client.Close()
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, r.e.Server.Program, "-i", "-e", "-f", r.config)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = server, server, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	_ = server.Close() // sshd has it
	if err != nil {
		return err
	}
	failed := logIn(client, login, signer, r.host, func(shown *ssh.Certificate) bool {
		return bytes.Equal(shown.Key.Marshal(), r.host.Key.Marshal()) // by an older certificate, maybe
	})
	_ = client.Close()
	_ = cmd.Wait() // sshd's exit says no more than its log
	if failed != nil {
		return fmt.Errorf("%w; sshd says:\n%s", failed, tail(log.String()))
	}
	return nil
}

// hostCertificate is that which the broker gave the host.
func hostCertificate(s place.Settings) (*ssh.Certificate, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostCertificate))
	if err != nil {
		return nil, fmt.Errorf("the host's certificate: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("the host's certificate is none")
	}
	return cert, nil
}

// errNotShown says that sshd does not show the host's certificate.
var errNotShown = errors.New("sshd does not show the host's certificate")

// logIn logs in at an sshd that shows the host's certificate, as far as right says, and
// runs true: only then has PAM opened the session.
func logIn(conn net.Conn, login string, signer ssh.Signer, host *ssh.Certificate, right func(shown *ssh.Certificate) bool) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, conn.RemoteAddr().String(), &ssh.ClientConfig{User: login,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: func(_ string, _ net.Addr, shown ssh.PublicKey) error {
			if cert, ok := shown.(*ssh.Certificate); !ok || !right(cert) {
				return errNotShown
			}
			return nil
		}, HostKeyAlgorithms: algorithms(host), ClientVersion: "SSH-2.0-sally-host"})
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		return err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	const notOpened = 254 // sshd's, if PAM did not open the session
	err = session.Run("true")
	var status *ssh.ExitError
	if errors.As(err, &status) && status.ExitStatus() != notOpened {
		return nil // a shell like nologin: who is in is in
	}
	return err
}

// algorithms are those by which sshd shows this certificate, and no other key that it has.
func algorithms(host *ssh.Certificate) []string {
	if host.Type() == ssh.CertAlgoRSAv01 {
		return []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
	}
	return []string{host.Type()}
}

// pipe is a connection over loopback, whose other end is a file for sshd.
func pipe() (net.Conn, *os.File, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return nil, nil, errors.Join(err, client.Close())
		}
		if c.RemoteAddr().String() != client.LocalAddr().String() { // somebody else was faster
			_ = c.Close()
			continue
		}
		file, err := c.(*net.TCPConn).File()
		_ = c.Close()
		if err != nil {
			return nil, nil, errors.Join(err, client.Close())
		}
		return client, file, nil
	}
}

// tail is the end of a log.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
