package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

func (s *sally) auditTimelineCommand() *cobra.Command {
	var f api.EventFilter
	c := &cobra.Command{
		Use:   "timeline (--request REQUEST | --host HOST | --person PERSON)",
		Short: "Tell what happened about one request, host or person (auditors)",
		Long: `Tell the last events of the log about one request, host or person, day by day, the
oldest first. A host is known by its name or id, a person by id or by a part of
the name or address that fits nobody else.`,
		Example: `  sally audit timeline --request req-4f8k2m9qhx1z
  sally audit timeline --host db-1 --limit 200
  sally audit timeline --person erin@example.com --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if given := slices.DeleteFunc([]string{f.Request, f.Host, f.Person}, func(v string) bool { return v == "" }); len(given) != 1 {
				return usage("a timeline is of one request, host or person").hinting("--request REQUEST, --host HOST or --person PERSON")
			}
			ctx := c.Context()
			client, err := s.client()
			if err != nil {
				return err
			}
			if f.Host, err = hostID(ctx, client, f.Host); err != nil {
				return err
			}
			if f.Person, err = personID(ctx, client, f.Person); err != nil {
				return err
			}
			page, err := lastEvents(ctx, client, f)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(page)
			}
			s.pruned(page.Pruned)
			if len(page.Items) == 0 {
				s.err.Line("no events")
				return nil
			}
			slices.Reverse(page.Items)
			s.story(page.Items)
			if page.Next != "" {
				s.err.Line("there are older ones: --limit")
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.Request, "request", "", "of this request")
	flags.StringVar(&f.Host, "host", "", "of this host")
	flags.StringVar(&f.Person, "person", "", "of this person, as whoever did it, for whom, or whom it concerns")
	flags.IntVar(&f.Limit, "limit", 50, "how many events at most")
	c.RegisterFlagCompletionFunc("request", s.completeRequests(api.RequestFilter{}))
	c.RegisterFlagCompletionFunc("host", s.completeHosts)
	return c
}

// lastEvents are as many as wanted, the newest first. A page of a search may be
// short, even empty, and still have a next one.
func lastEvents(ctx context.Context, client *api.Client, f api.EventFilter) (all api.EventPage, err error) {
	all.Items = []api.Event{}
	if f.Limit < 1 {
		return all, usage("--limit must be at least 1")
	}
	for limit := f.Limit; ; {
		f.Limit = min(limit-len(all.Items), 200)
		page, err := client.Events(ctx, f)
		if err != nil {
			return all, err
		}
		all.Items, all.Next = append(all.Items, page.Items...), page.Next
		all.Pruned = page.Pruned
		if page.Next == "" || len(all.Items) >= limit {
			return all, nil
		}
		f.Before = page.Next
	}
}

// pruned says where older events are, if there were any.
func (s *sally) pruned(p *api.Pruned) {
	if p != nil {
		s.err.Line("events before %d, until %s, were pruned: they are in the archive %s (SHA-256 %s)", p.Before,
			p.Latest.In(s.Zone).Format("2 January 2006"), p.Archive, p.ArchiveSHA256)
	}
}

// story prints events, oldest first, by days.
func (s *sally) story(events []api.Event) {
	day := ""
	var rows [][]show.Cell
	for i, e := range events {
		at := e.Time.In(s.Zone)
		if name := at.Format("Monday, 2 January 2006"); name != day {
			s.out.Columns(rows)
			if rows, day = nil, name; i > 0 {
				s.out.Line("")
			}
			s.out.Line("%s", show.Cell{Text: name, Style: show.Bold})
		}
		index := "-"
		if e.Index >= 0 {
			index = fmt.Sprint(e.Index)
		}
		rows = append(rows, []show.Cell{{Text: "  " + at.Format("15:04:05"), Style: show.Faint}, {Text: doer(e)},
			{Text: e.Summary, Style: toneOf(e)}, {Text: e.Request, Style: show.Faint}, {Text: index, Style: show.Faint}})
	}
	s.out.Columns(rows)
}

// doer is who did it, and for whom.
func doer(e api.Event) string {
	name := or(e.Actor.Name, or(e.Actor.ID, e.Actor.Kind))
	if e.Actor.Kind == "broker" {
		name = "Sallyport"
	}
	if o := e.OnBehalfOf; o != nil {
		name += " for " + or(o.Name, o.ID)
	}
	return name
}

// toneOf is how an event came out, as far as its type and verdict say.
func toneOf(e api.Event) show.Style {
	switch v := e.Data["verdict"]; {
	case v == string(api.Deny), v == api.NotJustified, e.Type == "emergency.started", e.Type == "token.reused", e.Data["emergency"] == true:
		return show.Red
	case v == string(api.Approve), v == api.Justified, e.Type == "grant.started":
		return show.Green
	case strings.HasSuffix(e.Type, "refused"), strings.HasSuffix(e.Type, "failed"), strings.HasSuffix(e.Type, "overdue"):
		return show.Yellow
	}
	return show.Plain
}

// hostID is the id of a host by its name; an id may be of one that is gone.
func hostID(ctx context.Context, client *api.Client, nameOrID string) (string, error) {
	if nameOrID == "" || ids.Valid(ids.Host, nameOrID) {
		return nameOrID, nil
	}
	host, err := client.Host(ctx, nameOrID)
	return host.ID, err
}

// personID is the id of the only person whom a part of a name or address fits.
func personID(ctx context.Context, client *api.Client, idOrPart string) (string, error) {
	if idOrPart == "" || ids.Valid(ids.Person, idOrPart) {
		return idOrPart, nil
	}
	found, err := client.People(ctx, api.PeopleFilter{Search: idOrPart, Limit: 5})
	if err != nil {
		return "", err
	}
	switch len(found.Items) {
	case 0:
		return "", usage("nobody is known as %q", idOrPart).hinting("see: sally people list")
	case 1:
		return found.Items[0].ID, nil
	}
	names := make([]string, len(found.Items))
	for i, p := range found.Items {
		names[i] = person(p.Person) + " " + p.ID
	}
	return "", usage("%q fits several people", idOrPart).hinting("%s", "one of: "+strings.Join(names, ", "))
}
