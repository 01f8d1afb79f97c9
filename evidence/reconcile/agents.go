package reconcile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/evidence/populations"
)

// run is what is remembered of a pipeline's run until it is over.
type run struct {
	event   *populations.Event // agent.admitted
	entry   string
	issuer  string
	key     string
	token   string
	expires time.Time
	revoked *populations.Event
}

func (g *Engine) admitted(e *populations.Event, d event.AgentAdmitted) {
	if r, twice := g.runs[d.RunID]; twice {
		g.report(AgentTokenShared, e, r.event.Index, "run %s begins a second time", d.RunID)
		return
	}
	g.runs[d.RunID] = &run{event: brief(e), entry: d.Entry, issuer: d.Issuer, key: d.Key, token: d.TokenHash, expires: d.ExpiresAt}
}

func (g *Engine) tokenShared(e *populations.Event, d event.AgentTokenShared) {
	related := int64(-1)
	if r := g.runs[d.RunID]; r != nil {
		related = r.event.Index
	}
	goes := "it went on, as the issuer had signed the first key's hash"
	if d.Revoked {
		goes = "it was ended"
	}
	g.report(AgentTokenShared, e, related, "the token of run %s (%s) was shown with the key %s from %s, after %s from %s: %s", d.RunID, d.Entry,
		d.SecondKey, or(e.Source, "somewhere"), d.FirstKey, d.FirstSource, goes)
}

func (g *Engine) runRevoked(e *populations.Event, d event.AgentRevoked) {
	if r := g.runs[d.RunID]; r != nil && r.revoked == nil {
		r.revoked = brief(e)
	}
}

// agentIssued holds an agent's certificate against what it needs:
//
//  1. at that time exactly one batch was open that has the host, it is of that
//     deployment and epoch, and the host had not been reported;
//  2. the deployment's start was approved, and the certificate names those approvals;
//  3. built again from the policy, with the nonce, serial, key and CA that it has, it is
//     the same, byte for byte: command, addresses, lifetime; and it has the policy's uses;
//  4. the run has the lease, was admitted with that key and token, and was not over;
//  5. no freeze held that was not overridden.
func (g *Engine) agentIssued(e *populations.Event, d event.DeploymentCertificateIssued) {
	g.intents.add(e)
	c := &certificate{index: e.Index, principal: d.Principal, key: d.Key, keyID: d.KeyID, after: d.ValidAfter, before: d.ValidBefore, uses: d.Uses}
	defer func() { g.live[d.Serial] = c }()
	x := g.deployments[d.DeploymentID]
	switch {
	case x == nil && g.cfg.First == 0, x != nil && !x.partial && x.over():
		g.report(AgentCertWithoutBatch, e, -1, "the log has no deployment %s that was under way", d.DeploymentID)
		return
	case x == nil || x.partial:
		g.deployment(e, d.DeploymentID)
		return
	}
	o, why := g.openFor(e, d)
	if why != "" {
		g.report(AgentCertWithoutBatch, e, x.event.Index, "%s", why)
		return
	}
	c.opening, c.target = o, o.batch.host(e.Subject.HostID)
	c.target.name = d.Host
	c.target.serials = append(c.target.serials, strconv.FormatUint(d.Serial, 10))
	if !slices.Equal(d.Decisions, x.startedBy()) {
		g.report(DeploymentUnapproved, e, x.event.Index, "certificate %d names other decisions than those about the start of deployment %s", d.Serial, x.id)
	}
	if why := g.outsideRun(e, x, d); why != "" {
		g.report(AgentCertOutsideRun, e, o.event.Index, "certificate %d of deployment %s: %s", d.Serial, x.id, why)
	}
	why = g.frozen(x, o.batch, e.Time, true)
	if why == "" {
		why = g.frozen(x, o.batch, d.ValidBefore.Add(-time.Second), false)
	}
	if why != "" {
		g.report(DeploymentInFreeze, e, x.event.Index, "certificate %d of deployment %s is good in %s", d.Serial, x.id, why)
	}
	if x.entry == nil {
		return // that it could not be read is reported
	}
	if err := rebuiltAgent(x, o, e, d); err != nil {
		g.report(AgentCertOutsidePolicy, e, x.event.Index, "certificate %d of deployment %s: %s", d.Serial, x.id, err)
	}
}

// openFor is the one opening that a certificate is for.
func (g *Engine) openFor(e *populations.Event, d event.DeploymentCertificateIssued) (*opening, string) {
	open := g.open[e.Subject.HostID]
	if len(open) != 1 {
		return nil, fmt.Sprintf("certificate %d is for host %s, for which %d batches were open", d.Serial, e.Subject.HostID, len(open))
	}
	o := open[0]
	x, b := o.deployment, o.batch
	h := b.host(e.Subject.HostID)
	switch {
	case x.id != d.DeploymentID || b.number != d.Batch || o.epoch != d.Epoch:
		return nil, fmt.Sprintf("certificate %d is of %s, batch %d, epoch %d, and what was open for host %s is %s, batch %d, epoch %d", d.Serial,
			d.DeploymentID, d.Batch, d.Epoch, e.Subject.HostID, x.id, b.number, o.epoch)
	case x.epoch != d.Epoch:
		return nil, fmt.Sprintf("certificate %d is of epoch %d, which was over", d.Serial, d.Epoch)
	case b.rollback != d.Rollback:
		return nil, fmt.Sprintf("certificate %d says otherwise than batch %d whether it is a rollback's", d.Serial, b.number)
	case h == nil || !h.open:
		return nil, fmt.Sprintf("certificate %d is for host %s, which had been reported", d.Serial, e.Subject.HostID)
	case x.entry != nil && !e.Time.Before(o.event.Time.Add(x.entry.Plan.OpenFor)):
		return nil, fmt.Sprintf("certificate %d is of batch %d, whose time was over", d.Serial, b.number)
	}
	if why := x.blocked(b); why != "" {
		return nil, fmt.Sprintf("certificate %d of deployment %s: %s", d.Serial, x.id, why)
	}
	return o, ""
}

