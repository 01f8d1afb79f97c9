package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// reviewState says what became of the review of an emergency.
func (s *sally) reviewState(r api.Request) string {
	e := r.Emergency
	switch {
	case e == nil:
		return ""
	case e.Review != nil:
		text := verdictWords(e.Review.Verdict) + ", says " + name(e.Review.Reviewer)
		if e.Review.Late {
			text += " (late)"
		}
		return text + ": " + e.Review.Comment
	case e.Overdue:
		return "OVERDUE since " + s.moment(&e.ReviewBy) + ": somebody from " + strings.Join(e.ReviewGroups, " or ")
	}
	return "waits for somebody from " + strings.Join(e.ReviewGroups, " or ") + " until " + s.moment(&e.ReviewBy)
}

func verdictWords(verdict string) string { return strings.ReplaceAll(verdict, "-", " ") }

func (s *sally) reviewCommand() *cobra.Command {
	var (
		justified, notJustified, yes, noWait bool
		comment                              string
	)
	c := &cobra.Command{
		Use:   "review REQUEST (--justified | --not-justified) --comment TEXT",
		Short: "Sign off somebody's emergency",
		Long: `Sign off somebody's emergency, once and for all. Sally shows what was opened, why,
and what has been done, and asks back.

You must be in a group that reviews it, be somebody else, and have no unreviewed
emergency of your own. --not-justified also ends the grant, if it still runs.

Where the identity provider has to sign the review, sally opens the page for it in
your browser, and waits until you have passed by the provider.`,
		Example: `  sally requests --to-review
  sally review req-4f8k2m9qhx1z --justified --comment "the session shows the failover and nothing else"
  sally review req-4f8k2m9qhx1z --not-justified --comment "nothing was down" --yes`,
		Args:              oneRequest,
		ValidArgsFunction: s.completeRequests(api.RequestFilter{Scope: "reviews"}),
		RunE: func(c *cobra.Command, args []string) error {
			in := api.ReviewInput{Verdict: api.Justified, Comment: strings.TrimSpace(comment)}
			switch {
			case justified == notJustified:
				return usage("say either --justified or --not-justified")
			case in.Comment == "":
				return usage("a review says why").hinting("--comment TEXT: what you looked at and what you found")
			case notJustified:
				in.Verdict = api.NotJustified
			}
			return s.review(c.Context(), args[0], in, yes, noWait)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&justified, "justified", false, "it was right to open the door, and what was done was right")
	flags.BoolVar(&notJustified, "not-justified", false, "it was not; this also ends the grant, if it runs")
	flags.StringVarP(&comment, "comment", "c", "", "what you looked at and what you found")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask back")
	flags.BoolVar(&noWait, "no-wait", false, "exit with code 4 instead of waiting for the browser")
	return c
}

func (s *sally) review(ctx context.Context, id string, in api.ReviewInput, yes, noWait bool) error {
	if !yes && !s.interactive() {
		return needsYes("review " + id)
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	if !yes {
		r, err := client.Request(ctx, id)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(r.Actions, func(a api.Action) bool { return a.Name == "review" && !a.Allowed }); i >= 0 {
			return errNoAction.With("you cannot review %s: %s", r.ID, or(r.Actions[i].Why, "the policy does not let you")).
				Hinting("see who can: sally show %s", r.ID)
		}
		s.printEmergency(r)
		if err := s.confirm(ctx, verdictWords(in.Verdict)+"?"); err != nil {
			return err
		}
	}
	r, err := client.Review(ctx, id, in)
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Continue != "" {
		r, err = s.reviewInBrowser(ctx, client, id, in.Verdict, p.Continue, noWait)
	}
	if err != nil {
		return err
	}
	return s.printState(r)
}

// reviewInBrowser has the person sign the emergency off on the page.
func (s *sally) reviewInBrowser(ctx context.Context, client *api.Client, id, verdict, page string, noWait bool) (api.Request, error) {
	me, err := client.Me(ctx)
	if err != nil {
		return api.Request{}, err
	}
	r, err := client.Request(ctx, id)
	if err != nil {
		return r, err
	}
	err = s.inBrowser(ctx, client, page, errand{about: r.ID, see: "sally show " + r.ID, noWait: noWait, until: s.Clock.Now().Add(reviewPatience),
		look: func(ctx context.Context) (bool, error) {
			next, err := client.WaitDecided(ctx, r.ID, r.State, 0, poll)
			if err != nil {
				return false, err
			}
			if r = next; r.Emergency == nil || r.Emergency.Review == nil {
				return false, nil
			}
			v := r.Emergency.Review
			if v.Reviewer.ID != me.Person.ID || v.Verdict != verdict {
				return false, errOver.With("%s has been reviewed: %s, says %s", r.ID, verdictWords(v.Verdict), name(v.Reviewer)).
					Hinting("sally show %s", r.ID)
			}
			return true, nil
		}})
	return r, err
}

// reviewPatience is how long a broker that does not answer is asked again: as long
// as a person may take at the identity provider.
const reviewPatience = 10 * time.Minute

// printEmergency shows what is reviewed.
func (s *sally) printEmergency(r api.Request) {
	s.err.Line("%s  %s opened %s for %s, %s", show.Cell{Text: mark(r), Style: alarm}, person(r.Requester),
		show.Cell{Text: target(r), Style: show.Bold}, show.Duration(r.Duration), s.err.Relative(r.CreatedAt))
	s.printHosts(s.err, place{}, r.Hosts)
	s.err.Line("  reason        %s", r.Reason)
	s.err.Line("  state         %s, %d certificates", show.State(r.State), len(r.Certificates))
	s.err.Line("  review        %s", s.reviewState(r))
	for _, e := range r.Timeline {
		s.err.Line("  %s  %s %s", e.Time.In(s.Zone).Format(time.TimeOnly), or(e.Actor.Name, or(e.Actor.ID, e.Actor.Kind)), e.Summary)
	}
}
