package grant

import (
	"fmt"
	"time"

	"sallyport/internal/remember"
)

// TermsFormat names the form of Terms. Another form gets another number.
const TermsFormat = "sallyport.terms/1"

// Terms are what approvers approve. Their canonical form is fixed with the
// request and hashed into every decision and certificate event (P4). They carry
// the numbers of the rule that decided, so that a later policy changes nothing.
type Terms struct {
	Format        string      `json:"format"` // TermsFormat
	RequestID     string      `json:"request_id"`
	Person        TermsPerson `json:"person"`
	Host          TermsHost   `json:"host"`
	Login         string      `json:"login"`
	Duration      string      `json:"duration"`
	Reason        string      `json:"reason"`
	Ticket        string      `json:"ticket"`
	PublicKey     string      `json:"public_key"`           // fingerprint, or empty: the first key used binds
	NotBefore     *time.Time  `json:"not_before,omitempty"` // future start
	CreatedAt     time.Time   `json:"created_at"`
	ApproveBy     time.Time   `json:"approve_by"`
	PolicyHash    string      `json:"policy_hash"`
	PolicyVersion int64       `json:"policy_version,string"`
	Rule          TermsRule   `json:"rule"`

	// MoreHosts are the others of several, by name, all after Host. Selector is what
	// was asked for, if not one host by its name: labels with their values. Which
	// hosts that meant was decided when it was asked.
	MoreHosts []TermsHost       `json:"more_hosts,omitempty"`
	Selector  map[string]string `json:"selector,omitempty"`

	Extends   string          `json:"extends,omitempty"`   // the request whose grant this one follows without a gap
	Emergency *TermsEmergency `json:"emergency,omitempty"` // the grant starts before approval, and is reviewed
}

// TermsEmergency is what follows a door that was opened before approval.
type TermsEmergency struct {
	Drill        bool      `json:"drill"`         // a rehearsal, marked as such everywhere
	Told         []string  `json:"told"`          // groups whose members are told at once, and may see it
	ReviewGroups []string  `json:"review_groups"` // groups whose members may review it, if they are independent
	ReviewBy     time.Time `json:"review_by"`
	// Assurance is the review's: session or provider, with the rule's max_age and
	// acr_values. Terms of before reviews could be signed do not say: session.
	Assurance string `json:"assurance,omitempty"`
}

// TermsPerson is the requester in the terms.
type TermsPerson struct {
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

// TermsHost is the host in the terms.
type TermsHost struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// TermsRule is what the rule gave when the request was made.
type TermsRule struct {
	Name                string       `json:"name"`
	Automatic           bool         `json:"automatic"`
	Stages              []TermsStage `json:"stages"`
	StartWithin         string       `json:"start_within,omitempty"` // from the start to the first use; empty: until the end
	CertificateLifetime string       `json:"certificate_lifetime"`
	SourceAddress       []string     `json:"source_address"` // CIDRs; empty: from anywhere
	NoPTY               bool         `json:"no_pty,omitempty"`
	Forwarding          []string     `json:"forwarding,omitempty"` // agent, port, x11
	KeyTypes            []string     `json:"key_types,omitempty"`  // empty: all that are strong
	VerifyRequired      bool         `json:"verify_required,omitempty"`
	SingleUse           bool         `json:"single_use,omitempty"`
	AtEnd               string       `json:"at_end,omitempty"`          // of sessions: KeepSessions; empty: they end with the grant
	Record              bool         `json:"record,omitempty"`          // terminal sessions
	MaxSignInAge        string       `json:"max_sign_in_age,omitempty"` // of the requester's sign-in at each certificate
	Assurance           string       `json:"assurance"`                 // of decisions: session or provider
	MaxAge              string       `json:"max_age,omitempty"`         // of the approver's authentication
	ACRValues           []string     `json:"acr_values,omitempty"`
	Extend              *TermsExtend `json:"extend,omitempty"` // nil: never
}

// KeepSessions is the word of terms and certificates' events for sessions that outlast
// the grant's time, and EndSessions for those that do not.
const (
	KeepSessions = "keep"
	EndSessions  = "end"
)

// TermsExtend says how the grant may be followed by another.
type TermsExtend struct {
	Times     int    `json:"times"`
	By        string `json:"by"`
	Automatic bool   `json:"automatic"`
}

// TermsStage is one stage of approvals: all slots must be filled.
type TermsStage struct {
	Slots []TermsSlot `json:"slots"`
}

// TermsSlot needs Count distinct people, each in any of Groups.
type TermsSlot struct {
	Groups []string `json:"groups"`
	Count  int      `json:"count"`
}

// Encode returns the canonical bytes: JSON in the order of the struct, without
// HTML escaping or white space, times in UTC as RFC 3339.
func (t Terms) Encode() ([]byte, error) {
	t.CreatedAt, t.ApproveBy = t.CreatedAt.UTC(), t.ApproveBy.UTC()
	if t.NotBefore != nil {
		utc := t.NotBefore.UTC()
		t.NotBefore = &utc
	}
	return Canonical(t)
}

// ParseTerms reads canonical terms. It refuses every byte string that Encode
// would not have produced, so that one meaning has one hash.
//
// What it has read it remembers, since a certificate asks for the same terms several
// times: the result must not be changed.
func ParseTerms(text []byte) (Terms, error) {
	key := remember.Of(text)
	if t, ok := readTerms.Get(key); ok {
		return t, nil
	}
	t, err := parseTerms(text)
	if err == nil {
		readTerms.Put(key, t)
	}
	return t, err
}

var readTerms = remember.Memory[Terms]{Size: 4096}

func parseTerms(text []byte) (Terms, error) {
	var t Terms
	if err := ParseCanonical(text, &t); err != nil {
		return Terms{}, fmt.Errorf("reading terms: %w", err)
	}
	if t.Format != TermsFormat {
		return Terms{}, fmt.Errorf("reading terms: format %q is not %q", t.Format, TermsFormat)
	}
	if _, err := t.Times(); err != nil {
		return Terms{}, fmt.Errorf("reading terms: %w", err)
	}
	if err := t.checkHosts(); err != nil {
		return Terms{}, fmt.Errorf("reading terms: %w", err)
	}
	return t, nil
}
