package history

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/ids"
)

// DeployDocument is Document with a service that people must approve before it is
// deployed, in batches of one and three hosts, and one that needs nobody.
const DeployDocument = Document + `
deployments:
  - name: redis-prod
    service: redis
    environment: prod
    agents: [github-redis]
    where: class=redis
    login: deploy
    command: /usr/local/bin/deploy {digest}
    rollback_command: /usr/local/bin/put-back {digest}
    certificate: {lifetime: 5m, source_address: [192.0.2.0/24], uses: 2}
    plan: {canary: {hosts: 1, soak: 10m}, batches: [{hosts: 3, soak: 5m}], failures: 0, on_failure: rollback}
    gates:
      - {name: reported, reported: {ok: 100%}}
      - {name: health, http: {url: "https://redis.example.com/"}}
      - {name: people, approval: {slots: [{groups: [leads]}]}}
    freezes: [{name: tuesday, zone: UTC, times: [{days: [tue], from: "00:00", to: "24:00"}]}]
    approvals: [{slots: [{groups: [leads]}, {groups: [security]}]}]
    override: [{slots: [{groups: [security]}]}]
  - name: web-prod
    service: web
    environment: prod
    agents: [github-redis]
    where: class=web
    login: deploy
    command: /usr/local/bin/deploy {digest}
    certificate: {source_address: [192.0.2.0/24]}
    plan: {batches: [{hosts: 100%}]}
`

// SignedDeployDocument is DeployDocument where the provider signs what people say to redis.
var SignedDeployDocument = strings.Replace(DeployDocument, "    service: redis\n", "    service: redis\n    assurance: provider\n", 1)

// Digest is the n-th artifact's.
func Digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// Agent is a run of a pipeline.
type Agent struct {
	h     *History
	ID    string
	Key   ssh.PublicKey
	Token string
}

// Admit lets a run in, by a trust entry.
func (h *History) Admit(entry string) *Agent {
	h.T.Helper()
	a := &Agent{h: h, ID: ids.New(ids.Run), Key: h.Person("key").Key}
	a.Token = sum([]byte(a.ID))
	h.Add(event.New(h.Now, a.Actor(), "192.0.2.20", event.Subject{}, event.AgentAdmitted{RunID: a.ID, Entry: entry, EntryHash: sum([]byte(entry)), Provider: "github",
		Issuer: "https://token.test", Subject: "repo:acme/redis", Claims: map[string]string{"repository": "acme/redis"}, TokenID: "t", TokenHash: a.Token,
		SignedBy: "k", Binding: "proof", Key: ssh.FingerprintSHA256(a.Key), ExpiresAt: h.Now.Add(6 * time.Hour)}).Under(h.Ref()))
	return a
}

// Actor is the run as one.
func (a *Agent) Actor() event.Actor {
	return event.Actor{Kind: event.Agent, ID: a.ID, Name: "repo:acme/redis"}
}

// Deployment is one that is under way.
type Deployment struct {
	h         *History
	ID        string
	Agent     *Agent
	Entry     *policy.Deployment
	Terms     string // their hash; there is no text
	Hosts     [][]string
	Digest    string
	Previous  string
	Epoch     uint64
	Overrides int64 // until when, in seconds; 0: never
	Started   []string
	phase     string
	batches   map[int]string
	opened    map[int]time.Time
	gated     map[int]time.Time
	// Forge alters an event, or leaves it out by returning nil. Optional.
	Forge func(event.Data) event.Data
}

// Deploy opens a deployment of the entry on its hosts, by batches, and has it begin if
// nobody need approve that.
func (h *History) Deploy(a *Agent, entry string, digest, previous string, forge func(event.Data) event.Data, batches ...[]string) *Deployment {
	h.T.Helper()
	d := &Deployment{h: h, ID: ids.New(ids.Deployment), Agent: a, Entry: h.Policy.Deployment(entry), Digest: digest, Previous: previous, Forge: forge,
		phase: "planned", batches: map[int]string{}, opened: map[int]time.Time{}, gated: map[int]time.Time{}}
	d.Terms = sum([]byte(d.ID))
	opened := event.DeploymentOpened{DeploymentID: d.ID, Entry: entry, Service: d.Entry.Service, Environment: d.Entry.Environment, Digest: digest, Previous: previous,
		Login: d.Entry.Login, Command: d.terms().CommandFor(false),
		Claims:    map[string]string{"repository": "acme/redis", "sha": "4f8k", "actor": "lena", "user_email": "lena@example.com"},
		TokenHash: a.Token, TermsHash: d.Terms}
	for _, names := range batches {
		var hosts []string
		for _, name := range names {
			hosts = append(hosts, h.Host(name))
		}
		d.Hosts = append(d.Hosts, hosts)
		opened.Batches = append(opened.Batches, strconv.Itoa(len(hosts)))
	}
	d.agent(opened, d.all()...)
	if len(d.Entry.Stages) > 0 {
		d.Move("awaiting_approval", "")
	} else {
		d.Move("active", "nobody need approve it")
	}
	d.Lease(a)
	return d
}

