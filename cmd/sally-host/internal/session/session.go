// Package session knows the connections that sshd let in, and how each ends.
//
// sshd tells of them by PAM (pam_exec(8)), as root and before the person's shell
// starts: [Hook]. Each connection gets a file, which lasts over restarts of the daemon,
// and where the host allows it a cgroup (version 2) of its own, so that whatever it
// starts is found again, however it detached itself. Where there is none, its processes
// are found by what the kernel and sshd say of them (see [Tree]); some can hide then,
// and the host says so in its posture.
//
// A session lasts as long as its connection, or anything that was started in it.
package session

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// How the processes of a session are found.
const (
	ByCgroup  = "cgroup"
	BySession = "session"
)

// Session is one connection.
type Session struct {
	ID     string `json:"id"` // 128 bits in hex
	BootID string `json:"boot_id"`

	// Of the certificate; Serial is 0 if sshd accepted something else.
	Serial      uint64    `json:"serial,string"`
	KeyID       string    `json:"key_id,omitempty"`
	Principal   string    `json:"principal,omitempty"`
	Key         string    `json:"key,omitempty"`         // fingerprint
	Certificate string    `json:"certificate,omitempty"` // SHA-256 of its wire format, hex
	Request     string    `json:"request,omitempty"`
	Deployment  string    `json:"deployment,omitempty"` // of an agent's, instead of a request
	IssuedAt    time.Time `json:"issued_at,omitzero"`
	GrantEnds   time.Time `json:"grant_ends,omitzero"`
	Keep        bool      `json:"keep,omitempty"`   // it outlasts that
	Record      bool      `json:"record,omitempty"` // its rule wants it recorded
	Method      string    `json:"method,omitempty"`

	Login     string    `json:"login"`
	Peer      string    `json:"peer"`
	StartedAt time.Time `json:"started_at"`
	ClosedAt  time.Time `json:"closed_at,omitzero"` // of the connection; what it started may go on
	Problem   string    `json:"problem,omitempty"`  // why the host does not let it be
	Told      bool      `json:"told,omitempty"`     // of its end, though something of it survived

	Isolation string   `json:"isolation"`
	Cgroups   []string `json:"cgroups,omitempty"` // folders, each for this session alone
	Monitor   Process  `json:"monitor"`           // sshd's own process for the connection
	// Audit is the kernel's number of the login (pam_loginuid(8)), which only root can
	// change; empty where there is none.
	Audit string `json:"audit,omitempty"`
	// Connection is what sshd puts into the environment as SSH_CONNECTION.
	Connection string    `json:"connection,omitempty"`
	Seen       []Process `json:"seen,omitempty"` // found at the last look, without a cgroup
}

// Started is the report of its start.
func (s Session) Started() hostapi.SessionStarted {
	out := hostapi.SessionStarted{Session: s.ID, Serial: s.Serial, KeyID: s.KeyID, Principal: s.Principal, Key: s.Key, Certificate: s.Certificate,
		Method: s.Method, Login: s.Login, Peer: s.Peer, StartedAt: s.StartedAt, Isolation: s.Isolation, Problem: s.Problem}
	if !s.GrantEnds.IsZero() && !s.Keep {
		out.EndsAt = &s.GrantEnds
	}
	return out
}

// Ended is the report of its end.
func (s Session) Ended(at time.Time, reason hostapi.EndReason) hostapi.SessionEnded {
	return hostapi.SessionEnded{Session: s.ID, Serial: s.Serial, KeyID: s.KeyID, Login: s.Login, Peer: s.Peer, EndedAt: at, Reason: reason}
}

// Store is the sessions of this host, in files. It may be used by many processes.
type Store struct{ Place place.Place }

// newID makes the name of a session.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (st Store) file(id string) string { return filepath.Join(st.Place.Sessions(), id+".json") }

// Put writes a session down, for good.
func (st Store) Put(s Session) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return place.Write(st.file(s.ID), text, 0o600)
}

// Remove forgets one.
func (st Store) Remove(id string) error {
	err := os.Remove(st.file(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return place.SyncDir(st.Place.Sessions())
}

// Update changes a session, while nobody else does; one that is gone is left alone.
func (st Store) Update(id string, change func(*Session)) error {
	unlock, err := st.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := st.read(st.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	change(&s)
	return st.Put(s)
}

func (st Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(st.Place.Sessions(), "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// All are the sessions that are written down; and what cannot be read, as errors.
func (st Store) All() ([]Session, error) {
	entries, err := os.ReadDir(st.Place.Sessions())
	if err != nil {
		return nil, fmt.Errorf("looking for sessions: %w", err)
	}
	var all []Session
	var wrong error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		s, err := st.read(filepath.Join(st.Place.Sessions(), e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err == nil && s.ID+".json" != e.Name() {
			err = fmt.Errorf("%s: it is about another session", e.Name())
		}
		if err != nil {
			wrong = errors.Join(wrong, err)
			continue
		}
		all = append(all, s)
	}
	return all, wrong
}

func (st Store) read(name string) (Session, error) {
	var s Session
	text, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// Use notes that the certificate was used, and reports whether it was used less than so
// many times before. Of two who ask at once when one use is left, one has it.
func (st Store) Use(serial uint64, uses int) (left bool, err error) {
	for n := range uses {
		name := fmt.Sprint(serial)
		if n > 0 {
			name = fmt.Sprintf("%d.%d", serial, n)
		}
		if left, err = st.use(name); left || err != nil {
			return left, err
		}
	}
	return false, nil
}

func (st Store) use(name string) (first bool, err error) {
	f, err := os.OpenFile(filepath.Join(st.Place.Used(), name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := errors.Join(f.Sync(), f.Close(), place.SyncDir(st.Place.Used())); err != nil {
		return false, err
	}
	return true, nil
}

// ForgetUsed forgets certificates that were used before the time: none of them is good
// any more.
func (st Store) ForgetUsed(before time.Time) error {
	entries, err := os.ReadDir(st.Place.Used())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			if err := os.Remove(filepath.Join(st.Place.Used(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
