package reconcile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/evidence/populations"
	"sallyport/internal/refusal"
)

// certificate is what is remembered of one until no session by it can be reported
// any more.
type certificate struct {
	index                   int64
	request, principal, key string
	keyID                   string
	after, before           time.Time
	record                  bool // its sessions have to be recorded

	// Of an agent's: which batch it is of, and on which host; how many connections it is
	// good for, and has opened.
	opening        *opening
	target         *target
	uses, sessions int
}

// issued is an intent to sign a certificate.
type issued struct {
	e *populations.Event
	d event.CertificateIssued
}

func (g *Engine) issued(e *populations.Event, d event.CertificateIssued) {
	g.live[d.Serial] = &certificate{index: e.Index, request: e.Subject.RequestID, principal: d.Principal, key: d.Key, keyID: d.KeyID,
		after: d.ValidAfter, before: d.ValidBefore, record: d.Record}
	g.intents.add(e)
	c := &issued{brief(e), d}
	r := g.requests[e.Subject.RequestID]
	switch {
	case r == nil && g.beforePack(e, "the request"):
	case r == nil:
		g.report(CertWithoutQuorum, e, -1, "the log has no open request that it is for")
	case r.start == nil:
		r.waiting = append(r.waiting, c) // the two may have been sequenced in either order
	default:
		g.checkIssued(r, c)
	}
}

// checkIssued computes again whether the certificate was allowed:
//
//  1. the grant was, at the time of the certificate, by the rules of
//     grant.Grant.Check and of the policy;
//  2. it names the grant's terms and decisions, the requester, one of the hosts,
//     and the key that the grant is bound to;
//  3. single use was kept;
//  4. built again from the terms, with the nonce, serial, key and CA that it has, it
//     is the same, byte for byte (P2, P3).
func (g *Engine) checkIssued(r *request, c *issued) {
	e, d := c.e, c.d
	related := r.event.Index
	if r.start != nil {
		related = r.startedIn.Index
	}
	if r.bad {
		r.issued++
		g.report(CertWithoutQuorum, e, related, "the request's terms cannot be read")
		return
	}
	if r.key == "" {
		r.key = d.Key
	}
	gr := g.grant(r, e.Time)
	r.issued++
	if code, why := g.judge(r, gr, e.Time); why != "" {
		g.report(code, e, related, "%s", why)
		return
	}
	switch {
	case d.TermsHash != r.hash || !slices.Equal(d.Decisions, hashes(gr)) || !slices.Equal(r.start.Decisions, hashes(gr)):
		g.report(CertWithoutQuorum, e, related, "it names other terms or decisions than the grant has")
	case e.Actor.ID != r.terms.Person.ID:
		g.report(CertOutsideGrant, e, related, "somebody else than the requester got it")
	case d.Key != r.key:
		g.report(CertOutsideGrant, e, related, "it is for another key than the grant is bound to")
	case d.Emergency != (r.terms.Emergency != nil):
		g.report(CertOutsideGrant, e, related, "it says otherwise than the terms whether it is an emergency's")
	case d.Record != r.terms.Rule.Record:
		g.report(CertOutsideGrant, e, related, "it says otherwise than the terms whether its sessions have to be recorded")
	default:
		if why := r.overUsed(e.Subject.HostID); why != "" {
			g.report(CertOutsideGrant, e, related, "%s", why)
		} else if err := rebuilt(r.terms, gr, e, d); err != nil {
			g.report(CertOutsideGrant, e, related, "%s", err)
		}
	}
}

// overUsed counts a certificate, and says whether it is one too many.
func (r *request) overUsed(host string) string {
	if r.terms.Rule.SingleUse {
		if r.hosts == nil {
			r.hosts = map[string]int{}
		}
		if r.hosts[host]++; r.hosts[host] > 1 {
			return "the grant is for single use, and was used before"
		}
	}
	return ""
}

// judge is allowed with the code: what is wrong but for the moment is about the
// quorum, the moment is about the grant's time.
func (g *Engine) judge(r *request, gr grant.Grant, at time.Time) (code, why string) {
	if why = g.allowed(r, gr, at); why == "" {
		return "", ""
	}
	err := gr.Check(at)
	if errors.Is(err, grant.ErrGrantEnded) || errors.Is(err, grant.ErrNotStarted) {
		return CertOutsideGrant, why
	}
	return CertWithoutQuorum, why
}

