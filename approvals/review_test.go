package approvals_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

var justified = api.ReviewInput{Verdict: api.Justified, Comment: "the logs show what was done"}

// Who reviews an emergency is somebody else, in a group of its terms now, and has
// nothing to trade. Every refusal of these is an event.
func TestP5_ReviewsAreIndependent(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin := h.person("erin", "engineers", "oncall", "security") // in the group that reviews
	r := h.opened(erin, emergencyInput())
	for name, tt := range map[string]struct {
		who  identity.Caller
		want *refusal.Error
	}{
		"the requester":               {erin, approvals.ErrOwnReview},
		"an approver":                 {h.person("ann", "approvers"), approvals.ErrNotReviewer},
		"who was told":                {h.person("bob", "bridge"), approvals.ErrNotReviewer},
		"an operator":                 {h.person("otto", "operators"), approvals.ErrNotReviewer},
		"an auditor":                  {h.person("audrey", "auditors"), approvals.ErrNotReviewer},
		"a stranger":                  {h.person("mallory", "engineers"), approvals.ErrUnknownRequest},
		"who left the group":          {h.left("lea", "security"), approvals.ErrUnknownRequest},
		"who left, and is an auditor": {h.left("leo", "security", "auditors"), approvals.ErrNotReviewer},
	} {
		before := len(h.all("review.refused"))
		_, err := h.Review(t.Context(), tt.who, r.ID, justified)
		if !errors.Is(err, tt.want) || refusal.As(err).Hint == "" {
			t.Errorf("%s: %v, want %s", name, err, tt.want.Code)
		}
		if events := h.all("review.refused"); len(events) != before+1 || events[0].Request != r.ID || events[0].Actor.ID != tt.who.ID {
			t.Errorf("%s: events %+v", name, events)
		}
	}

	// Two who each wait for the other's signature.
	sam := h.person("sam", "engineers", "oncall", "security")
	own := h.opened(sam, emergencyInput())
	_, err := h.Review(t.Context(), sam, r.ID, justified)
	refused(t, err, approvals.ErrNotIndependent)
	_, err = h.Review(t.Context(), erin, own.ID, justified)
	refused(t, err, approvals.ErrNotIndependent)
	if a := action(t, h.see(sam, r.ID), "review"); a.Allowed || a.Why == "" {
		t.Errorf("Sam's action is %+v", a)
	}
	if n, err := h.CountReviews(t.Context(), sam); n != 0 || err != nil {
		t.Errorf("%d, %v wait for Sam", n, err)
	}
	dee := h.person("dee", "directors")
	h.reviewed(dee, own.ID, api.Justified)
	got := h.reviewed(sam, r.ID, api.Justified)
	if v := got.Emergency.Review; v == nil || v.Reviewer.ID != sam.ID || v.Verdict != api.Justified || v.Late || !v.Running || v.ID == "" {
		t.Errorf("the review is %+v", v)
	}

	// One closes.
	_, err = h.Review(t.Context(), dee, r.ID, justified)
	refused(t, err, approvals.ErrReviewed)
	// A drill of one's own is nothing to trade.
	ivy := h.person("ivy", "engineers", "oncall", "security")
	h.opened(ivy, drillInput())
	second := h.opened(sam, emergencyInput())
	h.reviewed(ivy, second.ID, api.Justified)
}

// left is somebody who was in the group when their sign-in began, which is what
// the caller says, and is not any more.
func (h *house) left(name, group string, still ...string) identity.Caller {
	h.t.Helper()
	c := h.person(name, append(still, group)...)
	h.person(name, still...)
	return c
}

func TestReviewRefusals(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security", "approvers")
	r, ordinary := h.opened(erin, emergencyInput()), h.ask(erin, "dba", "db-1")
	for name, tt := range map[string]struct {
		id   string
		in   api.ReviewInput
		want *refusal.Error
	}{
		"no verdict":          {r.ID, api.ReviewInput{Comment: "x"}, approvals.ErrBadReview},
		"a decision":          {r.ID, api.ReviewInput{Verdict: "approve", Comment: "x"}, approvals.ErrBadReview},
		"no comment":          {r.ID, api.ReviewInput{Verdict: api.Justified, Comment: " \n"}, approvals.ErrNoComment},
		"a long comment":      {r.ID, api.ReviewInput{Verdict: api.Justified, Comment: strings.Repeat("ü", 2001)}, approvals.ErrBadText},
		"a hidden comment":    {r.ID, api.ReviewInput{Verdict: api.Justified, Comment: "fine\u202e"}, approvals.ErrBadText},
		"an ordinary request": {ordinary.ID, justified, approvals.ErrNotEmergency},
		"no request":          {ids.New(ids.Request), justified, approvals.ErrUnknownRequest},
		"no id":               {"' OR true", justified, approvals.ErrUnknownRequest},
	} {
		if _, err := h.Review(t.Context(), sam, tt.id, tt.in); !errors.Is(err, tt.want) || refusal.As(err).Hint == "" {
			t.Errorf("%s: %v, want %s", name, err, tt.want.Code)
		}
	}
	if h.count(`SELECT count(*) FROM reviews`) != 0 || h.see(erin, r.ID).State != api.Approved {
		t.Error("something changed")
	}
}

