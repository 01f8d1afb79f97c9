package cli

import (
	"context"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// errand is what somebody has to do in the browser, since the identity provider has
// to sign it: a decision, or a review.
type errand struct {
	about  string // the id of a request or a proposal
	see    string // the command that shows it
	noWait bool
	until  time.Time // a broker that does not answer is asked again until then; zero: not
	// look waits for news, a little, and reports whether it is done.
	look func(ctx context.Context) (done bool, err error)
}

// inBrowser opens the page on which it can be said, and waits until it was, or it
// is too late.
func (s *sally) inBrowser(ctx context.Context, client *api.Client, page string, e errand) error {
	if !strings.HasPrefix(page, client.URL()+"/") {
		// A browser is sent to the broker only.
		return errOtherSite.With("the page to go on is not at %s: %s", client.URL(), page)
	}
	s.err.Line("the identity provider has to sign it; go on on this page, if your browser does not show it by itself:\n  %s", page)
	s.openBrowser(page)
	if e.noWait {
		return &waitingError{show.Clean(e.about) + " waits for you in the browser", "see: " + e.see}
	}
	progress := s.err.Progress(s.columns(), "waiting for you in the browser")
	defer progress.Stop()
	for {
		asked := time.Now()
		done, err := e.look(ctx)
		switch {
		case ctx.Err() != nil:
			return &interrupted{"you can still go on in the browser"}
		case err != nil && api.Passing(err) && s.Clock.Now().Before(e.until):
			progress.Say("the broker does not answer; trying again")
		case err != nil || done:
			return err
		}
		if time.Since(asked) < breath {
			select {
			case <-ctx.Done():
			case <-time.After(breath):
			}
		}
	}
}
