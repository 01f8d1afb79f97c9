package history

import (
	"bytes"
	"crypto/rand"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
)

// Document is a policy under which all of this package's people can do their work.
const Document = `sallyport: 1
assurance: session
roles:
  operator: [ops]
  auditor: [audit]
rules:
  - name: databases
    who: [engineers]
    where: "*"
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals:
      - slots: [{groups: [leads], count: 1}]
    emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 24h}}
    extend: {times: 1, by: 30m, automatic: true}
  - name: signed
    who: [engineers]
    where: "*"
    logins: [root]
    duration: {default: 30m, max: 2h}
    assurance: provider
    approvals:
      - slots: [{groups: [leads], count: 1}, {groups: [security], count: 1}]
    emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 24h}}
`

// SignedDocument is Document where the provider signs decisions on the policy too.
var SignedDocument = strings.Replace(Document, "assurance: session", "assurance: provider", 1)

// Request is an ask and what became of it.
type Request struct {
	h         *History
	ID        string
	Who       Person
	Host      string
	Terms     grant.Terms
	Text      []byte
	Hash      string
	Decisions []string
	Window    grant.Window
	Key       ssh.PublicKey
}

// Terms are honest ones for a rule of the policy in force.
func (h *History) Terms(p Person, rule, host string) grant.Terms {
	h.T.Helper()
	var r *policy.Rule
	for i := range h.Policy.Rules {
		if h.Policy.Rules[i].Name == rule {
			r = &h.Policy.Rules[i]
		}
	}
	return grant.Terms{
		Format: grant.TermsFormat, RequestID: ids.New(ids.Request), Person: grant.TermsPerson{ID: p.ID, Issuer: Issuer, Subject: p.Subject},
		Host: grant.TermsHost{ID: h.Host(host), Name: host}, Login: r.Logins[0], Duration: grant.Short(r.DefaultDuration),
		Reason: "look at the slow queries", CreatedAt: h.Now, ApproveBy: h.Now.Add(r.ApproveWithin),
		PolicyHash: h.Policy.Hash, PolicyVersion: h.Policy.Version, Rule: grant.RuleOf(r, false),
	}
}

// Ask makes a request of terms.
func (h *History) Ask(p Person, t grant.Terms) *Request {
	h.T.Helper()
	text, err := t.Encode()
	must(h.T, err)
	r := &Request{h: h, ID: t.RequestID, Who: p, Host: t.Host.ID, Terms: t, Text: text, Hash: sum(text), Key: p.Key}
	h.add(p, r.subject(), event.RequestCreated{Terms: string(text), TermsHash: r.Hash, Host: t.Host.Name, Login: t.Login, Duration: t.Duration,
		Rule: t.Rule.Name, Reason: t.Reason, Emergency: t.Emergency != nil, Extends: t.Extends})
	return r
}

// add is By under the policy in force.
func (h *History) add(p Person, subject event.Subject, data event.Data) int64 {
	return h.Add(event.New(h.Now, p.Actor(), "192.0.2.7", subject, data).Under(h.Ref()))
}

func (r *Request) subject() event.Subject {
	return event.Subject{RequestID: r.ID, PersonID: r.Who.ID, HostID: r.Host}
}

// Decide has somebody decide on it, with the assurance that the terms want.
func (r *Request) Decide(p Person, v api.Verdict) int64 {
	r.h.T.Helper()
	return r.Say(p, r.Statement(p, v))
}

// Statement is what somebody would say.
func (r *Request) Statement(p Person, v api.Verdict) grant.Statement {
	groups := []string{}
	for _, g := range r.Terms.Groups() {
		for _, own := range p.Groups {
			if g == own {
				groups = append(groups, g)
			}
		}
	}
	s := grant.Statement{Format: grant.StatementFormat, RequestID: r.ID, TermsHash: r.Hash, Verdict: v,
		Approver: grant.StatementApprover{ID: p.ID, Issuer: Issuer, Subject: p.Subject}, Groups: groups, PolicyHash: r.Terms.PolicyHash,
		Time: r.h.Now, Random: strings.Repeat("0", 32), Assurance: r.Terms.Rule.Assurance}
	s.SignIn, s.ClientID = r.h.prove(s.Assurance)
	return s
}

