package approvals_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

func TestOneApprovalStartsTheGrant(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")

	r := h.ask(erin, "dba", "db-1")
	if r.State != api.Requested || r.Rule != "databases" || r.Duration != "30m" || r.StartsAt != nil {
		t.Fatalf("new request is %+v", r)
	}
	if got := r.Approvers; len(got) != 1 || got[0].Filled != 0 || len(got[0].People) != 1 || got[0].People[0].ID != ann.ID {
		t.Fatalf("slots are %+v", got)
	}
	r = h.approve(ann, r.ID)
	if r.State != api.Approved || r.Approvers[0].Filled != 1 || len(r.Decisions) != 1 || r.Decisions[0].Approver.Name != "ann" {
		t.Fatalf("approved request is %+v", r)
	}
	if want := []string{"request.created", "request.decided", "grant.started"}; !slices.Equal(h.events(r.ID), want) {
		t.Errorf("events are %v", h.events(r.ID))
	}
	g, err := h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
}

func TestOneDenialCloses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, lee := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("lee", "security")
	r := h.ask(erin, "root", "db-1")
	h.approve(ann, r.ID)
	r, err := h.Decide(t.Context(), lee, r.ID, api.DecisionInput{Verdict: api.Deny, Comment: "not today"})
	must(t, err)
	if r.State != api.Denied || r.Decisions[1].Comment != "not today" {
		t.Fatalf("denied request is %+v", r)
	}
	g, err := h.grant(erin, r.ID)
	must(t, err)
	refused(t, g.Check(h.clock.Now()), approvals.ErrNoGrant)
	if want := []string{"request.created", "request.decided", "request.decided", "request.closed"}; !slices.Equal(h.events(r.ID), want) {
		t.Errorf("events are %v", h.events(r.ID))
	}
}

func TestP3_ClockStartsAtTheApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")

	late := h.ask(erin, "dba", "db-1")
	h.clock.Advance(40 * time.Minute)
	late = h.approve(ann, late.ID)
	if !late.StartsAt.Equal(start.Add(40*time.Minute)) || !late.EndsAt.Equal(start.Add(70*time.Minute)) {
		t.Errorf("a grant of 30m approved 40m late runs from %s to %s", late.StartsAt, late.EndsAt)
	}

	in, at := input("dba", "db-1"), h.clock.Now().Add(3*time.Hour)
	in.NotBefore = &at
	future, err := h.Request(t.Context(), erin, in)
	must(t, err)
	future = h.approve(ann, future.ID)
	if !future.StartsAt.Equal(at) || !future.EndsAt.Equal(at.Add(30*time.Minute)) {
		t.Errorf("a grant for %s runs from %s to %s", at, future.StartsAt, future.EndsAt)
	}
	refused(t, h.use(erin, future.ID, "SHA256:k"), approvals.ErrNotStarted)
	if a := action(t, h.see(erin, future.ID), "connect"); a.Allowed || a.Why == "" {
		t.Errorf("connect before the start: %+v", a)
	}
	h.clock.Advance(3 * time.Hour)
	must(t, h.use(erin, future.ID, "SHA256:k"))
}

func TestP3_AutomaticGrantStartsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	r := h.ask(erin, "web", "web-1")
	if r.State != api.Approved || !r.StartsAt.Equal(start) || !r.EndsAt.Equal(start.Add(20*time.Minute)) {
		t.Fatalf("automatic request is %+v", r)
	}
	must(t, h.use(erin, r.ID, "SHA256:k"))
	if want := []string{"request.created", "grant.started"}; !slices.Equal(h.events(r.ID), want) {
		t.Errorf("events are %v", h.events(r.ID))
	}
}

func TestP4_DecisionCarriesTheTerms(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r := h.ask(erin, "dba", "db-1")

	for _, other := range []string{h.ask(erin, "dba", "db-1").TermsHash, "x", r.TermsHash[:63]} {
		_, err := h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve, TermsHash: other})
		refused(t, err, approvals.ErrOtherTerms)
	}
	done, err := h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve, TermsHash: r.TermsHash, Comment: "go"})
	must(t, err)
	if done.Decisions[0].TermsHash != r.TermsHash {
		t.Errorf("decision names terms %s", done.Decisions[0].TermsHash)
	}
	g, err := h.grant(erin, r.ID)
	must(t, err)
	st, err := approvals.ParseStatement(g.Decisions[0].Statement)
	must(t, err)
	if st.TermsHash != r.TermsHash || st.RequestID != r.ID || st.Approver.Subject != "ann" || st.Approver.Issuer != "https://id.test" ||
		!slices.Equal(st.Groups, []string{"approvers"}) || st.PolicyHash != h.Policy().Hash || st.Comment != "go" || len(st.Random) != 32 {
		t.Errorf("statement is %+v", st)
	}
	decided := h.all("request.decided")[0]
	if decided.Data["evidence"] != string(g.Decisions[0].Statement) || decided.Data["evidence_hash"] != g.Decisions[0].Hash {
		t.Errorf("the event's evidence is %v", decided.Data)
	}
}

