package pack

import (
	"errors"
	"fmt"
	"slices"

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