// Say records a statement, signed by the provider if that is its assurance.
func (r *Request) Say(p Person, s grant.Statement) int64 {
	h := r.h
	h.T.Helper()
	text, err := s.Encode()
	must(h.T, err)
	d := event.RequestDecided{DecisionID: ids.New(ids.Decision), Verdict: string(s.Verdict), TermsHash: s.TermsHash, Groups: s.Groups,
		Evidence: string(text), EvidenceHash: sum(text), Assurance: s.Assurance}
	d.IDTokenHash, d.KeysHash = h.sign(s.Assurance, d.DecisionID, p, text, s.Groups)
	r.Decisions = append(r.Decisions, d.EvidenceHash)
	return h.add(p, r.subject(), d)
}

// sign has the provider sign a statement, if that is its assurance, and returns the
// hashes of the ID token and of the note about its keys.
func (h *History) sign(assurance, id string, p Person, text []byte, groups []string) (token, keys string) {
	if assurance != evidence.Provider {
		return "", ""
	}
	keys = h.seeKeys()
	h.tokens[id] = h.token(p, text, groups)
	return sum([]byte(h.tokens[id])), keys
}

// prove fills in how somebody proves what they say.
func (h *History) prove(assurance string) (signIn *grant.StatementSignIn, client string) {
	if assurance == evidence.Provider {
		return nil, Client
	}
	return &grant.StatementSignIn{AuthTime: h.Now.Add(-time.Minute), AMR: []string{}}, ""
}

func (h *History) seeKeys() string {
	if h.keys != "" && h.Now.Before(h.keysAt.Add(evidence.KeysLifetime)) {
		return h.keys
	}
	k := evidence.Keys{Issuer: Issuer, ClientID: Client, GroupsClaim: "groups", Keys: []evidence.Key{h.publicKey()}, SeenAt: h.Now}
	text, err := k.Note(h.Vouch)
	must(h.T, err)
	h.keys, h.keysAt = sum(text), h.Now
	h.Broker(event.ProviderKeysSeen{Issuer: Issuer, ClientID: Client, Note: string(text), NoteHash: h.keys})
	return h.keys
}

func (h *History) token(p Person, statement []byte, groups []string) string {
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": Issuer, "sub": p.Subject, "aud": Client,
		"nonce": evidence.Nonce(statement), "iat": h.Now.Unix(), "exp": h.Now.Add(10 * time.Minute).Unix(), "groups": groups})
	t.Header["kid"] = "one"
	text, err := t.SignedString(h.signing)
	must(h.T, err)
	return text
}

// Start starts the grant, as if the last event had completed the quorum.
func (r *Request) Start() int64 {
	h := r.h
	h.T.Helper()
	at := h.Now.Add(-time.Second) // the time of that event
	w, err := r.Terms.Window(at)
	must(h.T, err)
	r.Window = w
	h.Now = at
	return h.add(r.Who, r.subject(), event.GrantStarted{TermsHash: r.Hash, Automatic: r.Terms.Rule.Automatic, Decisions: append([]string{}, r.Decisions...),
		StartsAt: w.Start, EndsAt: w.End, Emergency: r.Terms.Emergency != nil, Extends: r.Terms.Extends})
}

// End ends the grant.
func (r *Request) End(why string) int64 {
	if why == "time" {
		r.h.Now = r.Window.End.Add(time.Second)
	}
	return r.h.add(r.Who, r.subject(), event.GrantEnded{Reason: why})
}

