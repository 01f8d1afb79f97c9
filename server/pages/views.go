package pages

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
)

// slotView is a slot as pages draw it.
type slotView struct {
	api.Slot
	Staged bool // the request has more than one stage
}

// Pips has one mark for each approval that the slot needs.
func (s slotView) Pips() []bool {
	pips := make([]bool, s.Count)
	for i := range pips {
		pips[i] = i < s.Filled
	}
	return pips
}

// Open is how many approvals the slot still needs.
func (s slotView) Open() int { return max(0, s.Count-s.Filled) }

// There reports whether the slot needs nothing more.
func (s slotView) There() bool { return s.Open() == 0 }

func slotViews(slots []api.Slot) []slotView {
	views := make([]slotView, len(slots))
	for i, s := range slots {
		views[i] = slotView{s, slots[len(slots)-1].Stage > 1}
	}
	return views
}

// requestView is a request as one person sees it at one time.
type requestView struct {
	api.Request
	Mine    bool
	Auditor bool
	// Operator: the viewer may revoke it.
	Operator bool
	Now      time.Time
	// Problem is what was refused just now, and Comment what the person had
	// written; for the page that answers a refused post.
	Problem *api.Problem
	Comment string
	// Until is the end of the last grant that extends this one, where they are shown
	// as one access.
	Until *time.Time
}

func (p *Pages) view(c identity.Caller, r api.Request) requestView {
	return requestView{Request: r, Mine: r.Requester.ID == c.ID, Auditor: c.Has(api.Auditor), Operator: c.Has(api.Operator), Now: p.cfg.Clock.Now()}
}

func (p *Pages) views(c identity.Caller, rs []api.Request) []requestView {
	views := make([]requestView, len(rs))
	for i, r := range rs {
		views[i] = p.view(c, r)
	}
	return views
}

// Command is what the requester types next.
func (v requestView) Command() string { return "sally ssh " + v.Login + "@" + v.Host }

// Slots are what the request needs and has.
func (v requestView) Slots() []slotView { return slotViews(v.Approvers) }

// Missing is how many approvals are still needed.
func (v requestView) Missing() int {
	n := 0
	for _, s := range v.Slots() {
		n += s.Open()
	}
	return n
}

// Running reports whether the grant can be used now or later.
func (v requestView) Running() bool { return v.State == api.Approved || v.State == api.Active }

// Later reports whether the grant has yet to start.
func (v requestView) Later() bool { return v.StartsAt != nil && v.StartsAt.After(v.Now) }

// Action is what is known of one action; nil if it does not apply.
func (v requestView) Action(name string) *api.Action {
	i := slices.IndexFunc(v.Actions, func(a api.Action) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &v.Actions[i]
}

// Can reports whether the viewer may do the action.
func (v requestView) Can(name string) bool {
	a := v.Action(name)
	return a != nil && a.Allowed
}

// Denial is the decision that denied the request, if one did.
func (v requestView) Denial() *api.Decision {
	for i := range v.Decisions {
		if v.Decisions[i].Verdict == api.Deny {
			return &v.Decisions[i]
		}
	}
	return nil
}

// Elapsed and Length, in seconds, are for the bar that shows a grant running out.
func (v requestView) Elapsed() int {
	if v.StartsAt == nil {
		return 0
	}
	return min(v.Length(), max(0, int(v.Now.Sub(*v.StartsAt).Seconds())))
}

// Length is described at Elapsed.
func (v requestView) Length() int {
	if v.StartsAt == nil || v.EndsAt == nil {
		return 1
	}
	return max(1, int(v.EndsAt.Sub(*v.StartsAt).Seconds()))
}

// Version changes whenever anything of the request does.
func (v requestView) Version() string { return version(v.Request) }

// version is a short hash of whatever a page shows; the script compares it.
func version(shown any) string {
	b, err := json.Marshal(shown)
	if err != nil {
		return "" // never equal to what is shown later: at worst one refresh too many
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
