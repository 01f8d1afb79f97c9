package machine

import "sallyport/internal/refusal"

// Why something cannot be done now. Those of kind Conflict are blockers: whoever waits
// may see them go.
var (
	ErrOver = refusal.New(refusal.Conflict, "deployment-over",
		"the deployment has ended", "open another one")
	ErrStale = refusal.New(refusal.Conflict, "lease-stale",
		"another run has the lease of the deployment, or its time has passed",
		"attach again, which begins a new epoch; what the old one began is closed")
	ErrLeased = refusal.New(refusal.Conflict, "lease-taken",
		"another run has the lease of the deployment", "wait until it ends, or let the other run finish")
	ErrAwaiting = refusal.New(refusal.Conflict, "deployment-awaiting-approval",
		"the deployment has not been approved yet", "wait for the approvers")
	ErrHeld = refusal.New(refusal.Conflict, "deployment-held",
		"the deployment is held", "see what holds it: sally deploy status")
	ErrFrozen = refusal.New(refusal.Conflict, "deployment-frozen",
		"nothing is deployed now", "wait until the freeze ends, or ask those who may override it")
	ErrNoBatch = refusal.New(refusal.NotFound, "unknown-batch",
		"the deployment has no such batch", "see its batches: sally deploy status")
	ErrBatchBefore = refusal.New(refusal.Conflict, "batch-before",
		"a batch before this one has not passed", "wait until it has; sally deploy status says what it waits for")
	ErrBatchState = refusal.New(refusal.Conflict, "batch-not-open",
		"the batch is not open", "see how it stands: sally deploy status")
	ErrOpenings = refusal.New(refusal.Conflict, "batch-opened-too-often",
		"the batch has been opened as often as it may be", "abort the deployment or roll it back")
	ErrOtherBatch = refusal.New(refusal.Denied, "host-of-another-batch",
		"the host is not in the batch that is open", "ask for hosts of the open batch only").On("host")
	ErrReported = refusal.New(refusal.Conflict, "host-reported",
		"the host has been reported already", "what was reported stands; open another deployment to change the host again").On("results")
	ErrResult = refusal.New(refusal.Invalid, "bad-result",
		"a host's result is ok, failed or skipped", "report one of these").On("results")
	ErrBatchesLeft = refusal.New(refusal.Conflict, "batches-left",
		"batches are left", "open them, or abort the deployment")
	ErrNothingHeld = refusal.New(refusal.Conflict, "nothing-to-resume",
		"nothing holds the deployment that a person could end", "abort the deployment or roll it back")
	ErrNoWayBack = refusal.New(refusal.Conflict, "no-rollback",
		"there is nothing to roll back, or no verified artifact to roll back to", "abort the deployment instead")
	ErrSubject = refusal.New(refusal.Conflict, "nothing-to-decide",
		"nobody is asked about that now", "see what the deployment waits for: sally deploy status")
)
