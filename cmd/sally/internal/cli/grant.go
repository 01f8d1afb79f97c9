package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
)

// place is one login, on one host as the person names it or on those with some
// labels.
type place struct {
	login, host string
	selector    map[string]string // instead of host
}

func (p place) String() string { return p.login + "@" + or(p.host, api.SelectorText(p.selector)) }

func (p place) fits(r api.Request) bool {
	if p.selector != nil {
		return r.Login == p.login && maps.Equal(r.Selector, p.selector)
	}
	return r.Login == p.login && r.On(p.host)
}

func parseTarget(text string) (place, error) {
	login, host, ok := strings.Cut(text, "@")
	if !ok || login == "" || host == "" || strings.Contains(host, "@") {
		return place{}, usage("%q is not LOGIN@HOST", text).hinting("like: dba@db-1 (see: sally hosts)")
	}
	if strings.Contains(host, "=") {
		return place{}, usage("%q may be several hosts, and this is for one", text).hinting("name one: sally hosts --selector %s", host)
	}
	return place{login: login, host: host}, nil
}

// grants are the caller's grants for the place that run now, the one that runs
// longest first. If there is none, but one that has yet to start, that is a
// waitingError.
func (s *sally) grants(ctx context.Context, client *api.Client, where place) ([]api.Request, error) {
	me, err := client.Me(ctx)
	if err != nil {
		return nil, err
	}
	var running []api.Request
	var future *api.Request
	for i, r := range me.Grants {
		switch {
		case !where.fits(r) || r.EndsAt == nil || r.StartsAt == nil:
		case r.StartsAt.After(s.Clock.Now()):
			future = &me.Grants[i]
		case r.EndsAt.After(s.Clock.Now()):
			running = append(running, r)
		}
	}
	if len(running) == 0 && future != nil {
		return nil, s.notStarted(*future)
	}
	slices.SortFunc(running, func(a, b api.Request) int { return b.EndsAt.Compare(*a.EndsAt) })
	return running, nil
}

func (s *sally) notStarted(r api.Request) error {
	return &waitingError{
		fmt.Sprintf("your grant %s for %s starts %s", r.ID, target(r), s.err.Relative(*r.StartsAt)),
		"for one that starts now: sally request " + again(r),
	}
}

// usable returns a grant of the caller's for the place with the key it is, or
// can be, used with. It asks for a grant if there is none, and waits for it.
func (s *sally) usable(ctx context.Context, client *api.Client, where place, a ask, inFile bool) (api.Request, *grantkey.Key, error) {
	grants, err := s.grants(ctx, client, where)
	if err != nil {
		return api.Request{}, nil, err
	}
	var gone error
	for _, r := range grants {
		key, err := s.key(ctx, client, r, inFile)
		if err == nil {
			return r, key, nil
		}
		if !errors.Is(err, grantkey.ErrGone) {
			return api.Request{}, nil, err
		}
		gone = errors.Join(gone, err)
	}
	if gone != nil {
		return api.Request{}, nil, gone
	}
	r, err := s.wanted(ctx, client, where, a)
	if err != nil {
		return api.Request{}, nil, err
	}
	key, err := s.keyOf(ctx, client, r, inFile)
	return r, key, err
}

// keyOf is key for one grant that was named or has just been approved.
func (s *sally) keyOf(ctx context.Context, client *api.Client, r api.Request, inFile bool) (*grantkey.Key, error) {
	if r.StartsAt != nil && r.StartsAt.After(s.Clock.Now()) {
		return nil, s.notStarted(r)
	}
	return s.key(ctx, client, r, inFile)
}

