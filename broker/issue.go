package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// MaxCertificates is how many certificates one grant is issued. A grant of a day
// with certificates of five minutes needs 288.
const MaxCertificates = 1000

// intent is a certificate that has been decided on and not yet been signed.
type intent struct {
	user  certs.User
	pre   *certs.PreCertificate
	host  api.Host
	event event.Event
}

// Issue gives the grant's person a certificate for their key.
//
//  1. The key is strong, and the proof shows that the caller holds it (P6).
//  2. The log has the grant, with the terms and decisions that the database has.
//  3. In one transaction: the grant is the caller's, who has not been removed, its
//     evidence allows it now, its terms are what the policy gave, the sign-in is as
//     new as the rule wants it, the host is one of the terms', it and the login are
//     still there, the key is the one that the grant is bound to or becomes it (P4)
//     and of a type that the terms allow, and the limit is not reached; then the
//     serial, the pre-certificate, the row and the event.
//  4. The event has its place in the log (P1).
//  5. The receipt goes into the certificate, the CA signs, and it is checked against
//     what was decided.
//
// Whatever fails, there is no certificate. Refusals are events; faults of ours
// are ErrNotIssued or the log's own refusals.
func (b *Broker) Issue(ctx context.Context, c identity.Caller, requestID string, in api.CertificateInput) (api.Certificate, error) {
	cert, key, err := b.issue(ctx, c, requestID, in)
	if err == nil {
		return cert, nil
	}
	r := b.failed(ctx, err, slog.String("request", requestID))
	if r.Kind == refusal.Unavailable || errors.Is(err, audit.ErrBusy) {
		return api.Certificate{}, r // nobody tried anything that they may not
	}
	subject := event.Subject{}
	if ids.Valid(ids.Request, requestID) {
		subject.RequestID = requestID
	}
	refused := event.CertificateRefused{Code: r.Code, Reason: r.Detail}
	if key != nil {
		refused.Key = ssh.FingerprintSHA256(key)
	}
	b.cfg.Log.Refused(ctx, event.New(b.cfg.Clock.Now(), c.Actor(), c.Source, subject, refused))
	return api.Certificate{}, r
}

// issue also returns the key, as soon as it could be read.
func (b *Broker) issue(ctx context.Context, c identity.Caller, requestID string, in api.CertificateInput) (api.Certificate, ssh.PublicKey, error) {
	var none api.Certificate
	if !ids.Valid(ids.Request, requestID) {
		return none, nil, approvals.ErrUnknownRequest
	}
	key, err := certs.ParseKey(in.PublicKey)
	if err != nil {
		return none, key, err
	}
	if err := certs.VerifyProof(key, in.Proof, api.ProofNamespace, api.ProofMessage(b.cfg.URL, requestID)); err != nil {
		return none, key, err
	}
	started, err := b.started(ctx, requestID)
	if err != nil {
		return none, key, err
	}
	var i intent
	err = pgx.BeginFunc(ctx, b.cfg.Pool, func(tx pgx.Tx) error {
		i, err = b.intend(ctx, tx, c, requestID, in.Host, key, started)
		return err
	})
	if err != nil {
		return none, key, err
	}
	entries, err := b.cfg.Log.Wait(ctx, i.event.ID)
	if err != nil {
		b.result(i.event, nil, event.NoPlace)
		return none, key, err
	}
	signed, err := b.sign(ctx, i.event, i.pre, b.cfg.UserCA, entries[0], func(c *ssh.Certificate) error {
		return i.user.CheckContent(c, b.cfg.Clock.Now())
	})
	if err != nil {
		return none, key, err
	}
	cert, err := b.answer(i, signed, entries[0].Index)
	return cert, key, err
}

// starts are what the log says of the starts of grants, by request.
type starts map[string][]event.GrantStarted

// started is what the log says of the grant's start, and of those that it extends:
// a grant that somebody wrote into the database behind the broker's back has no
// such event. It may be waiting for its place still.
func (b *Broker) started(ctx context.Context, requestID string) (starts, error) {
	found := starts{}
	for id := requestID; id != "" && len(found) <= policy.MaxExtensions; {
		entries, err := b.cfg.Log.Entries(ctx, audit.Filter{RequestID: id, Type: "grant.started"})
		if err != nil {
			return nil, err
		}
		found[id] = nil
		var earlier string
		for _, entry := range entries {
			e, err := entry.Event()
			if err != nil {
				return nil, err
			}
			if data, ok := e.Data.(event.GrantStarted); ok && e.Subject.RequestID == id {
				found[id] = append(found[id], data)
				earlier = data.Extends
			}
		}
		if _, seen := found[earlier]; seen {
			break
		}
		id = earlier
	}
	return found, nil
}

