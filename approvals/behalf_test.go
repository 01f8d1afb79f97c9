package approvals_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// Who is named as one who can decide for somebody is who the code that decides
// lets decide for somebody, in made-up crowds: an explanation before the ask, the
// request's slots, its actions, the queue and the decision itself all agree.
func TestDelegatesNamedAreThoseWhoDecide(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	groups := []string{"approvers", "security", "directors", "leads", "engineers", "interns"}
	olga := h.person("olga", "operators", "engineers")
	var crowd []identity.Caller
	for i := range 9 {
		var in []string
		for _, g := range groups {
			if dice.IntN(4) == 0 {
				in = append(in, g)
			}
		}
		crowd = append(crowd, h.person(fmt.Sprintf("p%d", i), in...))
	}
	crowd = append(crowd, h.person("erin", "engineers"), olga)
	one := func() identity.Caller { return crowd[dice.IntN(len(crowd))] }
	var made []api.Delegation
	decided, named := 0, 0
	for range 60 {
		switch from, to := one(), one(); {
		case dice.IntN(5) == 0 && len(made) > 0:
			h.EndDelegation(t.Context(), olga, made[dice.IntN(len(made))].ID)
		default:
			in := lending(h, to)
			in.Until = h.clock.Now().Add(time.Duration(1+dice.IntN(300)) * time.Minute)
			if at := h.clock.Now().Add(10 * time.Minute); dice.IntN(4) == 0 && at.Before(in.Until) {
				in.From = &at
			}
			by := from
			if dice.IntN(2) == 0 {
				by, in.Delegator = olga, from.ID
			}
			if d, err := h.Delegate(t.Context(), by, in); err == nil {
				made = append(made, d)
			}
		}
		h.clock.Advance(time.Duration(dice.IntN(12)) * time.Minute)
		asker := one()
		login := []string{"dba", "root", "staged"}[dice.IntN(3)]
		explained, err := h.Explain(t.Context(), asker, api.ExplainInput{Host: "db-1", Login: login})
		must(t, err)
		r, err := h.Request(t.Context(), asker, input(login, "db-1"))
		if err != nil {
			if explained.Allowed {
				t.Fatalf("explained as allowed, and refused: %v", err)
			}
			continue
		}
		if got := h.see(asker, r.ID).Approvers; !reflect.DeepEqual(got, explained.Approvers) {
			t.Fatalf("explained\n%+v, and named\n%+v", explained.Approvers, got)
		}
		for h.stored(r.ID) == "requested" {
			open := h.see(olga, r.ID)
			var can []identity.Caller
			for _, p := range crowd {
				may, forWhom := h.may(p, r.ID)
				n := h.namedIn(open, p.ID, false)
				if may && forWhom != nil && len(n) == 0 || may && forWhom == nil && !h.isNamed(open, p.ID) {
					t.Fatalf("%s may decide for %v and is not named in %+v", p.Name, forWhom, open.Approvers)
				}
				if inOpen := h.namedIn(open, p.ID, true); !may && len(inOpen) > 0 {
					t.Fatalf("%s may not decide and is named for %v in %+v", p.Name, inOpen, open.Approvers)
				}
				if forWhom != nil && !slices.Contains(n, forWhom.For.ID) {
					t.Fatalf("%s would decide for %s, and is named for %v", p.Name, forWhom.For.Name, n)
				}
				if got := slices.Contains(h.waiting(p), r.ID); got != may {
					t.Fatalf("%s may decide: %v, and it waits for them: %v", p.Name, may, got)
				}
				named += len(n)
				if may {
					can = append(can, p)
				}
			}
			if len(can) == 0 {
				_, err := h.Cancel(t.Context(), asker, r.ID)
				must(t, err)
				break
			}
			p := can[dice.IntN(len(can))]
			_, forWhom := h.may(p, r.ID)
			got := h.approve(p, r.ID)
			d := got.Decisions[len(got.Decisions)-1]
			if (d.OnBehalfOf == nil) != (forWhom == nil) || forWhom != nil && d.OnBehalfOf.ID != forWhom.For.ID {
				t.Fatalf("%s was to decide for %+v, and decided for %+v", p.Name, forWhom, d.OnBehalfOf)
			}
			if forWhom != nil {
				decided++
			}
		}
	}
	t.Logf("%d delegations, %d names, %d decisions for somebody", len(made), named, decided)
	if len(made) == 0 || named == 0 {
		t.Error("nothing was tried")
	}
}

// may reports whether the person can approve the request, and by which delegation.
func (h *house) may(c identity.Caller, id string) (bool, *api.Delegate) {
	h.t.Helper()
	r, err := h.Get(h.t.Context(), c, id)
	if err != nil {
		refused(h.t, err, approvals.ErrUnknownRequest)
		return false, nil
	}
	a := action(h.t, r, "approve")
	if a.Delegate != nil && (!a.Allowed || a.Delegate.Person.ID != c.ID) {
		h.t.Fatalf("the action is %+v", a)
	}
	return a.Allowed, a.Delegate
}

