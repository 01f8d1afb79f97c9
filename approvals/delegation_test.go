package approvals_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// lend is a delegation for a day that must succeed.
func (h *house) lend(from, to identity.Caller, groups ...string) api.Delegation {
	h.t.Helper()
	d, err := h.Delegate(h.t.Context(), from, lending(h, to, groups...))
	must(h.t, err)
	h.clock.Advance(time.Millisecond) // of two, the older one comes first
	return d
}

func lending(h *house, to identity.Caller, groups ...string) api.DelegationInput {
	return api.DelegationInput{Delegate: to.ID, Until: h.clock.Now().Add(24 * time.Hour), Groups: groups, Reason: "away"}
}

// decide is an approval, which may be refused.
func (h *house) decide(c identity.Caller, id string) error {
	_, err := h.Decide(h.t.Context(), c, id, api.DecisionInput{Verdict: api.Approve})
	return err
}

// hidden fails unless the caller does not know of the request, and trying to
// decide on it was refused with the code, in the log.
func (h *house) hidden(c identity.Caller, id, code string) {
	h.t.Helper()
	_, err := h.Get(h.t.Context(), c, id)
	refused(h.t, err, approvals.ErrUnknownRequest)
	refused(h.t, h.decide(c, id), approvals.ErrUnknownRequest)
	last := h.all("request.decision_refused")[0]
	if last.Request != id || last.Data["code"] != code {
		h.t.Errorf("the log says of the refusal %v, want %s", last.Data, code)
	}
}

func (h *house) waiting(c identity.Caller) []string {
	h.t.Helper()
	page, err := h.List(h.t.Context(), c, approvals.ListFilter{Scope: approvals.Waiting})
	must(h.t, err)
	n, err := h.CountWaiting(h.t.Context(), c)
	must(h.t, err)
	list := []string{}
	for _, r := range page.Items {
		list = append(list, r.ID)
	}
	if n != len(list) {
		h.t.Errorf("%d requests wait, and %d are listed", n, len(list))
	}
	return list
}

func TestADelegateDecides(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, arne, dora, bo := h.person("erin", "engineers"), h.person("arne", "approvers", "engineers"), h.person("dora", "interns"), h.person("bo", "approvers")
	r := h.ask(erin, "staged", "db-1")
	h.hidden(dora, r.ID, "not-approver")
	if len(h.waiting(dora)) != 0 {
		t.Error("a request waits for somebody who decides for nobody")
	}
	d := h.lend(arne, dora)
	if !slices.Equal(d.Groups, []string{"approvers"}) || d.State != "running" || d.Delegate.Name != "dora" || d.MadeBy.ID != arne.ID {
		t.Errorf("the delegation is %+v", d)
	}
	made := h.all("delegation.made")
	if len(made) != 1 || made[0].Person != arne.ID || made[0].Data["delegate_id"] != dora.ID || !strings.Contains(made[0].Summary, "let dora decide for arne") {
		t.Errorf("the log says %+v", made)
	}

	seen := h.see(dora, r.ID)
	if got := h.waiting(dora); !slices.Equal(got, []string{r.ID}) {
		t.Errorf("waiting for the delegate: %v", got)
	}
	if !action(t, seen, "approve").Allowed || !action(t, seen, "deny").Allowed {
		t.Errorf("the delegate cannot decide: %+v", seen.Actions)
	}
	if got := seen.Approvers[0].Delegates; len(got) != 1 || got[0].Person.ID != dora.ID || got[0].For.ID != arne.ID ||
		!got[0].Until.Equal(d.Until) || got[0].Person.Groups != nil {
		t.Errorf("the slot names as delegates %+v", got)
	}
	if len(seen.Approvers[1].Delegates) != 0 {
		t.Errorf("the director's slot names %+v", seen.Approvers[1].Delegates)
	}

	seen = h.approve(dora, r.ID)
	if got := seen.Decisions[0]; got.Approver.ID != dora.ID || got.OnBehalfOf == nil || got.OnBehalfOf.ID != arne.ID {
		t.Errorf("the decision is %+v", got)
	}
	if seen.Approvers[0].Filled != 1 || len(seen.Approvers[0].Delegates) != 0 {
		t.Errorf("the slot is %+v", seen.Approvers[0])
	}
	if slices.ContainsFunc(seen.Approvers[0].People, func(p api.Person) bool { return p.ID == arne.ID }) {
		t.Error("who is decided for is still named as one who can decide")
	}
	last := seen.Timeline[len(seen.Timeline)-1]
	if last.Summary != "approved it for arne" || last.Actor.ID != dora.ID || last.OnBehalfOf == nil || last.OnBehalfOf.ID != arne.ID {
		t.Errorf("the timeline says %+v", last)
	}
	for _, c := range []identity.Caller{dora, arne} {
		if got := h.waiting(c); len(got) != 0 {
			t.Errorf("for %s there still waits %v", c.Name, got)
		}
	}
	h.approve(bo, r.ID)
	h.approve(h.person("dirk", "directors"), r.ID)
	must(t, h.use(erin, r.ID, "SHA256:k"))

	// What they decided stays theirs to see, and nothing else.
	other := h.ask(erin, "dba", "db-1")
	h.clock.Advance(25 * time.Hour)
	h.hidden(dora, other.ID, "not-approver")
	h.see(dora, r.ID)
	page, err := h.List(t.Context(), dora, approvals.ListFilter{})
	must(t, err)
	if len(page.Items) != 1 || page.Items[0].ID != r.ID {
		t.Errorf("the former delegate's list is %+v", page.Items)
	}
}

