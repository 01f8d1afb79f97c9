package approvals

import (
	"context"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// Whoever is shown what concerns others, because of a role, leaves an event before
// they see it: reasons, comments, evidence, who there is and who can reach what, what
// people were told, and the log itself. If it cannot be recorded, nothing is shown.
// Delegations, hosts, the policy and figures by week (Trends) are no such things.

// maxAsked is how many characters a filter of the log may have that is no text. All
// ids and types are shorter.
const maxAsked = 64

// DiscloseSearch records what an auditor looks for in the log.
func (s *Service) DiscloseSearch(ctx context.Context, c identity.Caller, f audit.Filter) error {
	for _, asked := range []string{f.Type, f.RequestID, f.PersonID, f.HostID} {
		if utf8.RuneCountInString(asked) > maxAsked {
			return audit.ErrFilter
		}
	}
	return s.disclose(ctx, c, event.Subject{}, event.SearchDisclosed{Type: f.Type, Request: f.RequestID,
		Person: f.PersonID, Host: f.HostID, From: f.From, To: f.To, Text: f.Text})
}

// DiscloseEntry records that an auditor opens an event of the log, or its receipt.
func (s *Service) DiscloseEntry(ctx context.Context, c identity.Caller, e audit.Entry) error {
	opened := e.API(false)
	about := event.Subject{RequestID: opened.Request, PersonID: opened.Person, HostID: opened.Host, HostIDs: opened.Hosts}
	return s.disclose(ctx, c, about, event.EventDisclosed{Index: uint64(e.Index), Type: e.Type})
}

// bundlesAtATime is how many bundles of entries one event stands for.
const bundlesAtATime = 256

// DiscloseBundle records that an auditor takes a bundle of entries, by its path below
// tile/entries/ (c2sp.org/tlog-tiles), such as x001/234.
func (s *Service) DiscloseBundle(ctx context.Context, c identity.Caller, path string) error {
	tile, err := tlog.ParseTilePath("tile/8/0/" + path)
	if err != nil {
		return audit.ErrNoTile
	}
	const entriesAtATime = bundlesAtATime << 8
	first := uint64(tile.N) / bundlesAtATime * entriesAtATime
	return s.disclose(ctx, c, event.Subject{}, event.EntriesDisclosed{First: first, Last: first + entriesAtATime - 1})
}

// discloseRequest records that somebody is shown a request who is not concerned by
// it, but has a role.
func (s *Service) discloseRequest(ctx context.Context, c identity.Caller, r *request) error {
	concerned := c
	concerned.Roles = nil
	if may, err := s.reads(ctx, concerned, r); may || err != nil {
		return err
	}
	return s.disclose(ctx, c, r.subject(), event.RequestDisclosed{Roles: rolesOf(c)})
}

// discloseRequests records that somebody with a role is shown everybody's requests.
func (s *Service) discloseRequests(ctx context.Context, c identity.Caller, f ListFilter) error {
	if f.Scope != All || !reads(c) {
		return nil
	}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	return s.disclose(ctx, c, event.Subject{}, event.RequestsDisclosed{States: states, Host: onlyID(ids.Host, f.HostID), Roles: rolesOf(c)})
}

// disclosePeople records that somebody with a role is shown people, or what about is
// to them.
func (s *Service) disclosePeople(ctx context.Context, c identity.Caller, what string, about event.Subject) error {
	return s.disclose(ctx, c, about, event.PeopleDisclosed{What: what, Roles: rolesOf(c)})
}

// DiscloseSessions records that somebody with a role is shown who was on the host.
func (s *Service) DiscloseSessions(ctx context.Context, c identity.Caller, hostID string) error {
	return s.disclose(ctx, c, event.Subject{HostID: hostID}, event.SessionsDisclosed{Roles: rolesOf(c)})
}

// discloseMessages records that somebody with a role is shown what people were told.
func (s *Service) discloseMessages(ctx context.Context, c identity.Caller, f notify.Filter) error {
	return s.disclose(ctx, c, event.Subject{}, event.MessagesDisclosed{Request: onlyID(ids.Request, f.RequestID), Roles: rolesOf(c)})
}

// onlyID is what somebody asked for, if there can be such a thing.
func onlyID(kind, asked string) string {
	if ids.Valid(kind, asked) {
		return asked
	}
	return ""
}

func (s *Service) disclose(ctx context.Context, c identity.Caller, about event.Subject, data event.Data) error {
	return s.cfg.Log.Disclose(ctx, c.Event(s.cfg.Clock.Now(), about, data))
}

func rolesOf(c identity.Caller) []string {
	roles := make([]string, len(c.Roles))
	for i, r := range c.Roles {
		roles[i] = string(r)
	}
	return roles
}