// startedBy are the hashes of the decisions about the start.
func (x *deployment) startedBy() []string {
	if x.entry != nil && len(x.entry.Stages) == 0 {
		return []string{}
	}
	return x.hashesOf("start")
}

// outsideRun says why the certificate is not one that the run could have.
func (g *Engine) outsideRun(e *populations.Event, x *deployment, d event.DeploymentCertificateIssued) string {
	r := g.runs[e.Actor.ID]
	switch {
	case e.Actor.ID != x.run:
		return fmt.Sprintf("run %s got it, and %s has the lease", e.Actor.ID, or(x.run, "nobody"))
	case r == nil && g.cfg.First > 0:
		return "" // it began before the pack
	case r == nil:
		return fmt.Sprintf("the log has no run %s that could call then", e.Actor.ID)
	case r.revoked != nil && e.Time.After(r.revoked.Time.Add(clockSkew)): // what was on its way may come after it
		return fmt.Sprintf("run %s had been revoked, in entry %d", e.Actor.ID, r.revoked.Index)
	case !e.Time.Before(r.expires) || d.ValidBefore.After(r.expires):
		return fmt.Sprintf("run %s ended at %s", e.Actor.ID, populations.Time(r.expires))
	case d.Key != r.key || d.TokenHash != r.token:
		return fmt.Sprintf("it is for another key or token than those by which run %s came", e.Actor.ID)
	case x.entry != nil && !slices.Contains(x.entry.Agents, r.entry):
		return fmt.Sprintf("the policy does not let agents of %s deploy it", r.entry)
	}
	return ""
}

// rebuiltAgent says in which way the logged pre-certificate is not what the policy gives.
func rebuiltAgent(x *deployment, o *opening, e *populations.Event, d event.DeploymentCertificateIssued) error {
	cert, err := readPre(d.PreCertificate)
	if err != nil {
		return err
	}
	t, digest := x.terms(), x.opened.Digest
	if d.Rollback {
		digest = x.opened.Previous
	}
	// One that ends before it had to is no exception.
	closes := o.event.Time.Add(x.entry.Plan.OpenFor)
	ends := closes
	if before := time.Unix(int64(cert.ValidBefore), 0); before.Before(ends) {
		ends = before
	}
	a := certs.Agent{Serial: d.Serial, Key: cert.Key, Login: x.entry.Login, HostID: e.Subject.HostID, DeploymentID: x.id, Batch: d.Batch, Epoch: d.Epoch,
		Run: e.Actor.ID, Command: t.CommandFor(d.Rollback), SourceAddress: x.entry.SourceAddress, Now: e.Time,
		Lifetime: min(x.entry.CertificateLifetime, policy.MaxAgentCertificate), Until: ends}
	pre, err := a.Pre(cert.SignatureKey, bytes.NewReader(cert.Nonce))
	switch {
	case err != nil:
		return errors.New("the policy gives no such certificate")
	case !bytes.Equal(pre.Bytes(), d.PreCertificate):
		return errors.New("its bytes are not those that the policy gives: command, addresses, principal, time or key id differ")
	case d.Uses != x.entry.Uses:
		return fmt.Errorf("it is good for %d connections, and the policy lets it be for %d", d.Uses, x.entry.Uses)
	case d.BatchEndsAt.After(closes):
		return fmt.Errorf("sessions by it end at %s, and the batch by %s", populations.Time(d.BatchEndsAt), populations.Time(closes))
	case d.Digest != digest || d.Command != a.Command || d.Login != a.Login || d.TermsHash != x.opened.TermsHash:
		return errors.New("it is for another artifact, command, login or terms than the deployment")
	case ssh.FingerprintSHA256(cert.Key) != d.Key || ssh.FingerprintSHA256(cert.SignatureKey) != d.CA,
		pre.KeyID() != d.KeyID || pre.Principals()[0] != d.Principal,
		!pre.ValidAfter().Equal(d.ValidAfter) || !pre.ValidBefore().Equal(d.ValidBefore):
		return errors.New("the event says otherwise than the certificate in it")
	}
	return nil
}

// agentSession holds a session by an agent's certificate against the batch that it is of.
func (g *Engine) agentSession(e *populations.Event, c *certificate, serial uint64, at time.Time) {
	if e.Text("problem") != "" {
		return // the host did not let it begin
	}
	c.sessions++
	c.target.sessions = append(c.target.sessions, e.Text("session_id"))
	o := c.opening
	switch {
	case !o.closed.IsZero() && at.After(o.closed.Add(clockSkew)):
		g.report(SessionAfterSealing, e, c.index, "the session began at %s, by certificate %d, and batch %d of deployment %s had been closed at %s",
			populations.Time(at), serial, o.batch.number, o.deployment.id, populations.Time(o.closed))
	case c.sessions > c.uses:
		g.report(SessionOutsideCert, e, c.index, "certificate %d is good for %d connections, and this is number %d", serial, c.uses, c.sessions)
	}
}