func (d *Deployment) terms() *plan.Terms {
	return &plan.Terms{Command: d.Entry.Command, RollbackCommand: d.Entry.RollbackCommand, Digest: d.Digest, Previous: d.Previous}
}

func (d *Deployment) all() []string { return slices.Concat(d.Hosts...) }

func (d *Deployment) say(actor event.Actor, data event.Data, hosts ...string) int64 {
	if d.Forge != nil {
		if data = d.Forge(data); data == nil {
			return -1
		}
	}
	about := event.Subject{}
	if len(hosts) > 0 {
		about.HostID = hosts[0]
	}
	if len(hosts) > 1 {
		about.HostIDs = hosts
	}
	return d.h.Add(event.New(d.h.Now, actor, "", about, data).Under(d.h.Ref()))
}

func (d *Deployment) agent(data event.Data, hosts ...string) int64 {
	return d.say(d.Agent.Actor(), data, hosts...)
}
func (d *Deployment) broker(data event.Data, hosts ...string) int64 {
	return d.say(event.Actor{Kind: event.Broker}, data, hosts...)
}

// Move moves the deployment on.
func (d *Deployment) Move(state, why string) int64 {
	before := d.phase
	d.phase = state
	digest := d.Digest
	if state == "rolled_back" {
		digest = d.Previous
	}
	return d.broker(event.DeploymentMoved{DeploymentID: d.ID, Before: before, State: state, Digest: digest, Reason: why}, d.all()...)
}

// Lease gives a run the lease, in a new epoch.
func (d *Deployment) Lease(a *Agent) {
	d.Agent, d.Epoch = a, d.Epoch+1
	d.agent(event.DeploymentLeased{DeploymentID: d.ID, Run: a.ID, Epoch: d.Epoch}, d.all()...)
}

// Relay has the run with the lease give it up, and another take it.
func (d *Deployment) Relay(a *Agent) {
	d.broker(event.DeploymentReleased{DeploymentID: d.ID, Run: d.Agent.ID, Reason: "it left"}, d.all()...)
	d.Epoch++
	d.Lease(a)
}

// Decide has somebody decide about something, in the words of statements and with the
// assurance that the policy wants; until is of an override.
func (d *Deployment) Decide(p Person, about string, v api.Verdict, until time.Time) {
	d.h.T.Helper()
	d.Say(p, d.Statement(p, about, v, until, string(d.Entry.Assurance)))
}

// Statement is what somebody would say.
func (d *Deployment) Statement(p Person, about string, v api.Verdict, until time.Time, assurance string) plan.Statement {
	s := plan.Statement{Format: plan.DecisionFormat, DeploymentID: d.ID, TermsHash: d.Terms, About: about, Verdict: v,
		Approver: grant.StatementApprover{ID: p.ID, Issuer: Issuer, Subject: p.Subject}, Groups: p.Groups, Time: d.h.Now, Until: until,
		Random: strings.Repeat("0", 32), Assurance: assurance}
	s.SignIn, s.ClientID = d.h.prove(assurance)
	return s
}

// Say records a statement, signed by the provider if that is its assurance. The token is
// the person's.
func (d *Deployment) Say(p Person, s plan.Statement) {
	h := d.h
	h.T.Helper()
	text, err := s.Encode()
	must(h.T, err)
	kind, batch, gate := s.Of()
	said := event.DeploymentDecided{DeploymentID: d.ID, DecisionID: ids.New(ids.Decision), About: kind, Batch: batch, Gate: gate, Verdict: string(s.Verdict),
		TermsHash: s.TermsHash, Groups: s.Groups, Evidence: string(text), EvidenceHash: sum(text), Assurance: s.Assurance}
	said.IDTokenHash, said.KeysHash = h.sign(s.Assurance, said.DecisionID, p, text, s.Groups)
	if s.About == "start" {
		d.Started = append(d.Started, said.EvidenceHash)
	}
	d.say(p.Actor(), said, d.all()...)
}

// Approve has people approve the start, and begins.
func (d *Deployment) Approve(people ...Person) *Deployment {
	for _, p := range people {
		d.Decide(p, "start", api.Approve, time.Time{})
	}
	d.Move("active", "it was approved")
	return d
}

// Override has somebody let it go on in freezes.
func (d *Deployment) Override(p Person, until time.Time) {
	d.Decide(p, fmt.Sprintf("override/%d", d.Overrides), api.Approve, until)
	d.Overrides = until.Unix()
	d.say(p.Actor(), event.DeploymentUnfrozen{DeploymentID: d.ID, Until: until, Decisions: []string{}}, d.all()...)
}

func (d *Deployment) rollback(n int) bool { return n > len(d.Hosts) }

func (d *Deployment) hosts(n int) []string {
	if d.rollback(n) {
		return d.Hosts[0]
	}
	return d.Hosts[n-1]
}

