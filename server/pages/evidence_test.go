package pages

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/evidence"
)

// drawer is the house's evidence: one pack of each state.
type drawer struct{ h *house }

var drawn = []api.PackState{api.PackReady, api.PackRunning, api.PackWaiting, api.PackFailed, api.PackExpired}

func (d drawer) packs() []api.Pack {
	now := d.h.clock.Now()
	until := now.Add(23 * time.Hour)
	var out []api.Pack
	for i, state := range drawn {
		p := api.Pack{ID: "pack-00000000000" + string(rune('0'+i)), State: state, From: now.AddDate(0, -3, 0), To: now, Zone: "Europe/Zurich",
			Controls: []string{"CC6.1", "CC8.1"}, By: d.h.person("auditor"), CreatedAt: now.Add(-time.Hour), Total: 1000, Done: 400,
			File: "evidence-2026-01-01_2026-03-31-00000000000" + string(rune('0'+i)) + ".zip"}
		switch state {
		case api.PackReady:
			p.Exceptions, p.Missing, p.Manifest, p.Bytes, p.ExpiresAt = 3, 1, strings.Repeat("ab", 32), 1<<20, &until
		case api.PackFailed:
			p.Problem = "the log's stored hashes do not give the root of its checkpoint"
		}
		out = append(out, p)
	}
	return out
}

func (d drawer) Make(_ context.Context, c identity.Caller, action string, in api.PackInput) (api.Pack, error) {
	if err := d.h.OnlyAuditors(context.Background(), c, action); err != nil {
		return api.Pack{}, err
	}
	if in.Zone == "Moon/Tycho" {
		return api.Pack{}, evidence.ErrZone
	}
	return d.packs()[2], d.h.saw(in)
}

func (d drawer) Pack(_ context.Context, c identity.Caller, action, id string) (api.Pack, error) {
	if err := d.h.OnlyAuditors(context.Background(), c, action); err != nil {
		return api.Pack{}, err
	}
	for _, p := range d.packs() {
		if p.ID == id {
			return p, nil
		}
	}
	return api.Pack{}, evidence.ErrNoPack
}

func (d drawer) Packs(_ context.Context, c identity.Caller, action, _ string, _ int) (api.Page[api.Pack], error) {
	if err := d.h.OnlyAuditors(context.Background(), c, action); err != nil {
		return api.Page[api.Pack]{}, err
	}
	return api.Page[api.Pack]{Items: d.packs()}, nil
}

func TestEvidencePages(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	page := v.page("auditor", "/evidence")
	contains(t, page, `action="/evidence"`, "CC6.1", "Ready, entries are missing", "No longer kept", "Failed", `name="seed"`, `value="UTC"`)
	contains(t, v.page("auditor", "/evidence/pack-000000000000"), "/api/v1/audit/packs/pack-000000000000/download", "sally audit verify", "<strong>3</strong>")
	running := v.page("auditor", "/evidence/pack-000000000001")
	contains(t, running, `data-refresh="2"`, `value="400"`, "400 of 1000 entries")
	if strings.Contains(running, "/download") {
		t.Error("what is being made can be downloaded")
	}
	contains(t, v.page("auditor", "/evidence/pack-000000000003"), "The log&#39;s stored hashes do not give the root")
	if w := v.get("auditor", "/evidence/pack-zzzzzzzzzzzz"); w.Code != http.StatusNotFound {
		t.Errorf("an unknown pack: %d", w.Code)
	}
}

func TestEvidenceForm(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	form := url.Values{"from": {"2026-01-01"}, "to": {"2026-03-31"}, "zone": {"Europe/Zurich"}, "controls": {"CC6.1", "CC8.1"}, "seed": {"4711"}}
	w := v.do("auditor", "POST", "/evidence", form)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/evidence/pack-000000000002" {
		t.Errorf("it answers %d, %s", w.Code, w.Header().Get("Location"))
	}
	form.Set("zone", "Moon/Tycho")
	w = v.do("auditor", "POST", "/evidence", form)
	if w.Code != http.StatusUnprocessableEntity {
		t.Errorf("it answers %d", w.Code)
	}
	contains(t, w.Body.String(), `value="Moon/Tycho"`, `value="2026-03-31"`, `value="4711"`, "There is no such time zone", `value="CC8.1" checked`)
}

// The last day is part of the period, whatever the month's length and the clocks.
func TestTheLastDayIsWithin(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	got := quarters(time.Date(2026, 4, 1, 1, 0, 0, 0, time.UTC), zone) // April there, too
	if len(got) != 5 || got[0].Name != "Q2 2026" || got[1].From != "2026-01-01" || got[1].To != "2026-03-31" || got[4].Name != "Q2 2025" {
		t.Errorf("%+v", got)
	}
	got = quarters(time.Date(2026, 3, 31, 23, 0, 0, 0, time.UTC), zone) // April there, March here
	if got[0].Name != "Q2 2026" {
		t.Errorf("%+v", got[0])
	}
}
