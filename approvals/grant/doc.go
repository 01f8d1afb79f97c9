// Package grant holds the rules by which a grant is allowed, as pure functions
// over the texts that are kept: the terms that were approved, the decisions and
// what proves them, the delegations, the policy that gave the terms, and how that
// came into force. The broker asks them each time before it issues a certificate;
// an auditor's `sally audit verify` asks the same ones years later, with the texts
// from the log, so that there is one implementation of each promise (P3, P4, P5).
//
// A text has one encoding, its canonical bytes, and is named by the SHA-256 of
// them, in hex.
package grant
