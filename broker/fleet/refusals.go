package fleet

import "sallyport/internal/refusal"

// Refusals of operators' calls.
var (
	ErrTokenLife = refusal.New(refusal.Invalid, "join-token-life",
		"a join token is good for 1m to 24h", "say how long, such as 1h").On("expires_in")
	ErrTokenOfHost = refusal.New(refusal.Invalid, "join-token-of-host",
		"there is a host of this name, which keeps its address, labels and logins",
		"leave these out, so that the token is for that host; or choose another name")
	ErrUnknownToken = refusal.New(refusal.NotFound, "unknown-join-token",
		"there is no such join token", "list those that there are: sally hosts join list")
	ErrTokenOver = refusal.New(refusal.Conflict, "join-token-over",
		"the join token has been used, withdrawn, or has expired", "make another one: sally hosts join")
	ErrTooManyTokens = refusal.New(refusal.TooMany, "too-many-join-tokens",
		"too many join tokens are waiting to be used", "withdraw some of them, or wait until they expire")
	ErrUnknownPending = refusal.New(refusal.NotFound, "unknown-pending-host",
		"no host of this id waits to be let in", "list those that wait: sally hosts pending")
	ErrFingerprint = refusal.New(refusal.Conflict, "fingerprint-differs",
		"the host that waits has another key", "compare with what the host itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").On("fingerprint")
)

// Refusals of hosts' calls. Hosts act on some of the codes (api/hostapi).
var (
	ErrSignature = refusal.New(refusal.Unauthenticated, "host-signature",
		"the call is not signed by an enrolled host", "the host's own key must sign it, and nothing on the way may change it")
	ErrClock = refusal.New(refusal.Unauthenticated, "host-clock",
		"the host's clock is more than 5 minutes off the broker's", "set the host's clock (timedatectl)")
	ErrReplay = refusal.New(refusal.Unauthenticated, "host-replay",
		"the call was made before", "sign each call anew")
	ErrUnknownHost = refusal.New(refusal.Unauthenticated, "host-unknown",
		"no host of this id is enrolled", "enrol the host: sally-host enroll")
	ErrJoinToken = refusal.New(refusal.Denied, "join-token-refused",
		"the join token is good for nothing: it is unknown, has expired, or has been used", "ask an operator for another one")
	ErrEnrolProof = refusal.New(refusal.Denied, "enrolment-proof",
		"the proof of the host's key does not hold", "let sally-host sign it with the host key, for the URL that the broker has")
	ErrKeyTaken = refusal.New(refusal.Conflict, "host-key-taken",
		"another host has this key, as when a machine was copied",
		"give this machine keys of its own: rm /etc/ssh/ssh_host_*; ssh-keygen -A; then restart sshd and enrol again").On("host_key")
	ErrProposedAddress = refusal.New(refusal.Invalid, "proposed-address",
		"a host cannot choose an address at which the broker would find itself",
		"let an operator say where the host is: sally hosts join NAME --address, or sally hosts approve ID --address").On("address")
	ErrFacts = refusal.New(refusal.Invalid, "enrolment-facts",
		"what the host says of itself does not fit", "each fact has at most 200 bytes of text")
	ErrTooManyPending = refusal.New(refusal.TooMany, "too-many-pending-hosts",
		"too many hosts wait to be let in", "ask an operator for a join token, or to let those in that wait")
	ErrRefused = refusal.New(refusal.Denied, "enrolment-refused",
		"an operator refused to let this host in", "ask the operators why; then enrol again")
	ErrUnknownEnrolment = refusal.New(refusal.NotFound, "unknown-enrolment",
		"no enrolment of this id waits, or nobody let it in in time", "enrol again")
	ErrTooManyCalls = refusal.New(refusal.TooMany, "too-many-host-calls",
		"the host calls more often than it needs to", "wait, and then make fewer calls")
	ErrReports = refusal.New(refusal.Invalid, "reports-invalid",
		"the reports are not in order", "send 1 to 100 reports, with numbers that rise")
	ErrReportConflict = refusal.New(refusal.Conflict, "report-conflict",
		"a report with this number was accepted before, and said something else",
		"the host was put back to an older state: number what was not accepted anew, above the number in its enrolment")
)

// Refusals of single reports: they are recorded, and the host forgets them.
var (
	errReportKind = refusal.New(refusal.Invalid, "report-kind",
		"there is no such kind of report", "update the broker before its hosts")
	errReportData = refusal.New(refusal.Invalid, "report-data",
		"the report's data cannot be read, or does not fit", "see api/hostapi for what each kind has")
	errSessionKnown = refusal.New(refusal.Conflict, "session-known",
		"the session has begun, or ended, before", "each session begins and ends once")
)
