package session

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/door"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/spool"
)

// Hook is what PAM calls when a connection opens and closes.
type Hook struct {
	Place place.Place
	Spool *spool.Spool
	Now   func() time.Time
	// Env is the environment that pam_exec gives.
	Env func(name string) string
	// Monitor is the number of the process that called: sshd's for the connection.
	Monitor int
	// Log writes to the journal.
	Log func(line string)
}

// Refused is told to the person whose session does not begin.
type Refused struct{ Why string }

func (r *Refused) Error() string { return r.Why }

// Open writes down a connection that sshd let in. It returns *Refused if it must not
// go on; then sshd gives it neither a shell nor a forwarding, and the daemon ends it.
//
// All that the door checks is checked again, because sshd can be set up to pass by the
// door; a certificate that opens so many sessions is used up here, and nowhere else.
func (h Hook) Open() error {
	monitor, err := ProcessOf(h.Place, h.Monitor)
	if err != nil {
		return &Refused{"this host cannot tell who called"}
	}
	boot, err := h.Place.BootID()
	if err != nil {
		return &Refused{"this host cannot tell which start of it this is"}
	}
	s := Session{ID: newID(), BootID: boot, Login: h.Env("PAM_USER"), Peer: h.Env("PAM_RHOST"), StartedAt: h.Now().UTC(), Monitor: monitor,
		Audit: auditSession(h.Place, monitor.PID)}
	if listener, err := ParentOf(h.Place, monitor.PID); err != nil || s.Audit == auditSession(h.Place, listener) {
		s.Audit = "" // it is that of whoever started sshd
	}
	s.Connection = connection(h.Place, monitor.PID, s.Peer)
	if peer, _, ok := strings.Cut(s.Connection, " "); ok {
		s.Peer = peer
	}
	wire := s.accepted(h.Env("SSH_AUTH_INFO_0"))
	if wire != nil && rehearsed(wire) {
		return nil
	}
	if wire != nil {
		if err := h.admit(&s, wire); err != nil {
			s.Problem = clip(err.Error(), 250)
		}
	} else {
		h.Log(fmt.Sprintf("%s came from %s by %s, without a certificate", s.Login, s.Peer, s.Method))
	}
	tree := Tree{h.Place}
	tree.Enclose(&s)
	if s.Record && s.Isolation != ByCgroup && s.Problem == "" {
		s.Problem = "its session has to be recorded, and this host cannot keep what is not recorded apart: it has no cgroup version 2"
	}
	if err := h.write(s); err != nil {
		h.Log("refused a session that could not be written down: " + err.Error())
		s.Problem = clip("this host cannot write down who comes: "+err.Error(), 250)
		_ = Store{h.Place}.Put(s) // for the daemon to end it, if that can be written
	}
	if s.Problem != "" {
		h.Log(fmt.Sprintf("refused a session of %s from %s, certificate %d: %s", s.Login, s.Peer, s.Serial, s.Problem))
		return &Refused{s.Problem}
	}
	return nil
}

// write writes the session down, then the report of it.
func (h Hook) write(s Session) error {
	err := Store{h.Place}.Put(s)
	if errors.Is(err, syscall.ENOSPC) && h.Spool.GiveUpReserve() {
		err = Store{h.Place}.Put(s)
	}
	if err != nil {
		return err
	}
	_, err = h.Spool.Append(hostapi.KindSessionStarted, s.Started())
	return err
}

// accepted notes what sshd accepted, of the lines of SSH_AUTH_INFO_0: "publickey
// <type> <base64>", "password" and so on. It returns a certificate's wire format.
func (s *Session) accepted(info string) (wire []byte) {
	s.Method = "unknown"
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		s.Method = clip(strings.Join(f[:min(2, len(f))], " "), 100)
		if len(f) < 3 || f[0] != "publickey" {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(f[2])
		if err != nil {
			continue
		}
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			continue
		}
		cert, ok := key.(*ssh.Certificate)
		if !ok {
			s.Key = ssh.FingerprintSHA256(key)
			continue
		}
		sum := sha256.Sum256(blob)
		s.Serial, s.KeyID, s.Key, s.Certificate = cert.Serial, clip(cert.KeyId, 200), ssh.FingerprintSHA256(cert.Key), hex.EncodeToString(sum[:])
		if len(cert.ValidPrincipals) > 0 {
			s.Principal = clip(cert.ValidPrincipals[0], 200)
		}
		s.Method = ""
		return blob
	}
	return nil
}

// rehearsed reports whether the certificate is of a rehearsal of enrolment that goes on:
// it opens nothing that anybody is in.
func rehearsed(wire []byte) bool {
	key, err := ssh.ParsePublicKey(wire)
	cert, ok := key.(*ssh.Certificate)
	return err == nil && ok && place.Rehearsed(cert.SignatureKey)
}

// admit asks the door again, and uses up what may be used once.
func (h Hook) admit(s *Session, wire []byte) error {
	d, err := door.Open(h.Place)
	if err != nil {
		return err
	}
	l, err := d.Ask(wire, s.Login, h.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", door.ReasonOf(err), err)
	}
	s.Request, s.GrantEnds, s.Keep = l.RequestID, l.GrantEnds, l.KeepSessions
	if l.Deployment != "" {
		s.Deployment, s.IssuedAt, s.GrantEnds = l.Deployment, l.Time, l.BatchEnds
	}
	if s.GrantEnds.IsZero() { // of before the log said so
		s.GrantEnds = time.Unix(int64(l.Certificate.ValidBefore), 0).UTC()
	}
	if s.Record = l.Record; s.Record {
		if err := h.records(); err != nil {
			return err
		}
	}
	uses := l.Uses
	if l.SingleUse {
		uses = 1
	}
	if uses == 0 {
		return nil // as many as its time allows
	}
	switch left, err := (Store{h.Place}).Use(s.Serial, uses); {
	case err != nil:
		return fmt.Errorf("the sessions that it opens are counted, and this host cannot note that: %w", err)
	case !left:
		return fmt.Errorf("it was used before, and the sessions that it opens are counted (%d): get a new one", uses)
	}
	return nil
}

// Close notes that a connection has closed. What the environment says then may come
// from the person's own files, and is not looked at.
func (h Hook) Close() error {
	monitor, err := ProcessOf(h.Place, h.Monitor)
	if err != nil {
		return err
	}
	store := Store{h.Place}
	all, wrong := store.All()
	for _, s := range all {
		if s.Monitor != monitor {
			continue
		}
		wrong = errors.Join(wrong, store.Update(s.ID, func(s *Session) {
			s.ClosedAt = h.Now().UTC()
			Tree{h.Place}.Follow(s)
		}))
	}
	return wrong
}

// clip is at most so many bytes of a text, in one line, as reports take them.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
