package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/ssh"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/keys"
)

// sign makes the certificate of an intent that has its place in the log, a line as in
// a -cert.pub file: the receipt goes in, the CA signs, and check holds it against what
// was decided. What came of it is told to the log, and not waited for.
func (b *Broker) sign(ctx context.Context, intent event.Event, pre *certs.PreCertificate, ca keys.Signer, place audit.Entry,
	check func(*ssh.Certificate) error) (string, error) {
	text := place.Receipt
	if text == nil {
		var err error
		if text, err = b.cfg.Log.Receipt(ctx, place.Index); err != nil {
			b.result(intent, nil, event.NotSigned)
			return "", err
		}
	}
	signed, wire, err := pre.SignWire(rand.Reader, ca, certs.Receipt{Leaf: place.Leaf, Text: text, Log: b.verifier})
	if err != nil {
		b.result(intent, nil, event.NotSigned)
		return "", err
	}
	if err := check(signed); err != nil {
		b.result(intent, nil, event.CheckFailed)
		return "", fmt.Errorf("the signed certificate: %w", err)
	}
	b.result(intent, wire, "")
	return certs.LineOf(signed.Type(), wire), nil
}

// result tells the log what came of an intent: the certificate, on the wire, or the
// failure. The event is the broker's own, for whom the intent was.
func (b *Broker) result(intent event.Event, signed []byte, failure string) {
	digest := ""
	if signed != nil {
		sum := sha256.Sum256(signed)
		digest = hex.EncodeToString(sum[:])
	}
	var data event.Data
	switch of := intent.Data.(type) {
	case event.CertificateIssued:
		data = event.CertificateSigned{Serial: of.Serial, Intent: intent.ID.String(), Certificate: digest, Failure: failure}
	case event.HostCertificateIssued:
		data = event.HostCertificateSigned{Serial: of.Serial, Intent: intent.ID.String(), Certificate: digest, Failure: failure}
	case event.DeploymentCertificateIssued:
		data = event.DeploymentCertificateSigned{Serial: of.Serial, DeploymentID: of.DeploymentID, Intent: intent.ID.String(), Certificate: digest, Failure: failure}
	default:
		panic(fmt.Sprintf("%s is no intent", intent.Type))
	}
	about := intent.Subject
	if intent.Actor.Kind == event.Person && about.PersonID == "" {
		about.PersonID = intent.Actor.ID
	}
	e := event.New(b.cfg.Clock.Now(), event.Actor{Kind: event.Broker}, intent.Source, about, data)
	e.OnBehalfOf, e.Policy = &intent.Actor, intent.Policy
	b.results.add(e)
}
