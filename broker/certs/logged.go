package certs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/receipt"
)

// Logged is what the log says of a certificate that it holds. All of it is proved
// to be the broker's own word, and nothing of it to be true.
type Logged struct {
	Certificate *ssh.Certificate
	Index       int64 // place of the event
	Size        int64 // of the log, when the receipt was made

	Event      string    // id
	Type       string    // certificate.issued, deployment.certificate_issued or host.certificate_issued
	Time       time.Time // when it was decided, by the broker's clock
	ActorKind  string    // who got it: person, agent, or for a host's certificate the operator
	ActorID    string
	ActorName  string
	Source     string // address that they asked from
	RequestID  string // empty for a host's
	HostID     string
	Host       string // its name
	Login      string // empty for a host's
	Principals []string

	// What allowed it; empty for a host's.
	PolicyVersion, PolicyHash string
	TermsHash                 string
	Decisions                 []string // hashes of the decisions' evidence
	Emergency, Drill          bool

	// What the host makes of it, so that it need ask nobody.
	GrantEnds    time.Time // of the request's grant; zero in certificates of before this was logged
	KeepSessions bool      // sessions outlast that
	SingleUse    bool      // it opens one session
	Record       bool      // its terminal sessions are recorded, or it opens none

	// Of an agent's, instead of a request.
	Deployment string
	Batch      int
	Epoch      string
	Command    string    // the only one that it runs
	Uses       int       // sessions that it opens
	BatchEnds  time.Time // when these end, at the latest
	TokenHash  string    // of the job's token

	Leaf           []byte // the event's exact bytes
	PreCertificate []byte
	Receipt        []byte // of the leaf, without extra data
}

// CheckReceipt is the check that the broker, hosts and verifiers share: the
// certificate, in wire format, is in the log whose key is given. In this order:
//
//  1. it is one certificate in its only form, with exactly one receipt, of this log;
//  2. the leaf is the receipt's extra data, an event, with the pre-certificate put
//     back in, which is the certificate without receipt and signature;
//  3. the receipt leads from the leaf to a checkpoint that the log's key signed;
//  4. the event is of the right kind, says what the certificate says, and names
//     what allowed it;
//  5. the CA that both name signed the certificate.
//
// Whether that CA is to be trusted, and where and when the certificate is good, is
// for Admit. Errors are *Unproved.
func CheckReceipt(wire []byte, log note.Verifier) (Logged, error) {
	cert, err := ParseCertificate(wire)
	if err != nil {
		return Logged{}, err
	}
	return checkReceipt(cert, log)
}

// checkReceipt checks a certificate that is known to be in its only form.
func checkReceipt(cert *ssh.Certificate, log note.Verifier) (Logged, error) {
	name, text, err := receiptOf(cert)
	if err != nil {
		return Logged{}, unproved(NoReceipt, err)
	}
	if want, err := ReceiptExtension(log.Name()); err != nil || name != want {
		return Logged{}, unproved(OtherLog, fmt.Errorf("the receipt is %s, not %s", name, want))
	}
	r, err := receipt.ParseExtra([]byte(text))
	if err != nil {
		return Logged{}, unproved(BadReceipt, err)
	}
	if r.Extra == nil {
		return Logged{}, unproved(BadReceipt, errors.New("the receipt has no extra data"))
	}
	pre := withoutReceipt(cert)
	whole, err := fill(r.Extra, pre)
	if err != nil {
		return Logged{}, unproved(BadExtra, err)
	}
	tree, err := r.Tree(log)
	if err != nil {
		return Logged{}, unproved(BadCheckpoint, err)
	}
	if err := r.Check(whole, tree); err != nil {
		return Logged{}, unproved(NotIncluded, err)
	}
	l, err := readLeaf(whole)
	if err != nil {
		return Logged{}, unproved(BadLeaf, err)
	}
	if err := l.kindFits(cert); err != nil {
		return Logged{}, unproved(BadLeaf, err)
	}
	if err := l.says(cert, pre); err != nil {
		return Logged{}, unproved(LeafDiffers, err)
	}
	if err := l.allowed(); err != nil {
		return Logged{}, unproved(NothingAllowed, err)
	}
	if err := checkSignature(cert, cert.SignatureKey); err != nil {
		return Logged{}, unproved(BadSignature, err)
	}
	r.Extra = nil
	return Logged{Certificate: cert, Index: r.Index, Size: tree.N, Event: l.id, Type: l.kind, Time: l.time,
		ActorKind: l.actorKind, ActorID: l.actorID, ActorName: l.actorName, Source: l.source, RequestID: l.requestID,
		HostID: l.hostID, Host: l.host, Login: l.login, Principals: l.principals,
		PolicyVersion: l.policyVersion, PolicyHash: l.policyHash, TermsHash: l.termsHash, Decisions: l.decisions,
		Emergency: l.emergency, Drill: l.drill,
		GrantEnds: l.grantEnds, KeepSessions: l.atEnd == "keep", SingleUse: l.singleUse, Record: l.record,
		Deployment: l.deployment, Batch: l.batch, Epoch: l.epoch, Command: l.command, Uses: l.uses, BatchEnds: l.batchEnds, TokenHash: l.tokenHash,
		Leaf: whole, PreCertificate: pre, Receipt: r.Format()}, nil
}

