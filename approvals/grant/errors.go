package grant

import "sallyport/internal/refusal"

// What the rules refuse.
var (
	ErrNoGrant = refusal.New(refusal.Conflict, "no-grant",
		"the request has no grant", "wait for its approval, or ask again")
	ErrNotStarted = refusal.New(refusal.Conflict, "grant-not-started",
		"the grant has not started yet", "come back at its start")
	ErrGrantEnded = refusal.New(refusal.Conflict, "grant-ended",
		"the grant has ended", "make a new request")
	ErrSignInTooOld = refusal.New(refusal.Unauthenticated, "sign-in-too-old",
		"your sign-in is too old for the rule of this grant", "sign in again: sally login")
	ErrEvidence = refusal.New(refusal.Denied, "evidence-refused",
		"the evidence does not prove that this grant is allowed", "make a new request, and tell an operator: the database may have been changed by hand")
	ErrBadSelector = refusal.New(refusal.Invalid, "bad-selector",
		"the hosts cannot be selected like that", "name 1 to 16 labels with their values, such as class=database,env=prod").On("selector")
)
