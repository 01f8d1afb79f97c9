package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) extendCommand() *cobra.Command {
	var (
		in     api.ExtendInput
		noWait bool
	)
	c := &cobra.Command{
		Use:   "extend REQUEST|LOGIN@HOST",
		Short: "Ask for more time on a grant of yours, without cutting what runs",
		Long: `Ask for a grant that begins when one of yours ends, for the same key, if its rule
allows that. It is a request of its own: the rule says whether somebody has to
approve it. Sessions that are open stay open, and "sally ssh" goes on with it.`,
		Example: `  sally extend dba@db-1
  sally extend req-4f8k2m9qhx1z --duration 15m --reason "the migration takes longer"`,
		Args:              one("REQUEST or LOGIN@HOST"),
		ValidArgsFunction: s.completeRequests(api.RequestFilter{Scope: "mine", States: []api.State{api.Approved, api.Active}}),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if err := checkDuration(in.Duration); err != nil {
				return usage("%s", err)
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			id := args[0]
			if strings.Contains(id, "@") {
				id, err = s.lastGrant(ctx, client, id)
			} else {
				err = checkRequest(id)
			}
			if err != nil {
				return err
			}
			r, err := client.Extend(ctx, id, in)
			if err != nil {
				return err
			}
			r, outcome := s.await(ctx, client, r, noWait)
			if err := s.printState(r); err != nil {
				return err
			}
			if outcome == nil {
				s.err.Line("%s goes on until %s", target(r), s.err.When(*r.EndsAt))
			}
			return outcome
		},
	}
	c.Flags().StringVarP(&in.Duration, "duration", "d", "", "how much longer, such as 15m (default: as the rule says)")
	c.Flags().StringVarP(&in.Reason, "reason", "r", "", "why you need longer (default: the reason that you gave first)")
	c.Flags().BoolVar(&noWait, "no-wait", false, "exit with code 4 instead of waiting for approval")
	return c
}

// lastGrant is the id of the caller's one grant for login@host that nothing
// extends: grants that follow each other are one access.
func (s *sally) lastGrant(ctx context.Context, client *api.Client, text string) (string, error) {
	where, err := parsePlace(text)
	if err != nil {
		return "", err
	}
	me, err := client.Me(ctx)
	if err != nil {
		return "", err
	}
	grants := slices.DeleteFunc(me.Grants, func(r api.Request) bool {
		return !where.fits(r) || slices.ContainsFunc(me.Grants, func(next api.Request) bool { return next.Extends == r.ID })
	})
	switch len(grants) {
	case 0:
		return "", errOver.With("you have no grant for %s", text)
	case 1:
		return grants[0].ID, nil
	}
	return "", usage("you have %d grants for %s", len(grants), text).hinting("name one: sally requests --mine")
}

// extendable says how the grant may be extended.
func extendable(r api.Request) string {
	e := r.Extend
	if e == nil || r.ExtendedBy != "" || r.State.Final() {
		return ""
	}
	times := "once"
	if e.Times > 1 {
		times = fmt.Sprintf("%d times", e.Times)
	}
	how := ", by the same approvers"
	if e.Automatic {
		how = ", with nobody asked"
	}
	return times + ", by at most " + show.Duration(e.By) + how
}

// mostWarning is how long before the end of a grant sally warns at most.
const mostWarning = 5 * time.Minute

// warnBeforeEnd tells the person at the terminal on which ssh runs shortly before
// their access ends, if it has not been extended.
func (s *sally) warnBeforeEnd(ctx context.Context, client *api.Client, r api.Request) {
	if !term.IsTerminal(int(s.Err.Fd())) {
		return
	}
	for {
		before := min(mostWarning, r.EndsAt.Sub(*r.StartsAt)/4)
		if !s.sleepUntil(ctx, r.EndsAt.Add(-before)) {
			return
		}
		next, err := following(ctx, client, r)
		switch {
		case ctx.Err() != nil:
			return
		case next != nil:
			r = *next
			continue
		case err == nil && !s.goesOn(ctx, client, r):
			return // it was ended elsewhere
		}
		hint := ""
		if r.Extend != nil {
			hint = "; for more time: sally extend " + r.ID
		}
		// The terminal is ssh's, which has put it into raw mode.
		fmt.Fprintf(s.Err, "\r\nsally: your access to %s ends %s%s\r\n", show.Clean(target(r)), s.err.Relative(*r.EndsAt), hint)
		if !s.sleepUntil(ctx, *r.EndsAt) {
			return
		}
		if next, _ = following(ctx, client, r); next == nil {
			return
		}
		r = *next
	}
}

// goesOn reports whether the grant has not been ended, as far as can be known.
func (s *sally) goesOn(ctx context.Context, client *api.Client, r api.Request) bool {
	now, err := client.Request(ctx, r.ID)
	return err != nil || !now.State.Final()
}

// following is the grant that extends the request's; nil if there is none.
func following(ctx context.Context, client *api.Client, r api.Request) (*api.Request, error) {
	now, err := client.Request(ctx, r.ID)
	if err != nil || now.ExtendedBy == "" {
		return nil, err
	}
	next, err := client.Request(ctx, now.ExtendedBy)
	if err != nil || next.StartsAt == nil || next.EndsAt == nil || next.State.Final() {
		return nil, err
	}
	return &next, nil
}

// sleepUntil returns false if ctx ends first.
func (s *sally) sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(at.Sub(s.Clock.Now()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

var errStart = errors.New("it is not a time")

// parseTime reads a time to come, as people write it: a time of day, today or
// tomorrow; a date and a time, both in the person's zone; RFC 3339; or how long
// from now.
func (s *sally) parseTime(flag, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	now := s.Clock.Now().In(s.Zone)
	at, err := func() (time.Time, error) {
		if d, err := time.ParseDuration(text); err == nil {
			return now.Add(d), nil
		}
		if days, ok := strings.CutSuffix(text, "d"); ok {
			if n, err := strconv.ParseUint(days, 10, 16); err == nil {
				return now.AddDate(0, 0, int(n)), nil
			}
		}
		if t, err := time.Parse(time.RFC3339, text); err == nil {
			return t, nil
		}
		for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04"} {
			if t, err := time.ParseInLocation(layout, text, s.Zone); err == nil {
				return t, nil
			}
		}
		clock, err := time.Parse("15:04", text)
		if err != nil {
			return time.Time{}, errStart
		}
		t := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), 0, 0, s.Zone)
		if !t.After(now) {
			t = time.Date(now.Year(), now.Month(), now.Day()+1, clock.Hour(), clock.Minute(), 0, 0, s.Zone)
		}
		return t, nil
	}()
	if err != nil {
		return nil, usage("%s %q: %s", flag, text, err).
			hinting(`like: %[1]s 22:00, %[1]s "%[2]s 22:00", %[1]s %[3]s`, flag, now.AddDate(0, 0, 1).Format("2006-01-02"), now.Add(time.Hour).UTC().Format(time.RFC3339))
	}
	at = at.UTC()
	return &at, nil
}