// Of all who stand behind decisions on a request, nobody stands behind two.
func TestP5_DelegationFillsNoSecondSlot(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	bo, sam := h.person("bo", "approvers", "security"), h.person("sam", "security")
	dora, eve := h.person("dora"), h.person("eve")
	h.lend(bo, dora)
	h.lend(bo, eve)
	h.lend(bo, sam)
	h.lend(sam, dora)
	ask := func() string { return h.ask(erin, "root", "db-1").ID }

	id := ask()
	h.approve(dora, id) // for bo
	refused(t, h.decide(dora, id), approvals.ErrAlreadyDecided)
	refused(t, h.decide(bo, id), approvals.ErrAlreadyDecided)
	refused(t, h.decide(eve, id), approvals.ErrDelegatorDecided)
	if got := action(t, h.see(eve, id), "approve"); got.Allowed || got.Why == "" {
		t.Errorf("the other delegate is told %+v", got)
	}
	h.approve(sam, id) // with groups of their own
	must(t, h.use(erin, id, "SHA256:k"))

	id = ask()
	h.approve(bo, id)
	refused(t, h.decide(eve, id), approvals.ErrDelegatorDecided)
	if got := h.approve(dora, id).Decisions[1].OnBehalfOf; got == nil || got.ID != sam.ID {
		t.Errorf("after the one for whom they could decide, the delegate decides for %v", got)
	}
	refused(t, h.decide(sam, id), approvals.ErrAlreadyDecided)

	// One's own groups come first, and leave the delegator theirs.
	id = ask()
	if got := h.approve(sam, id).Decisions[0].OnBehalfOf; got != nil {
		t.Errorf("with a group of their own, they decided for %v", got)
	}
	refused(t, h.decide(sam, id), approvals.ErrAlreadyDecided)
	if got := h.approve(bo, id); got.State != api.Approved {
		t.Errorf("the request is %s", got.State)
	}
	// A denial is one's one say, too.
	id = ask()
	h.approve(dora, id)
	_, err := h.Decide(t.Context(), bo, id, api.DecisionInput{Verdict: api.Deny})
	refused(t, err, approvals.ErrAlreadyDecided)
}