func TestP4_OtherPolicyChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r := h.ask(erin, "dba", "db-1")

	h.activate(`
sallyport: 1
assurance: session
roles: {operator: [operators]}
rules:
  - {name: nobody, who: [board], where: "*", logins: [dba], duration: {max: 1m}, approvals: [{slots: [{groups: [board]}]}]}
`)
	next := h.openFile(testPolicy)
	if next.Policy().Version != 2 {
		t.Fatalf("the second policy is version %d", next.Policy().Version)
	}
	_, err := next.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve})
	must(t, err)
	got, err := next.Get(t.Context(), erin, r.ID)
	must(t, err)
	if got.State != api.Approved || got.Duration != "30m" || got.Policy.Version != 1 || got.TermsHash != r.TermsHash {
		t.Errorf("under another policy the request is %+v", got)
	}
	g, err := h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
}

func TestP4_GrantIsBoundToItsFirstKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	free := h.ask(erin, "web", "web-1")
	must(t, h.use(erin, free.ID, "SHA256:first"))
	refused(t, h.use(erin, free.ID, "SHA256:second"), approvals.ErrOtherKey)
	must(t, h.use(erin, free.ID, "SHA256:first"))
	if r := h.see(erin, free.ID); r.State != api.Active || r.KeyFingerprint != "SHA256:first" {
		t.Errorf("used grant is %+v", r)
	}

	in := input("web", "web-1")
	in.PublicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKSmV0pcnvCwTs3JY7FCSYTSZm/5HJvKGGC6Ehk5iMf2 laptop\n"
	bound, err := h.Request(t.Context(), erin, in)
	must(t, err)
	if bound.KeyFingerprint == "" {
		t.Fatal("the named key is not in the request")
	}
	refused(t, h.use(erin, bound.ID, "SHA256:first"), approvals.ErrOtherKey)
	must(t, h.use(erin, bound.ID, bound.KeyFingerprint))
}

func TestP5_NobodyDecidesOnTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	pat := h.person("pat", "engineers", "approvers", "leads", "operators", "auditors")
	r := h.ask(pat, "dba", "db-1")
	for _, v := range []api.Verdict{api.Approve, api.Deny} {
		_, err := h.Decide(t.Context(), pat, r.ID, api.DecisionInput{Verdict: v})
		refused(t, err, approvals.ErrOwnRequest)
	}
	if a := action(t, h.see(pat, r.ID), "approve"); a.Allowed || a.Why == "" {
		t.Errorf("approving one's own: %+v", a)
	}
	if h.stored(r.ID) != "requested" || h.count(`SELECT count(*) FROM decisions`) != 0 {
		t.Error("something was decided")
	}
	events := h.all("request.decision_refused")
	if len(events) != 2 || events[0].Actor.ID != pat.ID || events[0].Data["code"] != "own-request" || events[0].Request != r.ID {
		t.Errorf("refusals in the log: %+v", events)
	}
}

func TestP5_NobodyDecidesTwice(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, bea := h.person("erin", "engineers"), h.person("bea", "approvers", "security")
	r := h.ask(erin, "root", "db-1")
	h.approve(bea, r.ID)
	// In both groups, and yet one person: the second slot stays open.
	for _, v := range []api.Verdict{api.Approve, api.Deny} {
		_, err := h.Decide(t.Context(), bea, r.ID, api.DecisionInput{Verdict: v})
		refused(t, err, approvals.ErrAlreadyDecided)
	}
	r = h.see(erin, r.ID)
	if r.State != api.Requested || r.Approvers[0].Filled+r.Approvers[1].Filled != 1 {
		t.Fatalf("after one approval the request is %+v", r)
	}
	// bea makes way: whichever slot she filled, either of the others completes it.
	if got := h.approve(h.person("ann", "approvers"), r.ID); got.State != api.Approved {
		t.Errorf("with two people the request is %s", got.State)
	}
}

func TestP5_GroupsAreThoseOfTheLastSignIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r := h.ask(erin, "dba", "db-1")

	h.person("ann", "interns") // signs in again; ann's old session still says approvers
	_, err := h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, approvals.ErrUnknownRequest)
	events := h.all("request.decision_refused")
	if len(events) != 1 || events[0].Data["code"] != "not-approver" || events[0].Actor.ID != ann.ID {
		t.Errorf("refusals in the log: %+v", events)
	}
	// An operator or auditor who lost the group may read, so is told why.
	olga := h.person("olga", "operators")
	_, err = h.Decide(t.Context(), olga, r.ID, api.DecisionInput{Verdict: api.Deny})
	refused(t, err, approvals.ErrNotApprover)

	ann = h.person("ann", "leads")
	if got := h.approve(ann, r.ID); got.State != api.Approved {
		t.Errorf("approved request is %s", got.State)
	}
	// What was decided in the group stays decided.
	h.person("ann", "interns")
	must(t, h.use(erin, r.ID, "SHA256:k"))
}

func TestStagesArePassedInOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, dora := h.person("erin", "engineers"), h.person("dora", "directors")
	a1, a2, a3 := h.person("a1", "approvers"), h.person("a2", "approvers"), h.person("a3", "approvers")
	r := h.ask(erin, "staged", "db-1")

	_, err := h.Decide(t.Context(), dora, r.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, approvals.ErrNotNeeded)
	h.approve(a1, r.ID)
	h.approve(a2, r.ID)
	_, err = h.Decide(t.Context(), a3, r.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, approvals.ErrNotNeeded)
	if got := h.approve(dora, r.ID); got.State != api.Approved || got.Approvers[0].Filled != 2 || got.Approvers[1].Filled != 1 {
		t.Errorf("after all stages the request is %+v", got)
	}
}

func TestP5_SimultaneousDecisions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	services := []*approvals.Service{h.Service, h.open(testPolicy)}
	erin := h.person("erin", "engineers")
	approvers := []identity.Caller{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		approvers = append(approvers, h.person(name, "approvers"))
	}
	for range 5 {
		r := h.ask(erin, "dba", "db-1")
		var wg sync.WaitGroup
		errs := make([]error, 2*len(approvers))
		for i := range errs {
			// Each approver clicks twice, in two processes.
			wg.Go(func() {
				_, errs[i] = services[i%2].Decide(t.Context(), approvers[i/2], r.ID, api.DecisionInput{Verdict: api.Approve})
			})
		}
		wg.Wait()
		accepted := 0
		for _, err := range errs {
			switch {
			case err == nil:
				accepted++
			case !errors.Is(err, approvals.ErrClosed) && !errors.Is(err, approvals.ErrAlreadyDecided):
				t.Errorf("a late approval failed with %v", err)
			}
		}
		if accepted != 1 || h.count(`SELECT count(*) FROM decisions WHERE request_id = $1`, r.ID) != 1 {
			t.Errorf("%d approvals were accepted for one slot", accepted)
		}
		if n := len(slices.DeleteFunc(h.events(r.ID), func(e string) bool { return e != "grant.started" })); n != 1 {
			t.Errorf("the grant started %d times", n)
		}
	}
}

func TestApproveAndDenyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, bob := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("bob", "leads")
	for range 5 {
		r := h.ask(erin, "dba", "db-1")
		var wg sync.WaitGroup
		var errs [3]error
		wg.Go(func() { _, errs[0] = h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve}) })
		wg.Go(func() { _, errs[1] = h.Decide(t.Context(), bob, r.ID, api.DecisionInput{Verdict: api.Deny}) })
		wg.Go(func() { _, errs[2] = h.Cancel(t.Context(), erin, r.ID) })
		wg.Wait()
		want := map[int]api.State{0: api.Approved, 1: api.Denied, 2: api.Cancelled}
		winners := 0
		for i, err := range errs {
			if err == nil {
				winners++
				if got := h.see(erin, r.ID).State; got != want[i] {
					t.Errorf("%s won, but the request is %s", want[i], got)
				}
			}
		}
		if winners != 1 {
			t.Errorf("%d of three succeeded: %v", winners, errs)
		}
	}
}

func TestBadDecisions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r := h.ask(erin, "dba", "db-1")
	_, err := h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: "maybe"})
	refused(t, err, approvals.ErrBadVerdict)
	_, err = h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve, Comment: "fine\x00"})
	refused(t, err, approvals.ErrBadText)
	for _, id := range []string{"", "req-000000000000", "req-'; DROP", "\x00"} {
		if _, err = h.Decide(t.Context(), ann, id, api.DecisionInput{Verdict: api.Approve}); !errors.Is(err, approvals.ErrUnknownRequest) {
			t.Errorf("deciding on %q: %v", id, err)
		}
	}
}

// Two replicas' clocks differ: the second approval is not dated before the first.
func TestDecisionsKeepTheirOrderInTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, sam := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("sam", "security")
	r := h.ask(erin, "root", "db-1")
	h.clock.Advance(10 * time.Second)
	h.approve(ann, r.ID)
	h.clock.Advance(-3 * time.Second)
	r = h.approve(sam, r.ID)
	if !r.StartsAt.Equal(start.Add(10 * time.Second)) {
		t.Errorf("the grant starts at %s", r.StartsAt)
	}
	h.clock.Advance(3 * time.Second)
	must(t, h.use(erin, r.ID, "SHA256:k"))
}
