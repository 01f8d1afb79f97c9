package event

import (
	"fmt"
	"strings"
	"time"
)

// Evidence packs: what auditors took away.

// PackRequested records that an auditor asked for an evidence pack.
type PackRequested struct {
	PackID   string    `json:"pack_id"`        // of the pack
	From     time.Time `json:"from"`           // first moment of the period
	To       time.Time `json:"to"`             // excluded
	Zone     string    `json:"zone"`           // in which the auditor thinks of them
	Controls []string  `json:"controls"`       // criteria; none: all
	Seed     string    `json:"seed,omitempty"` // of the samples, if the auditor gave one
}

func (PackRequested) EventType() (string, int) { return "pack.requested", 1 }
func (d PackRequested) Summary() string {
	said := "asked for evidence from " + d.From.Format("2006-01-02 15:04 MST") + " to " + d.To.Format("2006-01-02 15:04 MST")
	if len(d.Controls) > 0 {
		said += " for " + strings.Join(d.Controls, ", ")
	}
	return said
}

// PackMade records that a pack is ready to be downloaded.
type PackMade struct {
	PackID     string `json:"pack_id"`           // of the pack
	Manifest   string `json:"manifest"`          // SHA-256 of its manifest, hex
	End        uint64 `json:"end,string"`        // entries of the log in it, or before it
	Exceptions uint64 `json:"exceptions,string"` // found
	Missing    uint64 `json:"missing,string"`    // entries that the database lacks
}

func (PackMade) EventType() (string, int) { return "pack.made", 1 }
func (d PackMade) Summary() string {
	return fmt.Sprintf("made evidence pack %s with %d exceptions", d.PackID, d.Exceptions)
}

// PackFailed records that a pack could not be made.
type PackFailed struct {
	PackID string `json:"pack_id"` // of the pack
	Code   string `json:"code"`    // the refusal's code, as in docs/problems.md
	Reason string `json:"reason"`  // why, in words for people
}

func (PackFailed) EventType() (string, int) { return "pack.failed", 1 }
func (d PackFailed) Summary() string {
	return "could not make evidence pack " + d.PackID + ": " + d.Reason
}

// PackDownloaded records that somebody began to download a pack.
type PackDownloaded struct {
	PackID   string `json:"pack_id"`  // of the pack
	Manifest string `json:"manifest"` // SHA-256 of its manifest, hex
}

func (PackDownloaded) EventType() (string, int) { return "pack.downloaded", 1 }
func (d PackDownloaded) Summary() string        { return "downloaded evidence pack " + d.PackID }
