package approvals_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
)

func (h *house) remove(by identity.Caller, who identity.Caller) api.RemovedPerson {
	h.t.Helper()
	out, err := h.RemovePerson(h.t.Context(), by, who.ID, "left the company")
	must(h.t, err)
	return out
}

// Whoever is removed loses everything at once, and gets nothing of it back (TEAM#195).
func TestP10_RemovedPersonHasNothingLeft(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	otto, erin := h.person("otto", "operators"), h.person("erin", "engineers")
	running := h.inUse("erin", "dba", "db-1", "SHA256:k")
	next, err := h.extend("erin", running.ID)
	must(t, err)
	waiting := h.ask(erin, "staged", "db-2")
	others := h.ask(h.person("finn", "engineers"), "staged", "db-2")

	out := h.remove(otto, erin)
	if slices.Sort(out.Ended); !slices.Equal(out.Ended, slices.Sorted(slices.Values([]string{running.ID, next.ID}))) ||
		!slices.Equal(out.Cancelled, []string{waiting.ID}) || len(out.Voided)+len(out.Stand) != 0 {
		t.Errorf("with erin ended %+v", out)
	}
	if r := out.Person.Removed; r == nil || r.By.ID != otto.ID || r.Reason != "left the company" {
		t.Errorf("removed: %+v", r)
	}
	for id, want := range map[string]api.State{running.ID: api.Ended, next.ID: api.Ended, waiting.ID: api.Cancelled, others.ID: api.Requested} {
		if got := h.see(otto, id); got.State != want || want == api.Ended && got.EndReason != "revoked" {
			t.Errorf("%s is %s (%s), want %s", id, got.State, got.EndReason, want)
		}
	}
	// The caller is one who got in before, and whose call is on its way.
	try := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, identity.ErrRemoved) && !errors.Is(err, approvals.ErrGrantEnded) && !errors.Is(err, approvals.ErrNoGrant) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = h.Request(t.Context(), erin, input("dba", "db-1"))
	try("asking", err)
	_, err = h.Preview(t.Context(), erin, input("dba", "db-1"))
	try("looking ahead", err)
	_, err = h.Extend(t.Context(), erin, running.ID, api.ExtendInput{})
	try("extending", err)
	try("a certificate", h.use(erin, running.ID, "SHA256:k"))
	_, err = h.RemovePerson(t.Context(), otto, erin.ID, "again")
	refused(t, err, identity.ErrRemovedAlready)
	if _, err := h.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: "erin"}, "web", "192.0.2.7"); !errors.Is(err, identity.ErrRemoved) {
		t.Errorf("signing in: %v", err)
	}

	// All that ended is in the log, before the removal itself.
	removed := h.all("person.removed")
	if len(removed) != 1 || removed[0].Person != erin.ID || removed[0].Actor.ID != otto.ID {
		t.Fatalf("person.removed: %+v", removed)
	}
	for _, e := range append(h.all("grant.ended"), h.all("request.closed")...) {
		if e.Actor.ID != otto.ID || e.Index >= removed[0].Index {
			t.Errorf("%s by %s at %d, the removal is at %d", e.Type, e.Actor.Name, e.Index, removed[0].Index)
		}
	}

	// Restored, erin may sign in and ask; what ended stays so.
	back, err := h.RestorePerson(t.Context(), otto, erin.ID, "came back")
	must(t, err)
	if back.Removed != nil || len(h.all("person.restored")) != 1 {
		t.Errorf("restored: %+v", back)
	}
	_, err = h.RestorePerson(t.Context(), otto, erin.ID, "again")
	refused(t, err, identity.ErrNotRemoved)
	erin = h.person("erin", "engineers")
	refused(t, h.use(erin, running.ID, "SHA256:k"), approvals.ErrGrantEnded)
	h.ask(erin, "dba", "db-1")
}

