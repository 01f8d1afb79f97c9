package audit

import (
	"crypto/sha256"
	"time"
)

// MaxDisclosed is the bound of Disclosures.
const MaxDisclosed = maxDisclosed

// Disclosures are what Disclose remembers.
type Disclosures struct{ d disclosures }

func (d *Disclosures) Has(key [sha256.Size]byte, now time.Time) bool { return d.d.has(key, now) }
func (d *Disclosures) Add(key [sha256.Size]byte, now time.Time)      { d.d.add(key, now) }
func (d *Disclosures) Len() int                                      { return len(d.d.until) }
