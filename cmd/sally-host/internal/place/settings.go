package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
	"sallyport/internal/names"
)

// ErrNotEnrolled says that this host has no settings.
var ErrNotEnrolled = errors.New("this host is not enrolled: run sally-host enroll")

// ErrOtherLog says that a broker, or what answers in its place, names another log than
// the one that this host knows.
var ErrOtherLog = errors.New("the broker's log has another key than the one that this host was enrolled with: nothing was changed. If the log was really exchanged, unenroll this host and enrol it again")

// Format names the form of the settings.
const Format = "sallyport.host/1"

// Settings are what the broker said of this host, last.
type Settings struct {
	Format string `json:"format"` // Format
	// HostKey is the path of the private key that the host is known by.
	HostKey string `json:"host_key"`
	hostapi.Enrolment
}

// Trust is what the host believes in.
type Trust struct {
	certs.Trust
	HostID     string
	LogKey     string // in note format
	MaxSilence time.Duration
	Records    bool // there is somebody to record sessions for
}

// Read reads the settings of this host, or says ErrNotEnrolled.
func (p Place) Read() (Settings, error) {
	var s Settings
	text, err := p.file(p.Settings())
	if errors.Is(err, fs.ErrNotExist) {
		return s, ErrNotEnrolled
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("%s: %w", p.Settings(), err)
	}
	if s.Format != Format {
		return s, fmt.Errorf("%s: format %q, and this program reads %q: install the version that wrote it", p.Settings(), s.Format, Format)
	}
	return s, nil
}

// Keep writes what the broker says of this host now: settings, the CAs' keys for sshd,
// the host's certificate. The log's key is pinned: settings with another one are
// refused with ErrOtherLog, and so are those of another host.
func (p Place) Keep(s Settings) error {
	s.Format = Format
	if _, err := s.Trust(); err != nil {
		return err
	}
	before, err := p.Read()
	switch {
	case errors.Is(err, ErrNotEnrolled):
	case err != nil:
		return err
	case before.LogKey != s.LogKey:
		return ErrOtherLog
	case before.HostID != s.HostID:
		return fmt.Errorf("the broker says that this host is %s, and it is %s: unenroll it first", s.HostID, before.HostID)
	}
	if err := os.MkdirAll(p.Folder(), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// The settings last: with them the host is enrolled.
	return errors.Join(
		Write(p.UserCA(), []byte(strings.Join(s.UserCAs, "\n")+"\n"), 0o644),
		Write(p.HostCert(), []byte(strings.TrimSpace(s.HostCertificate)+"\n"), 0o644),
		Write(p.Settings(), append(text, '\n'), 0o644))
}

// Trust parses what the host is to believe in.
func (s Settings) Trust() (Trust, error) {
	t := Trust{HostID: s.HostID, LogKey: s.LogKey, MaxSilence: s.Settings.MaxSilence(), Records: len(s.Settings.AuditorKeys) > 0}
	if !ids.Valid(ids.Host, s.HostID) || !names.Host(s.Name) {
		return t, fmt.Errorf("the settings name no host: %q, %q", s.HostID, s.Name)
	}
	log, err := note.NewVerifier(s.LogKey)
	if err != nil {
		return t, fmt.Errorf("the log's key: %w", err)
	}
	t.Log = log
	if len(s.UserCAs) == 0 {
		return t, errors.New("the settings name no CA")
	}
	for _, line := range s.UserCAs {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(rest) > 0 || len(options) > 0 || strings.Contains(line, "\n") {
			return t, fmt.Errorf("a CA's key cannot be read: %q", line)
		}
		t.CAs = append(t.CAs, key)
	}
	if t.MaxSilence <= 0 {
		return t, errors.New("the settings do not say how long the broker may be silent")
	}
	return t, nil
}

// Key reads the private key that the host is known by.
func (s Settings) Key(p Place) (ssh.Signer, error) {
	text, err := os.ReadFile(p.join(s.HostKey))
	if err != nil {
		return nil, fmt.Errorf("the host's key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("the host's key %s: %w", s.HostKey, err)
	}
	return key, nil
}
