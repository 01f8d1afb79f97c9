package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sallyport/audit/vouch"
	"sallyport/evidence/controls"
)

// manifestKind is the kind of notes about manifests; their text is the SHA-256 of
// manifest.json, in hex.
const manifestKind = "evidence-pack/1"

// Manifest is what a pack says of itself.
type Manifest struct {
	Format string `json:"format"` // Format
	ID     string `json:"id"`     // of the pack, in the log's event of it
	Params
	Tool   string    `json:"tool"`    // the program that made it, with its version
	MadeAt time.Time `json:"made_at"` // when it was asked for, and so what "now" is in it
	MadeBy Operator  `json:"made_by"`
	Source string    `json:"source"` // what was queried, in words
	Log    Log       `json:"log"`
	Files  []File    `json:"files"` // all but the manifest, its note and the log's tiles
}

// Params are what somebody asked for.
type Params struct {
	Period Period `json:"period"`
	// Controls are the criteria asked for; empty: all. Lists that serve none of them
	// are left out.
	Controls        []string `json:"controls"`
	ControlsVersion int      `json:"controls_version"`
	// Seed chooses the samples. SeedBy says whose it is: the auditor's, who gave it,
	// or the log's, whose root at the end it is made from.
	Seed   string `json:"seed"`
	SeedBy string `json:"seed_by"`
}

// Whose a seed is.
const (
	SeedByAuditor = "auditor"
	SeedByLog     = "log"
)

// Period is a stretch of time; To is excluded.
type Period struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Zone is the IANA name of the time zone that the auditor thinks in, with the
	// ends in it, for people: everything else in a pack is UTC.
	Zone      string `json:"zone"`
	LocalFrom string `json:"local_from"`
	LocalTo   string `json:"local_to"`
}

// Operator is who asked for the pack.
type Operator struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Log says which stretch of which log the pack has.
type Log struct {
	Origin string `json:"origin"`
	// First is the index of the first entry in the pack: 0, if no entries were pruned.
	First int64 `json:"first"`
	// Start is how many entries the log had before the first one of the period, and
	// End how many it has in this pack.
	Start int64  `json:"start"`
	End   int64  `json:"end"`
	Root  string `json:"root"` // at End, base64
}

// File is one file of the pack.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Rows   int64  `json:"rows"` // of a table, its header not counted; else 0
}

// NewPeriod is a period as people in the zone see it.
func NewPeriod(from, to time.Time, zone *time.Location) Period {
	const layout = "2006-01-02 15:04:05 -0700"
	return Period{From: from.UTC(), To: to.UTC(), Zone: zone.String(),
		LocalFrom: from.In(zone).Format(layout), LocalTo: to.In(zone).Format(layout)}
}

// sourceText says what the tables are made of.
func sourceText(l Log) string {
	return fmt.Sprintf("the audit log %s, all entries from %d to %d; the lists have those dated in the period", l.Origin, l.First, l.End-1)
}

func (m Manifest) check() error {
	switch {
	case m.Format != Format:
		return fmt.Errorf("it is of the format %q, and this program knows %q: use the version of sally that fits the broker's", m.Format, Format)
	case !m.Period.From.Before(m.Period.To):
		return errors.New("its period has no length")
	case m.Log.Origin == "", m.Log.First < 0, m.Log.First > m.Log.End, m.Log.Start < 0, m.Log.Start > m.Log.End:
		return errors.New("it names no stretch of a log")
	case m.ControlsVersion != controls.Version:
		return fmt.Errorf("its criteria are of version %d, and this program has %d", m.ControlsVersion, controls.Version)
	case m.Seed == "" || m.SeedBy != SeedByAuditor && m.SeedBy != SeedByLog:
		return errors.New("it has no seed")
	case m.Source != sourceText(m.Log):
		return errors.New("it says that it was made of something else")
	}
	for _, id := range m.Controls {
		if !slices.Contains(controls.IDs(), id) {
			return fmt.Errorf("it names the unknown criterion %q", id)
		}
	}
	if !slices.IsSortedFunc(m.Files, func(a, b File) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) }) {
		return errors.New("its files are not in order")
	}
	return nil
}

// encode is the manifest's only form.
func (m Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// parseManifest reads what encode wrote, and nothing else.
func parseManifest(text []byte) (Manifest, error) {
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, errors.New("it cannot be read")
	}
	if _, err := dec.Token(); err != io.EOF {
		return m, errors.New("something follows it")
	}
	if again, err := m.encode(); err != nil || !bytes.Equal(again, text) {
		return m, errors.New("it is not in its only form")
	}
	return m, m.check()
}

// sign has the log's key vouch for a manifest.
func sign(manifest []byte, vouch func(kind, text string) ([]byte, error)) ([]byte, error) {
	return vouch(manifestKind, digest(manifest))
}

// signed says whether the log's key vouches for the manifest.
func signed(manifest, note []byte, key string) error {
	said, err := vouch.Open(manifestKind, note, key)
	if err != nil {
		return err
	}
	if said != digest(manifest) {
		return errors.New("the note is about another manifest")
	}
	return nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
