package pages

import "sallyport/internal/refusal"

// What the pages themselves refuse. All else is refused by the room concerned.
var (
	errAuditorsOnly = refusal.New(refusal.Denied, "auditors-only",
		"only auditors may read the log", "ask an operator to add your group to the auditor role in the policy")
	errNoTarget = refusal.New(refusal.Invalid, "no-host",
		"no host and login were chosen", "choose one from the list").On("host")
	errDenyWithoutReason = refusal.New(refusal.Invalid, "comment-missing",
		"a denial needs a comment", "say why, so that the requester knows what to do instead").On("comment")
	errBadForm = refusal.New(refusal.Invalid, "bad-form",
		"the form could not be read", "reload the page and try again")
	errBadFilter = refusal.New(refusal.Invalid, "bad-filter",
		"the filter could not be read", "clear it and start again")
	errUnknownEvent = refusal.New(refusal.NotFound, "unknown-event",
		"the log has no event at this place", "the log lists all there are")
)
