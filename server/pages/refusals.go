package pages

import "sallyport/internal/refusal"

// What the pages themselves refuse. All else is refused by the room concerned.
var (
	errNoTarget = refusal.New(refusal.Invalid, "no-host",
		"no host and login were chosen", "choose one from the list").On("host")
	errDenyWithoutReason = refusal.New(refusal.Invalid, "comment-missing",
		"a denial needs a comment", "say why, so that the requester knows what to do instead").On("comment")
	errDocumentTooLarge = refusal.New(refusal.TooLarge, "policy-too-large",
		"the document is larger than 4 MiB", "shorten it; a policy has at most 5000 rules").On("document")
	errBadForm = refusal.New(refusal.Invalid, "bad-form",
		"the form could not be read", "reload the page and try again")
)
