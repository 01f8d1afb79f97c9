package event

import (
	"fmt"
	"time"
)

// Retention: what left the database for an archive.

// RetentionPruned records that entries were archived, and are then removed from the
// database. The tree keeps their hashes: the log is as long as before, and receipts of
// those entries hold.
type RetentionPruned struct {
	First         uint64    `json:"first,string"`         // oldest entry that is removed
	Before        uint64    `json:"before,string"`        // and the first one that is not
	Count         uint64    `json:"count,string"`         // of those removed
	Earliest      time.Time `json:"earliest"`             // time of any of them
	Latest        time.Time `json:"latest"`               // time of any of them
	Root          string    `json:"root"`                 // of the tree of all entries before the first one that stays, base64
	Archive       string    `json:"archive"`              // name of the file
	ArchiveSHA256 string    `json:"archive_sha256"`       // its hash, hex
	ArchiveBytes  uint64    `json:"archive_bytes,string"` // its size
	By            string    `json:"by"`                   // who ran it, as the machine and the database know them
	Previous      uint64    `json:"previous,string"`      // index of the event about the entries before; 0: there are none. It may be in this archive itself
	// what the log's key vouches for all of this with (package audit/retention):
	// nobody believes that something was pruned without it
	Note string `json:"note"`
}

func (RetentionPruned) EventType() (string, int) { return "retention.pruned", 1 }
func (d RetentionPruned) Summary() string {
	return fmt.Sprintf("pruned entries %d to %d, which are in the archive %s", d.First, int64(d.Before)-1, d.Archive)
}
