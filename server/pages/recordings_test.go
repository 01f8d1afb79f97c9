package pages

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/recordings"
)

// archive is what was recorded in the house: of one session, a recording of each state.
type archive struct{ h *house }

const taped = "ses-000000000001"

var tapes = []api.RecordingState{api.RecordingWhole, api.RecordingGoesOn, api.RecordingComes, api.RecordingDiffers, api.RecordingForgotten}

func (a archive) OfSession(ctx context.Context, c identity.Caller, action, session string) ([]api.Recording, error) {
	if err := a.h.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	if session != taped {
		return nil, recordings.ErrUnknown
	}
	began := a.h.clock.Now().Add(-time.Hour)
	ended := began.Add(12*time.Minute + 3*time.Second)
	var list []api.Recording
	for i, state := range tapes {
		r := api.Recording{Session: session, Number: i + 1, State: state, HostID: a.h.hosts[0].ID, Host: a.h.hosts[0].Name, Login: "dba", Request: "req-4f8k2m9qhx1z",
			Person: a.h.person("engineer"), StartedAt: &began, Bytes: 18233, Terminal: true}
		if state != api.RecordingGoesOn {
			r.EndedAt, r.Claimed, r.SHA256, r.Event = &ended, 18233, strings.Repeat("ab", 32), a.place(i+1)
		}
		switch state {
		case api.RecordingComes:
			r.Claimed, r.Cut = 20000, "the disk is full"
		case api.RecordingForgotten:
			r.RemovedAt = &ended
		}
		list = append(list, r)
	}
	return list, nil
}

// place is where in the house's log the end of a recording is, if it is there.
func (a archive) place(number int) *int64 {
	for _, e := range a.h.leaves {
		if ev, err := e.Event(); err == nil {
			if d, ok := ev.Data.(event.SessionRecorded); ok && d.Recording == number {
				return &e.Index
			}
		}
	}
	return nil
}

func (a archive) Counts(ctx context.Context, c identity.Caller, action string, sessions []string) (map[string]int, error) {
	if err := a.h.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	return map[string]int{taped: len(tapes)}, nil
}

// tape writes the end of a recording into the house's log.
func (h *house) tape(number int, digest string) {
	at := h.clock.Now().Add(-time.Hour).UTC()
	h.write(h.people["engineer"], h.asked[0].ID, event.SessionRecorded{SessionID: taped, Recording: number, Number: 1, BootID: "boot", Serial: 7, Login: "dba", Host: "db-1",
		Bytes: 18233, Digest: digest, Recipients: []string{"age1example"}, StartedAt: at, EndedAt: at, Terminal: true})
}

func TestPagesOfRecordings(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.tape(1, strings.Repeat("ab", 32))
	contains(t, v.page("auditor", "/recordings/"+taped), "1: a terminal", "Whole", "Recording", "Arriving", "Differs", "Forgotten", "cut off: the disk is full", `href="/recordings/`+taped+`/5"`)
	whole := v.page("auditor", "/recordings/"+taped+"/1")
	contains(t, whole, `data-source="/api/v1/audit/recordings/`+taped+`/1"`, `data-digest="`+strings.Repeat("ab", 32)+`"`, "age1example", "12 minutes 3 seconds",
		"sally audit replay "+taped+" --number 1 --identity key.txt --vkey log.vkey", `autocomplete="off"`, "SHA-256 in the log")
	if strings.Contains(whole, `id="unproved"`) {
		t.Error("a recording that the log knows is called unproved")
	}
	for number, want := range map[string]string{"2": "the log has no hash yet", "3": "18233 of 20000 bytes are here"} {
		page := v.page("auditor", "/recordings/"+taped+"/"+number)
		contains(t, page, want, `id="unproved"`)
		if strings.Contains(page, "data-digest") {
			t.Errorf("%s: what is not all there is compared with the hash of all", number)
		}
	}
	for number, want := range map[string]string{"4": "not what the host recorded", "5": "It was forgotten"} {
		page := v.page("auditor", "/recordings/"+taped+"/"+number)
		contains(t, page, want)
		if strings.Contains(page, `id="player"`) {
			t.Errorf("%s: there is a player", number)
		}
	}
	for _, path := range []string{taped + "/6", taped + "/x", taped + "/0", "ses-none", "ses-none/1"} {
		if w := v.get("auditor", "/recordings/"+path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// Who changes the broker's books, and not the log, is found out.
func TestARecordingThatTheLogContradictsIsNotPlayed(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.tape(1, strings.Repeat("cd", 32))
	page := v.page("auditor", "/recordings/"+taped+"/1")
	contains(t, page, "The log says something else")
	if strings.Contains(page, `id="player"`) {
		t.Error("there is a player")
	}
}

func TestOnlyAuditorsSeeThatThereAreRecordings(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.tape(1, strings.Repeat("ab", 32))
	index := len(h.leaves) - 1
	link := "/recordings/" + taped
	for _, path := range []string{"/hosts/db-1", "/requests/" + h.asked[0].ID, "/log?host=" + h.hosts[0].ID} {
		for _, who := range []string{"engineer", "operator", "approver"} {
			if strings.Contains(v.get(who, path).Body.String(), link) {
				t.Errorf("%s sees on %s that there are recordings", who, path)
			}
		}
	}
	contains(t, v.page("auditor", "/hosts/db-1"), `href="`+link+`"`)
	contains(t, v.page("auditor", "/requests/"+h.asked[0].ID), `href="`+link+`/1"`)
	contains(t, v.page("auditor", "/log?request="+h.asked[0].ID), `href="`+link+`/1"`)
	contains(t, v.page("auditor", "/log/events/"+strconv.Itoa(index)), `href="`+link+`/1"`)
	for _, path := range []string{link, link + "/1"} {
		for who, want := range map[string]int{"engineer": 403, "operator": 403, "approver": 403, "": 303} {
			if w := v.get(who, path); w.Code != want {
				t.Errorf("%q gets %d from %s", who, w.Code, path)
			}
		}
	}
}