// Nobody chooses who decides on their own request.
func TestP5_DelegationNeverServesTheRequester(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, erik := h.person("erin", "engineers", "approvers"), h.person("erik", "engineers")
	olga := h.person("olga", "operators", "engineers")
	ann, dora := h.person("ann", "approvers"), h.person("dora")

	// The delegate of the requester, before and after the ask.
	h.lend(erin, dora)
	h.hidden(dora, h.ask(erin, "dba", "db-1").ID, "delegator-asks")
	if got := h.waiting(dora); len(got) != 0 {
		t.Errorf("for the requester's delegate there waits %v", got)
	}
	id := h.ask(erin, "dba", "db-2").ID
	h.lend(erin, dora)
	h.hidden(dora, id, "delegator-asks")
	if got := h.see(ann, id).Approvers[0].Delegates; len(got) != 0 {
		t.Errorf("the requester's delegates are named: %v", got)
	}
	h.see(dora, h.ask(erik, "dba", "db-1").ID) // of anybody else it is fine

	// The requester as delegate.
	h.lend(ann, erik)
	id = h.ask(erik, "dba", "db-1").ID
	refused(t, h.decide(erik, id), approvals.ErrOwnRequest)
	if slices.Contains(h.waiting(erik), id) {
		t.Error("one's own request waits for oneself")
	}

	// An operator chooses a friend to stand in for an approver.
	zoe := h.person("zoe")
	in := lending(h, zoe)
	in.Delegator = ann.Email
	_, err := h.Delegate(t.Context(), olga, in)
	must(t, err)
	h.hidden(zoe, h.ask(olga, "dba", "db-1").ID, "delegator-asks")
	id = h.ask(erik, "dba", "db-1").ID
	h.approve(zoe, id)
	must(t, h.use(erik, id, "SHA256:k"))
}

func TestP5_NoChains(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, sam := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("sam", "security")
	dora, eve := h.person("dora"), h.person("eve")
	h.lend(ann, dora)
	h.lend(ann, sam)
	_, err := h.Delegate(t.Context(), dora, lending(h, eve))
	refused(t, err, approvals.ErrNothingToDelegate)
	_, err = h.Delegate(t.Context(), sam, lending(h, eve, "approvers"))
	refused(t, err, approvals.ErrOtherGroups)
	if d := h.lend(sam, eve); !slices.Equal(d.Groups, []string{"security"}) {
		t.Errorf("what sam lends is %v", d.Groups)
	}
	h.hidden(eve, h.ask(erin, "dba", "db-1").ID, "not-approver")
	// Nor does an operator lend on what somebody was lent.
	in := lending(h, eve)
	in.Delegator = dora.ID
	_, err = h.Delegate(t.Context(), h.person("olga", "operators"), in)
	refused(t, err, approvals.ErrNothingToDelegate)
}

func TestADelegationRunsFromItsStartToItsEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, dora := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("dora")
	from, until := start.Add(10*time.Minute), start.Add(20*time.Minute)
	in := lending(h, dora)
	in.From, in.Until = &from, until
	d, err := h.Delegate(t.Context(), ann, in)
	must(t, err)
	if d.State != "planned" {
		t.Errorf("before its start it is %s", d.State)
	}
	for _, c := range []struct {
		at    time.Time
		runs  bool
		state string
	}{
		{from.Add(-time.Microsecond), false, "planned"}, {from, true, "running"},
		{until.Add(-time.Microsecond), true, "running"}, {until, false, "over"},
	} {
		h.clock.Advance(c.at.Sub(h.clock.Now()))
		id := h.ask(erin, "dba", "db-1").ID
		if got := slices.Contains(h.waiting(dora), id); got != c.runs {
			t.Errorf("at %s: waiting is %v", c.at, got)
		}
		if got := len(h.see(erin, id).Approvers[0].Delegates); (got == 1) != c.runs {
			t.Errorf("at %s: %d delegates are named", c.at, got)
		}
		if c.runs {
			h.approve(dora, id)
			must(t, h.use(erin, id, "SHA256:k"))
		} else {
			h.hidden(dora, id, "not-approver")
		}
		page, err := h.Delegations(t.Context(), ann, approvals.DelegationFilter{Past: true})
		must(t, err)
		if got := page.Items[0].State; got != c.state {
			t.Errorf("at %s it is %s, want %s", c.at, got, c.state)
		}
		must(t, func() error { _, err := h.Finish(t.Context(), erin, id); return ignore(err, approvals.ErrNoGrant) }())
	}
	_, err = h.EndDelegation(t.Context(), ann, d.ID)
	refused(t, err, approvals.ErrDelegationOver)
}

