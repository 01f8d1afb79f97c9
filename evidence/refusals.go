package evidence

import "sallyport/internal/refusal"

// What this room refuses.
var (
	ErrPeriod = refusal.New(refusal.Invalid, "bad-period",
		"the period cannot be read, or has no length", "give from and to as dates or as RFC 3339; to is excluded").On("from")
	ErrZone = refusal.New(refusal.Invalid, "bad-zone",
		"there is no such time zone", "use an IANA name, such as Europe/Zurich or UTC").On("zone")
	ErrControl = refusal.New(refusal.Invalid, "bad-control",
		"there is no evidence for such a criterion", "use CC6.1, CC6.2, CC6.3, CC6.6, CC6.7, CC7.2, CC7.3, CC8.1, or none for all").On("controls")
	ErrSeed = refusal.New(refusal.Invalid, "bad-seed",
		"the seed has characters that it must not have, or too many", "use up to 64 letters, digits, dots, dashes and underscores").On("seed")
	ErrAhead = refusal.New(refusal.Invalid, "period-ahead",
		"the period has not begun", "choose a start that has passed").On("from")
	ErrTooMany = refusal.New(refusal.TooMany, "too-many-packs",
		"too many evidence packs are being made", "wait until one is ready, see: sally audit packs")
	ErrNoPack = refusal.New(refusal.NotFound, "no-such-pack",
		"there is no such evidence pack", "list them: sally audit packs")
	ErrNotReady = refusal.New(refusal.Conflict, "pack-not-ready",
		"the evidence pack is not ready", "wait for it; its page and sally audit export show how far it has come")
	ErrGone = refusal.New(refusal.Conflict, "pack-gone",
		"the evidence pack failed, or is no longer kept", "ask for it again with the same period and seed")
	ErrPackPage = refusal.New(refusal.Invalid, "bad-pack-page",
		"there is no such page of the list", "give a limit from 1 to 200, and the cursor exactly as it was returned, or none")
)
