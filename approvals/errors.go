package approvals

import "sallyport/internal/refusal"

// Refusals of an ask. What the policy itself says no to is in package policy.
var (
	ErrUnknownHost = refusal.New(refusal.NotFound, "unknown-host",
		"there is no such host, or no rule lets you ask for it",
		"list what you may ask for: sally hosts").On("host")
	ErrBadHost = refusal.New(refusal.Invalid, "bad-host",
		"that is not a host's name or id", "list what you may ask for: sally hosts").On("host")
	ErrBadLogin = refusal.New(refusal.Invalid, "bad-login",
		"that is not a login", "logins look like [a-z_][a-z0-9_-]{0,31}").On("login")
	ErrBadText = refusal.New(refusal.Invalid, "bad-text",
		"the text is too long or has characters that are not text", "shorten it to plain text")
	ErrBadKey = refusal.New(refusal.Invalid, "bad-public-key",
		"that is not one SSH public key", "paste one line of a .pub file, such as ~/.ssh/id_ed25519.pub").On("public_key")
	ErrBadStart = refusal.New(refusal.Invalid, "bad-start",
		"the start lies in the past or too far ahead", "choose a time within the next 30 days").On("not_before")
	ErrTooManyOpen = refusal.New(refusal.TooMany, "too-many-open",
		"you have too many open requests", "cancel or finish those that you do not need: sally requests")
)

// Refusals of what somebody wants to do with a request.
var (
	ErrUnknownRequest = refusal.New(refusal.NotFound, "unknown-request",
		"there is no such request, or it is not for you to see", "list those you may see: sally requests")
	ErrBadVerdict = refusal.New(refusal.Invalid, "bad-verdict",
		"that is not a verdict", "say approve or deny").On("verdict")
	ErrBadFilter = refusal.New(refusal.Invalid, "bad-filter",
		"the list cannot be narrowed like that", "leave the filter out, or take the cursor as it was given")
	ErrOwnRequest = refusal.New(refusal.Denied, "own-request",
		"nobody decides on their own request", "somebody else has to decide; cancel the request if you do not need it")
	ErrNotApprover = refusal.New(refusal.Denied, "not-approver",
		"you are in none of the groups that decide on this request", "the request names who can")
	ErrAlreadyDecided = refusal.New(refusal.Conflict, "already-decided",
		"you have decided on this request already", "a decision stands; the requester can cancel or finish")
	ErrDelegatorDecided = refusal.New(refusal.Conflict, "delegator-decided",
		"the person who delegates to you has decided on this request already, or somebody has for them", "nobody stands behind two decisions; the request names who else can")
	ErrDelegatorAsks = refusal.New(refusal.Denied, "delegator-asks",
		"the person who delegates to you asked for this, or whoever made the delegation did", "nobody chooses who decides on their own request; the request names who else can")
	ErrNotNeeded = refusal.New(refusal.Conflict, "approval-not-needed",
		"your approval would not fill an open place in the current stage", "wait for the stage of your group; you can deny at any time")
	ErrOtherTerms = refusal.New(refusal.Conflict, "other-terms",
		"the decision is about other terms than the request has", "read the request again and decide on what it says").On("terms_hash")
	ErrClosed = refusal.New(refusal.Conflict, "not-undecided",
		"the request is no longer undecided", "look at it again: sally show REQUEST")
	ErrProviderEvidence = refusal.New(refusal.Conflict, "provider-evidence-needed",
		"decisions on this request are signed by the identity provider, so they are given in a browser",
		"open the request's page and decide there, or run: sally approve")
	ErrNoProviderEvidence = refusal.New(refusal.Conflict, "provider-evidence-not-needed",
		"decisions on this request are not signed by the identity provider", "open the request's page and decide there")
	ErrDraftGone = refusal.New(refusal.Conflict, "decision-draft-gone",
		"this decision was not begun in this browser, was begun too long ago, or is over already",
		"look at the request again, and decide if it still waits for you")
	ErrOtherPerson = refusal.New(refusal.Denied, "other-person",
		"somebody else signed in at the identity provider than the one who decides",
		"sign out at the provider, then decide again as yourself")
	ErrNotProved = refusal.New(refusal.Denied, "decision-not-proved",
		"the identity provider's answer does not prove this decision",
		"decide again; if it stays, an operator finds the reason in the broker's log")
	ErrNotRequester = refusal.New(refusal.Denied, "not-requester",
		"only the requester can do that", "ask the requester")
	ErrNotForYou = refusal.New(refusal.Denied, "operators-and-auditors-only",
		"only operators and auditors see what people were told", "ask an operator; your own requests are at sally requests")
)

// Refusals of a certificate under a grant.
var (
	ErrOtherKey = refusal.New(refusal.Denied, "other-key",
		"the grant is bound to another key", "use the key that it was first used with, or make a new request").On("public_key")
)

// ErrNotAuditor refuses the log to everybody else.
var ErrNotAuditor = refusal.New(refusal.Denied, "auditors-only",
	"only auditors may read the log", "ask an operator to add your group to the auditor role in the policy")