// The events that hold a pre-certificate.
const (
	userEvent    = "certificate.issued"
	agentEvent   = "deployment.certificate_issued"
	hostEvent    = "host.certificate_issued"
	eventVersion = 1
)

func (l leaf) kindFits(cert *ssh.Certificate) error {
	want := map[uint32]string{ssh.UserCert: userEvent, ssh.HostCert: hostEvent}[cert.CertType]
	if _, _, _, _, err := agentKeyID(cert.KeyId); err == nil && want == userEvent {
		want = agentEvent
	}
	if want == "" || l.kind != want || l.version != eventVersion {
		return fmt.Errorf("the event is %q version %d, which issues no certificate of type %d", l.kind, l.version, cert.CertType)
	}
	return nil
}

// says compares the event with the certificate.
func (l leaf) says(cert *ssh.Certificate, pre []byte) error {
	for _, f := range []struct {
		what          string
		event, itself string
	}{
		{"serial", l.serial, strconv.FormatUint(cert.Serial, 10)},
		{"key", l.key, ssh.FingerprintSHA256(cert.Key)},
		{"CA", l.ca, ssh.FingerprintSHA256(cert.SignatureKey)},
	} {
		if f.event != f.itself {
			return fmt.Errorf("the %s is %q in the event and %q in the certificate", f.what, f.event, f.itself)
		}
	}
	switch {
	case !bytes.Equal(l.pre, pre):
		return errors.New("the event's pre-certificate is another one")
	case len(l.principals) == 0 || !slices.Equal(l.principals, cert.ValidPrincipals):
		return fmt.Errorf("the principals are %q in the event and %q in the certificate", l.principals, cert.ValidPrincipals)
	case !l.after.Equal(unix(cert.ValidAfter)) || !l.before.Equal(unix(cert.ValidBefore)):
		return errors.New("the event gives another validity")
	}
	if l.kind == hostEvent {
		if l.hostID == "" || l.hostID != cert.KeyId {
			return fmt.Errorf("the event is about host %q, the certificate about %q", l.hostID, cert.KeyId)
		}
		return nil
	}
	switch {
	case len(l.principals) != 1 || l.principals[0] != l.login+"@"+l.hostID:
		return fmt.Errorf("the principals are %q, the event is about %q on %q", l.principals, l.login, l.hostID)
	case l.kind == agentEvent:
		return l.saysOfAgent(cert)
	case l.keyID != cert.KeyId || cert.KeyId != l.requestID+":"+l.actorID:
		return fmt.Errorf("the key id is %q; the event says %q, of %q by %q", cert.KeyId, l.keyID, l.requestID, l.actorID)
	}
	return nil
}

// saysOfAgent compares what only an agent's certificate has.
func (l leaf) saysOfAgent(cert *ssh.Certificate) error {
	deployment, batch, epoch, run, err := agentKeyID(cert.KeyId)
	switch {
	case err != nil:
		return err
	case l.keyID != cert.KeyId || l.deployment != deployment || l.batch != batch || l.epoch != strconv.FormatUint(epoch, 10) || l.actorID != run:
		return fmt.Errorf("the key id is %q; the event is about batch %d of %q, by %q", cert.KeyId, l.batch, l.deployment, l.actorID)
	case l.command != cert.CriticalOptions[forceCommandOption]:
		return errors.New("the event gives another command")
	}
	return nil
}

// allowed verifies that the event of a person's certificate names what allowed it.
func (l leaf) allowed() error {
	if l.kind == hostEvent {
		return nil // an operator's role; the event names them
	}
	// What a host does not know it must not take for less than it is.
	if l.atEnd != "" && l.atEnd != "end" && l.atEnd != "keep" {
		return fmt.Errorf("the event says that sessions %q at the end", l.atEnd)
	}
	if !isHash(l.termsHash) || !isHash(l.policyHash) {
		return errors.New("the event names no terms or no policy")
	}
	if l.kind == agentEvent && (l.actorKind != "agent" || !isHash(l.tokenHash) || l.uses < 1 || l.batchEnds.IsZero()) {
		return errors.New("the event names no agent, no token, no number of uses or no end of the batch")
	}
	for _, d := range l.decisions {
		if !isHash(d) {
			return fmt.Errorf("the event names a decision %q", d)
		}
	}
	return nil
}

// Trust is what a host believes in.
type Trust struct {
	CAs []ssh.PublicKey // of user certificates; several while one replaces another
	Log note.Verifier
}

// Admit decides whether a certificate, in wire format, opens the login on the host
// at the time given: CheckReceipt, and CheckUser under a CA that is trusted. A CA's
// key alone opens nothing. Errors are *Unproved.
func Admit(wire []byte, trust Trust, login, hostID string, at time.Time) (Logged, error) {
	logged, err := CheckReceipt(wire, trust.Log)
	if err != nil {
		return Logged{}, err
	}
	cert := logged.Certificate
	if !slices.ContainsFunc(trust.CAs, func(ca ssh.PublicKey) bool { return bytes.Equal(ca.Marshal(), cert.SignatureKey.Marshal()) }) {
		return Logged{}, unproved(OtherCA, fmt.Errorf("it is by %s", ssh.FingerprintSHA256(cert.SignatureKey)))
	}
	if err := checkUser(cert, login, hostID, at); err != nil { // CheckReceipt has verified the signature
		return Logged{}, unproved(NotHere, err)
	}
	return logged, nil
}