// intend decides on a certificate and writes it down.
func (b *Broker) intend(ctx context.Context, tx pgx.Tx, c identity.Caller, requestID, wanted string, key ssh.PublicKey, started starts) (intent, error) {
	g, err := b.cfg.Approvals.LockGrant(ctx, tx, c, requestID)
	if err != nil {
		return intent{}, err
	}
	now := b.cfg.Clock.Now() // only here: waiting for the lock took time
	if err := g.Check(now); err != nil {
		return intent{}, err
	}
	if err := b.cfg.Approvals.CheckPolicy(ctx, tx, g); err != nil {
		return intent{}, err
	}
	if g.RequestID != requestID || c.ID == "" || g.Terms.Person.ID != c.ID {
		return intent{}, approvals.ErrUnknownRequest
	}
	if !logged(g, started) {
		return intent{}, approvals.ErrEvidence.With("the log knows no such grant")
	}
	if err := g.CheckSignIn(c.AuthTime, now); err != nil {
		return intent{}, err
	}
	host, err := b.target(ctx, tx, g.Terms, wanted)
	if err != nil {
		return intent{}, err
	}
	print := ssh.FingerprintSHA256(key)
	for _, bound := range []string{g.Key, g.Terms.PublicKey} {
		if bound != "" && bound != print {
			return intent{}, approvals.ErrOtherKey
		}
	}
	rule := g.Terms.Rule
	if err := certs.CheckKeyType(key, rule.KeyTypes); err != nil {
		return intent{}, err
	}
	serial, err := b.serial(ctx, tx, g.Terms, host.ID)
	if err != nil {
		return intent{}, err
	}
	lifetime, err := time.ParseDuration(rule.CertificateLifetime)
	if err != nil {
		return intent{}, approvals.ErrEvidence.With("the terms' certificate lifetime cannot be read")
	}
	i := intent{host: host, user: certs.User{
		Serial: serial, Key: key, Login: g.Terms.Login, HostID: host.ID, RequestID: g.RequestID, PersonID: c.ID,
		SourceAddress: rule.SourceAddress, NoPTY: rule.NoPTY, Forwarding: rule.Forwarding, VerifyRequired: rule.VerifyRequired,
		Now: now, Lifetime: lifetime, GrantEnds: g.EndsAt,
	}}
	if i.pre, err = i.user.Pre(b.cfg.UserCA.PublicKey(), rand.Reader); err != nil {
		if errors.Is(err, certs.ErrNoTimeLeft) {
			return intent{}, approvals.ErrGrantEnded.With("the grant ends within a second")
		}
		return intent{}, err
	}
	i.event = b.issued(i, c, g)
	if err := insert(ctx, tx, i, print); err != nil {
		return intent{}, err
	}
	if err := b.cfg.Approvals.Use(ctx, tx, g, print); err != nil {
		return intent{}, err
	}
	return i, b.cfg.Log.Stage(ctx, tx, i.event)
}

// logged reports whether one of the starts in the log is the grant's: of the
// same terms, by the same decisions or by none in an emergency, and at least as
// long; and the same of every grant that it extends.
func logged(g approvals.Grant, started starts) bool {
	for g := &g; g != nil; g = g.Earlier {
		if !slices.ContainsFunc(started[g.RequestID], func(s event.GrantStarted) bool {
			return s.TermsHash == g.TermsHash && slices.Equal(s.Decisions, decisions(*g)) && s.Automatic == g.Terms.Rule.Automatic &&
				s.Emergency == (g.Terms.Emergency != nil) && s.Extends == g.Terms.Extends &&
				s.StartsAt.Equal(g.StartsAt) && !s.EndsAt.Before(g.EndsAt)
		}) {
			return false
		}
	}
	return true
}

func decisions(g approvals.Grant) []string {
	hashes := make([]string, len(g.Decisions))
	for i, d := range g.Decisions {
		hashes[i] = d.Hash
	}
	return hashes
}

