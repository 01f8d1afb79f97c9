// Package keys makes and loads the keys that Sallyport signs with: the user CA,
// the host CA, the log's checkpoint key and the key of the CLI's access tokens.
//
// They lie in one folder (mode 0700), a file each (mode 0600), made once by
// `sallyportd ca init` and never overwritten. The CA keys may be encrypted with
// a passphrase, or live in an ssh-agent instead. User and host certificates
// have separate CAs: a host that trusts the one for its visitors must not, by
// that, be able to be impersonated by it.
package keys

import (
	"crypto/ed25519"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

// File names within the keys' folder.
const (
	UserCAFile = "user_ca"   // OpenSSH private key, with user_ca.pub beside it
	HostCAFile = "host_ca"   // OpenSSH private key, with host_ca.pub beside it
	LogFile    = "log.key"   // note signer key; log.vkey beside it
	TokenFile  = "token.key" // PKCS #8 PEM, Ed25519

	logVerifierFile = "log.vkey"
)

// Signer is a CA's key, wherever it lives. It is safe for concurrent use.
type Signer interface {
	ssh.Signer
}

// Set is all the keys of one broker.
type Set struct {
	UserCA, HostCA Signer
	LogSigner      string // note signer key
	LogVerifier    string // note verifier key
	Token          ed25519.PrivateKey
}

// Refusals of keys and their folder.
var (
	ErrExists = refusal.New(refusal.Conflict, "keys-exist", "the folder has keys already",
		"keys are never overwritten: name an empty folder, or use the keys that are there")
	ErrOrigin = refusal.New(refusal.Invalid, "keys-origin", "the log's name is not of the form example.com/log",
		"give a host name that you control, and a path if you like: --origin sallyport.example.com/log")
	ErrMissing = refusal.New(refusal.NotFound, "keys-missing", "a key is missing",
		"make the keys with: sallyportd ca init")
	ErrOpen = refusal.New(refusal.Denied, "keys-readable", "others than its owner can get at a key",
		"chmod 600 the file and chmod 700 its folder; if somebody may have read it, make new keys")
	ErrUnreadable = refusal.New(refusal.Invalid, "keys-unreadable", "a key cannot be read",
		"restore the file from your backup")
	ErrPassphrase = refusal.New(refusal.Denied, "keys-passphrase", "the passphrase does not open the key",
		"give the passphrase that was set at sallyportd ca init, in the file that --ca-passphrase-file names")
	ErrAgent = refusal.New(refusal.Unavailable, "keys-agent", "the ssh-agent does not answer",
		"start the ssh-agent at that socket and ssh-add the CA keys to it")
	ErrNotInAgent = refusal.New(refusal.Unavailable, "keys-not-in-agent", "the ssh-agent does not hold the CA's key",
		"ssh-add the CA's key to the agent; ssh-add -l lists what it holds")
)
