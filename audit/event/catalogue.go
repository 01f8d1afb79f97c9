package event

import (
	"fmt"
	"strings"
	"time"
)

// People and how they sign in.

// PersonSignedIn records that the provider vouched for a person.
type PersonSignedIn struct {
	Via      string    `json:"via"`             // web, cli or device
	Issuer   string    `json:"issuer"`          // of the provider
	Subject  string    `json:"subject"`         // the person's id at the provider
	Email    string    `json:"email,omitempty"` // as the provider says it
	Groups   []string  `json:"groups"`          // as the provider says them
	AuthTime time.Time `json:"auth_time"`       // when the provider authenticated the person
	AMR      []string  `json:"amr,omitempty"`   // how, in the provider's words
	ACR      string    `json:"acr,omitempty"`   // how strongly, in the provider's words
}

func (PersonSignedIn) EventType() (string, int) { return "person.signed_in", 1 }
func (d PersonSignedIn) Summary() string        { return "signed in (" + d.Via + ")" }

// SignInFailed records a sign-in that was refused.
type SignInFailed struct {
	Via    string `json:"via"`    // web, cli or device
	Code   string `json:"code"`   // the refusal's code
	Reason string `json:"reason"` // why, in words for people
}

func (SignInFailed) EventType() (string, int) { return "person.sign_in_failed", 1 }
func (d SignInFailed) Summary() string        { return "could not sign in: " + d.Reason }

// PersonSignedOut records the end of a web session or of a CLI's tokens.
type PersonSignedOut struct {
	Via string `json:"via"` // web, cli or device
}

func (PersonSignedOut) EventType() (string, int) { return "person.signed_out", 1 }
func (d PersonSignedOut) Summary() string        { return "signed out (" + d.Via + ")" }

// TokenReused records that a refresh token was shown a second time: one of the
// two who showed it stole it, so the whole family has ended.
type TokenReused struct {
	Family string `json:"family"` // id of the sign-in that ended
}

func (TokenReused) EventType() (string, int) { return "token.reused", 1 }
func (d TokenReused) Summary() string {
	return "used a refresh token a second time, which ended the sign-in"
}

// Requests.

// RequestCreated records a person's ask with its canonical terms.
type RequestCreated struct {
	Terms     string `json:"terms"`               // the canonical terms, exactly
	TermsHash string `json:"terms_hash"`          // SHA-256 of them, hex
	Host      string `json:"host"`                // name
	Login     string `json:"login"`               // on the host
	Duration  string `json:"duration"`            // that was asked for, such as 30m0s
	Rule      string `json:"rule"`                // of the policy that applies
	Reason    string `json:"reason,omitempty"`    // in the person's words
	Ticket    string `json:"ticket,omitempty"`    // in another system
	Emergency bool   `json:"emergency,omitempty"` // opened before approval
	Drill     bool   `json:"drill,omitempty"`     // with Emergency: a rehearsal
	Extends   string `json:"extends,omitempty"`   // the request whose grant it is to follow

	Hosts []string `json:"hosts,omitempty"` // names of all, Host first, if there are several
}

func (RequestCreated) EventType() (string, int) { return "request.created", 1 }
func (d RequestCreated) Summary() string {
	said := fmt.Sprintf("asked for %s@%s for %s", d.Login, named(d.Host, d.Hosts), d.Duration)
	if d.Emergency {
		said += ", as " + emergency(d.Drill)
	}
	if d.Extends != "" {
		said += " more, after " + d.Extends
	}
	return said
}

// named is one host, or how many more there are.
func named(host string, hosts []string) string {
	if len(hosts) > 1 {
		return fmt.Sprintf("%s and %d more", host, len(hosts)-1)
	}
	return host
}

// RequestRefused records an ask that the policy did not allow to be made.
type RequestRefused struct {
	Host   string `json:"host"`   // as it was asked for: a name, an id, or labels with their values
	Login  string `json:"login"`  // as it was asked for
	Code   string `json:"code"`   // the refusal's code, as in docs/problems.md
	Reason string `json:"reason"` // why, in words for people

	Emergency bool   `json:"emergency,omitempty"` // it was asked for as one
	Extends   string `json:"extends,omitempty"`   // the request whose grant it was to follow
}

func (RequestRefused) EventType() (string, int) { return "request.refused", 1 }
func (d RequestRefused) Summary() string {
	return fmt.Sprintf("was refused %s@%s: %s", d.Login, d.Host, d.Reason)
}

