// Package mailtest is a mail server for tests: it speaks enough SMTP (RFC 5321,
// STARTTLS of RFC 3207, AUTH PLAIN of RFC 4954) to receive what a real client
// sends, keeps it, and can be told to refuse.
package mailtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is one message as it was received.
type Mail struct {
	From string
	To   []string
	Data string // with header; lines end in LF
	TLS  bool   // it came over TLS
	Auth string // username and password as "user:password", if the client gave them
}

// Config says how the server behaves.
type Config struct {
	NoSTARTTLS bool                   // does not offer it
	Implicit   bool                   // speaks TLS from the first byte
	Listener   net.Listener           // optional; closed in the end
	Refuse     func(to string) string // a reply such as "550 no such user" to RCPT TO; "" accepts
	Babble     bool                   // greets without end
}

// Server is a running mail server.
type Server struct {
	Addr  string // host:port
	Roots *x509.CertPool

	cfg   Config
	tls   *tls.Config
	mu    sync.Mutex
	mails []Mail
}

// New starts a server for the time of the test.
func New(t testing.TB, cfg Config) *Server {
	t.Helper()
	s := &Server{cfg: cfg}
	s.tls, s.Roots = certificate(t)
	l := cfg.Listener
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s.Addr = l.Addr().String()
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return s
}

// Mails are those received so far.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mailtest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func (s *Server) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if s.cfg.Implicit {
		conn = tls.Server(conn, s.tls)
	}
	if s.cfg.Babble {
		for {
			if _, err := conn.Write([]byte("220-" + strings.Repeat("x", 1000) + "\r\n")); err != nil {
				return
			}
		}
	}
	m := Mail{TLS: s.cfg.Implicit}
	text := textproto.NewConn(conn)
	text.PrintfLine("220 mailtest ESMTP")
	for {
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			text.PrintfLine("250-mailtest")
			text.PrintfLine("250-SMTPUTF8")
			if !m.TLS && !s.cfg.NoSTARTTLS {
				text.PrintfLine("250-STARTTLS")
			}
			text.PrintfLine("250 AUTH PLAIN")
		case "HELO", "RSET", "NOOP":
			text.PrintfLine("250 ok")
		case "STARTTLS":
			text.PrintfLine("220 go ahead")
			secure := tls.Server(conn, s.tls)
			if err := secure.Handshake(); err != nil {
				return
			}
			conn, m.TLS = secure, true
			text = textproto.NewConn(conn)
		case "AUTH":
			_, blob, _ := strings.Cut(rest, " ")
			plain, err := base64.StdEncoding.DecodeString(blob)
			parts := strings.Split(string(plain), "\x00")
			if err != nil || len(parts) != 3 || parts[2] == "wrong" {
				text.PrintfLine("535 5.7.8 authentication failed")
				continue
			}
			m.Auth = parts[1] + ":" + parts[2]
			text.PrintfLine("235 ok")
		case "MAIL":
			m.From = address(rest)
			text.PrintfLine("250 ok")
		case "RCPT":
			to := address(rest)
			if s.cfg.Refuse != nil {
				if reply := s.cfg.Refuse(to); reply != "" {
					text.PrintfLine("%s", reply)
					continue
				}
			}
			m.To = append(m.To, to)
			text.PrintfLine("250 ok")
		case "DATA":
			text.PrintfLine("354 go on")
			data, err := text.ReadDotBytes()
			if err != nil {
				return
			}
			m.Data = string(data)
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			m.To = nil
			text.PrintfLine("250 taken")
		case "QUIT":
			text.PrintfLine("221 bye")
			return
		default:
			text.PrintfLine("502 what?")
		}
	}
}

// address is what stands between the angle brackets.
func address(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}
