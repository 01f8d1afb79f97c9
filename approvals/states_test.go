package approvals_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/audittest"
	"sallyport/internal/refusal"
)

// in brings a new request, dba@db-1 of the requester, into the state.
func (h *house) in(state api.State, requester, approver identity.Caller) api.Request {
	h.t.Helper()
	r := h.ask(requester, "dba", "db-1")
	var err error
	switch state {
	case api.Approved, api.Active, api.Ended:
		h.approve(approver, r.ID)
		if state == api.Active {
			must(h.t, h.use(requester, r.ID, "SHA256:k"))
		}
		if state == api.Ended {
			_, err = h.Finish(h.t.Context(), requester, r.ID)
		}
	case api.Denied:
		_, err = h.Decide(h.t.Context(), approver, r.ID, api.DecisionInput{Verdict: api.Deny})
	case api.Cancelled:
		_, err = h.Cancel(h.t.Context(), requester, r.ID)
	case api.Expired:
		h.clock.Advance(time.Hour)
	}
	must(h.t, err)
	r = h.see(requester, r.ID)
	if r.State != state {
		h.t.Fatalf("request is %s, want %s", r.State, state)
	}
	return r
}

// Every action in every state: it is allowed, or refused, and the request says
// the same in its actions.
func TestTransitions(t *testing.T) {
	t.Parallel()
	closed, noGrant, ended := approvals.ErrClosed, approvals.ErrNoGrant, approvals.ErrGrantEnded
	for state, want := range map[api.State]struct{ decide, cancel, finish, use *refusal.Error }{
		api.Requested: {nil, nil, noGrant, noGrant},
		api.Approved:  {closed, closed, nil, nil},
		api.Active:    {closed, closed, nil, nil},
		api.Ended:     {closed, closed, ended, ended},
		api.Denied:    {closed, closed, noGrant, noGrant},
		api.Cancelled: {closed, closed, noGrant, noGrant},
		api.Expired:   {closed, closed, noGrant, noGrant},
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			erin, ann, lee := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("lee", "leads")
			check := func(name string, do func(id string) error, by identity.Caller, want *refusal.Error) {
				t.Helper()
				r := h.in(state, erin, ann)
				if said := action(t, h.see(by, r.ID), name); said.Allowed != (want == nil) || said.Allowed == (said.Why != "") {
					t.Errorf("%s: the request says %+v", name, said)
				}
				err := do(r.ID)
				if want == nil {
					must(t, err)
				} else {
					refused(t, err, want)
					if got := h.see(erin, r.ID).State; got != state {
						t.Errorf("%s was refused, but the request became %s", name, got)
					}
				}
			}
			decide := func(v api.Verdict) func(string) error {
				return func(id string) error {
					_, err := h.Decide(t.Context(), lee, id, api.DecisionInput{Verdict: v})
					return err
				}
			}
			check("approve", decide(api.Approve), lee, want.decide)
			check("deny", decide(api.Deny), lee, want.decide)
			check("cancel", func(id string) error { _, err := h.Cancel(t.Context(), erin, id); return err }, erin, want.cancel)
			check("finish", func(id string) error { _, err := h.Finish(t.Context(), erin, id); return err }, erin, want.finish)
			check("connect", func(id string) error { return h.use(erin, id, "SHA256:k") }, erin, want.use)
		})
	}
}

func TestOnlyTheRequesterWithdraws(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	eve, olga := h.person("eve", "engineers"), h.person("olga", "operators", "auditors")
	open, granted := h.in(api.Requested, erin, ann), h.in(api.Approved, erin, ann)
	for by, want := range map[*identity.Caller]*refusal.Error{
		&ann: approvals.ErrNotRequester, &olga: approvals.ErrNotRequester, &eve: approvals.ErrUnknownRequest,
	} {
		_, err := h.Cancel(t.Context(), *by, open.ID)
		refused(t, err, want)
		_, err = h.Finish(t.Context(), *by, granted.ID)
		refused(t, err, want)
	}
	tried := map[string]int{}
	for _, e := range h.all("access.refused") {
		tried[e.Actor.ID+" "+e.Data["action"].(string)+" "+e.Request]++
	}
	for _, by := range []identity.Caller{ann, olga, eve} {
		if tried[by.ID+" requests.cancel "+open.ID] != 1 || tried[by.ID+" requests.finish "+granted.ID] != 1 {
			t.Errorf("the log does not know what %s tried: %v", by.Name, tried)
		}
		if _, err := h.grant(by, granted.ID); refusal.As(err) == nil || refusal.As(err).Code != "unknown-request" {
			t.Errorf("%s locks another's grant: %v", by.Name, err)
		}
	}
}

func TestFinishedGrantHasEnded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r := h.in(api.Active, erin, ann)
	h.clock.Advance(7 * time.Minute)
	r, err := h.Finish(t.Context(), erin, r.ID)
	must(t, err)
	if r.State != api.Ended || r.EndReason != "finished" || !r.EndsAt.Equal(start.Add(7*time.Minute)) {
		t.Errorf("finished request is %+v", r)
	}
	if e := h.events(r.ID); e[len(e)-1] != "grant.ended" {
		t.Errorf("events are %v", e)
	}
}