func (s *sally) key(ctx context.Context, client *api.Client, r api.Request, inFile bool) (*grantkey.Key, error) {
	if r.EndsAt == nil {
		return nil, errOver.With("the broker does not say when %s ends", r.ID)
	}
	until := *r.EndsAt
	if e := r.Extend; e != nil {
		by, err := time.ParseDuration(e.By)
		if err != nil {
			return nil, fmt.Errorf("read how %s may be extended: %w", r.ID, err)
		}
		until = until.Add(time.Duration(e.Times) * by)
	}
	return s.keys().Key(ctx, grantkey.Grant{
		Broker: client.URL(), RequestID: r.ID, EndsAt: *r.EndsAt, KeyUntil: until, Fingerprint: r.KeyFingerprint}, inFile)
}

// wanted waits for the caller's undecided request for the place, or makes one
// and waits for that.
func (s *sally) wanted(ctx context.Context, client *api.Client, where place, a ask) (api.Request, error) {
	waiting, err := client.Requests(ctx, api.RequestFilter{Scope: "mine", States: []api.State{api.Requested}, Limit: 200})
	if err != nil {
		return api.Request{}, err
	}
	for _, r := range waiting.Items {
		if where.fits(r) {
			s.err.Line("you asked for %s %s: %s", target(r), s.err.Relative(r.CreatedAt), r.ID)
			return s.await(ctx, client, r, a.noWait)
		}
	}
	r, err := s.ask(ctx, client, where, a)
	if err != nil {
		return api.Request{}, err
	}
	return s.await(ctx, client, r, a.noWait)
}

const (
	// poll is how long one call waits for a decision.
	poll = 30 * time.Second
	// breath is the pause between calls that come back at once, or fail.
	breath = 2 * time.Second
)

// await waits until the request is decided. It returns the request if a grant
// has come of it, and an error that says what else has.
func (s *sally) await(ctx context.Context, client *api.Client, r api.Request, noWait bool) (api.Request, error) {
	if r.State == api.Requested && !noWait {
		var err error
		if r, err = s.watch(ctx, client, r); err != nil {
			return r, err
		}
	}
	switch r.State {
	case api.Approved, api.Active:
		return r, nil
	case api.Requested:
		return r, &waitingError{r.ID + " waits for approval: " + who(r.Approvers), "see: sally show " + r.ID}
	case api.Denied:
		for _, d := range r.Decisions {
			if d.Verdict == api.Deny && d.Comment != "" {
				return r, errDenied.With("%s denied %s: %s", name(d.Approver), r.ID, d.Comment)
			} else if d.Verdict == api.Deny {
				return r, errDenied.With("%s denied %s", name(d.Approver), r.ID)
			}
		}
		return r, errDenied
	case api.Expired:
		return r, errExpired
	}
	return r, errOver.With("%s is %s", r.ID, r.State)
}

// watch shows progress until the request is decided.
func (s *sally) watch(ctx context.Context, client *api.Client, r api.Request) (api.Request, error) {
	s.err.Line("%s waits for approval: %s/requests/%s", r.ID, client.URL(), r.ID)
	progress := s.err.Progress(s.columns(), s.waitingFor(r))
	defer progress.Stop()
	for {
		asked := time.Now()
		next, err := client.Wait(ctx, r.ID, api.Requested, poll)
		switch {
		case ctx.Err() != nil:
			return r, &interrupted{fmt.Sprintf("%s goes on waiting; withdraw it with: sally cancel %s", r.ID, r.ID)}
		// The broker being restarted is no reason to give up, as long as the
		// request could still be approved.
		case err != nil && api.Passing(err) && s.Clock.Now().Before(r.ApproveBy):
			progress.Say("the broker does not answer; trying again")
		case err != nil:
			return r, err
		case next.State != api.Requested:
			return next, nil
		default:
			r = next
			progress.Say(s.waitingFor(r))
		}
		if time.Since(asked) < breath {
			select {
			case <-ctx.Done():
			case <-time.After(breath):
			}
		}
	}
}

// waitingFor says who is still to approve.
func (s *sally) waitingFor(r api.Request) string {
	var open []api.Slot
	for _, slot := range r.Approvers {
		if slot.Filled < slot.Count {
			slot.Count -= slot.Filled
			open = append(open, slot)
		}
	}
	return "waiting for " + who(open)
}
