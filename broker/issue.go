package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
	"sallyport/internal/remember"
)

// MaxCertificates is how many certificates one grant is issued. A grant of a day
// with certificates of five minutes needs 288.
const MaxCertificates = 1000

// intent is a certificate that has been decided on and not yet been signed.
type intent struct {
	user  certs.User
	pre   *certs.PreCertificate
	event event.Event
	print string // fingerprint of the key

	// What it was decided by, which must be so still when it is written down.
	terms approvals.Terms
	seen  approvals.Seen
	host  hosts.Seen
	first bool // use of the grant, which binds it to the key
}

// Issue gives the grant's person a certificate for their key.
//
//  1. The key is strong, and the proof shows that the caller holds it (P6).
//  2. The log has the grant, with the terms and decisions that the database has.
//  3. The grant is the caller's, who has not been removed, its evidence allows it
//     now, its terms are what the policy gave, the sign-in is as new as the rule
//     wants it, the host is one of the terms', it and the login are still there, the
//     key is the one that the grant is bound to or becomes it (P4) and of a type that
//     the terms allow; then the serial and the pre-certificate.
//  4. In the log's own transaction, with whatever others are issued at the same time:
//     nothing of that has changed, and the limit is not reached; then the row, and
//     the event in its place (P1). If something has, it is decided anew.
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
	b.cfg.Log.Refused(ctx, c.Event(b.cfg.Clock.Now(), subject, refused))
	return api.Certificate{}, r
}

// issue also returns the key, as soon as it could be read.
func (b *Broker) issue(ctx context.Context, c identity.Caller, requestID string, in api.CertificateInput) (api.Certificate, ssh.PublicKey, error) {
	var none api.Certificate
	if !ids.Valid(ids.Request, requestID) {
		return none, nil, approvals.ErrUnknownRequest
	}
	if err := b.held(); err != nil {
		return none, nil, err
	}
	key, err := certs.ParseKey(in.PublicKey)
	if err != nil {
		return none, key, err
	}
	if err := b.checkProof(key, in.Proof, requestID); err != nil {
		return none, key, err
	}
	i, entry, err := b.intended(ctx, c, requestID, in.Host, key)
	if err != nil {
		return none, key, err
	}
	line, err := b.sign(ctx, i.event, i.pre, b.cfg.UserCA, entry, func(c *ssh.Certificate) error {
		return i.user.CheckContent(c, b.cfg.Clock.Now())
	})
	if err != nil {
		return none, key, err
	}
	cert, err := b.answer(i, line, entry.Index)
	return cert, key, err
}

// checkProof verifies that whoever holds the key asks for a certificate of the request.
// Many keys give the same proof each time that they are asked for one.
func (b *Broker) checkProof(key ssh.PublicKey, proof, requestID string) error {
	message := api.ProofMessage(b.cfg.URL, requestID)
	shown := remember.Of(fmt.Appendf(nil, "%x %x %s", key.Marshal(), message, proof))
	if _, known := b.proved.Get(shown); known {
		return nil
	}
	err := certs.VerifyProof(key, proof, api.ProofNamespace, message)
	if err == nil {
		b.proved.Put(shown, struct{}{})
	}
	return err
}

// maxDecided is how often it is decided on one certificate at most, while others keep
// changing what it depends on.
const maxDecided = 16