// RequestDecided records one approver's verdict.
type RequestDecided struct {
	DecisionID   string   `json:"decision_id"`       // of the decision
	Verdict      string   `json:"verdict"`           // approve or deny
	Comment      string   `json:"comment,omitempty"` // in the approver's words
	TermsHash    string   `json:"terms_hash"`        // SHA-256 of what was decided on, hex
	Groups       []string `json:"groups"`            // of the approver, at the decision
	Evidence     string   `json:"evidence"`          // the canonical statement, exactly
	EvidenceHash string   `json:"evidence_hash"`     // SHA-256 of it, hex
	// What proves it: see package approvals/evidence.
	Assurance   string `json:"assurance,omitempty"`     // session or provider
	IDTokenHash string `json:"id_token_hash,omitempty"` // SHA-256 of the ID token, hex
	KeysHash    string `json:"keys_hash,omitempty"`     // of the note in provider.keys_seen that the token verifies with
	// For is the name of the person whose groups they are, if a delegation lent
	// them; the event's on_behalf_of says who that is, and the evidence under which.
	For string `json:"for,omitempty"`
}

func (RequestDecided) EventType() (string, int) { return "request.decided", 1 }
func (d RequestDecided) Summary() string {
	said := "approved it"
	if d.Verdict == "deny" {
		said = "denied it"
	}
	if d.For != "" {
		said += " for " + d.For
	}
	return said
}

// DecisionRefused records a decision that was not accepted, such as one's own.
type DecisionRefused struct {
	Verdict string `json:"verdict"` // approve or deny, as it was tried
	Code    string `json:"code"`    // the refusal's code, as in docs/problems.md
	Reason  string `json:"reason"`  // why, in words for people
}

func (DecisionRefused) EventType() (string, int) { return "request.decision_refused", 1 }
func (d DecisionRefused) Summary() string        { return "could not decide: " + d.Reason }

// RequestClosed records that a request ended without a grant.
type RequestClosed struct {
	State   string `json:"state"`             // denied, cancelled or expired
	Comment string `json:"comment,omitempty"` // why, if an operator closed it
}

func (RequestClosed) EventType() (string, int) { return "request.closed", 1 }
func (d RequestClosed) Summary() string {
	switch d.State {
	case "denied":
		return "closed the request, as denied"
	case "cancelled":
		return "cancelled the request" + because(d.Comment)
	case "expired":
		return "closed the request, as nobody decided in time"
	}
	return "closed the request"
}

// Grants.

// GrantStarted records that the quorum is there.
type GrantStarted struct {
	TermsHash string    `json:"terms_hash"`          // SHA-256 of the canonical terms, hex
	Automatic bool      `json:"automatic"`           // by rule, with nobody asked
	Decisions []string  `json:"decisions"`           // hashes of the decisions' evidence, hex
	StartsAt  time.Time `json:"starts_at"`           // when its time begins
	EndsAt    time.Time `json:"ends_at"`             // when its time is up
	Emergency bool      `json:"emergency,omitempty"` // before anybody approved
	Drill     bool      `json:"drill,omitempty"`     // with Emergency: a rehearsal
	Extends   string    `json:"extends,omitempty"`   // the request whose grant it follows
}

func (GrantStarted) EventType() (string, int) { return "grant.started", 1 }
func (d GrantStarted) Summary() string {
	how := "started the grant"
	if d.Automatic {
		how = "started the grant automatically"
	}
	if d.Emergency {
		how = "started the grant without approval, in " + emergency(d.Drill)
	}
	return how + ", until " + d.EndsAt.Format("15:04:05 MST")
}

// GrantEnded records the end of a grant.
type GrantEnded struct {
	Reason  string `json:"reason"`            // time, finished, revoked, unused
	Comment string `json:"comment,omitempty"` // why, if somebody revoked it
}

func (GrantEnded) EventType() (string, int) { return "grant.ended", 1 }
func (d GrantEnded) Summary() string {
	switch d.Reason {
	case "time":
		return "ended the grant, as its time was up"
	case "finished":
		return "ended the grant early, being done"
	case "unused":
		return "ended the grant, as nobody had used it in time"
	case "revoked":
		return "revoked the grant" + because(d.Comment)
	}
	return "ended the grant: " + d.Reason
}

// Certificates.

// CertificateIssued is the intent to sign one certificate: it is committed and
// sequenced before the CA's key is used (P1).
type CertificateIssued struct {
	Serial         uint64    `json:"serial,string"`   // the certificate's number
	KeyID          string    `json:"key_id"`          // that sshd logs: <request>:<person>
	Principal      string    `json:"principal"`       // the only one: <login>@<host id>
	Login          string    `json:"login"`           // on the host
	Host           string    `json:"host"`            // name
	Key            string    `json:"key"`             // fingerprint, SHA256:…
	PreCertificate []byte    `json:"pre_certificate"` // wire format without signature, base64
	CA             string    `json:"ca"`              // fingerprint of the CA's key
	ValidAfter     time.Time `json:"valid_after"`     // first moment of its validity
	ValidBefore    time.Time `json:"valid_before"`    // end of its validity
	TermsHash      string    `json:"terms_hash"`      // SHA-256 of the canonical terms, hex
	Decisions      []string  `json:"decisions"`       // hashes of the decisions' evidence, hex

	Emergency bool `json:"emergency,omitempty"` // under a grant that nobody approved
	Drill     bool `json:"drill,omitempty"`     // with Emergency: a rehearsal

	// What a host needs to know, so that it need ask nobody.
	GrantEndsAt time.Time `json:"grant_ends_at,omitzero"` // unless another grant follows; missing in old events
	AtEnd       string    `json:"at_end,omitempty"`       // what becomes of sessions then: end (also if missing) or keep
	SingleUse   bool      `json:"single_use,omitempty"`   // it opens one session
	Record      bool      `json:"record,omitempty"`       // its sessions are recorded, or it opens none
}