// At each edge of a request's clocks: one microsecond before it the old state
// holds, at the edge the new one, for readers, lists, deciders and the broker
// alike, although no job has run.
func TestClockEdges(t *testing.T) {
	t.Parallel()
	const tick = time.Microsecond
	t.Run("approve_by", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
		in1, in2 := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-1")
		h.clock.Advance(time.Hour - tick)
		h.approve(ann, in1.ID)
		must(t, h.use(erin, in1.ID, "SHA256:k"))
		h.clock.Advance(tick)
		_, err := h.Decide(t.Context(), ann, in2.ID, api.DecisionInput{Verdict: api.Approve})
		refused(t, err, approvals.ErrClosed)
		_, err = h.Cancel(t.Context(), erin, in2.ID)
		refused(t, err, approvals.ErrClosed)
		if got := h.see(erin, in2.ID); got.State != api.Expired || h.stored(in2.ID) != "requested" {
			t.Errorf("at approve_by the request is %s", got.State)
		}
		if n, err := h.CountWaiting(t.Context(), ann); err != nil || n != 0 {
			t.Errorf("%d requests wait, %v", n, err)
		}
	})
	t.Run("end", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
		r := h.in(api.Active, erin, ann)
		h.clock.Advance(30*time.Minute - tick)
		must(t, h.use(erin, r.ID, "SHA256:k"))
		h.clock.Advance(tick)
		refused(t, h.use(erin, r.ID, "SHA256:k"), approvals.ErrGrantEnded)
		_, err := h.Finish(t.Context(), erin, r.ID)
		refused(t, err, approvals.ErrGrantEnded)
		if got := h.see(erin, r.ID); got.State != api.Ended || got.EndReason != "time" || h.stored(r.ID) != "active" {
			t.Errorf("at its end the grant is %+v", got)
		}
		open, err := h.OpenHosts(t.Context(), []string{r.HostID})
		must(t, err)
		if open[r.HostID] {
			t.Error("the host is open after the end")
		}
	})
	t.Run("start_within", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		erin, dora := h.person("erin", "engineers"), h.person("dora", "directors")
		a1, a2 := h.person("a1", "approvers"), h.person("a2", "approvers")
		var granted []api.Request
		for range 2 {
			r := h.ask(erin, "staged", "db-1")
			for _, by := range []identity.Caller{a1, a2, dora} {
				r = h.approve(by, r.ID)
			}
			granted = append(granted, r)
		}
		used, unused := granted[0], granted[1]
		h.clock.Advance(10*time.Minute - tick)
		must(t, h.use(erin, used.ID, "SHA256:k"))
		h.clock.Advance(tick)
		must(t, h.use(erin, used.ID, "SHA256:k"))
		refused(t, h.use(erin, unused.ID, "SHA256:k"), approvals.ErrGrantEnded)
		if got := h.see(erin, unused.ID); got.EndReason != "unused" || !got.EndsAt.Equal(start.Add(10*time.Minute)) {
			t.Errorf("the unused grant is %+v", got)
		}
		page, err := h.List(t.Context(), erin, approvals.ListFilter{States: []api.State{api.Ended}})
		must(t, err)
		if len(page.Items) != 1 || page.Items[0].ID != unused.ID || page.Items[0].State != api.Ended {
			t.Errorf("ended are %+v", page.Items)
		}
	})
}

// The queue writes down what time has brought about, once, however many
// processes work it off.
func TestJobsWriteDownWhatTimeBrought(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	expired := h.ask(erin, "dba", "db-1")
	active := h.in(api.Active, erin, ann)
	cancelled := h.in(api.Cancelled, erin, ann)
	automatic := h.ask(erin, "web", "web-1")
	later := func() api.Request {
		at := start.Add(24 * time.Hour)
		in := input("web", "web-1")
		in.NotBefore = &at
		r, err := h.Request(t.Context(), erin, in)
		must(t, err)
		return r
	}()

	h.clock.Advance(2 * time.Hour)
	audittest.Run(t, h.Run)
	audittest.Run(t, h.open(testPolicy).Run)
	h.eventually(func() bool {
		return h.stored(expired.ID) == "expired" && h.stored(active.ID) == "ended" && h.stored(automatic.ID) == "ended"
	})
	// Every job that was due is done, so that nothing comes after.
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE state NOT IN ('completed', 'cancelled') AND (args->>'due')::timestamptz <= $1`,
			h.clock.Now()) == 0
	})
	for id, want := range map[string][]string{
		expired.ID:   {"request.created", "request.closed"},
		active.ID:    {"request.created", "request.decided", "grant.started", "grant.ended"},
		cancelled.ID: {"request.created", "request.closed"},
		automatic.ID: {"request.created", "grant.started", "grant.ended"},
		later.ID:     {"request.created", "grant.started"},
	} {
		if got := h.events(id); !slices.Equal(got, want) {
			t.Errorf("events are %v, want %v", got, want)
		}
	}
	ended := h.all("grant.ended")
	if len(ended) != 2 || ended[0].Actor.Kind != "broker" || ended[0].Data["reason"] != "time" {
		t.Errorf("ends in the log: %+v", ended)
	}
	if h.stored(later.ID) != "approved" {
		t.Errorf("a grant of tomorrow is %s", h.stored(later.ID))
	}
}
