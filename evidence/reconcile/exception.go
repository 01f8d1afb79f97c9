// Package reconcile holds the log's events against each other, and reports what an
// auditor should ask about: a certificate that nothing allowed, a review that did
// not come, an entry that is missing. It is pure, and streams: it sees every entry
// once, in the order of the log, so that the broker that writes a pack and the
// auditor who verifies it find the same exceptions, byte for byte.
//
// Nothing is taken from a column that says "approved": whether a certificate was
// allowed is computed again from the texts in the log by package approvals/grant,
// with the provider's signatures, under the policy that was in force; and its bytes
// are built again from what was approved (package broker/certs).
//
// Deployments are followed likewise: that a batch was open, a host sealed or a gate passed
// follows from the events before, what an agent could do from the policy. What comes of
// that are exceptions, and the rows of registers (package populations).
//
// What is remembered is bounded by how much is going on at once, and not by the
// length of the log:
//
//   - requests until they are over, an hour longer, and those that they extend
//     (the broker lets a person have 50 at once);
//   - sessions that have to be recorded until an hour after their end;
//   - emergencies until they are reviewed;
//   - certificates until a day after their end, for sessions that are reported late;
//   - deployments, with their hosts, until a day after their end, and deploy agents' runs
//     until an hour after theirs; of each service in an environment the digest that was
//     verified last;
//   - addresses of people for a month after they signed in last;
//   - delegations until they end, notes about the provider's keys for three hours,
//     proposals of policies until they are decided;
//   - people who have been removed, and which version of the policy had which hash.
package reconcile

import (
	"time"
)

// Exception is one finding.
type Exception struct {
	Code    string
	Index   int64 // of the entry that it is about; -1: of none
	Related int64 // of an entry that it is to be read with; -1: of none
	Time    time.Time
	Request string
	Person  string
	Detail  string
}

// The codes of exceptions. They and their meanings stay: auditors' papers name them.
const (
	LogGap                  = "log-gap"
	EventUnreadable         = "event-unreadable"
	EvidenceMissing         = "evidence-missing"
	BeforePack              = "before-pack"
	RequestAltered          = "request-altered"
	RequestOtherPolicy      = "request-under-other-policy"
	DecisionAltered         = "decision-altered"
	GrantWithoutQuorum      = "grant-without-quorum"
	CertWithoutQuorum       = "certificate-without-quorum"
	CertOutsideGrant        = "certificate-outside-grant"
	IntentWithoutResult     = "intent-without-result"
	SessionWithoutCert      = "session-without-certificate"
	SessionOutsideCert      = "session-outside-certificate"
	SessionUnrecorded       = "session-unrecorded"
	EmergencyUnreviewed     = "emergency-unreviewed"
	EmergencyLate           = "emergency-reviewed-late"
	EmergencySecond         = "emergency-while-unreviewed"
	ReviewInvalid           = "review-invalid"
	LeaverAccess            = "leaver-with-later-access"
	PolicyByAuthor          = "policy-activated-by-author"
	PolicyWithoutQuorum     = "policy-without-approval"
	PolicyFromFile          = "policy-from-file"
	PolicyVersionReused     = "policy-version-reused"
	AgentCertWithoutBatch   = "agent-certificate-without-batch"
	AgentCertOutsidePolicy  = "agent-certificate-outside-policy"
	AgentCertOutsideRun     = "agent-certificate-outside-run"
	AgentTokenShared        = "agent-token-shared"
	SessionAfterSealing     = "session-after-sealing"
	DeploymentUnapproved    = "deployment-without-approval"
	DeploymentByStarter     = "deployment-approved-by-starter"
	DeploymentInFreeze      = "deployment-in-freeze"
	DeploymentUnsealed      = "deployment-ended-unsealed"
	DeploymentOutsidePolicy = "deployment-outside-policy"
	DeploymentAltered       = "deployment-altered"
	BatchEarly              = "batch-opened-early"
	RollbackUnverified      = "rollback-to-unverified"
	PrunedWithoutRecords    = "pruned-without-record"
	PrunedInPeriod          = "pruned-in-period"
)

