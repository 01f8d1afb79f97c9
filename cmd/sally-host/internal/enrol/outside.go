package enrol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/cmd/sally-host/internal/place"
)

// outside goes to the host's own sshd over its network and expects that it shows the
// host's certificate, by which it is known that it has read the new settings, and
// refuses a certificate that is signed with another key than the CA's. That a right one
// enters was rehearsed: there is none for this host before somebody approves one.
//
// One refusal only: OpenSSH 10 shuts out addresses that were refused too often.
func (e *Enroller) outside(ctx context.Context, s place.Settings, login string, before Effective) error {
	host, port, err := before.listening()
	if err != nil {
		return err
	}
	address := net.JoinHostPort(host, port)
	wanted, err := hostCertificate(s)
	if err != nil {
		return err
	}
	stranger, err := newPuppet(e.Now)
	if err != nil {
		return err
	}
	signer, err := stranger.sign(stranger.terms(login, s.HostID))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 4*time.Second) {
		err := tryOutside(ctx, address, login, signer, wanted)
		switch {
		case errors.Is(err, errRefused):
			return nil
		case err == nil:
			return fmt.Errorf("sshd at %s let a certificate in that no CA of yours signed", address)
		}
		select { // it reads its settings when it comes to it
		case <-ctx.Done():
			return fmt.Errorf("sshd at %s does not come back with the new settings: %w", address, err)
		case <-time.After(pause):
		}
	}
}

func tryOutside(ctx context.Context, address, login string, signer ssh.Signer, wanted *ssh.Certificate) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return logIn(conn, login, signer, wanted, func(shown *ssh.Certificate) bool {
		return bytes.Equal(shown.Marshal(), wanted.Marshal())
	})
}

// listening is where sshd is reached from this host.
func (e Effective) listening() (host, port string, err error) {
	for _, at := range e["listenaddress"] {
		host, port, err := net.SplitHostPort(at)
		if err != nil {
			continue
		}
		switch ip := net.ParseIP(strings.Trim(host, "[]")); {
		case ip == nil:
		case ip.IsUnspecified() && ip.To4() != nil:
			host = "127.0.0.1"
		case ip.IsUnspecified():
			host = "::1"
		}
		return host, port, nil
	}
	return "", "", fmt.Errorf("sshd listens nowhere that can be told (%s)", strings.Join(e["listenaddress"], ", "))
}
