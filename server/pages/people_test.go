package pages

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
)

// What the house does about extensions, revocations and leavers: just enough to
// walk through the pages.

func (h *house) Extend(_ context.Context, c identity.Caller, id string, in api.ExtendInput) (api.Request, error) {
	var next api.Request
	_, err := h.change(in, id, func(r *api.Request) error {
		if r.Extend == nil {
			return approvals.ErrNoExtension
		}
		from, until := *r.EndsAt, r.EndsAt.Add(30*time.Minute)
		next = *r
		next.ID, next.Extends, next.Extend, next.State, next.StartsAt, next.EndsAt = ids.New(ids.Request), r.ID, nil, api.Approved, &from, &until
		r.ExtendedBy = next.ID
		return nil
	})
	if err == nil {
		h.asked = append([]api.Request{next}, h.asked...)
	}
	return next, err
}

func (h *house) Revoke(_ context.Context, c identity.Caller, in api.RevocationInput) (api.Revocation, error) {
	_, err := h.change(in, in.Request, func(r *api.Request) error {
		if in.Reason == "" {
			return approvals.ErrNoWhy
		}
		r.State, r.EndReason = api.Ended, "revoked"
		return nil
	})
	return api.Revocation{Ended: []string{in.Request}}, err
}

func (h *house) People(_ context.Context, c identity.Caller, f identity.PeopleFilter) (api.Page[api.KnownPerson], error) {
	if len(c.Roles) == 0 {
		return api.Page[api.KnownPerson]{}, approvals.ErrNotReader
	}
	var page api.Page[api.KnownPerson]
	for _, key := range []string{"approver", "auditor", "engineer", "operator"} {
		p, err := h.KnownPerson(context.Background(), c, h.people[key].ID)
		if err == nil && strings.Contains(p.Email, f.Search) && (!f.Removed || p.Removed != nil) {
			page.Items = append(page.Items, p)
		}
	}
	return page, nil
}

func (h *house) KnownPerson(_ context.Context, c identity.Caller, id string) (api.KnownPerson, error) {
	if len(c.Roles) == 0 {
		return api.KnownPerson{}, approvals.ErrNotReader
	}
	for _, p := range h.people {
		if p.ID == id {
			known := api.KnownPerson{Person: p.API(), Roles: p.Roles, SignedInAt: p.SignedInAt}
			if p.Removed != nil {
				known.Removed = &api.Removal{At: p.Removed.At, By: h.person("operator"), Reason: p.Removed.Why}
			}
			return known, nil
		}
	}
	return api.KnownPerson{}, identity.ErrUnknownPerson
}

// govern changes a person, if there is a reason.
func (h *house) govern(id, reason string, r *identity.Removal) error {
	if err := h.saw(reason); err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return approvals.ErrNoWhy
	}
	for key, p := range h.people {
		if p.ID == id {
			p.Removed = r
			h.people[key] = p
		}
	}
	return nil
}

func (h *house) RemovePerson(_ context.Context, c identity.Caller, id, reason string) (api.RemovedPerson, error) {
	err := h.govern(id, reason, &identity.Removal{At: h.clock.Now(), By: c.ID, Why: reason})
	return api.RemovedPerson{SignIns: 2, Ended: []string{"req-000000000001"}, Stand: []string{"req-000000000002"}}, err
}

func (h *house) RestorePerson(_ context.Context, c identity.Caller, id, reason string) (api.KnownPerson, error) {
	return api.KnownPerson{}, h.govern(id, reason, nil)
}

func TestLeaversWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	oscar, audrey := browse(t, server.URL, "operator"), browse(t, server.URL, "auditor")
	oscar.open("/people?q=engineer")
	contains(t, oscar.page, "Erin Engineer", "engineers", `href="/people/`+h.people["engineer"].ID)
	if strings.Contains(oscar.page, "Ada Approver") {
		t.Error("the search did not narrow the list")
	}
	oscar.open("/people/" + h.people["engineer"].ID)
	contains(t, oscar.page, "Remove Erin Engineer", "no certificate is issued to them")
	oscar.press("Remove Erin Engineer</span>", url.Values{"reason": {"left the company"}})
	contains(t, oscar.page, "Erin Engineer is out", "2 sign-ins ended", "req-000000000001", "unless you revoke them", "req-000000000002")
	oscar.open("/people?removed=yes")
	contains(t, oscar.page, "Erin Engineer", "Removed")

	audrey.open("/people/" + h.people["engineer"].ID)
	contains(t, audrey.page, "left the company", "Oscar Operator")
	if strings.Contains(audrey.page, "<textarea") {
		t.Error("an auditor is offered to restore somebody")
	}
	oscar.open("/people/" + h.people["engineer"].ID)
	oscar.press("Restore</span>", url.Values{"reason": {"came back"}})
	contains(t, oscar.page, "Remove Erin Engineer")
	oscar.open("/people/" + h.people["operator"].ID)
	contains(t, oscar.page, "Nobody removes themselves")
	if strings.Contains(oscar.page, "/remove") {
		t.Error("somebody is offered to remove themselves")
	}
}

func TestExtendWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	clk := h.clock.(*clock.Manual)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin, oscar := browse(t, server.URL, "engineer"), browse(t, server.URL, "operator")
	var active *api.Request
	for i := range h.asked {
		if h.asked[i].State == api.Active {
			active = &h.asked[i]
		}
	}
	active.Extend = &api.ExtendRule{Times: 2, By: "30m", Automatic: true}
	id, ends := active.ID, *active.EndsAt
	erin.open("/requests/" + id)
	contains(t, erin.page, "by 30 minutes", "nobody is asked, and nothing that is open is cut", "2 times at most", `class="soon"`, " hidden>")
	clk.Advance(ends.Sub(clk.Now()) - 4*time.Minute)
	erin.open("/requests/" + id)
	contains(t, erin.page, ">in 4 minutes</time>. Extend it before that")
	if strings.Contains(erin.page, "role=\"status\" hidden") {
		t.Error("the warning is hidden four minutes before the end")
	}
	erin.press("Extend</span>", nil)
	contains(t, erin.page, "Goes on with", id)
	next := strings.TrimPrefix(erin.at, "/requests/")
	erin.open("/requests/" + id)
	contains(t, erin.page, "It is extended", "Extended by", next, "with what extends it")
	if strings.Contains(erin.page, "before that.") {
		t.Error("an end that nobody has to fear is warned of")
	}
	// One access, not two.
	erin.open("/")
	contains(t, erin.page, "in 34 minutes", ", extended")
	if strings.Contains(erin.page, `href="/requests/`+next+`"`) {
		t.Error("the extension has a card of its own")
	}

	oscar.open("/requests/" + id)
	contains(t, oscar.page, "no certificate is issued any more")
	oscar.press("Revoke</span>", url.Values{"comment": {"odd commands"}})
	contains(t, oscar.page, "Revoked")
	if strings.Contains(oscar.page, `/revoke"`) {
		t.Error("what is over can be revoked")
	}
}

func TestFutureStartWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin := browse(t, server.URL, "engineer")
	erin.open("/requests/new?host=db-1&login=dba&not_before=2031-01-31T22:00:00%2B01:00")
	contains(t, erin.page, `name="start_date" value="2031-01-31"`, `name="start_time" value="21:00"`, `name="zone" value="UTC"`)
	fill := url.Values{"reason": {"the migration"}, "start_date": {"2031-07-31"}, "start_time": {"22:00"}, "zone": {"Europe/Berlin"}}
	erin.press(">Preview</button>", fill)
	erin.press(">Change something</button>", nil)
	contains(t, erin.page, `value="2031-07-31"`, `value="Europe/Berlin"`)
	erin.press(">Preview</button>", fill)
	contains(t, erin.page, "Time to approve", "Time to start", "Time of use")
	erin.press(">Send request</button>", nil)
	asked := h.inputs[len(h.inputs)-1].(api.RequestInput)
	if want := time.Date(2031, 7, 31, 20, 0, 0, 0, time.UTC); asked.NotBefore == nil || !asked.NotBefore.Equal(want) {
		t.Errorf("asked for a start at %v, want %s", asked.NotBefore, want)
	}
	for name, form := range map[string]startForm{
		"no time": {"2031-01-31", "", "UTC"}, "no day": {"", "22:00", "UTC"}, "no day at all": {"2031-02-31", "22:00", "UTC"},
		"no zone": {"2031-01-31", "22:00", "Mars/Base"}, "a file": {"2031-01-31", "22:00", "../../etc/passwd"}, "this machine's": {"2031-01-31", "22:00", "Local"},
	} {
		if at, err := form.at(); err == nil {
			t.Errorf("%s: %v", name, at)
		}
	}
}
