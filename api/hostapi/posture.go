package hostapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// Posture is what a host found when it looked at itself: after each session, after each
// change that it notices, and every [Settings.PostureEvery].
type Posture struct {
	HostID  string    `json:"host_id"`
	BootID  string    `json:"boot_id"`
	Number  uint64    `json:"number"` // of the report that it comes in
	TakenAt time.Time `json:"taken_at"`
	// List and Heard are number and MadeAt of the last list of revocations that the
	// host verified: what it found, it found after that was signed.
	List  uint64    `json:"list"`
	Heard time.Time `json:"heard"`
	// Sessions is how many connections lasted when it looked.
	Sessions int `json:"sessions"`
	// Ports are those on which something listens for others, beside sshd, each once and in
	// order; null: the host cannot tell.
	Ports  []int   `json:"ports"`
	Checks []Check `json:"checks"` // each ID once, in order of ID
}

// Result is what became of a check.
type Result string

// Results of checks. A collector that failed is Unknown and never a pass.
const (
	Pass    Result = "pass"
	Fail    Result = "fail"
	Unknown Result = "unknown"
)

// Check is one thing that was looked at.
type Check struct {
	ID     string `json:"id"` // of Checks, or another one: lower-case words with dots and hyphens
	Result Result `json:"result"`
	// Findings say what is not as it should be, or what could not be found out: one line
	// each, sorted. They are the same as long as nothing changes, so they name no
	// process ids and no times.
	Findings []string `json:"findings,omitempty"`
	Remedy   string   `json:"remedy,omitempty"` // what an engineer does about it
}

// Checks are those that a host must pass to be sealed. One that a posture leaves out is
// Unknown; one that is not here and fails counts, too.
var Checks = []string{
	"clock",      // within MaxSkew of the broker's
	"consoles",   // getty and serial consoles offer no login that passwords.locked does not close
	"keys",       // no authorized keys, host-based trust or other certificate authorities at any path that sshd reads
	"listening",  // nothing listens that Settings.Listen does not allow
	"passwords",  // all locked
	"reopeners",  // no agent of a cloud, container socket or the like opens the host another way
	"revocation", // the list is fresh
	"root",       // no second account with UID 0
	"running",    // sshd and daemon run, and were started after their configuration was changed
	"sessions",   // no connection lasts
	"sshd",       // effective settings, for every login and address
	"sudo",       // no rule that an account outside the logins could use
}

// Bounds of a posture.
const (
	MaxChecks   = 64
	MaxFindings = 100 // of one check
	MaxFinding  = 500 // bytes, of findings and remedies
)

// PostureReport is the data of a report of KindPosture: the posture and a signature that
// lasts longer than the call.
type PostureReport struct {
	Text      string `json:"text"`      // the Posture in JSON: these bytes are signed
	Signature string `json:"signature"` // armored SSHSIG by the host key, namespace PostureNamespace
}

// Listener is something that may listen on a host.
type Listener struct {
	Network string `json:"network"` // tcp or udp
	Port    uint16 `json:"port"`
	Program string `json:"program,omitempty"` // path of the executable, of which * stands for part of one name; empty: any
}

// String is the form that policies have: "tcp/22" or "tcp/6379 /usr/bin/redis-server".
func (l Listener) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s/%d %s", l.Network, l.Port, l.Program), " ")
}

// SignPosture makes the report of a posture.
func SignPosture(p Posture, key ssh.Signer) (PostureReport, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return PostureReport{}, fmt.Errorf("signing a posture: %w", err)
	}
	signature, err := armoredSignature(key, PostureNamespace, text)
	return PostureReport{Text: string(text), Signature: signature}, err
}

// maxCheckID is the most bytes of a check's id.
const maxCheckID = 63

// isCheckID reports whether the id has its form. Nothing is compiled for it: this
// package is part of a program that is started at every login.
func isCheckID(id string) bool {
	return id != "" && len(id) <= maxCheckID && id[0] >= 'a' && id[0] <= 'z' && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-')
	})
}

// VerifyPosture returns the posture, if the key signed it and it keeps to the form. Whose
// it is and when it was taken is for the caller to compare.
func VerifyPosture(r PostureReport, key ssh.PublicKey) (Posture, error) {
	var p Posture
	if err := verifyArmored(key, PostureNamespace, []byte(r.Text), r.Signature); err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(r.Text), &p); err != nil {
		return p, errors.New("the posture cannot be read")
	}
	if p.TakenAt.IsZero() || p.Sessions < 0 || p.List > 1<<63-1 || !slices.IsSorted(p.Ports) || len(p.Ports) > 1<<16 || len(p.Checks) == 0 || len(p.Checks) > MaxChecks {
		return p, errors.New("the posture is not complete")
	}
	for i, c := range p.Checks {
		switch {
		case !isCheckID(c.ID) || i > 0 && c.ID <= p.Checks[i-1].ID:
			return p, errors.New("the checks of the posture are not in order")
		case c.Result != Pass && c.Result != Fail && c.Result != Unknown:
			return p, fmt.Errorf("check %s has no result", c.ID)
		case len(c.Findings) > MaxFindings || !slices.IsSorted(c.Findings) || !line(c.Remedy):
			return p, fmt.Errorf("check %s does not keep to the form", c.ID)
		case slices.ContainsFunc(c.Findings, func(s string) bool { return !line(s) }):
			return p, fmt.Errorf("a finding of check %s does not keep to the form", c.ID)
		}
	}
	return p, nil
}

func line(s string) bool {
	return len(s) <= MaxFinding && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Full returns the checks with those of Checks that the posture leaves out, which are
// Unknown, in order of ID.
func (p Posture) Full() []Check {
	all := slices.Clone(p.Checks)
	for _, id := range Checks {
		if !slices.ContainsFunc(p.Checks, func(c Check) bool { return c.ID == id }) {
			all = append(all, Check{ID: id, Result: Unknown, Findings: []string{"the host did not report it"}})
		}
	}
	slices.SortFunc(all, func(a, b Check) int { return strings.Compare(a.ID, b.ID) })
	return all
}
