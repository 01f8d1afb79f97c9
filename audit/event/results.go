package event

import "fmt"

// CertificateSigned records what came of an intent, certificate.issued: that the
// CA signed, or why not. It is written afterwards, and nobody waits for it: an
// intent without one was never signed, or the broker stopped just then.
type CertificateSigned struct {
	Serial      uint64 `json:"serial,string"`         // the certificate's number
	Intent      string `json:"intent"`                // id of the certificate.issued event
	Certificate string `json:"certificate,omitempty"` // SHA-256 of the signed certificate on the wire, hex
	Failure     string `json:"failure,omitempty"`     // why there is none: no-place, not-signed or check-failed
}

func (CertificateSigned) EventType() (string, int) { return "certificate.signed", 1 }
func (d CertificateSigned) Summary() string        { return signed("certificate", d.Serial, d.Failure) }

// HostCertificateSigned is the same for host.certificate_issued.
type HostCertificateSigned struct {
	Serial      uint64 `json:"serial,string"`         // the certificate's number
	Intent      string `json:"intent"`                // id of the host.certificate_issued event
	Certificate string `json:"certificate,omitempty"` // SHA-256 of the signed certificate on the wire, hex
	Failure     string `json:"failure,omitempty"`     // why there is none, as in certificate.signed
}

func (HostCertificateSigned) EventType() (string, int) { return "host.certificate_signed", 1 }
func (d HostCertificateSigned) Summary() string {
	return signed("host certificate", d.Serial, d.Failure)
}

// Failures of an intent.
const (
	NoPlace     = "no-place"     // the log did not say in time that it has the intent
	NotSigned   = "not-signed"   // the CA's key could not be used, or its signature is not good
	CheckFailed = "check-failed" // what was signed is not what was decided
)

func signed(what string, serial uint64, failure string) string {
	switch failure {
	case "":
		return fmt.Sprintf("signed %s %d", what, serial)
	case NoPlace:
		return fmt.Sprintf("did not sign %s %d, as the log did not confirm it in time", what, serial)
	case CheckFailed:
		return fmt.Sprintf("withheld %s %d, which was not what had been decided", what, serial)
	}
	return fmt.Sprintf("could not sign %s %d", what, serial)
}
