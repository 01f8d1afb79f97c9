package broker

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/broker/certs"
)

// AgentIntent is a certificate of an agent that somebody has decided on.
type AgentIntent struct {
	Template certs.Agent // all of it but for the serial and the key
	Host     api.Host    // that it is for
	Actor    event.Actor // the run
	Source   string      // address that it asks from
	Policy   event.PolicyRef
	// Data is what allowed it; what the certificate itself says is filled in.
	Data event.DeploymentCertificateIssued
	// Write keeps the row in the transaction.
	Write func(ctx context.Context, tx pgx.Tx, row AgentCertificate) error
}

// AgentCertificate is a certificate of an agent as it is kept.
type AgentCertificate struct {
	Serial         uint64
	Pre            *certs.PreCertificate
	PreCertificate []byte
	Event          event.Event
}

// IssueAgent gives an agent a certificate for its key, in the order of Issue: decide says
// in a transaction what it is to be, and locks what it depends on; its row and its event
// are one commit; the event has its place in the log (P1); the CA signs what was logged.
func (b *Broker) IssueAgent(ctx context.Context, key ssh.PublicKey, decide func(ctx context.Context, tx pgx.Tx) (AgentIntent, error)) (api.Certificate, error) {
	var none api.Certificate
	if err := b.held(); err != nil {
		return none, err
	}
	if err := certs.CheckKey(key); err != nil {
		return none, err
	}
	serial, err := b.serials.next(ctx, b.cfg.Pool)
	if err != nil {
		return none, err
	}
	var in AgentIntent
	var row AgentCertificate
	err = pgx.BeginFunc(ctx, b.cfg.Pool, func(tx pgx.Tx) (err error) {
		if in, err = decide(ctx, tx); err != nil {
			return err
		}
		in.Template.Serial, in.Template.Key = serial, key
		if row, err = b.intendAgent(in); err != nil {
			return err
		}
		if err := in.Write(ctx, tx, row); err != nil {
			return err
		}
		return b.cfg.Log.Stage(ctx, tx, row.Event)
	})
	if err != nil {
		return none, err
	}
	entries, err := b.cfg.Log.Wait(ctx, row.Event.ID)
	if err != nil {
		b.result(row.Event, nil, event.NoPlace)
		return none, err
	}
	signed, err := b.sign(ctx, row.Event, row.Pre, b.cfg.UserCA, entries[0], func(c *ssh.Certificate) error {
		return in.Template.CheckContent(c, in.Template.Now)
	})
	if err != nil {
		return none, err
	}
	return b.agentAnswer(in, row, signed, entries[0].Index)
}

// intendAgent makes the certificate but for receipt and signature, and its event.
func (b *Broker) intendAgent(in AgentIntent) (AgentCertificate, error) {
	t := in.Template
	pre, err := t.Pre(b.cfg.UserCA.PublicKey(), rand.Reader)
	if err != nil {
		return AgentCertificate{}, err
	}
	data := in.Data
	data.Serial, data.KeyID, data.Principal, data.Login, data.Host = t.Serial, pre.KeyID(), pre.Principals()[0], t.Login, in.Host.Name
	data.DeploymentID, data.Batch, data.Epoch, data.Command = t.DeploymentID, t.Batch, t.Epoch, t.Command
	data.Key, data.CA = ssh.FingerprintSHA256(t.Key), fingerprint(b.cfg.UserCA)
	data.PreCertificate, data.ValidAfter, data.ValidBefore = pre.Bytes(), pre.ValidAfter(), pre.ValidBefore()
	e := event.New(t.Now, in.Actor, in.Source, event.Subject{HostID: in.Host.ID}, data).Under(in.Policy)
	return AgentCertificate{t.Serial, pre, pre.Bytes(), e}, nil
}

func (b *Broker) agentAnswer(in AgentIntent, row AgentCertificate, signed string, index int64) (api.Certificate, error) {
	address, port, err := splitAddress(in.Host.Address)
	if err != nil {
		return api.Certificate{}, err
	}
	return api.Certificate{
		CertificateInfo: api.CertificateInfo{
			Serial: row.Serial, KeyID: row.Pre.KeyID(), Principal: row.Pre.Principals()[0],
			Fingerprint: ssh.FingerprintSHA256(in.Template.Key),
			ValidAfter:  row.Pre.ValidAfter(), ValidBefore: row.Pre.ValidBefore(), Event: row.Event.ID.String(),
			Result: api.Signed,
		},
		Certificate: signed,
		LogIndex:    index,
		KnownHosts:  b.KnownHosts(knownNames(in.Host, address, port)...),
		Connect: api.Connect{
			Address: address, Port: port, Login: in.Template.Login, HostKeyAlias: in.Host.ID,
			Command: fmt.Sprintf("ssh -F ssh_config %s", in.Host.Name),
		},
	}, nil
}
