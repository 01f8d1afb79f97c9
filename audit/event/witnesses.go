package event

import (
	"fmt"
	"strings"
	"time"
)

// Witnesses: who else remembers the log.

// WitnessesLag records that too few witnesses have cosigned the log for too long.
type WitnessesLag struct {
	Size     uint64    `json:"size,string"`     // of the head that waits
	Cosigned uint64    `json:"cosigned,string"` // size that the quorum has cosigned last; 0: none since the broker began
	Since    time.Time `json:"since"`           // when it began to wait
	Silent   []string  `json:"silent"`          // witnesses that do not cosign
}

func (WitnessesLag) EventType() (string, int) { return "witness.lagging", 1 }
func (d WitnessesLag) Summary() string {
	return fmt.Sprintf("waits for witnesses since %s: %s", d.Since.Format("2006-01-02 15:04 MST"), strings.Join(d.Silent, ", "))
}

// WitnessesCaughtUp records that enough witnesses have cosigned the newest head again.
type WitnessesCaughtUp struct {
	Size uint64 `json:"size,string"` // of that head
}

func (WitnessesCaughtUp) EventType() (string, int) { return "witness.caught_up", 1 }
func (d WitnessesCaughtUp) Summary() string {
	return fmt.Sprintf("has its witnesses back, who have cosigned %d entries", d.Size)
}

// WitnessContradicts records that a witness remembers another log.
type WitnessContradicts struct {
	Witness string `json:"witness"`     // its name, as in the file of witnesses
	Size    uint64 `json:"size,string"` // of the head that it was asked about
	Reason  string `json:"reason"`      // what it says, in words for people
}

func (WitnessContradicts) EventType() (string, int) { return "witness.contradicts", 1 }
func (d WitnessContradicts) Summary() string {
	return "is contradicted by the witness " + d.Witness + ": " + d.Reason
}