func ignore(err error, what *refusal.Error) error {
	if what.Is(err) || refusal.As(err) != nil && refusal.As(err).Code == what.Code {
		return nil
	}
	return err
}

func TestEndingADelegation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, bo, dora := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("bo", "approvers"), h.person("dora")
	auditor, olga, eve := h.person("aud", "auditors"), h.person("olga", "operators"), h.person("eve")
	first := h.lend(ann, dora)
	id := h.ask(erin, "staged", "db-1").ID
	h.approve(dora, id)

	_, err := h.EndDelegation(t.Context(), eve, first.ID)
	refused(t, err, approvals.ErrUnknownDelegation)
	_, err = h.EndDelegation(t.Context(), auditor, first.ID)
	refused(t, err, approvals.ErrNotYourDelegation)
	ended, err := h.EndDelegation(t.Context(), ann, first.ID)
	must(t, err)
	if ended.State != "ended" || ended.EndedBy == nil || ended.EndedBy.ID != ann.ID || ended.CanEnd {
		t.Errorf("it is %+v", ended)
	}
	if got := h.all("delegation.ended"); len(got) != 1 || got[0].Data["delegation_id"] != first.ID {
		t.Errorf("the log says %+v", got)
	}
	_, err = h.EndDelegation(t.Context(), ann, first.ID)
	refused(t, err, approvals.ErrDelegationOver)

	// What was decided stands, and still takes up the delegator.
	refused(t, h.decide(ann, id), approvals.ErrAlreadyDecided)
	h.hidden(dora, h.ask(erin, "dba", "db-1").ID, "not-approver")
	h.approve(bo, id)
	h.approve(h.person("dirk", "directors"), id)
	must(t, h.use(erin, id, "SHA256:k"))

	for _, by := range []identity.Caller{dora, olga} {
		d := h.lend(ann, dora)
		if ended, err = h.EndDelegation(t.Context(), by, d.ID); err != nil || ended.EndedBy.ID != by.ID {
			t.Errorf("%s ends it: %+v, %v", by.Name, ended, err)
		}
	}
}