// Template is what an honest certificate under the grant says now.
func (r *Request) Template() certs.User {
	r.h.Serial++
	times, err := r.Terms.Times()
	must(r.h.T, err)
	rule := r.Terms.Rule
	return certs.User{Serial: r.h.Serial, Key: r.Key, Login: r.Terms.Login, HostID: r.Host, RequestID: r.ID, PersonID: r.Who.ID,
		SourceAddress: rule.SourceAddress, NoPTY: rule.NoPTY, Forwarding: rule.Forwarding, VerifyRequired: rule.VerifyRequired,
		Now: r.h.Now, Lifetime: times.Certificate, GrantEnds: r.Window.End}
}

// Certificate issues one.
func (r *Request) Certificate() (serial uint64, index int64) {
	r.h.T.Helper()
	u := r.Template()
	return u.Serial, r.Issue(u)
}

// Issue issues what a template says.
func (r *Request) Issue(u certs.User) int64 {
	h := r.h
	h.T.Helper()
	pre, err := u.Pre(h.CA.PublicKey(), nonce{})
	must(h.T, err)
	return h.add(r.Who, event.Subject{RequestID: r.ID, HostID: u.HostID}, event.CertificateIssued{
		Serial: u.Serial, KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: u.Login, Host: r.Terms.Host.Name,
		Key: ssh.FingerprintSHA256(u.Key), PreCertificate: pre.Bytes(), CA: ssh.FingerprintSHA256(h.CA.PublicKey()),
		ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(), TermsHash: r.Hash, Decisions: append([]string{}, r.Decisions...),
		Emergency: r.Terms.Emergency != nil, Record: r.Terms.Rule.Record})
}

// nonce is not random: nothing here depends on it.
type nonce struct{}

func (nonce) Read(p []byte) (int, error) {
	if len(p) > 32 {
		return rand.Read(p)
	}
	return copy(p, bytes.Repeat([]byte{7}, len(p))), nil
}

// Access is the usual course: ask, approve, start, one certificate, end.
func (h *History) Access(p, approver Person, rule, host string) *Request {
	h.T.Helper()
	r := h.Ask(p, h.Terms(p, rule, host))
	r.Decide(approver, api.Approve)
	r.Start()
	r.Certificate()
	r.End("finished")
	return r
}

// Emergency opens a door, with one certificate.
func (h *History) Emergency(p Person, rule, host string) *Request {
	h.T.Helper()
	t := h.Terms(p, rule, host)
	var r *policy.Rule
	for i := range h.Policy.Rules {
		if h.Policy.Rules[i].Name == rule {
			r = &h.Policy.Rules[i]
		}
	}
	t.Rule.Extend, t.Duration = nil, grant.Short(r.Emergency.DefaultDuration)
	t.Emergency = &grant.TermsEmergency{Told: append(t.Groups(), r.Emergency.ReviewBy...), ReviewGroups: r.Emergency.ReviewBy,
		ReviewBy: t.CreatedAt.Add(r.Emergency.ReviewWithin), Assurance: string(r.Assurance)}
	q := h.Ask(p, t)
	h.Now = t.CreatedAt // all at one time
	h.add(p, q.subject(), event.EmergencyStarted{TermsHash: q.Hash, Host: t.Host.Name, Login: t.Login, Reason: t.Reason,
		Told: t.Emergency.Told, ReviewGroups: t.Emergency.ReviewGroups, ReviewBy: t.Emergency.ReviewBy})
	q.Start()
	q.Certificate()
	return q
}

// Review signs an emergency off.
func (r *Request) Review(p Person) int64 {
	r.h.T.Helper()
	return r.SayReview(p, r.ReviewStatement(p))
}

// ReviewStatement is what somebody would say who reviews the emergency.
func (r *Request) ReviewStatement(p Person) grant.ReviewStatement {
	h := r.h
	s := grant.ReviewStatement{Format: grant.ReviewFormat, RequestID: r.ID, TermsHash: r.Hash, Verdict: api.Justified,
		Reviewer: grant.StatementApprover{ID: p.ID, Issuer: Issuer, Subject: p.Subject}, Groups: p.Groups, PolicyHash: r.Terms.PolicyHash,
		Comment: "the dashboards agree", Late: !h.Now.Before(r.Terms.Emergency.ReviewBy),
		Assurance: r.Terms.Emergency.Assurance, Time: h.Now, Random: strings.Repeat("0", 32)}
	s.SignIn, s.ClientID = h.prove(s.Assurance)
	return s
}

