package history

import (
	"sallyport/audit/event"
	"sallyport/audit/retention"
	"sallyport/audit/vouch"
)

// Pruned is a record that all entries until now before an index were pruned, for which
// nobody vouches yet.
func (h *History) Pruned(before int64) event.RetentionPruned {
	return event.RetentionPruned{Before: uint64(before), Count: uint64(before), Earliest: Start, Latest: h.Now, Root: "cm9vdA==",
		Archive: "log.zip", ArchiveSHA256: "ab12", ArchiveBytes: 12, By: "root as postgres"}
}

// VouchPruned has the log's key vouch for a record.
func (h *History) VouchPruned(d event.RetentionPruned) event.RetentionPruned {
	h.T.Helper()
	d, err := retention.Vouch(d, func(kind, text string) ([]byte, error) { return vouch.Sign(kind, text, h.Signer) })
	must(h.T, err)
	return d
}

// Prune records that the entries before an index were pruned, as the log's key vouches
// for it. It removes nothing.
func (h *History) Prune(before int64) int64 {
	h.T.Helper()
	return h.Broker(h.VouchPruned(h.Pruned(before)))
}