// allowed says why the grant was not allowed at the time; "" if it was.
func (g *Engine) allowed(r *request, gr grant.Grant, at time.Time) string {
	if r.terms.Extends != "" && r.earlier == nil {
		return "the log has no open grant that it extends"
	}
	if err := gr.Check(at); err != nil {
		return why(err)
	}
	err := gr.CheckPolicy(func(t grant.Terms) (*policy.Policy, error) { return g.policies.find(g, t) })
	if err != nil {
		return why(err)
	}
	return ""
}

// why is an error in words that do not depend on the libraries below: what the
// refusal says, and which of package evidence's faults it rests on.
func why(err error) string {
	r := refusal.As(err)
	if r == nil {
		return err.Error()
	}
	said := r.Detail
	if fault := faultOf(err); fault != nil {
		return said + ": " + fault.Error()
	}
	if cause := errors.Unwrap(r); cause != nil && r.Detail == notThePolicy {
		return said + ": " + cause.Error()
	}
	return said
}

// faultOf is which of package evidence's faults an error rests on; nil: none.
func faultOf(err error) error {
	for _, fault := range []error{evidence.ErrAssurance, evidence.ErrForm, evidence.ErrTime, evidence.ErrKeys, evidence.ErrSignature,
		evidence.ErrIssuer, evidence.ErrAudience, evidence.ErrPerson, evidence.ErrNonce, evidence.ErrGroups, evidence.ErrNoAge,
		evidence.ErrAge, evidence.ErrACR} {
		if errors.Is(err, fault) {
			return fault
		}
	}
	return nil
}

// notThePolicy is what grant.Grant.CheckPolicy says before the reason, which is
// always one of its own.
const notThePolicy = "the terms are not what the policy gave"

// rebuilt says in which way the logged pre-certificate is not what the grant gives.
func rebuilt(t grant.Terms, gr grant.Grant, e *populations.Event, d event.CertificateIssued) error {
	cert, err := readPre(d.PreCertificate)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(t.Hosts(), func(h grant.TermsHost) bool { return h.ID == e.Subject.HostID }) {
		return errors.New("it is for a host that the terms do not name")
	}
	times, err := t.Times()
	if err != nil {
		return errors.New("the terms' times cannot be read")
	}
	// A certificate that ends before it had to is no exception.
	ends := gr.EndsAt
	if before := time.Unix(int64(cert.ValidBefore), 0); before.Before(ends) {
		ends = before
	}
	u := certs.User{
		Serial: d.Serial, Key: cert.Key, Login: t.Login, HostID: e.Subject.HostID, RequestID: t.RequestID, PersonID: t.Person.ID,
		SourceAddress: t.Rule.SourceAddress, NoPTY: t.Rule.NoPTY, Forwarding: t.Rule.Forwarding, VerifyRequired: t.Rule.VerifyRequired,
		Now: e.Time, Lifetime: times.Certificate, GrantEnds: ends,
	}
	if certs.CheckKeyType(cert.Key, t.Rule.KeyTypes) != nil {
		return errors.New("the rule does not take keys of its type")
	}
	pre, err := u.Pre(cert.SignatureKey, bytes.NewReader(cert.Nonce))
	switch {
	case err != nil:
		return errors.New("the terms give no such certificate")
	case !bytes.Equal(pre.Bytes(), d.PreCertificate):
		return errors.New("its bytes are not those that the terms give: principal, time, options or key differ")
	case ssh.FingerprintSHA256(cert.Key) != d.Key || ssh.FingerprintSHA256(cert.SignatureKey) != d.CA,
		pre.KeyID() != d.KeyID || pre.Principals()[0] != d.Principal,
		!pre.ValidAfter().Equal(d.ValidAfter) || !pre.ValidBefore().Equal(d.ValidBefore):
		return errors.New("the event says otherwise than the certificate in it")
	}
	return nil
}

// readPre reads a pre-certificate: what a CA signs, which is a certificate without
// its last field. With a signature of the right form and no value behind it, it can
// be read as one.
func readPre(pre []byte) (*ssh.Certificate, error) {
	const algorithm = ssh.KeyAlgoED25519
	signature := binary.BigEndian.AppendUint32(nil, uint32(len(algorithm)))
	signature = append(signature, algorithm...)
	signature = append(binary.BigEndian.AppendUint32(signature, 64), make([]byte, 64)...)
	whole := binary.BigEndian.AppendUint32(bytes.Clone(pre), uint32(len(signature)))
	key, err := ssh.ParsePublicKey(append(whole, signature...))
	if err != nil {
		return nil, errors.New("the pre-certificate cannot be read")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.UserCert {
		return nil, errors.New("the pre-certificate is not a user certificate's")
	}
	return cert, nil
}