// Of an approver who is removed nothing counts that has opened nothing yet; and
// being restored does not bring it back, for the request would be complete with
// nobody there to see it.
func TestP5_RemovedApproverCountsNoMore(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	otto, erin, ann, sam := h.person("otto", "operators"), h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("sam", "security")
	open := h.ask(erin, "dba", "db-1")
	h.approve(ann, open.ID)
	denied := h.ask(erin, "dba", "db-2")
	_, err := h.Decide(t.Context(), ann, denied.ID, api.DecisionInput{Verdict: api.Deny})
	must(t, err)
	half := h.ask(erin, "root", "db-1")
	h.approve(ann, half.ID)

	out := h.remove(otto, ann)
	if !slices.Equal(out.Voided, []string{half.ID}) || !slices.Equal(out.Stand, []string{open.ID}) || len(out.Ended) != 0 {
		t.Errorf("with ann ended %+v", out)
	}
	must(t, h.use(erin, open.ID, "SHA256:k")) // who approved was entitled to, then
	got := h.see(erin, half.ID)
	if got.Approvers[0].Filled != 0 || !got.Decisions[0].Void || got.State != api.Requested {
		t.Errorf("the request that waits is %+v", got)
	}
	_, err = h.Decide(t.Context(), ann, half.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, identity.ErrRemoved)
	for _, slot := range got.Approvers {
		for _, p := range slot.People {
			if p.ID == ann.ID {
				t.Error("somebody who has been removed is named as an approver")
			}
		}
	}
	h.approve(sam, half.ID)
	if got := h.see(erin, half.ID); got.State != api.Requested {
		t.Fatalf("with one approval that counts it is %s", got.State)
	}
	_, err = h.RestorePerson(t.Context(), otto, ann.ID, "a mistake")
	must(t, err)
	ann = h.person("ann", "approvers")
	_, err = h.Decide(t.Context(), ann, half.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, approvals.ErrAlreadyDecided)
	h.approve(h.person("amy", "approvers"), half.ID)
	must(t, h.use(erin, half.ID, "SHA256:r")) // by the two that count, which is what the evidence says
	g, err := h.grant(erin, half.ID)
	must(t, err)
	if len(g.Decisions) != 2 {
		t.Errorf("%d decisions are evidence", len(g.Decisions))
	}
	if got := h.events(half.ID); !slices.Contains(got, "request.decision_voided") {
		t.Errorf("the events are %v", got)
	}
	// The row can be neither taken back nor changed.
	if err := h.exec(`DELETE FROM void_decisions`); err == nil {
		t.Error("the broker's role may bring a decision back")
	}
}

func TestP10_WhoRemovesWhom(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	otto, olga := h.person("otto", "operators", "engineers"), h.person("olga", "operators")
	erin, audrey, ann := h.person("erin", "engineers"), h.person("audrey", "auditors"), h.person("ann", "approvers")
	for _, c := range []identity.Caller{erin, audrey, ann} {
		_, err := h.RemovePerson(t.Context(), c, otto.ID, "why not")
		refused(t, err, approvals.ErrNotOperator)
		_, err = h.RestorePerson(t.Context(), c, otto.ID, "why not")
		refused(t, err, approvals.ErrNotOperator)
	}
	_, err := h.RemovePerson(t.Context(), otto, otto.ID, "enough")
	refused(t, err, approvals.ErrOwnRemoval)
	_, err = h.RemovePerson(t.Context(), otto, erin.ID, "  ")
	refused(t, err, approvals.ErrNoWhy)
	_, err = h.RemovePerson(t.Context(), otto, ids.New(ids.Person), "gone")
	refused(t, err, identity.ErrUnknownPerson)
	_, err = h.People(t.Context(), erin, identity.PeopleFilter{})
	refused(t, err, approvals.ErrNotReader)

	// Nobody chooses who decides on them.
	own := h.ask(otto, "dba", "db-1")
	_, err = h.RemovePerson(t.Context(), otto, ann.ID, "unhelpful")
	refused(t, err, approvals.ErrOwnInterest)
	h.remove(olga, ann)
	_, err = h.RestorePerson(t.Context(), otto, ann.ID, "helpful")
	refused(t, err, approvals.ErrOwnInterest)
	h.remove(otto, erin) // who decides on nothing of otto's
	_, err = h.Cancel(t.Context(), otto, own.ID)
	must(t, err)
	_, err = h.RestorePerson(t.Context(), otto, ann.ID, "helpful")
	must(t, err)
	_, err = h.Request(t.Context(), otto, api.RequestInput{Host: "db-1", Login: "root", Reason: "all is down", Emergency: true})
	must(t, err)
	_, err = h.RemovePerson(t.Context(), otto, ann.ID, "reviews me")
	refused(t, err, approvals.ErrOwnInterest)
	if n := len(h.all("access.refused")); n < 10 {
		t.Errorf("%d refusals in the log", n)
	}

	// The list, by name and in pages; who removed whom is there for auditors.
	list, err := h.People(t.Context(), audrey, identity.PeopleFilter{Limit: 2})
	must(t, err)
	if len(list.Items) != 2 || list.Next == "" || list.Items[0].ID != ann.ID || list.Items[1].ID != audrey.ID || list.Items[1].Roles[0] != api.Auditor {
		t.Errorf("the first page is %+v", list)
	}
	next, err := h.People(t.Context(), audrey, identity.PeopleFilter{After: list.Next})
	must(t, err)
	if len(next.Items) != 3 || next.Items[0].ID != erin.ID || next.Items[0].Removed == nil || next.Next != "" {
		t.Errorf("the second page is %+v", next)
	}
	found, err := h.People(t.Context(), otto, identity.PeopleFilter{Search: "ERIN@EXAMPLE", Removed: true})
	must(t, err)
	if len(found.Items) != 1 || found.Items[0].ID != erin.ID {
		t.Errorf("found %+v", found)
	}
	if none, err := h.People(t.Context(), otto, identity.PeopleFilter{Search: "%"}); err != nil || len(none.Items) != 0 {
		t.Errorf("a search is no pattern: %+v, %v", none, err)
	}
}

