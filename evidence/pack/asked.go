package pack

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/audit/event"
	"sallyport/evidence/populations"
)

// ErrNotAsked says that the pack is not what somebody asked for.
var ErrNotAsked = errors.New("the log does not say that somebody asked for this pack")

// asked checks that the pack is what somebody asked for, by the log's own event of
// it: period, criteria and seed are in the broker's database meanwhile, where
// somebody could choose others, such as a seed that draws no awkward samples.
func (m Manifest) asked(e *populations.Event, r event.PackRequested) error {
	seed, by := r.Seed, SeedByAuditor
	if seed == "" {
		seed, by = m.Log.Root, SeedByLog
	}
	switch {
	case m.MadeBy != Operator{e.Actor.ID, e.Actor.Name} || e.Actor.Kind != event.Person || !m.MadeAt.Equal(e.Time):
		return fmt.Errorf("%w: by entry %d, it was somebody else, or at another time", ErrNotAsked, e.Index)
	case !m.Period.From.Equal(r.From) || !m.Period.To.Equal(r.To) || m.Period.Zone != r.Zone:
		return fmt.Errorf("%w: by entry %d, it was for another period", ErrNotAsked, e.Index)
	case !slices.Equal(m.Controls, r.Controls):
		return fmt.Errorf("%w: by entry %d, it was for other criteria", ErrNotAsked, e.Index)
	case m.Seed != seed || m.SeedBy != by:
		return fmt.Errorf("%w: by entry %d, it was with another seed", ErrNotAsked, e.Index)
	}
	return nil
}

// request says whether the pack is what the log, or its own name, says.
func (d *deriver) request() error {
	if first, before, ok := d.m.archive(); ok {
		return d.m.archived(first, before, d.earliest, d.latest)
	}
	return d.asked
}

// ArchiveID is the id of the pack that entries are archived in before they are removed
// from the database. Nobody asks the log for such a pack: the log names its SHA-256
// afterwards (event.RetentionPruned). Hence all that somebody could choose follows from
// its entries.
func ArchiveID(first, before int64) string { return fmt.Sprintf("archive-%d-%d", first, before-1) }

// ArchivePeriod is the period of an archive whose entries, apart from those after them,
// happened from the earliest to the latest time.
func ArchivePeriod(earliest, latest time.Time) Period {
	return NewPeriod(earliest, latest.Add(time.Microsecond), time.UTC)
}

// archive reports which entries the pack archives, if its name is that of an archive.
func (m Manifest) archive() (first, before int64, ok bool) {
	var last int64
	if _, err := fmt.Sscanf(m.ID, "archive-%d-%d", &first, &last); err != nil {
		return 0, 0, false
	}
	return first, last + 1, m.ID == ArchiveID(first, last+1)
}

// archived checks that an archive has what its name says, and that nothing about it was
// chosen.
func (m Manifest) archived(first, before int64, earliest, latest time.Time) error {
	period := ArchivePeriod(earliest, latest)
	switch {
	case first != m.Log.First || first >= before || before > m.Log.End:
		return fmt.Errorf("%w: it has the entries %d to %d, and not those of the archive that it says it is", ErrNotAsked, m.Log.First, m.Log.End-1)
	case !m.Period.From.Equal(period.From) || !m.Period.To.Equal(period.To) || m.Period.Zone != period.Zone:
		return fmt.Errorf("%w: the entries that it archives are not of the period that it names", ErrNotAsked)
	case len(m.Controls) > 0:
		return fmt.Errorf("%w: an archive is for all criteria", ErrNotAsked)
	case m.Seed != m.Log.Root || m.SeedBy != SeedByLog:
		return fmt.Errorf("%w: the seed of an archive is the log's", ErrNotAsked)
	}
	return nil
}

// span notes when an entry that is archived happened.
func (d *deriver) span(t time.Time) {
	if d.earliest.IsZero() || t.Before(d.earliest) {
		d.earliest = t
	}
	if t.After(d.latest) {
		d.latest = t
	}
}

// requested says in words what request has checked.
func (m Manifest) requested() string {
	if first, before, ok := m.archive(); ok {
		return fmt.Sprintf("an archive of entries %d to %d: the log names its SHA-256 in a later event, retention.pruned", first, before-1)
	}
	return or(m.MadeBy.Name, m.MadeBy.ID) + " asked for this period, these criteria and this seed"
}

// heard checks that the log is known to have gone on past the period: an entry
// dated at its end or later is in the pack. Otherwise entries of the period could
// have come after the last one here.
func (d *deriver) heard() error {
	if now := d.engine.Now(); now.Before(d.m.Period.To) {
		return fmt.Errorf("the last entry is of %s, and the period ends at %s", populations.Time(now), populations.Time(d.m.Period.To))
	}
	if d.firstIn >= 0 && d.firstIn < d.m.Log.Start {
		return errors.New("entries of the period come before the checkpoint at its start")
	}
	return nil
}
