package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"time"
)

// The ways to protect the connection to a mail server.
const (
	startTLS    = "starttls" // refused if the server does not offer it
	implicitTLS = "implicit"
	noTLS       = "none" // to this machine only
)

// mailer sends mail through one SMTP server (RFC 5321).
type mailer struct {
	address  string // host:port
	host     string
	security string
	from     mail.Address
	to       []mail.Address // empty: each message names its one addressee
	username string         // empty: no authentication
	password string
	tls      *tls.Config
}

func clientTLS(host string) *tls.Config {
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
}

// maxSMTP is how many bytes of a server's answers are read, handshake included.
const maxSMTP = 256 << 10

// Send implements Channel.
func (s *mailer) Send(ctx context.Context, m Message) error {
	to := s.to
	if m.To != nil {
		to = []mail.Address{*m.To}
	}
	if len(to) == 0 {
		return permanent{errors.New("nobody to send it to")}
	}
	text, err := compose(m, s.from, to)
	if err != nil {
		return permanent{err}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("connecting to the mail server: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.converse(&limitedConn{conn, maxSMTP}, to, text); err != nil {
		var answer *textproto.Error
		if errors.As(err, &answer) && answer.Code/100 == 5 {
			return permanent{err}
		}
		return err
	}
	return nil
}

// converse speaks SMTP on a fresh connection.
func (s *mailer) converse(conn net.Conn, to []mail.Address, text []byte) error {
	if s.security == implicitTLS {
		conn = tls.Client(conn, s.tls)
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return fmt.Errorf("greeting the mail server: %w", err)
	}
	defer c.Close()
	if s.security == startTLS {
		if offered, _ := c.Extension("STARTTLS"); !offered {
			return errors.New("the mail server does not offer STARTTLS; nothing was sent")
		}
		if err := c.StartTLS(s.tls); err != nil {
			return fmt.Errorf("starting TLS: %w", err)
		}
	}
	if s.username != "" {
		// PlainAuth itself refuses to send a password without TLS to another machine.
		if err := c.Auth(smtp.PlainAuth("", s.username, s.password, s.host)); err != nil {
			return fmt.Errorf("authenticating to the mail server: %w", err)
		}
	}
	if err := c.Mail(s.from.Address); err != nil {
		return fmt.Errorf("naming the sender: %w", err)
	}
	for _, a := range to {
		if err := c.Rcpt(a.Address); err != nil {
			return fmt.Errorf("naming the recipient: %w", err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return fmt.Errorf("sending the mail: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("sending the mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("sending the mail: %w", err)
	}
	c.Quit() // the server has taken it; how the goodbye ends changes nothing
	return nil
}

// limitedConn ends a conversation in which the server says too much.
type limitedConn struct {
	net.Conn
	left int
}

func (c *limitedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
