package enrol

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api/hostapi"
	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/audit/vouch"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
)

// puppet is a broker that is made up for a rehearsal: a CA, a log of one entry at a
// time, and a person's key. Nobody but the rehearsal trusts it.
type puppet struct {
	now    func() time.Time
	ca     ssh.Signer
	person ssh.Signer
	log    note.Signer
	logKey string
}

const puppetOrigin = "rehearsal.sallyport.invalid/log"

func newPuppet(now func() time.Time) (*puppet, error) {
	p := &puppet{now: now}
	secret, public, err := note.GenerateKey(rand.Reader, puppetOrigin)
	if err != nil {
		return nil, err
	}
	p.logKey = public
	if p.log, err = note.NewSigner(secret); err != nil {
		return nil, err
	}
	for _, signer := range []*ssh.Signer{&p.ca, &p.person} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if *signer, err = ssh.NewSignerFromKey(private); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// unloggedSerial is that of a certificate that is signed, but not in the log.
const unloggedSerial = 2

// terms are those of a right certificate.
func (p *puppet) terms(login, hostID string) certs.User {
	now := p.now().UTC()
	return certs.User{Serial: 1, Key: p.person.PublicKey(), Login: login, HostID: hostID, RequestID: ids.New(ids.Request), PersonID: ids.New(ids.Person),
		Now: now, Lifetime: 5 * time.Minute, GrantEnds: now.Add(time.Hour)}
}

// sign makes the certificate, and a log of its event alone.
func (p *puppet) sign(u certs.User) (ssh.Signer, error) {
	pre, err := u.Pre(p.ca.PublicKey(), rand.Reader)
	if err != nil {
		return nil, err
	}
	zeros := strings.Repeat("00", 32)
	leaf, err := event.New(u.Now, event.Actor{Kind: event.Person, ID: u.PersonID, Name: "Rehearsal"}, "127.0.0.1",
		event.Subject{RequestID: u.RequestID, HostID: u.HostID}, event.CertificateIssued{
			Serial: u.Serial, KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: u.Login, Host: "rehearsal",
			Key: ssh.FingerprintSHA256(u.Key), PreCertificate: pre.Bytes(), CA: ssh.FingerprintSHA256(p.ca.PublicKey()),
			ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(), TermsHash: zeros, Decisions: []string{zeros},
		}).Under(event.PolicyRef{Version: 1, Hash: zeros}).Encode()
	if err != nil {
		return nil, err
	}
	msg, err := checkpoint.Sign(tlog.Tree{N: 1, Hash: tlog.RecordHash(leaf)}, p.log)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(p.logKey)
	if err != nil {
		return nil, err
	}
	cert, err := pre.Sign(rand.Reader, p.ca, certs.Receipt{Leaf: leaf, Text: receipt.Receipt{Checkpoint: msg}.Format(), Log: verifier})
	if err != nil {
		return nil, err
	}
	if u.Serial == unloggedSerial {
		if cert, err = p.forge(cert); err != nil {
			return nil, err
		}
	}
	return ssh.NewCertSigner(cert, p.person)
}

// forge is the certificate without its receipt, signed anew.
func (p *puppet) forge(cert *ssh.Certificate) (*ssh.Certificate, error) {
	name, err := certs.ReceiptExtension(puppetOrigin)
	if err != nil {
		return nil, err
	}
	forged := *cert
	forged.Extensions = map[string]string{}
	for extension, value := range cert.Extensions {
		if extension != name {
			forged.Extensions[extension] = value
		}
	}
	return &forged, forged.SignCert(rand.Reader, p.ca)
}

// revocations vouches for a list as of now.
func (p *puppet) revocations(list hostapi.Revocations) (string, error) {
	list.MadeAt = p.now().UTC().Truncate(time.Second)
	text, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("making up a list of revocations: %w", err)
	}
	msg, err := vouch.Sign(hostapi.RevocationsKind, string(bytes.TrimSpace(text)), p.log)
	return string(msg), err
}
