package rollout

import "sallyport/internal/refusal"

// Refusals. Those of plans and of the course of a deployment are the packages plan's and
// machine's.
var (
	ErrUnknown = refusal.New(refusal.NotFound, "unknown-deployment",
		"there is no such deployment", "list deployments: sally deploy status")
	ErrNotAllowed = refusal.New(refusal.Denied, "deployment-not-allowed",
		"no entry of the policy lets this agent deploy that service there",
		"see what the pipeline's token proves: sally deploy explain")
	ErrOtherRunning = refusal.New(refusal.Conflict, "deployment-running",
		"another deployment of the service is under way there", "wait until it ends, or abort it")
	ErrHostBusy = refusal.New(refusal.Conflict, "host-in-deployment",
		"a host belongs to another deployment that is under way", "wait until that ends, or abort it")
	ErrEntryGone = refusal.New(refusal.Conflict, "deployment-entry-gone",
		"the policy in force no longer has the entry by which this deployment was opened",
		"abort the deployment; what it had opened is sealed")
	ErrTooManyCertificates = refusal.New(refusal.TooMany, "too-many-agent-certificates",
		"the host has been issued as many certificates in this batch as it may have",
		"report the host as failed; a command that needs so many attempts does not work")
	ErrNotYours = refusal.New(refusal.Denied, "deployment-not-yours",
		"only operators and the groups that the policy names control this deployment", "ask one of them")
	ErrNotApprover = refusal.New(refusal.Denied, "deployment-not-approver",
		"you are in no group whose approval is waited for", "ask those whom the deployment names")
	ErrOwnDeployment = refusal.New(refusal.Denied, "own-deployment",
		"nobody approves a deployment that they started", "ask somebody else to look at it")
	ErrDecided = refusal.New(refusal.Conflict, "deployment-decided",
		"you have decided on this already", "what you said stands; others decide with you")
	ErrOtherTerms = refusal.New(refusal.Conflict, "other-deployment-terms",
		"these are not the terms of the deployment", "look at it again before you decide")
	ErrReason = refusal.New(refusal.Invalid, "deployment-reason-required",
		"say why, in your own words", "one sentence will do").On("reason")
	ErrUntil = refusal.New(refusal.Invalid, "bad-override-time",
		"an override ends within 24 hours", "say until when it is needed, such as in an hour").On("until")
	ErrUnlogged = refusal.New(refusal.Unavailable, "deployment-not-logged",
		"the log does not have yet what allows this certificate; none was issued", "try again in a moment")
	ErrEvidence = refusal.New(refusal.Unavailable, "deployment-evidence",
		"what is kept of the deployment does not prove that it may go on; no certificate is issued",
		"tell an operator: the database may have been changed by somebody else")
)
