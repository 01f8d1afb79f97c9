package audit

import "sallyport/internal/refusal"

// What the log refuses.
var (
	ErrUnavailable = refusal.New(refusal.Unavailable, "log-unavailable",
		"the audit log cannot take events now",
		"try again in a moment; nothing already recorded is lost. If it lasts, an operator finds the cause in the broker's own log")
	ErrBehind = refusal.New(refusal.Unavailable, "log-behind",
		"the audit log in the database is behind, or contradicts, the last checkpoint that this broker knows",
		"nothing is granted meanwhile. An operator must find out whether the database was restored, failed over or changed, "+
			"and bring back its newest state")
	ErrNoPartition = refusal.New(refusal.Unavailable, "log-without-partition",
		"the audit log has no partition for its next entries, so it takes none",
		"nothing is granted meanwhile. The broker makes partitions ahead and tries again every two seconds; "+
			"its own log says what keeps it from that")
	ErrPruned = refusal.New(refusal.Gone, "pruned",
		"the entry was pruned from the database", "it is in the archive that the log names; its receipt can still be had")
	ErrBusy = refusal.New(refusal.TooMany, "log-busy",
		"too many events wait for the audit log",
		"try again in a moment")
	ErrKey = refusal.New(refusal.Unavailable, "log-key",
		"the log's signing key, its verifier key and the log in the database do not belong together",
		"start with the log.key and log.vkey that this database's log was begun with")
	ErrRole = refusal.New(refusal.Unavailable, "log-role",
		"the database role could rewrite the audit log",
		"connect as a login role whose only membership is sallyport_app: CREATE ROLE sallyport LOGIN IN ROLE sallyport_app")
	ErrNotMigrated = refusal.New(refusal.Unavailable, "log-not-migrated",
		"the database has no audit log that this role may use",
		"run sallyportd migrate as the database's administrator, and connect as a member of sallyport_app")
	ErrNoEntry = refusal.New(refusal.NotFound, "no-such-entry",
		"the log has no such entry", "indexes run from 0 to the checkpoint's size less one")
	ErrNoTile = refusal.New(refusal.NotFound, "no-such-tile",
		"the log has no such tile", "paths are those of c2sp.org/tlog-tiles, within the size of the newest checkpoint")
	ErrFilter = refusal.New(refusal.Invalid, "bad-event-filter",
		"the events cannot be narrowed like that", "clear the filter and start again; a limit is 1 to 200")
)
