package api

// SigningResult is what came of the intent to sign a certificate.
type SigningResult string

// The results.
const (
	Signed    SigningResult = "signed"
	NotSigned SigningResult = "failed"
	// NoResult: the broker stopped before it could tell, or will in a moment. There
	// may be a certificate or none; it was in the log before either.
	NoResult SigningResult = "none"
)

// Outcome is a SigningResult and where the log says so.
type Outcome struct {
	Result  SigningResult `json:"result"`
	Failure string        `json:"failure,omitempty"`
	Index   int64         `json:"index,string"` // of the event; -1 if there is none yet
}