// serial is the next certificate's, unless the grant has had as many as it may: one
// for each host, if it is for single use. They are counted under the grant's lock, so
// the limit is exact; and what was written down counts, even if its signature then
// failed.
func (b *Broker) serial(ctx context.Context, tx pgx.Tx, t approvals.Terms, hostID string) (uint64, error) {
	var serial uint64
	var n, here int
	err := tx.QueryRow(ctx, `
		SELECT nextval('certificate_serial'), count(*), count(*) FILTER (WHERE host_id = $2)
		FROM certificates WHERE request_id = $1`, t.RequestID, hostID).Scan(&serial, &n, &here)
	switch {
	case err != nil:
		return 0, fmt.Errorf("allocating a serial: %w", err)
	case t.Rule.SingleUse && here > 0 && len(t.MoreHosts) > 0:
		return 0, ErrUsed.With("the grant is for single use on each host, and has been used on this one")
	case t.Rule.SingleUse && here > 0:
		return 0, ErrUsed
	case n >= MaxCertificates:
		return 0, ErrTooMany.With("this grant has been issued %d certificates, as many as it may have", n)
	}
	return serial, nil
}

// issued is the event of the intent.
func (b *Broker) issued(i intent, c identity.Caller, g approvals.Grant) event.Event {
	return event.New(i.user.Now, c.Actor(), c.Source, event.Subject{RequestID: g.RequestID, HostID: i.host.ID}, event.CertificateIssued{
		Serial: i.user.Serial, KeyID: i.pre.KeyID(), Principal: i.pre.Principals()[0],
		Login: i.user.Login, Host: i.host.Name, Key: ssh.FingerprintSHA256(i.user.Key),
		PreCertificate: i.pre.Bytes(), CA: fingerprint(b.cfg.UserCA),
		ValidAfter: i.pre.ValidAfter(), ValidBefore: i.pre.ValidBefore(),
		TermsHash: g.TermsHash, Decisions: decisions(g),
		Emergency: g.Terms.Emergency != nil, Drill: g.Terms.Emergency != nil && g.Terms.Emergency.Drill,
	}).Under(event.PolicyRef{Version: g.Terms.PolicyVersion, Hash: g.Terms.PolicyHash})
}

func insert(ctx context.Context, tx pgx.Tx, i intent, print string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO certificates (serial, request_id, person_id, host_id, key_id, principal, fingerprint,
			issued_at, valid_after, valid_before, pre_certificate, event_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		i.user.Serial, i.user.RequestID, i.user.PersonID, i.host.ID, i.pre.KeyID(), i.pre.Principals()[0], print,
		i.user.Now, i.pre.ValidAfter(), i.pre.ValidBefore(), i.pre.Bytes(), i.event.ID)
	if err != nil {
		return fmt.Errorf("writing down certificate %d: %w", i.user.Serial, err)
	}
	return nil
}

// answer is what the caller gets.
func (b *Broker) answer(i intent, signed *ssh.Certificate, index int64) (api.Certificate, error) {
	address, port, err := splitAddress(i.host.Address)
	if err != nil {
		return api.Certificate{}, err
	}
	return api.Certificate{
		CertificateInfo: api.CertificateInfo{
			Serial: i.user.Serial, KeyID: i.pre.KeyID(), Principal: i.pre.Principals()[0],
			Fingerprint: ssh.FingerprintSHA256(i.user.Key),
			ValidAfter:  i.pre.ValidAfter(), ValidBefore: i.pre.ValidBefore(), Event: i.event.ID.String(),
			Result: api.Signed,
		},
		Certificate: certs.Line(signed),
		LogIndex:    index,
		KnownHosts:  b.KnownHosts(knownNames(i.host, address, port)...),
		Connect: api.Connect{
			Address: address, Port: port, Login: i.user.Login, HostKeyAlias: i.host.ID,
			Command: "sally ssh " + i.user.Login + "@" + i.host.Name,
		},
	}, nil
}

func splitAddress(hostPort string) (address string, port int, err error) {
	address, p, err := net.SplitHostPort(hostPort)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil {
		return "", 0, fmt.Errorf("the host's address %q: %w", hostPort, err)
	}
	return address, port, nil
}

// knownNames are those under which ssh may look for the host in known_hosts: its
// id as HostKeyAlias, its name and its address, the latter two with the port if
// that is not 22 (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
func knownNames(h api.Host, address string, port int) []string {
	names := []string{h.ID, h.Name, address}
	if port != 22 {
		for i, name := range names[1:] {
			names[1+i] = fmt.Sprintf("[%s]:%d", name, port)
		}
	}
	return slices.Compact(names)
}
