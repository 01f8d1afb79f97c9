package approvals

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
)

// Scope narrows List to one relation to the caller.
type Scope string

// The scopes.
const (
	All     Scope = ""        // all that the caller may see
	Mine    Scope = "mine"    // asked for by the caller
	Waiting Scope = "waiting" // waiting for the caller's decision
	Reviews Scope = "reviews" // emergencies that wait for the caller's review
)

// ListFilter narrows List. Zero fields do not filter.
type ListFilter struct {
	Scope  Scope
	States []api.State
	HostID string // also as one of several
	Cursor string
	Limit  int // 1 to 200; 0 means 50

	Emergency bool   // emergencies only, drills among them
	Review    Review // emergencies with this review only
}

// Review narrows List to emergencies by what became of their review.
type Review string

// The reviews.
const (
	AnyReview     Review = ""
	ReviewWaiting Review = "waiting" // nobody has reviewed it, overdue or not
	ReviewOverdue Review = "overdue" // nobody has, and its deadline has passed
)

// stateNow is a request's state at @now, which is what request.settle says too.
const stateNow = `(CASE
	WHEN state = 'requested' AND approve_by <= @now THEN 'expired'
	WHEN state = 'approved' AND use_by <= @now THEN 'ended'
	WHEN state IN ('approved', 'active') AND ends_at <= @now THEN 'ended'
	ELSE state END)`

// waitsForMe selects the requests that @me could approve at @now. A request waits
// for a person if
//
//  1. it is undecided, also by the clock,
//  2. it is not their own, and neither have they decided on it nor has anybody for
//     them,
//  3. their approval would fill a place in its current stage: they are in one of
//     its waiting groups (request.waitingGroups), or one is lent to them by somebody
//     of whom the same is true.
var waitsForMe = `(state = 'requested' AND approve_by > @now AND person_id <> @me AND NOT ` + behindSQL("@me") + `
	AND (waiting_groups && @groups::text[] OR ` + lentSQL("waiting_groups", "NOT "+behindSQL("l.delegator")) + `))`

// readableByMe selects the requests that @me may know of; what request.visibleTo
// says too.
var readableByMe = `(@all OR person_id = @me OR approver_groups && @groups::text[] OR ` + lentSQL("approver_groups", "true") + `
	OR id = ANY (ARRAY (SELECT request_id FROM decisions WHERE @me IN (approver_id, for_id) AND for_id IS NOT NULL)))`