// intended decides on a certificate, and writes it down in the log.
func (b *Broker) intended(ctx context.Context, c identity.Caller, requestID, wanted string, key ssh.PublicKey) (*intent, audit.Entry, error) {
	for range maxDecided {
		i, err := b.decide(ctx, c, requestID, wanted, key)
		if err != nil {
			return nil, audit.Entry{}, err
		}
		entry, err := b.lane.Append(ctx, i.event, i)
		switch {
		case err == nil:
			return i, entry, nil
		case !errors.Is(err, errChanged):
			if r := refusal.As(err); r != nil && r.Kind == refusal.Unavailable {
				b.result(i.event, nil, event.NoPlace) // it may be there
			}
			return nil, audit.Entry{}, err
		}
		b.cfg.Hosts.Forget(i.host.ID)
		if err := b.cfg.Approvals.Settled(ctx, requestID); err != nil {
			return nil, audit.Entry{}, err
		}
	}
	return nil, audit.Entry{}, errChanged
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

// decide decides on a certificate, by what it reads and does not lock.
func (b *Broker) decide(ctx context.Context, c identity.Caller, requestID, wanted string, key ssh.PublicKey) (*intent, error) {
	g, seen, err := b.cfg.Approvals.Grant(ctx, c, requestID)
	if err != nil {
		return nil, err
	}
	now := b.cfg.Clock.Now()
	if err := g.Check(now); err != nil {
		return nil, err
	}
	if err := b.cfg.Approvals.CheckPolicy(ctx, g); err != nil {
		return nil, err
	}
	if g.RequestID != requestID || c.ID == "" || g.Terms.Person.ID != c.ID {
		return nil, approvals.ErrUnknownRequest
	}
	if err := b.checkLogged(ctx, g); err != nil {
		return nil, err
	}
	if err := g.CheckSignIn(c.AuthTime, now); err != nil {
		return nil, err
	}
	host, err := b.target(ctx, g.Terms, wanted)
	if err != nil {
		return nil, err
	}
	print := ssh.FingerprintSHA256(key)
	for _, bound := range []string{g.Key, g.Terms.PublicKey} {
		if bound != "" && bound != print {
			return nil, approvals.ErrOtherKey
		}
	}
	rule := g.Terms.Rule
	if err := certs.CheckKeyType(key, rule.KeyTypes); err != nil {
		return nil, err
	}
	serial, err := b.serials.next(ctx, b.cfg.Pool)
	if err != nil {
		return nil, err
	}
	lifetime, err := time.ParseDuration(rule.CertificateLifetime)
	if err != nil {
		return nil, approvals.ErrEvidence.With("the terms' certificate lifetime cannot be read")
	}
	i := &intent{print: print, terms: g.Terms, seen: seen, host: host, first: g.State != api.Active || g.Key == "", user: certs.User{
		Serial: serial, Key: key, Login: g.Terms.Login, HostID: host.ID, RequestID: g.RequestID, PersonID: c.ID,
		SourceAddress: rule.SourceAddress, NoPTY: rule.NoPTY, Forwarding: rule.Forwarding, VerifyRequired: rule.VerifyRequired,
		Now: now, Lifetime: lifetime, GrantEnds: g.EndsAt,
	}}
	if i.pre, err = i.user.Pre(b.cfg.UserCA.PublicKey(), rand.Reader); err != nil {
		if errors.Is(err, certs.ErrNoTimeLeft) {
			return nil, approvals.ErrGrantEnded.With("the grant ends within a second")
		}
		return nil, err
	}
	i.event = b.issued(i, c, g)
	return i, nil
}

// checkLogged refuses a grant that the log does not know. What it knows once it knows
// for ever: it is asked once for each grant.
func (b *Broker) checkLogged(ctx context.Context, g approvals.Grant) error {
	var all []byte
	for g := &g; g != nil; g = g.Earlier {
		all = fmt.Appendf(all, "%s %s %q %d %d\n", g.RequestID, g.TermsHash, decisions(*g), g.StartsAt.UnixMicro(), g.EndsAt.UnixMicro())
	}
	key := remember.Of(all)
	if _, known := b.logged.Get(key); known {
		return nil
	}
	started, err := b.started(ctx, g.RequestID)
	if err != nil {
		return err
	}
	if !logged(g, started) {
		return approvals.ErrEvidence.With("the log knows no such grant")
	}
	b.logged.Put(key, struct{}{})
	return nil
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

// held says why no certificate may be issued now, whoever asks.
func (b *Broker) held() error {
	if b.cfg.Hold == nil {
		return nil
	}
	return b.cfg.Hold()
}

// issued is the event of the intent.
func (b *Broker) issued(i *intent, c identity.Caller, g approvals.Grant) event.Event {
	return c.Event(i.user.Now, event.Subject{RequestID: g.RequestID, HostID: i.host.ID}, event.CertificateIssued{
		Serial: i.user.Serial, KeyID: i.pre.KeyID(), Principal: i.pre.Principals()[0],
		Login: i.user.Login, Host: i.host.Name, Key: ssh.FingerprintSHA256(i.user.Key),
		PreCertificate: i.pre.Bytes(), CA: fingerprint(b.cfg.UserCA),
		ValidAfter: i.pre.ValidAfter(), ValidBefore: i.pre.ValidBefore(),
		TermsHash: g.TermsHash, Decisions: decisions(g),
		Emergency: g.Terms.Emergency != nil, Drill: g.Terms.Emergency != nil && g.Terms.Emergency.Drill,
		GrantEndsAt: g.EndsAt, AtEnd: cmp.Or(g.Terms.Rule.AtEnd, grant.EndSessions),
		SingleUse: g.Terms.Rule.SingleUse, Record: g.Terms.Rule.Record,
	}).Under(event.PolicyRef{Version: g.Terms.PolicyVersion, Hash: g.Terms.PolicyHash})
}

// answer is what the caller gets.
func (b *Broker) answer(i *intent, line string, index int64) (api.Certificate, error) {
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
		Certificate: line,
		LogIndex:    index,
		KnownHosts:  b.KnownHosts(knownNames(i.host.Host, address, port)...),
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