// current are the slots of the stage that the request waits for.
func current(r api.Request) []api.Slot {
	i := slices.IndexFunc(r.Approvers, func(s api.Slot) bool { return s.Filled < s.Count })
	if i < 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.Approvers), func(s api.Slot) bool { return s.Stage != r.Approvers[i].Stage })
}

// namedIn are those for whom the person is named as a delegate in the current stage.
func (h *house) namedIn(r api.Request, id string, open bool) (of []string) {
	for _, s := range current(r) {
		for _, d := range s.Delegates {
			if d.Person.ID == id && (!open || s.Filled < s.Count) {
				of = append(of, d.For.ID)
			}
		}
	}
	return of
}

// isNamed reports whether the person is named as a member of a group.
func (h *house) isNamed(r api.Request, id string) bool {
	return slices.ContainsFunc(current(r), func(s api.Slot) bool {
		return slices.ContainsFunc(s.People, func(p api.Person) bool { return p.ID == id })
	})
}

// What somebody could lend is for them to know, and for operators (P10).
func TestP10_WhoSeesWhatCanBeLent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dora := h.person("ann", "security", "approvers", "engineers"), h.person("dora", "interns")
	olga, aud := h.person("olga", "operators"), h.person("aud", "auditors")
	for _, c := range []struct {
		who  identity.Caller
		of   string
		want []string
	}{{ann, "", []string{"approvers", "security"}}, {ann, ann.ID, []string{"approvers", "security"}}, {dora, "", nil},
		{olga, ann.ID, []string{"approvers", "security"}}, {olga, "ANN@example.com", []string{"approvers", "security"}}, {olga, "", nil}} {
		p, groups, err := h.Lendable(t.Context(), c.who, c.of)
		if err != nil || !slices.Equal(groups, c.want) || p.Groups != nil {
			t.Errorf("%s of %q: %+v, %v, %v", c.who.Name, c.of, p, groups, err)
		}
	}
	for _, c := range []identity.Caller{dora, aud} {
		_, _, err := h.Lendable(t.Context(), c, ann.ID)
		refused(t, err, approvals.ErrNotOperator)
	}
	if got := h.all("access.refused"); len(got) != 2 || got[0].Data["action"] != "delegations.make" {
		t.Errorf("the log says %+v", got)
	}
	_, _, err := h.Lendable(t.Context(), olga, "nobody@example.com")
	refused(t, err, identity.ErrUnknownPerson)
}

// Nobody decides for somebody without having been shown so: between the page and
// the button, places are filled and delegations end (P5).
func TestP5_NobodyDecidesForAnotherUnawares(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, arne, sam := h.person("erin", "engineers"), h.person("arne", "approvers"), h.person("sam", "security")
	selma := h.person("selma", "security")
	lent := h.lend(arne, selma)
	id := h.ask(erin, "root", "db-1").ID
	decide := func(of string) error {
		_, err := h.Decide(t.Context(), selma, id, api.DecisionInput{Verdict: api.Approve, For: of})
		return err
	}
	refused(t, decide(arne.ID), approvals.ErrForAnother)
	if a := action(t, h.see(selma, id), "approve"); !a.Allowed || a.Delegate != nil {
		t.Fatalf("she is shown %+v", a)
	}
	h.approve(sam, id) // her own place is gone
	refused(t, decide("me"), approvals.ErrForAnother)
	refused(t, decide(sam.ID), approvals.ErrForAnother)
	if got := h.see(erin, id); len(got.Decisions) != 1 || got.State != api.Requested {
		t.Fatalf("it was decided: %+v", got.Decisions)
	}
	if last := h.all("request.decision_refused")[0]; last.Data["code"] != approvals.ErrForAnother.Code {
		t.Errorf("the log says %v", last.Data)
	}
	seen := h.see(selma, id)
	if a, d := action(t, seen, "approve"), action(t, seen, "deny"); a.Delegate == nil || a.Delegate.For.ID != arne.ID || a.Delegate.Delegation != lent.ID || d.Delegate != nil {
		t.Fatalf("she is shown %+v and %+v", a, d)
	}
	must(t, decide(arne.ID))
	must(t, h.use(erin, id, "SHA256:k"))

	// For whom she was shown, it ended.
	id = h.ask(erin, "dba", "db-1").ID
	bea := h.person("bea", "approvers")
	h.lend(bea, selma)
	_, err := h.EndDelegation(t.Context(), arne, lent.ID)
	must(t, err)
	refused(t, decide(arne.ID), approvals.ErrForAnother)
	must(t, decide(bea.ID))
}