// Two operators who remove each other: one stays.
func TestOperatorsRemovingEachOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for range 5 {
		a, b := h.person("otto"+randomHex(3), "operators"), h.person("olga"+randomHex(3), "operators")
		var wg sync.WaitGroup
		var errs [2]error
		wg.Go(func() { _, errs[0] = h.RemovePerson(t.Context(), a, b.ID, "first") })
		wg.Go(func() { _, errs[1] = h.RemovePerson(t.Context(), b, a.ID, "first") })
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Errorf("both: %v, %v", errs[0], errs[1])
		}
		for _, err := range errs {
			if err != nil {
				refused(t, err, identity.ErrRemoved)
			}
		}
	}
}

// Whatever somebody does while they are removed, nothing of it is left afterwards.
func TestRemovalRacingWhatThePersonDoes(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	otto := h.person("otto", "operators")
	for range 8 {
		name := "erin" + randomHex(4)
		erin := h.person(name, "engineers", "approvers")
		used := h.inUse(name, "dba", "db-1", "SHA256:k")
		erin = h.person(name, "engineers", "approvers")
		foreign := h.ask(h.person("finn"+randomHex(4), "engineers"), "staged", "db-1")
		mine := h.ask(erin, "staged", "db-2")
		var wg sync.WaitGroup
		wg.Go(func() { h.Request(t.Context(), erin, input("web", "web-1")) })
		wg.Go(func() { h.Request(t.Context(), erin, input("dba", "db-2")) })
		wg.Go(func() { h.Extend(t.Context(), erin, used.ID, api.ExtendInput{}) })
		wg.Go(func() { h.Decide(t.Context(), erin, foreign.ID, api.DecisionInput{Verdict: api.Approve}) })
		wg.Go(func() {
			h.Decide(t.Context(), h.person("ann", "approvers"), mine.ID, api.DecisionInput{Verdict: api.Approve})
		})
		wg.Go(func() { h.use(erin, used.ID, "SHA256:k") })
		wg.Go(func() {
			p, err := h.people.SignIn(t.Context(), identity.Claims{Issuer: erin.Issuer, Subject: erin.Subject, Groups: erin.Groups}, "web", "192.0.2.7")
			if err == nil {
				h.people.Open(t.Context(), p, identity.Claims{AuthTime: h.clock.Now()}, 1e12)
			}
		})
		wg.Go(func() { h.remove(otto, erin) })
		wg.Wait()
		if n := h.count(`SELECT count(*) FROM requests WHERE person_id = $1 AND state IN ('requested', 'approved', 'active')`, erin.ID); n != 0 {
			t.Errorf("%d requests of a removed person are open", n)
		}
		// The approval was in time, and opened the door; or it came too late.
		if got := h.see(otto, foreign.ID); len(got.Decisions) > 0 && got.State == api.Requested && !got.Decisions[0].Void {
			t.Errorf("an approval of somebody removed waits to be completed")
		}
		rows, err := h.db.Pool.Query(t.Context(), `SELECT id FROM sign_ins WHERE person_id = $1`, erin.ID)
		must(t, err)
		var in string
		var all []string
		for rows.Next() {
			must(t, rows.Scan(&in))
			all = append(all, in)
		}
		live := func() (n int) {
			for _, in := range all {
				if _, err := h.people.Resume(t.Context(), in, 0); err == nil {
					n++
				}
			}
			return n
		}
		if live() != 0 {
			t.Error("a sign-in of a removed person lives")
		}
		_, err = h.RestorePerson(t.Context(), otto, erin.ID, "again")
		must(t, err)
		if live() != 0 {
			t.Error("a sign-in from before the removal lives again")
		}
	}
}

