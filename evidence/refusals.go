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

	ErrNotOwner = refusal.New(refusal.Denied, "prune-not-owner",
		"only the owner of the log's tables can remove anything from it", "give --admin-url the login that sallyportd migrate uses")
	ErrPruning = refusal.New(refusal.Conflict, "prune-running",
		"the log is being pruned already", "wait for it to end; if it was killed, run it again")
	ErrNothingToPrune = refusal.New(refusal.Conflict, "nothing-to-prune",
		"there is nothing to remove", "entries go by whole partitions: sallyportd audit prune --dry-run lists them")
	ErrTooYoung = refusal.New(refusal.Denied, "prune-too-young",
		"entries that young are not removed", "choose an earlier end, or another --min-age, which is 24h at least")
	ErrUnwitnessed = refusal.New(refusal.Denied, "prune-not-witnessed",
		"the checkpoint kept outside of the database does not go so far, or is not of this log",
		"give --checkpoint a newer one, such as the broker's state folder, a witness or an auditor has it; "+
			"if it is not of this log, find out what happened to the database before anything is removed")
	ErrStillNeeded = refusal.New(refusal.Conflict, "prune-still-needed",
		"the broker still needs entries that would go", "choose an earlier end")
	ErrNotDelivered = refusal.New(refusal.Conflict, "prune-not-delivered",
		"a stream of the log has not delivered entries that would go", "wait for it, or choose an earlier end")
	ErrUnknownStream = refusal.New(refusal.NotFound, "prune-unknown-stream",
		"there is no such stream of the log", "a stream has the name that it has in the streams file")
	ErrPacksBeingMade = refusal.New(refusal.Conflict, "prune-packs-being-made",
		"evidence packs are being made from the entries that would go", "wait until they are ready, and run it again: it goes on")
	ErrArchive = refusal.New(refusal.Conflict, "prune-archive",
		"the archive is not what it should be, so nothing is removed", "find out who changed it; move it away to have another one made")
	ErrLogDamaged = refusal.New(refusal.Conflict, "prune-log-damaged",
		"the entries that would go are not those of the log, so nothing is removed",
		"find out who changed the database: an evidence pack of that time shows which entries are missing or differ")
)
