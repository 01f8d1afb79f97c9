package pages

import "sallyport/internal/refusal"

// What the pages themselves refuse. All else is refused by the room concerned.
var (
	errNoTarget = refusal.New(refusal.Invalid, "no-host",
		"no host and login were chosen", "choose one from the list").On("host")
	errDenyWithoutReason = refusal.New(refusal.Invalid, "comment-missing",
		"a denial needs a comment", "say why, so that the requester knows what to do instead").On("comment")
	errBadForm = refusal.New(refusal.Invalid, "bad-form",
		"the form could not be read", "reload the page and try again")
)