func TestP10_Revocations(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	otto, erin, ann := h.person("otto", "operators"), h.person("erin", "engineers"), h.person("ann", "approvers")
	first := h.inUse("erin", "dba", "db-1", "SHA256:k")
	next, err := h.extend("erin", first.ID)
	must(t, err)
	for _, in := range []api.RevocationInput{
		{Reason: "x"}, {Request: first.ID, Person: erin.ID, Reason: "x"}, {Request: first.ID}, {Request: first.ID, Reason: " \n"},
		{Serial: "7", Reason: "x"}, {Agent: "deploy", Reason: "x"}, {Host: "db-1", Person: erin.ID, Reason: "x"}, {Host: "db-1"}, {Request: first.ID, Serial: "7", Reason: "x"},
	} {
		if _, err := h.Revoke(t.Context(), otto, in); !errors.Is(err, approvals.ErrBadRevocation) && !errors.Is(err, approvals.ErrNoWhy) {
			t.Errorf("%+v: %v", in, err)
		}
	}
	// Approvers and auditors revoke nothing; to others it does not exist.
	_, err = h.Revoke(t.Context(), ann, api.RevocationInput{Request: first.ID, Reason: "x"})
	refused(t, err, approvals.ErrNotOperator)
	_, err = h.Revoke(t.Context(), h.person("audrey", "auditors"), api.RevocationInput{Person: erin.ID, Reason: "x"})
	refused(t, err, approvals.ErrNotOperator)
	_, err = h.Revoke(t.Context(), h.person("finn", "engineers"), api.RevocationInput{Request: first.ID, Reason: "x"})
	refused(t, err, approvals.ErrUnknownRequest)
	must(t, h.use(erin, first.ID, "SHA256:k"))

	// The first has ended by itself, what extends it runs: revoking the first stops that.
	h.until(*first.EndsAt)
	out, err := h.Revoke(t.Context(), otto, api.RevocationInput{Request: first.ID, Reason: "odd commands"})
	must(t, err)
	if !slices.Equal(out.Ended, []string{next.ID}) {
		t.Errorf("revoked %+v", out)
	}
	got := h.see(otto, next.ID)
	if got.State != api.Ended || got.EndReason != "revoked" {
		t.Errorf("the extension is %s (%s)", got.State, got.EndReason)
	}
	ended := h.all("grant.ended")
	if ended[0].Data["comment"] != "odd commands" || ended[0].Actor.ID != otto.ID {
		t.Errorf("the event is %+v", ended[0])
	}
	refused(t, h.use(erin, next.ID, "SHA256:k"), approvals.ErrGrantEnded)
	out, err = h.Revoke(t.Context(), otto, api.RevocationInput{Request: next.ID, Reason: "once more"})
	must(t, err)
	if len(out.Ended)+len(out.Cancelled) != 0 {
		t.Errorf("revoked twice: %+v", out)
	}

	// One's own is the same as being done.
	own := h.inUse("erin", "web", "web-1", "SHA256:w")
	_, err = h.Revoke(t.Context(), erin, api.RevocationInput{Request: own.ID, Reason: "done"})
	must(t, err)
	if got := h.see(erin, own.ID); got.EndReason != "finished" {
		t.Errorf("one's own ended as %s", got.EndReason)
	}
	// All of a person's; they can ask again.
	running, waiting := h.inUse("erin", "web", "web-1", "SHA256:w"), h.ask(erin, "staged", "db-1")
	out, err = h.Revoke(t.Context(), otto, api.RevocationInput{Person: erin.ID, Reason: "laptop stolen"})
	must(t, err)
	if !slices.Equal(out.Ended, []string{running.ID}) || !slices.Equal(out.Cancelled, []string{waiting.ID}) {
		t.Errorf("revoked %+v", out)
	}
	h.ask(erin, "staged", "db-1")
}