// Codes are all codes with what they mean, in the order of a pack's page.
var Codes = []struct{ Code, Means string }{
	{CertWithoutQuorum, "a certificate that the approvals in the log do not allow under the policy in force"},
	{CertOutsideGrant, "a certificate for something, somebody or some time that its grant does not cover"},
	{GrantWithoutQuorum, "a grant, not used for a certificate, that the approvals in the log do not allow"},
	{SessionWithoutCert, "a login on a host for which the log has no certificate"},
	{SessionOutsideCert, "a login on a host that its certificate does not cover"},
	{SessionUnrecorded, "a session that had to be recorded, and of which a recording is missing or is not what the host told"},
	{AgentCertWithoutBatch, "an agent's certificate without exactly one batch that was open then, for that host, deployment and epoch"},
	{AgentCertOutsidePolicy, "an agent's certificate with another command, source, lifetime or number of uses than the policy gives"},
	{AgentCertOutsideRun, "an agent's certificate for a run that had not the lease, was over, or came by another key or token"},
	{AgentTokenShared, "a run whose token was shown with a second key"},
	{SessionAfterSealing, "an agent's session that began on a host after it had been closed to it"},
	{DeploymentUnapproved, "a deployment that began, or went on in a freeze, without the approvals that the policy wants"},
	{DeploymentByStarter, "a deployment that was approved by the person whom its run's token names"},
	{DeploymentInFreeze, "a batch opened, or an agent's certificate issued, in a freeze that nobody with the right had overridden"},
	{BatchEarly, "a batch opened, or a deployment completed, before every batch before it was sealed, had soaked and had passed its gates"},
	{DeploymentUnsealed, "a deployment that ended with a host that has not shown that it is sealed"},
	{RollbackUnverified, "a rollback to an artifact that was never verified there"},
	{DeploymentOutsidePolicy, "a deployment that the policy in force does not give: its entry, agents, batches, login or command"},
	{DeploymentAltered, "an event about a deployment that cannot be: of an unknown or ended one, or out of its order"},
	{EmergencyUnreviewed, "an emergency that nobody reviewed by its deadline"},
	{EmergencyLate, "an emergency that was reviewed after its deadline"},
	{EmergencySecond, "an emergency of somebody whose earlier one had not been reviewed"},
	{ReviewInvalid, "a review of an emergency that does not count: by the wrong person, not proved, or not about it"},
	{LeaverAccess, "something that a person did after they had been removed"},
	{PolicyByAuthor, "a policy that its author approved"},
	{PolicyWithoutQuorum, "a policy in force without another operator's approval of its text"},
	{PolicyFromFile, "a policy that came from the broker's file although operators could have approved it"},
	{PolicyVersionReused, "two policies in force under one number"},
	{RequestOtherPolicy, "a request made under a policy that was not in force"},
	{RequestAltered, "a request whose terms cannot be read, or are not what their hash or the event says"},
	{DecisionAltered, "a decision that is not what its statement or hash says, or about something unknown"},
	{EvidenceMissing, "proof that the log names by its hash and that is not kept any more"},
	{IntentWithoutResult, "a certificate that was to be signed, with nothing in the log about whether it was"},
	{LogGap, "an entry that the database lacks or has otherwise than the tree does"},
	{EventUnreadable, "an entry that is no event of a broker"},
	{PrunedWithoutRecords, "entries that were removed without a record of it in the log"},
	{PrunedInPeriod, "entries of the period that were pruned: they are in an archive instead of this pack"},
	{BeforePack, "something that rests on entries before the first one of this pack, so that it cannot be checked"},
}

// Means is what a code says.
func Means(code string) string {
	for _, c := range Codes {
		if c.Code == code {
			return c.Means
		}
	}
	return code
}