// Batch moves a batch on.
func (d *Deployment) Batch(n int, state string) int64 {
	before := d.batches[n]
	if before == "" {
		before = "pending"
	}
	d.batches[n] = state
	actor := event.Actor{Kind: event.Broker}
	switch state {
	case "open":
		actor, d.opened[n] = d.Agent.Actor(), d.h.Now
	case "gating":
		d.gated[n] = d.h.Now
	}
	return d.say(actor, event.BatchMoved{DeploymentID: d.ID, Batch: n, Rollback: d.rollback(n), Epoch: d.Epoch, Before: before, State: state}, d.hosts(n)...)
}

// Template is what an honest certificate says now.
func (d *Deployment) Template(n int, host string) certs.Agent {
	d.h.Serial++
	return certs.Agent{Serial: d.h.Serial, Key: d.Agent.Key, Login: d.Entry.Login, HostID: host, DeploymentID: d.ID, Batch: n, Epoch: d.Epoch, Run: d.Agent.ID,
		Command: d.terms().CommandFor(d.rollback(n)), SourceAddress: d.Entry.SourceAddress, Now: d.h.Now, Lifetime: d.Entry.CertificateLifetime,
		Until: d.h.Now.Add(d.Entry.Plan.OpenFor)}
}

// Issue issues what a template says.
func (d *Deployment) Issue(a certs.Agent) int64 {
	h := d.h
	h.T.Helper()
	pre, err := a.Pre(h.CA.PublicKey(), nonce{})
	must(h.T, err)
	digest := d.Digest
	if d.rollback(a.Batch) {
		digest = d.Previous
	}
	return d.agent(event.DeploymentCertificateIssued{Serial: a.Serial, DeploymentID: a.DeploymentID, Batch: a.Batch, Epoch: a.Epoch, Rollback: d.rollback(a.Batch),
		Digest: digest, KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: a.Login, Host: "redis", Key: ssh.FingerprintSHA256(a.Key),
		Command: a.Command, Uses: d.Entry.Uses, BatchEndsAt: d.opened[a.Batch].Add(d.Entry.Plan.OpenFor), PreCertificate: pre.Bytes(), CA: ssh.FingerprintSHA256(h.CA.PublicKey()),
		ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(), TermsHash: d.Terms, TokenHash: d.Agent.Token, Decisions: append([]string{}, d.Started...)}, a.HostID)
}

// Certificate issues one, and has a session opened by it.
func (d *Deployment) Certificate(n int, host string) (serial uint64) {
	a := d.Template(n, host)
	d.Issue(a)
	d.Session(a)
	return a.Serial
}

// Session opens a session by a certificate.
func (d *Deployment) Session(a certs.Agent) {
	keyID, err := certs.AgentKeyID(a.DeploymentID, a.Batch, a.Epoch, a.Run)
	must(d.h.T, err)
	d.h.Session(a.HostID, fmt.Sprintf(`"session_id":"ses-%012d","serial":"%d","key_id":%q,"login":%q`, a.Serial, a.Serial, keyID, a.Login))
}

// Roll deploys to a batch: a certificate for each host, and a report.
func (d *Deployment) Roll(n int) {
	d.Batch(n, "open")
	for _, host := range d.hosts(n) {
		d.Certificate(n, host)
	}
	d.agent(event.BatchReported{DeploymentID: d.ID, Batch: n, OK: d.hosts(n), Failed: []string{}, Skipped: []string{}}, d.hosts(n)...)
	d.Close(n)
}

// Close closes a batch and seals it.
func (d *Deployment) Close(n int) {
	d.Batch(n, "closing")
	d.Batch(n, "sealing")
	d.Verify(n, "sealed")
}

// Verify finds the batch's hosts so.
func (d *Deployment) Verify(n int, state machine.HostPhase) {
	d.broker(event.BatchVerified{DeploymentID: d.ID, Batch: n, State: string(state)}, d.hosts(n)...)
}

// Judge lets a batch soak, and pass its gates.
func (d *Deployment) Judge(n int, lead Person) {
	d.Batch(n, "soaking")
	from := d.Entry.Plan.Batch(n - 1)
	d.h.Now = d.h.Now.Add(from.Soak)
	d.Batch(n, "gating")
	for _, g := range from.Gates {
		if g.Kind == policy.ApprovalGate {
			d.Decide(lead, fmt.Sprintf("gate/%d/%d/%s", n, d.gated[n].UnixMicro(), g.Name), api.Approve, time.Time{})
		}
		d.broker(event.GateDecided{DeploymentID: d.ID, Batch: n, Gate: g.Name, Verdict: "pass"}, d.hosts(n)...)
	}
	d.Batch(n, "passed")
}

// Complete verifies all hosts once more, and ends.
func (d *Deployment) Complete() {
	d.Move("verifying", "every batch has passed")
	for n := range d.Hosts {
		d.Verify(n+1, "sealed")
	}
	d.Move("complete", "every host is sealed and verified")
}

// PutBack rolls back what the first batch has.
func (d *Deployment) PutBack() {
	d.Move("rolling_back", "it does not start")
	n := len(d.Hosts) + 1
	d.Roll(n)
	d.Batch(n, "passed")
	d.Move("rolled_back", "it does not start")
}