// SayReview records a review, signed by the provider if that is its assurance.
func (r *Request) SayReview(p Person, s grant.ReviewStatement) int64 {
	h := r.h
	h.T.Helper()
	text, err := s.Encode()
	must(h.T, err)
	d := event.ReviewGiven{ReviewID: ids.New(ids.Review), Verdict: s.Verdict, Comment: s.Comment, Late: s.Late,
		TermsHash: r.Hash, Groups: s.Groups, Evidence: string(text), EvidenceHash: sum(text), Assurance: s.Assurance}
	d.IDTokenHash, d.KeysHash = h.sign(s.Assurance, d.ReviewID, p, text, s.Groups)
	return h.add(p, r.subject(), d)
}

// Propose proposes a policy, and Approve has somebody approve and activate it.
func (h *History) Propose(p Person, document string) *Proposal {
	h.T.Helper()
	next := h.Keep(document)
	s := grant.ProposalStatement{Format: grant.ProposalFormat, ProposalID: ids.New(ids.Proposal), DocumentHash: next.Hash,
		BaseVersion: h.Policy.Version, BaseHash: h.Policy.Hash, Author: grant.StatementApprover{ID: p.ID, Issuer: Issuer, Subject: p.Subject},
		Groups: p.Groups, Time: h.Now, Random: strings.Repeat("0", 32), Assurance: evidence.Session,
		SignIn: &grant.StatementSignIn{AuthTime: h.Now, AMR: []string{}}}
	text, err := s.Encode()
	must(h.T, err)
	h.add(p, event.Subject{}, event.PolicyProposed{ProposalID: s.ProposalID, Proposal: string(text), ProposalHash: sum(text), DocumentHash: next.Hash,
		Rules: len(next.Rules), Bytes: len(next.Text)})
	return &Proposal{h: h, s: s, hash: sum(text), author: p, document: document}
}

// Proposal is one.
type Proposal struct {
	h        *History
	s        grant.ProposalStatement
	hash     string
	author   Person
	document string
	token    string // subject of the approver's ID token, if not the approver's
}

// TokenOf has the provider sign the approval as another person's.
func (q *Proposal) TokenOf(subject string) { q.token = subject }

// Approve has somebody approve it, which puts it into force.
func (q *Proposal) Approve(p Person) int64 {
	h := q.h
	h.T.Helper()
	s := grant.PolicyStatement{Format: grant.PolicyDecisionFormat, ProposalID: q.s.ProposalID, ProposalHash: q.hash, DocumentHash: q.s.DocumentHash,
		PolicyHash: h.Policy.Hash, Verdict: api.Approve, Approver: grant.StatementApprover{ID: p.ID, Issuer: Issuer, Subject: p.Subject},
		Groups: p.Groups, Time: h.Now, Random: strings.Repeat("0", 32), Assurance: string(h.Policy.Assurance)}
	s.SignIn, s.ClientID = h.prove(s.Assurance)
	text, err := s.Encode()
	must(h.T, err)
	d := event.PolicyDecided{ProposalID: s.ProposalID, DecisionID: ids.New(ids.Decision), Verdict: "approve",
		ProposalHash: q.hash, Groups: p.Groups, Evidence: string(text), EvidenceHash: sum(text), Assurance: s.Assurance}
	signer := p
	if q.token != "" {
		signer.Subject = q.token
	}
	d.IDTokenHash, d.KeysHash = h.sign(s.Assurance, d.DecisionID, signer, text, s.Groups)
	h.add(p, event.Subject{PersonID: q.author.ID}, d)
	return h.Activate(q.document, event.PolicyActivated{ProposalID: s.ProposalID, ProposalHash: q.hash, EvidenceHash: sum(text),
		Author: q.author.ID, Approver: p.ID})
}