// A review may come while the door is open, and says so; that it was not justified
// shuts the door at once. One that comes when the door is shut changes no time.
func TestReviewWhileItRuns(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	sam := h.person("sam", "security")
	open := func(name string) (identity.Caller, string) {
		c := h.person(name, "engineers", "oncall")
		return c, h.opened(c, emergencyInput()).ID
	}
	erin, stays := open("erin")
	if r := h.reviewed(sam, stays, api.Justified); r.State != api.Approved || !r.Emergency.Review.Running {
		t.Errorf("justified, it is %+v", r)
	}
	must(t, h.use(erin, stays, "SHA256:k"))

	olaf, shut := open("olaf")
	must(t, h.use(olaf, shut, "SHA256:k"))
	h.clock.Advance(time.Minute)
	r := h.reviewed(sam, shut, api.NotJustified)
	if r.State != api.Ended || r.EndReason != "revoked" || !r.EndsAt.Equal(start.Add(time.Minute)) {
		t.Errorf("not justified, it is %+v", r)
	}
	g, err := h.grant(olaf, shut)
	must(t, err)
	refused(t, g.Check(h.clock.Now()), approvals.ErrGrantEnded)
	if e := h.all("grant.ended"); len(e) != 1 || e[0].Request != shut || e[0].Actor.ID != sam.ID {
		t.Errorf("events %+v", e)
	}

	_, past := open("pia")
	h.clock.Advance(time.Hour)
	if r = h.reviewed(sam, past, api.NotJustified); r.State != api.Ended || r.EndReason != "time" || r.Emergency.Review.Running {
		t.Errorf("after its end, it is %+v", r)
	}
	if len(h.all("grant.ended")) != 1 {
		t.Error("a grant ended twice")
	}
}

// At the deadline a review is late; a microsecond before, it is not.
func TestReviewDeadline(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	sam := h.person("sam", "security")
	in, late := h.opened(h.person("erin", "engineers", "oncall"), emergencyInput()), h.opened(h.person("olaf", "engineers", "oncall"), emergencyInput())
	h.clock.Advance(4*time.Hour - time.Microsecond)
	if r := h.reviewed(sam, in.ID, api.Justified); r.Emergency.Review.Late || r.Emergency.Overdue {
		t.Errorf("before its deadline: %+v", r.Emergency)
	}
	if h.see(sam, late.ID).Emergency.Overdue {
		t.Error("overdue before its deadline")
	}
	h.clock.Advance(time.Microsecond)
	if !h.see(sam, late.ID).Emergency.Overdue {
		t.Error("not overdue at its deadline")
	}
	if r := h.reviewed(sam, late.ID, api.Justified); !r.Emergency.Review.Late || r.Emergency.Overdue {
		t.Errorf("at its deadline: %+v", r.Emergency)
	}
	for _, e := range h.all("review.given") {
		if (e.Data["late"] == true) != (e.Request == late.ID) || e.Data["evidence_hash"] == "" {
			t.Errorf("the event of %s is %+v", e.Request, e.Data)
		}
	}
}

