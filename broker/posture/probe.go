package posture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
)

const (
	dialTimeout  = 2 * time.Second
	probeTimeout = 20 * time.Second
	// dialsAtOnce bounds one scan, which must not look like an attack, or be one.
	dialsAtOnce = 16
)

// doors are TCP ports by which hosts are entered or taken over, and which nothing but
// forgetfulness opens: telnet, containers, databases, remote desktops, agents.
var doors = []uint16{21, 22, 23, 25, 80, 111, 139, 443, 445, 512, 513, 514, 873, 1433, 2049, 2222, 2375, 2376, 2379, 3306, 3389,
	4243, 5432, 5900, 5985, 6379, 6443, 8080, 8443, 9090, 9100, 9200, 10250, 11211, 27017}

// Look looks at a host from where this process is, as somebody without a certificate. The
// rules:
//
//  1. It goes to the host's address; if that is the host's own word, only Elsewhere. A name
//     is looked up once, so that what answers is what is looked at.
//  2. sshd answers there with the key of the registry, or with a certificate by the host CA
//     for the host's id. Only who has proved to be the host is looked at any further: nobody
//     makes the broker scan others.
//  3. A key that nobody certified is refused, and sshd offers nothing but keys: neither
//     passwords nor questions nor Kerberos.
//  4. Of the ports that are tried, none is open but sshd's and those in allowed. On the
//     broker's own machine, where a demo may have its hosts, none is tried: other programs'
//     ports say nothing of the host.
//
// A host that cannot be reached is unknown. login is whom it tries to be.
func Look(ctx context.Context, d Door, login string, hostCA ssh.PublicKey, allowed []hostapi.Listener, now func() time.Time) Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	p := Probe{Login: login, Result: hostapi.Pass}
	known, wrong, at, err := knock(ctx, d, login, hostCA, now)
	if known && !at.Addr().IsLoopback() {
		wrong = append(wrong, scan(ctx, at, allowed)...)
	}
	switch {
	case len(wrong) > 0:
		p.Result, p.Findings = hostapi.Fail, wrong
	case err != nil:
		p.Result, p.Findings = hostapi.Unknown, []string{err.Error()}
	}
	p.At = now()
	return p
}

// knock tries the door of the host, and says where that was.
func knock(ctx context.Context, d Door, login string, hostCA ssh.PublicKey, now func() time.Time) (known bool, wrong []string, at netip.AddrPort, err error) {
	conn, at, err := dial(ctx, d)
	if err != nil {
		return false, nil, at, err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		conn.SetDeadline(until)
	}
	known, wrong, err = tryDoor(conn, d, login, hostCA, now)
	return known, wrong, at, err
}

// scan says which of the ports are open beside sshd's, that nobody allowed.
func scan(ctx context.Context, sshd netip.AddrPort, allowed []hostapi.Listener) []string {
	var (
		mu    sync.Mutex
		open  []uint16
		group sync.WaitGroup
		slots = make(chan struct{}, dialsAtOnce)
	)
	for _, port := range doors {
		fine := func(l hostapi.Listener) bool { return l.Network == "tcp" && l.Port == port }
		if port == sshd.Port() || slices.ContainsFunc(allowed, fine) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			dialer := net.Dialer{Timeout: dialTimeout}
			conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(sshd.Addr(), port).String())
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			open = append(open, port)
		})
	}
	group.Wait()
	slices.Sort(open)
	findings := make([]string, len(open))
	for i, port := range open {
		findings[i] = fmt.Sprintf("tcp/%d is open, and nothing allows it", port)
	}
	return findings
}

// tryDoor tries to log in as somebody without a certificate. It returns whether what
// answered is known to be the host, and what is wrong, or an error if that cannot be
// found out.
func tryDoor(conn net.Conn, d Door, login string, hostCA ssh.PublicKey, now func() time.Time) (known bool, wrong []string, err error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return false, nil, err
	}
	stranger, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return false, nil, err
	}
	offered := func(what string) error {
		wrong = append(wrong, "sshd offers "+what)
		return errOffered
	}
	checker := &ssh.CertChecker{Clock: now, IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), hostCA.Marshal())
	}}
	config := &ssh.ClientConfig{
		User: login, Timeout: dialTimeout, ClientVersion: "SSH-2.0-sallyport-probe",
		Auth: []ssh.AuthMethod{
			ssh.PublicKeys(stranger),
			ssh.PasswordCallback(func() (string, error) { return "", offered("passwords") }),
			ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, offered("to ask questions") }),
		},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if cert, ok := key.(*ssh.Certificate); ok {
				if !checker.IsHostAuthority(cert.SignatureKey, "") || checker.CheckCert(d.HostID, cert) != nil {
					return errStranger
				}
				key = cert.Key
			}
			if string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) != d.HostKey {
				return errStranger
			}
			known = true
			return nil
		},
	}
	// The key that the registry has, and no other that the host may have too.
	if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(d.HostKey)); err == nil {
		config.HostKeyAlgorithms = algorithms(key.Type())
	}
	client, channels, requests, err := ssh.NewClientConn(conn, d.Address, config)
	if err == nil {
		ssh.NewClient(client, channels, requests).Close()
		return known, []string{"sshd let " + login + " in with a key that nobody certified"}, nil
	}
	switch {
	case errors.Is(err, errStranger):
		return false, nil, errors.New("what answers at the host's address has another key than the host")
	case !known:
		return false, nil, errors.New("what answers at the host's address does not speak as sshd does")
	case len(wrong) > 0 || bytes.Contains([]byte(err.Error()), []byte("unable to authenticate")):
		return known, wrong, nil
	}
	return known, nil, errors.New("sshd ended the connection before it refused")
}

func algorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType + "-cert-v01@openssh.com", keyType}
}

var (
	errOffered  = errors.New("offered")
	errStranger = errors.New("another key")
)