// X approves, D approves for X and X ends the delegation, all at once and in two
// processes: one approval at most counts, and none under what was ended before.
func TestP5_DelegatesAndDelegatorsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	other := h.open(testPolicy)
	erin, bo := h.person("erin", "engineers"), h.person("bo", "approvers", "security")
	dora, eve := h.person("dora"), h.person("eve")
	for range 15 {
		id := h.ask(erin, "root", "db-1").ID
		d := h.lend(bo, dora)
		h.lend(bo, eve)
		var all sync.WaitGroup
		for _, f := range []func() error{
			func() error { return h.decide(dora, id) },
			func() error {
				_, err := other.Decide(t.Context(), bo, id, api.DecisionInput{Verdict: api.Approve})
				return err
			},
			func() error {
				_, err := other.Decide(t.Context(), eve, id, api.DecisionInput{Verdict: api.Approve})
				return err
			},
			func() error { _, err := other.EndDelegation(t.Context(), bo, d.ID); return err },
		} {
			all.Go(func() {
				if err := f(); err != nil && refusal.As(err) == nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := h.see(erin, id); got.State != api.Requested || len(got.Decisions) != 1 {
			t.Fatalf("the request is %s with %d decisions", got.State, len(got.Decisions))
		}
		_, err := h.Cancel(t.Context(), erin, id)
		must(t, err)
		page, err := h.Delegations(t.Context(), bo, approvals.DelegationFilter{})
		must(t, err)
		for _, d := range page.Items {
			_, err := h.EndDelegation(t.Context(), bo, d.ID)
			must(t, err)
		}
	}
}

func TestADelegationLendsWhatTheDelegatorHas(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, dora := h.person("erin", "engineers"), h.person("dora")
	bo := h.person("bo", "approvers", "security")
	h.lend(bo, dora, "security", "approvers", "security")
	root := h.ask(erin, "root", "db-1").ID
	dba := h.ask(erin, "dba", "db-1").ID

	// A group that is lost lends nothing, from the next sign-in on.
	bo = h.person("bo", "security")
	h.hidden(dora, dba, "not-approver")
	if got := h.waiting(dora); !slices.Equal(got, []string{root}) {
		t.Errorf("waiting: %v", got)
	}
	h.person("bo", "interns", "directors")
	h.hidden(dora, root, "not-approver")
	// One that is entered is not lent, one that is entered again is.
	h.person("bo", "approvers", "directors")
	h.approve(dora, dba)
	staged := h.ask(erin, "staged", "db-1").ID
	h.approve(h.person("a1", "approvers"), staged)
	h.approve(h.person("a2", "approvers"), staged)
	refused(t, h.decide(dora, staged), approvals.ErrNotNeeded)
	_, err := h.Delegate(t.Context(), bo, lending(h, dora, "security")) // the sign-in of before
	refused(t, err, approvals.ErrOtherGroups)

	// Some of the groups.
	kim := h.person("kim")
	h.lend(h.person("cy", "approvers", "security"), kim, "security")
	h.hidden(kim, h.ask(erin, "dba", "db-1").ID, "not-approver")
	if got := h.approve(kim, root); got.Approvers[1].Filled != 1 || got.Approvers[0].Filled != 0 {
		t.Errorf("it fills %+v", got.Approvers)
	}
}

func TestARemovedPersonNeitherDelegatesNorStandsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, olga := h.person("erin", "engineers"), h.person("olga", "operators")
	ann, bo, dora, eve := h.person("ann", "approvers"), h.person("bo", "approvers"), h.person("dora"), h.person("eve")
	of, to := h.lend(ann, dora), h.lend(bo, eve)
	id := h.ask(erin, "staged", "db-1").ID
	h.approve(dora, id)
	h.approve(eve, id)

	gone, err := h.RemovePerson(t.Context(), olga, ann.ID, "left")
	must(t, err)
	if !slices.Equal(gone.Voided, []string{id}) {
		t.Errorf("voided are %v", gone.Voided)
	}
	if got := h.see(erin, id); got.Approvers[0].Filled != 1 || !got.Decisions[0].Void {
		t.Errorf("the request is %+v", got)
	}
	h.hidden(dora, h.ask(erin, "dba", "db-1").ID, "not-approver")
	_, err = h.RemovePerson(t.Context(), olga, eve.ID, "left")
	must(t, err)
	for _, d := range []api.Delegation{of, to} {
		page, err := h.Delegations(t.Context(), olga, approvals.DelegationFilter{Past: true})
		must(t, err)
		i := slices.IndexFunc(page.Items, func(x api.Delegation) bool { return x.ID == d.ID })
		if page.Items[i].State != "ended" {
			t.Errorf("the delegation of who was removed is %s", page.Items[i].State)
		}
	}
	// Whose delegate was removed has their say again; who stood in has not.
	h.approve(bo, id)
	refused(t, h.decide(dora, id), approvals.ErrNotApprover)
	// What ended stays ended.
	_, err = h.RestorePerson(t.Context(), olga, ann.ID, "came back")
	must(t, err)
	h.hidden(dora, h.ask(erin, "dba", "db-2").ID, "not-approver")
	for _, to := range []string{eve.ID, eve.Email} {
		in := lending(h, dora)
		in.Delegate = to
		_, err = h.Delegate(t.Context(), bo, in)
		refused(t, err, identity.ErrUnknownPerson)
	}
}

func TestRefusedDelegations(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, erin, dora := h.person("ann", "approvers"), h.person("erin", "engineers"), h.person("dora", "approvers")
	olga := h.person("olga", "operators", "approvers")
	now := h.clock.Now()
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		by     identity.Caller
		change func(*api.DelegationInput)
		want   *refusal.Error
	}{
		"fine":                      {ann, func(*api.DelegationInput) {}, nil},
		"by address, whatever case": {ann, func(in *api.DelegationInput) { in.Delegate = " DORA@example.com" }, nil},
		"90 days":                   {ann, func(in *api.DelegationInput) { in.Until = now.Add(90 * day) }, nil},
		"90 days in 90 days": {ann, func(in *api.DelegationInput) {
			from := now.Add(90 * day)
			in.From, in.Until = &from, now.Add(180*day)
		}, nil},
		"longer":                   {ann, func(in *api.DelegationInput) { in.Until = now.Add(90*day + time.Microsecond) }, approvals.ErrDelegationTime},
		"no end":                   {ann, func(in *api.DelegationInput) { in.Until = time.Time{} }, approvals.ErrDelegationTime},
		"over already":             {ann, func(in *api.DelegationInput) { in.Until = now }, approvals.ErrDelegationTime},
		"from the past":            {ann, func(in *api.DelegationInput) { from := now.Add(-time.Microsecond); in.From = &from }, approvals.ErrDelegationTime},
		"end before start":         {ann, func(in *api.DelegationInput) { from := in.Until.Add(time.Hour); in.From = &from }, approvals.ErrDelegationTime},
		"far ahead":                {ann, func(in *api.DelegationInput) { from := now.Add(91 * day); in.From, in.Until = &from, from.Add(day) }, approvals.ErrDelegationTime},
		"no reason":                {ann, func(in *api.DelegationInput) { in.Reason = " \u200d" }, approvals.ErrNoWhy},
		"hidden in reason":         {ann, func(in *api.DelegationInput) { in.Reason = "a\u202eb" }, approvals.ErrBadText},
		"to nobody":                {ann, func(in *api.DelegationInput) { in.Delegate = " " }, approvals.ErrDelegateNeeded},
		"to a stranger":            {ann, func(in *api.DelegationInput) { in.Delegate = "nobody@example.com" }, identity.ErrUnknownPerson},
		"by part of a name":        {ann, func(in *api.DelegationInput) { in.Delegate = "dora" }, identity.ErrUnknownPerson},
		"by a pattern":             {ann, func(in *api.DelegationInput) { in.Delegate = "dora@%" }, identity.ErrUnknownPerson},
		"to oneself":               {ann, func(in *api.DelegationInput) { in.Delegate = ann.Email }, approvals.ErrSamePerson},
		"nothing to lend":          {erin, func(*api.DelegationInput) {}, approvals.ErrNothingToDelegate},
		"no deciding group":        {erin, func(in *api.DelegationInput) { in.Groups = []string{"engineers"} }, approvals.ErrOtherGroups},
		"another's group":          {ann, func(in *api.DelegationInput) { in.Groups = []string{"approvers", "security"} }, approvals.ErrOtherGroups},
		"another's rights":         {ann, func(in *api.DelegationInput) { in.Delegator = olga.ID }, approvals.ErrNotOperator},
		"a stranger's":             {erin, func(in *api.DelegationInput) { in.Delegator = "nobody@example.com" }, approvals.ErrNotOperator},
		"operator":                 {olga, func(in *api.DelegationInput) { in.Delegator = ann.ID }, nil},
		"operator's own":           {olga, func(in *api.DelegationInput) { in.Delegator = olga.Email }, nil},
		"operator, me":             {olga, func(in *api.DelegationInput) { in.Delegator = "me" }, nil},
		"operator, stranger":       {olga, func(in *api.DelegationInput) { in.Delegator = "nobody@example.com" }, identity.ErrUnknownPerson},
		"operator, to whom it is":  {olga, func(in *api.DelegationInput) { in.Delegator, in.Delegate = ann.ID, ann.ID }, approvals.ErrSamePerson},
		"operator, to themselves":  {olga, func(in *api.DelegationInput) { in.Delegator, in.Delegate = ann.ID, olga.ID }, approvals.ErrToOneself},
		"operator, what they lack": {olga, func(in *api.DelegationInput) { in.Delegator = erin.ID }, approvals.ErrNothingToDelegate},
	} {
		in := lending(h, dora)
		c.change(&in)
		_, err := h.Delegate(t.Context(), c.by, in)
		if c.want == nil && err != nil || c.want != nil && (refusal.As(err) == nil || refusal.As(err).Code != c.want.Code) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// Whoever tries out addresses is in the log.
	tried := 0
	for _, e := range h.all("access.refused") {
		if e.Data["code"] == "unknown-person" && e.Actor.ID == ann.ID {
			tried++
		}
	}
	if tried != 3 {
		t.Errorf("%d tries are in the log", tried)
	}
	for n := 0; ; n++ {
		if _, err := h.Delegate(t.Context(), dora, lending(h, ann)); err != nil {
			refused(t, err, approvals.ErrTooManyDelegations)
			if n != approvals.MaxDelegations {
				t.Errorf("after %d", n)
			}
			break
		}
	}
}

// People see what concerns them, operators and auditors everything.
func TestP10_WhoSeesDelegations(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, bo, dora, eve := h.person("ann", "approvers"), h.person("bo", "approvers"), h.person("dora"), h.person("eve")
	a, b := h.lend(ann, dora), h.lend(bo, ann)
	for _, c := range []struct {
		who   identity.Caller
		scope approvals.DelegationScope
		want  []string
	}{
		{ann, "", []string{b.ID, a.ID}}, {ann, approvals.MyDelegations, []string{a.ID}}, {ann, approvals.DelegatedToMe, []string{b.ID}},
		{dora, "", []string{a.ID}}, {dora, approvals.MyDelegations, nil}, {bo, "", []string{b.ID}}, {eve, "", nil},
		{h.person("olga", "operators"), "", []string{b.ID, a.ID}}, {h.person("aud", "auditors"), "", []string{b.ID, a.ID}},
	} {
		var got []string
		f := approvals.DelegationFilter{Scope: c.scope, Limit: 1}
		for {
			page, err := h.Delegations(t.Context(), c.who, f)
			must(t, err)
			for _, d := range page.Items {
				got = append(got, d.ID)
			}
			if f.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s sees of %q %v, want %v", c.who.Name, c.scope, got, c.want)
		}
	}
	for _, f := range []approvals.DelegationFilter{{Scope: "all"}, {Cursor: "x"}, {Limit: 201}, {Limit: -1}} {
		_, err := h.Delegations(t.Context(), ann, f)
		refused(t, err, approvals.ErrBadFilter)
	}
	for _, c := range []identity.Caller{ann, dora, h.person("olga", "operators"), h.person("aud", "auditors")} {
		if got, err := h.Delegation(t.Context(), c, a.ID); err != nil || got.ID != a.ID || got.CanEnd == c.Has(api.Auditor) {
			t.Errorf("%s sees %+v, %v", c.Name, got, err)
		}
	}
	for _, c := range []identity.Caller{bo, eve} {
		_, err := h.Delegation(t.Context(), c, a.ID)
		refused(t, err, approvals.ErrUnknownDelegation)
	}
	_, err := h.EndDelegation(t.Context(), ann, "del-"+strings.Repeat("0", 12))
	refused(t, err, approvals.ErrUnknownDelegation)
	_, err = h.EndDelegation(t.Context(), ann, ids.New(ids.Request))
	refused(t, err, approvals.ErrUnknownDelegation)
}