func (CertificateIssued) EventType() (string, int) { return "certificate.issued", 1 }
func (d CertificateIssued) Summary() string {
	said := fmt.Sprintf("got certificate %d for %s@%s until %s", d.Serial, d.Login, d.Host,
		d.ValidBefore.Format("15:04:05 MST"))
	if d.Emergency {
		said += ", in " + emergency(d.Drill)
	}
	return said
}

// CertificateRefused records a certificate that somebody asked for in vain.
type CertificateRefused struct {
	Code   string `json:"code"`          // the refusal's code, as in docs/problems.md
	Reason string `json:"reason"`        // why, in words for people
	Key    string `json:"key,omitempty"` // fingerprint, if the key could be read
}

func (CertificateRefused) EventType() (string, int) { return "certificate.refused", 1 }
func (d CertificateRefused) Summary() string        { return "was refused a certificate: " + d.Reason }

// Hosts.

// HostRegistered records a new host.
type HostRegistered struct {
	Name    string            `json:"name"`               // by which people know it
	Address string            `json:"address"`            // where sshd listens
	Labels  map[string]string `json:"labels"`             // that rules select hosts by
	Logins  []string          `json:"logins"`             // that can be asked for
	HostKey string            `json:"host_key,omitempty"` // fingerprint
}

func (HostRegistered) EventType() (string, int) { return "host.registered", 1 }
func (d HostRegistered) Summary() string        { return "registered host " + d.Name }

// HostChanged records a host's new description.
type HostChanged struct {
	Name    string            `json:"name"`               // by which people know it
	Address string            `json:"address"`            // where sshd listens
	Labels  map[string]string `json:"labels"`             // that rules select hosts by
	Logins  []string          `json:"logins"`             // that can be asked for
	HostKey string            `json:"host_key,omitempty"` // fingerprint
}

func (HostChanged) EventType() (string, int) { return "host.changed", 1 }
func (d HostChanged) Summary() string        { return "changed host " + d.Name }

// HostRemoved records that a host can no longer be asked for.
type HostRemoved struct {
	Name string `json:"name"` // by which people knew it
}

func (HostRemoved) EventType() (string, int) { return "host.removed", 1 }
func (d HostRemoved) Summary() string        { return "removed host " + d.Name }

// HostCertificateIssued is the intent to sign a host's certificate.
type HostCertificateIssued struct {
	Serial         uint64    `json:"serial,string"`   // the certificate's number
	Host           string    `json:"host"`            // name
	Principals     []string  `json:"principals"`      // names and addresses that it proves
	Key            string    `json:"key"`             // fingerprint
	PreCertificate []byte    `json:"pre_certificate"` // wire format without signature, base64
	CA             string    `json:"ca"`              // fingerprint of the CA's key
	ValidAfter     time.Time `json:"valid_after"`     // first moment of its validity
	ValidBefore    time.Time `json:"valid_before"`    // end of its validity
}

func (HostCertificateIssued) EventType() (string, int) { return "host.certificate_issued", 1 }
func (d HostCertificateIssued) Summary() string {
	return fmt.Sprintf("made host certificate %d for %s until %s", d.Serial, d.Host,
		d.ValidBefore.Format("2006-01-02"))
}

// The broker itself.

// KeysLoaded records which keys a broker process signs with, when it starts with
// others than the one that wrote the last such event: keys are used for the first
// time, replaced, or used again.
type KeysLoaded struct {
	UserCA   string   `json:"user_ca"`            // fingerprint
	HostCA   string   `json:"host_ca"`            // fingerprint
	Log      string   `json:"log"`                // the log's verifier key, note format
	Replaced []string `json:"replaced,omitempty"` // names of the fields that differ from the last such event
}

func (KeysLoaded) EventType() (string, int) { return "broker.keys_loaded", 1 }
func (d KeysLoaded) Summary() string {
	if len(d.Replaced) == 0 {
		return "started with these keys"
	}
	return "started with other keys: " + strings.Join(d.Replaced, ", ")
}

// AccessRefused records that somebody tried what their role does not allow.
type AccessRefused struct {
	Action string `json:"action"` // method and route, no query
	Code   string `json:"code"`   // the refusal's code, as in docs/problems.md
	Reason string `json:"reason"` // why, in words for people
}

func (AccessRefused) EventType() (string, int) { return "access.refused", 1 }
func (d AccessRefused) Summary() string        { return "was refused " + d.Action + ": " + d.Reason }
