package certs

import "errors"

// Reason is why a certificate is not proved to be in the log. Reasons are part of
// the format's description (docs/receipts.md) and of its test vectors; the check
// looks for them in this order.
type Reason string

// The reasons.
const (
	TooLarge       Reason = "too-large"       // more than MaxCertificateSize bytes
	BadForm        Reason = "bad-form"        // no certificate, or not in its only form
	NoReceipt      Reason = "no-receipt"      // not exactly one extension tlog-proof@…
	OtherLog       Reason = "other-log"       // the extension is of another domain than the log's
	BadReceipt     Reason = "bad-receipt"     // no tlog-proof in its only form with extra data
	BadExtra       Reason = "bad-extra"       // the extra data has no place for the pre-certificate
	BadCheckpoint  Reason = "bad-checkpoint"  // not the log's, not signed by its key, or too small for the index
	NotIncluded    Reason = "not-included"    // the proof does not lead from the leaf to the checkpoint's root
	BadLeaf        Reason = "bad-leaf"        // the leaf is no event, or none that issues a certificate of this kind
	LeafDiffers    Reason = "leaf-differs"    // the event says something else than the certificate
	NothingAllowed Reason = "nothing-allowed" // the event does not name what allowed the certificate
	BadSignature   Reason = "bad-signature"   // the CA that it names did not sign it
	OtherCA        Reason = "other-ca"        // that is no CA which is trusted
	NotHere        Reason = "not-here"        // it is good, but not for this login, this host and this time
)

// Unproved is the error of every check of a certificate against the log.
type Unproved struct {
	Reason Reason
	err    error
}

func unproved(reason Reason, err error) error { return &Unproved{reason, err} }

func (u *Unproved) Error() string { return string(u.Reason) + ": " + u.err.Error() }
func (u *Unproved) Unwrap() error { return u.err }

// ReasonOf is the reason in an error of this package's checks, or empty.
func ReasonOf(err error) Reason {
	if u := (*Unproved)(nil); errors.As(err, &u) {
		return u.Reason
	}
	return ""
}