// List returns requests that the caller may see, newest first, without timeline.
// The caller sees their own, those that a group of theirs decides on or one that
// is lent to them, those that a delegation of theirs has decided on, and, as an
// auditor or operator, all (P10).
func (s *Service) List(ctx context.Context, c identity.Caller, f ListFilter) (api.Page[api.Request], error) {
	if !slices.Contains([]Scope{All, Mine, Waiting, Reviews}, f.Scope) ||
		!slices.Contains([]Review{AnyReview, ReviewWaiting, ReviewOverdue}, f.Review) || f.Limit < 0 || f.Limit > 200 {
		return api.Page[api.Request]{}, ErrBadFilter
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	before, beforeID, err := parseCursor(f.Cursor)
	if err != nil {
		return api.Page[api.Request]{}, err
	}
	now := s.cfg.Clock.Now()
	who, err := s.voter(ctx, s.cfg.Pool, c.Person)
	if err != nil {
		return api.Page[api.Request]{}, err
	}
	args := pgx.NamedArgs{
		"all": c.Has(api.Auditor) || c.Has(api.Operator), "me": c.ID, "groups": notNil(c.Groups),
		"emergencies": f.Emergency || f.Review != AnyReview || f.Scope == Reviews, "review": string(f.Review),
		"scope": string(f.Scope), "states": notNil(f.States), "host": f.HostID,
		"before": before, "before_id": beforeID, "now": now, "limit": f.Limit + 1,
	}
	if err := who.at(now).addLent(args); err != nil {
		return api.Page[api.Request]{}, err
	}
	list, err := s.requests(ctx, s.cfg.Pool, `
		SELECT `+requestColumns+`
		FROM requests
		WHERE `+readableByMe+`
			AND (@scope <> 'mine' OR person_id = @me)
			AND (@scope <> 'waiting' OR `+waitsForMe+`)
			AND (NOT @emergencies OR EXISTS (
				SELECT FROM emergencies e WHERE e.request_id = requests.id
					AND (@scope <> 'reviews' OR `+reviewsForMe+`)
					AND (@review = '' OR `+waitsForReview+`)
					AND (@review <> 'overdue' OR e.review_by <= @now)))
			AND (cardinality(@states::text[]) = 0 OR `+stateNow+` = ANY(@states))
			AND (@host = '' OR host_id = @host OR more_host_ids @> ARRAY[@host])
			AND (@before_id = '' OR (created_at, id) < (@before, @before_id))
		ORDER BY created_at DESC, id DESC
		LIMIT @limit`,
		args)
	if err != nil {
		return api.Page[api.Request]{}, err
	}
	var page api.Page[api.Request]
	if len(list) > f.Limit {
		list = list[:f.Limit]
		last := list[len(list)-1]
		page.Next = cursor(last.created, last.id)
	}
	list = slices.DeleteFunc(list, func(r *request) bool {
		if r.broken != nil {
			s.cfg.Logger.ErrorContext(ctx, "a request is left out of a list", slog.Any("error", r.broken))
		}
		return r.broken != nil
	})
	for _, r := range list {
		r.settle(now)
	}
	if err := s.discloseRequests(ctx, c, f); err != nil {
		return api.Page[api.Request]{}, err
	}
	page.Items, err = s.show(ctx, c, list, now)
	return page, err
}

// CountWaiting is how many requests wait for the caller's decision.
func (s *Service) CountWaiting(ctx context.Context, c identity.Caller) (int, error) {
	who, err := s.voter(ctx, s.cfg.Pool, c.Person)
	if err != nil {
		return 0, err
	}
	now := s.cfg.Clock.Now()
	args := pgx.NamedArgs{"me": c.ID, "groups": notNil(c.Groups), "now": now}
	if err := who.at(now).addLent(args); err != nil {
		return 0, err
	}
	var n int
	err = s.cfg.Pool.QueryRow(ctx, `SELECT count(*) FROM requests WHERE `+waitsForMe, args).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting what waits: %w", err)
	}
	return n, nil
}

// OpenHosts tells which of the hosts, nil meaning all, have a grant that runs now: it is
// approved or active, and has started.
func (s *Service) OpenHosts(ctx context.Context, hostIDs []string) (map[string]bool, error) {
	which := `(host_id = ANY(@hosts) OR more_host_ids && @hosts::text[]) AND host = ANY(@hosts)`
	if hostIDs == nil {
		which = `true`
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT DISTINCT host FROM requests, unnest(array_prepend(host_id, more_host_ids)) AS host
		WHERE `+which+` AND state IN ('approved', 'active') AND starts_at <= @now AND `+stateNow+` <> 'ended'`,
		pgx.NamedArgs{"hosts": hostIDs, "now": s.cfg.Clock.Now()})
	if err != nil {
		return nil, fmt.Errorf("reading open hosts: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading open hosts: %w", err)
	}
	open := make(map[string]bool, len(found))
	for _, id := range found {
		open[id] = true
	}
	return open, nil
}

// cursor names the last request of a page: those after it are older, or as old
// with a lower id.
func cursor(created time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(created.UnixMicro(), 10) + "." + id))
}

func parseCursor(s string) (time.Time, string, error) {
	if s == "" {
		return time.Time{}, "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	micros, id, ok := strings.Cut(string(text), ".")
	n, numErr := strconv.ParseInt(micros, 10, 64)
	if err != nil || numErr != nil || !ok || !ids.Valid(ids.Request, id) {
		return time.Time{}, "", ErrBadFilter.On("cursor")
	}
	return time.UnixMicro(n).UTC(), id, nil
}

// notNil makes an absent list an empty one: to SQL, an absent one is unknown.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