// Of many reviews at once one counts, through whichever process they come.
func TestReviewRace(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	services := []*approvals.Service{h.Service, h.open(emergencyPolicy)}
	r := h.opened(h.person("erin", "engineers", "oncall"), emergencyInput())
	var all sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		c := h.person(string(rune('a'+i)), "security")
		all.Go(func() {
			verdict := []string{api.Justified, api.NotJustified}[i%2]
			_, err := services[i%2].Review(t.Context(), c, r.ID, api.ReviewInput{Verdict: verdict, Comment: "seen"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, approvals.ErrReviewed) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 || h.count(`SELECT count(*) FROM reviews`) != 1 || len(h.all("review.given")) != 1 {
		t.Errorf("%d reviews won", won)
	}
	if n := len(h.all("review.refused")); n != 7 {
		t.Errorf("%d refusals are in the log", n)
	}
}

// reviewOf is an honest review of the request, and its hash.
func reviewOf(t testing.TB, r api.Request, by identity.Caller, at time.Time, change func(*approvals.ReviewStatement)) (approvals.ReviewStatement, []byte) {
	t.Helper()
	s := approvals.ReviewStatement{Format: approvals.ReviewFormat, RequestID: r.ID, TermsHash: r.TermsHash, Verdict: api.Justified,
		Reviewer: approvals.StatementApprover{ID: by.ID, Issuer: by.Issuer, Subject: by.Subject}, Groups: []string{"security"},
		PolicyHash: r.Policy.Hash, Comment: "fine", Running: true, Time: at,
		Assurance: evidence.Session, SignIn: &approvals.StatementSignIn{AuthTime: start, AMR: []string{}}, Random: strings.Repeat("0", 32)}
	change(&s)
	text, err := s.Encode()
	must(t, err)
	return s, text
}

// What somebody who may write rows can make of a review, with all hashes right.
func TestP5_CheckReviewRefusesForgeries(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	r := h.opened(erin, emergencyInput())
	g, err := h.grant(erin, r.ID)
	must(t, err)
	for name, change := range map[string]func(*approvals.ReviewStatement){
		"":                       func(*approvals.ReviewStatement) {},
		"of another request":     func(s *approvals.ReviewStatement) { s.RequestID = ids.New(ids.Request) },
		"of other terms":         func(s *approvals.ReviewStatement) { s.TermsHash = strings.Repeat("0", 64) },
		"of another policy":      func(s *approvals.ReviewStatement) { s.PolicyHash = "" },
		"the requester's":        func(s *approvals.ReviewStatement) { s.Reviewer.ID = erin.ID },
		"the requester's second": func(s *approvals.ReviewStatement) { s.Reviewer.Issuer, s.Reviewer.Subject = erin.Issuer, erin.Subject },
		"nobody's":               func(s *approvals.ReviewStatement) { s.Reviewer.ID = "agent-1" },
		"an outsider's":          func(s *approvals.ReviewStatement) { s.Groups = []string{"approvers"} },
		"of no group":            func(s *approvals.ReviewStatement) { s.Groups = nil },
		"without verdict":        func(s *approvals.ReviewStatement) { s.Verdict = "approve" },
		"without comment":        func(s *approvals.ReviewStatement) { s.Comment = " " },
		"before it began":        func(s *approvals.ReviewStatement) { s.Time = start.Add(-time.Microsecond) },
		"late, and not saying":   func(s *approvals.ReviewStatement) { s.Time = start.Add(4 * time.Hour) },
		"in time, saying late":   func(s *approvals.ReviewStatement) { s.Late = true },
		"of no form":             func(s *approvals.ReviewStatement) { s.Format = approvals.StatementFormat },
		"without a sign-in":      func(s *approvals.ReviewStatement) { s.SignIn = nil },
		"another assurance":      func(s *approvals.ReviewStatement) { s.Assurance = evidence.Provider },
		"of no assurance":        func(s *approvals.ReviewStatement) { s.Assurance = "none" },
		"by an application":      func(s *approvals.ReviewStatement) { s.ClientID = "sallyport" },
	} {
		want, text := reviewOf(t, r, sam, start, change)
		got, err := approvals.CheckReview(g.Terms, g.TermsHash, approvals.Evidence{Statement: text, Hash: sum(text), Taken: start}, g.Anchor)
		if name == "" {
			if err != nil || got.Comment != want.Comment {
				t.Errorf("an honest review: %v", err)
			}
		} else if refusal.As(err) == nil || !errors.Is(err, approvals.ErrEvidence) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, text := reviewOf(t, r, sam, start, func(*approvals.ReviewStatement) {})
	for name, e := range map[string]approvals.Evidence{
		"another hash": {Statement: text, Hash: sum(nil)},
		"a space":      {Statement: append(text[:len(text):len(text)], ' '), Hash: sum(append(text[:len(text):len(text)], ' '))},
		"nothing":      {Hash: sum(nil)},
	} {
		if _, err := approvals.CheckReview(g.Terms, g.TermsHash, e, g.Anchor); !errors.Is(err, approvals.ErrEvidence) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.Terms.Emergency = nil
	if _, err := approvals.CheckReview(g.Terms, g.TermsHash, approvals.Evidence{Statement: text, Hash: sum(text), Taken: start}, g.Anchor); !errors.Is(err, approvals.ErrEvidence) {
		t.Errorf("of what was no emergency: %v", err)
	}
}

// A review that somebody wrote into the database lifts nothing: the log does not
// know it. And neither reviews nor emergencies can be changed or removed.
func TestForgedReviews(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	insert := func(r api.Request, by identity.Caller, text []byte) error {
		return h.exec(`INSERT INTO reviews (id, request_id, requester_id, reviewer_id, statement, statement_hash, reviewed_at)
			VALUES ($1, $2, $3, $4, $5, encode(sha256($5::bytea), 'hex'), $6)`,
			ids.New(ids.Review), r.ID, r.Requester.ID, by.ID, text, h.clock.Now())
	}
	honest := func(*approvals.ReviewStatement) {}

	r := h.opened(erin, emergencyInput())
	_, text := reviewOf(t, r, sam, start, honest)
	must(t, insert(r, sam, text))
	if h.see(erin, r.ID).Emergency.Review == nil {
		t.Fatal("the forgery is not good enough for the test")
	}
	for _, in := range []api.RequestInput{emergencyInput(), drillInput()} {
		_, err := h.Request(t.Context(), erin, in)
		refused(t, err, approvals.ErrUnreviewed)
		_, err = h.Preview(t.Context(), erin, in)
		refused(t, err, approvals.ErrUnreviewed)
	}
	// What is no review makes the whole request unreadable, and gives nothing; the
	// explanation says why nothing is given.
	olaf := h.person("olaf", "engineers", "oncall")
	bad := h.opened(olaf, emergencyInput())
	must(t, insert(bad, sam, []byte("{}")))
	refused(t, h.use(olaf, bad.ID, "SHA256:k"), approvals.ErrEvidence)
	_, err := h.Request(t.Context(), olaf, emergencyInput())
	refused(t, err, approvals.ErrUnreviewed)
	why, err := h.Explain(t.Context(), olaf, api.ExplainInput{Host: "db-1", Login: "dba", Emergency: true})
	must(t, err)
	if why.Allowed || why.Code != approvals.ErrUnreviewed.Code || !strings.Contains(why.Detail, "the review of your emergency "+bad.ID+" is not proved") {
		t.Errorf("the explanation is %+v", why)
	}

	pia := h.person("pia", "engineers", "oncall", "security")
	own := h.opened(pia, emergencyInput())
	_, text = reviewOf(t, own, pia, start, honest)
	if insert(own, pia, text) == nil {
		t.Error("the database takes a review of one's own emergency")
	}
	must(t, insert(own, sam, text)) // under Sam's name in the column; the text says who
	_, err = h.Request(t.Context(), pia, emergencyInput())
	refused(t, err, approvals.ErrUnreviewed)

	signed := h.opened(h.person("ida", "engineers", "oncall"), emergencyInput())
	h.reviewed(sam, signed.ID, api.NotJustified)
	_, text = reviewOf(t, signed, h.person("dee", "directors"), start, honest)
	if insert(signed, sam, text) == nil {
		t.Error("the database takes a second review")
	}
	h.clock.Advance(4 * time.Hour)
	must(t, h.WatchReview(t.Context(), h.opened(h.person("uma", "engineers", "oncall"), emergencyInput()).ID))
	admin := h.admin()
	for _, sql := range []string{
		`UPDATE reviews SET statement = '{}', statement_hash = encode(sha256('{}'), 'hex')`,
		`UPDATE reviews SET reviewer_id = reviewer_id`,
		`DELETE FROM reviews`,
		`TRUNCATE reviews`,
		`UPDATE emergencies SET drill = true`,
		`UPDATE emergencies SET review_by = review_by + interval '1 year'`,
		`UPDATE emergencies SET review_groups = '{engineers}'`,
		`UPDATE emergencies SET person_id = (SELECT id FROM people WHERE subject = 'sam')`,
		`DELETE FROM emergencies`,
		`TRUNCATE emergencies CASCADE`,
		`DELETE FROM overdue_reviews`,
		`UPDATE overdue_reviews SET noted_at = noted_at`,
	} {
		if h.exec(sql) == nil {
			t.Errorf("the broker's role may %s", sql)
		}
		for _, as := range []string{`SET LOCAL ROLE sallyport_owner; `, `SET LOCAL session_replication_role = replica; `} {
			if _, err := admin.Exec(t.Context(), as+sql); err == nil || !strings.Contains(err.Error(), "never change") {
				t.Errorf("%s%s: %v", as, sql, err)
			}
		}
	}
	for _, table := range []string{"emergencies", "reviews", "overdue_reviews"} {
		if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; SELECT * FROM `+table); err != nil {
			t.Errorf("an auditor cannot read %s: %v", table, err)
		}
	}
}

// An ordinary grant does not become an emergency's, nor an emergency another
// kind's, however well the hashes fit.
func TestCheckRefusesForgedEmergencies(t *testing.T) {
	t.Parallel()
	honest := func() *forge {
		f := goodForge()
		f.terms.Reason, f.statements = "the primary is down", nil
		f.terms.Emergency = &approvals.TermsEmergency{Told: []string{"approvers"}, ReviewGroups: []string{"security"}, ReviewBy: start.Add(time.Hour)}
		f.start, f.end = start, start.Add(30*time.Minute)
		return f
	}
	evidence, ended := approvals.ErrEvidence, approvals.ErrGrantEnded
	at := start.Add(time.Minute)
	for name, tt := range map[string]struct {
		forge func(*forge)
		want  *refusal.Error
	}{
		"honest":                    {func(f *forge) {}, nil},
		"honest, active":            {func(f *forge) { f.state, f.key = api.Active, "SHA256:k" }, nil},
		"a drill":                   {func(f *forge) { f.terms.Emergency.Drill = true }, nil},
		"ended":                     {func(f *forge) { f.state = api.Ended }, ended},
		"undecided":                 {func(f *forge) { f.state = api.Requested }, approvals.ErrNoGrant},
		"approved besides":          {func(f *forge) { f.approve("ann", "approvers", 0) }, evidence},
		"automatic besides":         {func(f *forge) { f.terms.Rule.Automatic = true }, evidence},
		"automatic, without stages": {func(f *forge) { f.terms.Rule.Automatic, f.terms.Rule.Stages = true, nil }, evidence},
		"no reason":                 {func(f *forge) { f.terms.Reason = "" }, evidence},
		"reviewed by nobody":        {func(f *forge) { f.terms.Emergency.ReviewGroups = nil }, evidence},
		"never to be reviewed":      {func(f *forge) { f.terms.Emergency.ReviewBy = start }, evidence},
		"to be extended":            {func(f *forge) { f.terms.Rule.Extend = &approvals.TermsExtend{Times: 9, By: "1h"} }, evidence},
		"an extension":              {func(f *forge) { f.terms.Extends = ids.New(ids.Request) }, evidence},
		"starting later":            {func(f *forge) { f.terms.NotBefore, f.start, f.end = &at, at, at.Add(30*time.Minute) }, evidence},
		"started later":             {func(f *forge) { f.start, f.end = at, at.Add(30*time.Minute) }, evidence},
		"longer than asked for":     {func(f *forge) { f.end = f.end.Add(time.Microsecond) }, evidence},
		"over":                      {func(f *forge) { f.end = start.Add(2 * time.Minute) }, ended},
		"no emergency in the end":   {func(f *forge) { f.terms.Emergency = nil }, evidence},
	} {
		f := honest()
		tt.forge(f)
		err := f.grant(t).Check(start.Add(2 * time.Minute))
		if tt.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want.Code)
		}
	}
}

// The emergency of somebody who is gone is still to be reviewed, and their having
// ended or never used the grant does not do away with it.
func TestReviewOfThePast(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	sam := h.person("sam", "security")
	erin := h.person("erin", "engineers", "oncall")
	r := h.opened(erin, emergencyInput())
	_, err := h.Finish(t.Context(), erin, r.ID)
	must(t, err)
	h.person("erin") // the provider says that Erin is in no group any more
	_, err = h.RemovePerson(t.Context(), h.person("otto", "operators"), erin.ID, "left the company")
	must(t, err)
	h.clock.Advance(300 * 24 * time.Hour)
	if list := h.list(sam, approvals.ListFilter{Scope: approvals.Reviews}); len(list) != 1 || !list[0].Emergency.Overdue {
		t.Errorf("Sam's list is %+v", list)
	}
	// Somebody who was removed reviews nothing, whatever their sign-in still says.
	gone := h.person("gina", "security")
	_, err = h.RemovePerson(t.Context(), h.person("otto", "operators"), gone.ID, "left the company")
	must(t, err)
	_, err = h.Review(t.Context(), gone, r.ID, justified)
	refused(t, err, identity.ErrRemoved)
	h.reviewed(sam, r.ID, api.NotJustified)
}

// An open door shuts when its person is removed, and is reviewed all the same.
func TestRemovalEndsAnEmergency(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin := h.person("erin", "engineers", "oncall")
	r := h.opened(erin, emergencyInput())
	_, err := h.RemovePerson(t.Context(), h.person("otto", "operators"), erin.ID, "an account that was taken over")
	must(t, err)
	if err := h.use(erin, r.ID, "SHA256:k"); err == nil {
		t.Error("the door is open for somebody who was removed")
	}
	if got := h.reviewed(h.person("sam", "security"), r.ID, api.NotJustified); got.State != api.Ended || got.Emergency.Review.Running {
		t.Errorf("it is %+v", got)
	}
}
