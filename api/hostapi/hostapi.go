// Package hostapi is what enrolled hosts and the broker say to each other: the
// wire types of /api/v1/host/…, how a host signs its calls, and a client. It is a
// leaf that imports nothing of Sallyport, so that sally-host stays small.
//
// A host is known by its SSH host key, the one that its sshd shows to clients and
// that an operator let in. No other secret has to be kept or renewed on it:
//
//   - Enrol introduces it, with a join token or to wait for an operator. The proof
//     in it names the broker, the token and everything that the host says of itself.
//   - Every later call carries a signature by that key over method, path, query,
//     time, a nonce and the body's hash ([Sign]). The broker takes calls that are at
//     most [MaxSkew] off its clock, and each nonce of a call that changes something once.
//   - What the broker says of revocations is signed with the key of its log, which
//     the host pinned when it enrolled; what it says beside that, TLS protects.
//
// Times are RFC 3339 in UTC. 64-bit numbers that stand for identities (serials) are
// JSON strings; counts are numbers. Fields that a host does not know it ignores:
// hosts are updated last. Errors are RFC 9457 problems ([Problem]).
package hostapi

import "time"

// Paths of the calls, below the broker's URL.
const (
	EnrolmentsPath   = "/api/v1/host/enrolments"   // POST unsigned, with a proof; GET /{id} signed
	CertificatesPath = "/api/v1/host/certificates" // POST
	RevocationsPath  = "/api/v1/host/revocations"  // GET ?after=N&wait=55s
	ReportsPath      = "/api/v1/host/reports"      // POST
)

// Paths of what anybody may fetch, for hosts without the daemon.
const (
	KRLPath          = "/ssh/krl"     // OpenSSH's revocation list; its version is the list's number
	KRLSignaturePath = "/ssh/krl.sig" // armored SSHSIG of it by the user CA, namespace KRLNamespace
)

// Bounds that the broker holds calls to.
const (
	MaxBody       = 1 << 20 // bytes of a call
	MaxReports    = 100     // reports in one call
	MaxReportSize = 64 << 10
	MaxFact       = 200 // bytes of each of Facts
	MaxWait       = 60 * time.Second
)

// Settings are what the broker wants of a host; they come with every [Enrolment].
type Settings struct {
	// MaxSilenceSeconds is how long a host that hears nothing from the broker goes
	// on taking certificates that were issued since. Older ones it takes as long as
	// they are good.
	MaxSilenceSeconds int64 `json:"max_silence_seconds"`
	// RenewAt is when to ask for the next host certificate, which also brings
	// changed settings, logins and keys.
	RenewAt time.Time `json:"renew_at"`
	// AuditorKeys are age recipients, to which sessions are recorded. None: there is
	// nobody to record for, and a certificate that wants a recording opens nothing.
	AuditorKeys []string `json:"auditor_keys,omitempty"`
	// PostureEverySeconds is how often the host looks at itself, at least.
	PostureEverySeconds int64 `json:"posture_every_seconds"`
	// Listen is all that may listen on the host, beside sshd on its own port.
	Listen []Listener `json:"listen"`
}

// PostureEvery is PostureEverySeconds as a duration.
func (s Settings) PostureEvery() time.Duration {
	return time.Duration(s.PostureEverySeconds) * time.Second
}

// MaxSilence is MaxSilenceSeconds as a duration.
func (s Settings) MaxSilence() time.Duration { return time.Duration(s.MaxSilenceSeconds) * time.Second }

// Problem is an RFC 9457 problem: why a call was refused.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title,omitempty"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"` // stable; see the constants below
	Hint   string `json:"hint,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Hint != "" {
		text += " (hint: " + p.Hint + ")"
	}
	return text
}

// Codes of problems on which a host acts by itself.
const (
	// CodeClock: the two clocks differ by more than MaxSkew.
	CodeClock = "host-clock"
	// CodeUnknownHost: no host of that id has this key (any more). Certificates are
	// refused from then on; to come back, enrol.
	CodeUnknownHost = "host-unknown"
	// CodeRefused: an operator refused the pending enrolment.
	CodeRefused = "enrolment-refused"
	// CodeConflict: a report with this number was accepted before with other content, as
	// after a virtual machine was put back to an older state. Number what was not
	// accepted anew, from the number in the enrolment (renew it) on.
	CodeConflict = "report-conflict"
	// CodeBehind: the broker's list of revocations is older than the host's. Keep the
	// host's, take no certificates that were issued since, and ask again.
	CodeBehind = "revocations-behind"
)
