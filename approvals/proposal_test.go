package approvals_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/audittest"
	"sallyport/internal/refusal"
)

// otherPolicy is testPolicy with a longer time on databases.
var otherPolicy = strings.Replace(testPolicy, "max: 2h", "max: 3h", 1)

// operators are two people who can change the policy.
func (h *house) operators() (olga, otto identity.Caller) {
	h.t.Helper()
	return h.person("olga", "operators"), h.person("otto", "operators")
}

// propose proposes a document that must be taken.
func (h *house) propose(c identity.Caller, document string) api.PolicyProposal {
	h.t.Helper()
	p, err := h.Propose(h.t.Context(), c, api.PolicyInput{Document: document, Comment: "because"})
	must(h.t, err)
	return p
}

func (h *house) decideProposal(c identity.Caller, id string, v api.Verdict) error {
	_, err := h.DecideProposal(h.t.Context(), c, id, api.PolicyDecisionInput{Verdict: v})
	return err
}

// activate brings a document into force, as two operators do.
func (h *house) activate(document string) {
	h.t.Helper()
	olga, otto := h.operators()
	must(h.t, h.decideProposal(otto, h.propose(olga, document).ID, api.Approve))
}

func TestTheFileIsTheFirstVersionOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if v := h.openFile(otherPolicy).Policy(); v.Version != 1 || v.Hash != h.Policy().Hash {
				t.Errorf("with another file version %d is in force", v.Version)
			}
		})
	}
	wg.Wait()
	if n := h.count(`SELECT count(*) FROM policy_versions`); n != 1 || len(h.all("policy.activated")) != 1 {
		t.Errorf("%d versions, %d activations in the log", n, len(h.all("policy.activated")))
	}
	h.activate(otherPolicy)
	for file, warns := range map[string]bool{testPolicy: true, otherPolicy: false} {
		var said bytes.Buffer
		h.openLogging(file, slog.New(slog.NewTextHandler(&said, nil)))
		if strings.Contains(said.String(), "sally policy propose FILE") != warns {
			t.Errorf("serve says %q", said.String())
		}
	}
	if v := h.openFile(testPolicy).Policy(); v.Version != 2 || v.Hash == "" || v.Rules[0].MaxDuration != 3*time.Hour {
		t.Errorf("with the first file again version %d is in force", v.Version)
	}
}

// Without an operator nobody could ever propose anything: then it is the file.
func TestTheFileCountsWhileThereIsNoOperator(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, strings.Replace(testPolicy, "  operator: [operators]\n", "", 1))
	if v := h.openFile(otherPolicy).Policy(); v.Version != 2 {
		t.Errorf("version %d is in force", v.Version)
	}
	if v := h.openFile(testPolicy).Policy(); v.Version != 2 {
		t.Errorf("with operators, another file became version %d", v.Version)
	}
}

// A database from before versions were vouched for goes on with the version that
// its file is.
func TestOlderDatabasesKeepTheirVersion(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	admin := h.admin()
	_, err := admin.Exec(t.Context(), `
		ALTER TABLE policy_activations DISABLE TRIGGER ALL; DELETE FROM policy_activations;
		ALTER TABLE policy_activations ENABLE TRIGGER ALL; ALTER TABLE policy_activations ENABLE ALWAYS TRIGGER rows_stay`)
	must(t, err)
	if v := h.openFile(testPolicy).Policy(); v.Version != 1 {
		t.Errorf("the same file became version %d", v.Version)
	}
}

func TestProposeAndApprove(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	audrey := h.person("audrey", "auditors")
	erin := h.person("erin", "engineers")
	h.person("finn", "engineers")
	before := h.ask(erin, "dba", "db-1")

	document := strings.NewReplacer("max: 2h", "max: 3h", "groups: [approvers, leads]", "groups: [approvers, leads], count: 2",
		"where: class=web", "where: class in (web, database)").Replace(testPolicy)
	preview, err := h.PreviewPolicy(t.Context(), olga, api.PolicyInput{Document: document})
	must(t, err)
	p := h.propose(olga, document)
	if p.State != api.ProposalOpen || p.Author.Name != "olga" || p.Comment != "because" || p.Base.Version != 1 || p.Document != document ||
		p.Diff.Added != 3 || p.Diff.Removed != 3 || preview.ID != "" || preview.Diff.Hash != p.Diff.Hash || h.count(`SELECT count(*) FROM policy_proposals`) != 1 {
		t.Errorf("the proposal is %+v", p)
	}
	for _, want := range []string{
		"2 people (erin, finn) gain web on 2 hosts (db-1, db-2), by rule web, automatically",
		"rule databases changes approvals from 1 from approvers or leads to 2 from approvers or leads; duration.max from 2h to 3h",
	} {
		if !slices.Contains(p.Effect.Summary, want) {
			t.Errorf("the effect is\n%s\nwithout\n%s", strings.Join(p.Effect.Summary, "\n"), want)
		}
	}
	if h.Policy().Version != 1 {
		t.Error("a proposal is in force")
	}
	for c, want := range map[string][]bool{"olga": {false, false, true}, "otto": {true, true, false}, "audrey": {false, false, false}} {
		seen, err := h.Proposal(t.Context(), map[string]identity.Caller{"olga": olga, "otto": otto, "audrey": audrey}[c], p.ID)
		must(t, err)
		for i, name := range []string{"approve", "deny", "withdraw"} {
			a := seen.Actions[i]
			if a.Name != name || a.Allowed != want[i] || a.Allowed == (a.Why != "") {
				t.Errorf("%s sees %+v", c, a)
			}
		}
	}

	done, err := h.DecideProposal(t.Context(), otto, p.ID, api.PolicyDecisionInput{Verdict: api.Approve, Comment: "fine", Statement: p.Statement})
	must(t, err)
	if done.State != api.ProposalApproved || done.Version != 2 || done.Decision.Approver.Name != "otto" || done.Decision.Comment != "fine" {
		t.Errorf("approved, it is %+v", done)
	}
	force, err := h.PolicyInForce(t.Context(), audrey)
	must(t, err)
	if force.Version != 2 || !force.InForce || force.Document != document || force.Author.Name != "olga" || force.Approver.Name != "otto" ||
		force.Proposal != p.ID || force.Hash != h.Policy().Hash || force.Rules != 4 {
		t.Errorf("in force is %+v", force)
	}
	after := h.ask(erin, "dba", "db-1")
	if before.Policy.Version != 1 || before.Approvers[0].Count != 1 || after.Policy != force.PolicyRef || after.Approvers[0].Count != 2 {
		t.Errorf("before it is %+v, after %+v", before.Policy, after.Policy)
	}
	versions, err := h.PolicyVersions(t.Context(), audrey, "", 1)
	must(t, err)
	rest, err := h.PolicyVersions(t.Context(), audrey, versions.Next, 1)
	must(t, err)
	if len(versions.Items) != 1 || versions.Items[0].Version != 2 || rest.Items[0].Version != 1 || rest.Items[0].Author != nil || rest.Next != "" {
		t.Errorf("versions %+v, then %+v", versions, rest)
	}

	activated := h.all("policy.activated")[0]
	if activated.Data["author"] != olga.ID || activated.Data["approver"] != otto.ID || activated.Actor.ID != otto.ID ||
		activated.Data["diff_hash"] != p.Diff.Hash || activated.Data["proposal_hash"] != p.Statement {
		t.Errorf("the log says %+v", activated)
	}
	proposed, decided := h.all("policy.proposed")[0], h.all("policy.decided")[0]
	if proposed.Data["diff_hash"] != p.Diff.Hash || proposed.Data["document_hash"] != p.Hash ||
		decided.Data["evidence_hash"] != activated.Data["evidence_hash"] || decided.Data["proposal_hash"] != p.Statement {
		t.Errorf("the log says %+v and %+v", proposed, decided)
	}
}

// Requests that wait while another version comes into force keep their terms, and
// are decided by them; what is asked for afterwards has the new ones.
func TestP4_ActivationLeavesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, sam := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("sam", "security")
	r := h.ask(erin, "root", "db-1")
	h.approve(ann, r.ID)
	h.activate(strings.Replace(testPolicy, "[{groups: [approvers]}, {groups: [security]}]", "[{groups: [board], count: 3}]", 1))
	if got := h.approve(sam, r.ID); got.State != api.Approved || got.TermsHash != r.TermsHash || got.Policy.Version != 1 {
		t.Errorf("decided during an activation it is %+v", got)
	}
	must(t, h.use(erin, r.ID, "SHA256:k"))
	if next := h.ask(erin, "root", "db-1"); next.Policy.Version != 2 || next.Approvers[0].Count != 3 {
		t.Errorf("asked for afterwards it is %+v", next)
	}
}

func TestP5_TheAuthorDoesNotApprove(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	p := h.propose(olga, otherPolicy)
	for _, v := range []api.Verdict{api.Approve, api.Deny} {
		refused(t, h.decideProposal(olga, p.ID, v), approvals.ErrOwnProposal)
		// Another sign-in, of another kind, with another name and another address.
		again, err := h.people.SignIn(t.Context(), identity.Claims{Issuer: olga.Issuer, Subject: olga.Subject, Name: "somebody else",
			Email: "else@example.com", Groups: []string{"operators"}, AuthTime: h.clock.Now()}, "cli", "198.51.100.1")
		must(t, err)
		refused(t, h.decideProposal(identity.Caller{Person: again, Via: "cli", Source: "198.51.100.1", Roles: olga.Roles}, p.ID, v), approvals.ErrOwnProposal)
	}
	if h.Policy().Version != 1 || len(h.all("policy.refused")) != 4 || len(h.all("policy.decided")) != 0 {
		t.Errorf("version %d, refusals %d", h.Policy().Version, len(h.all("policy.refused")))
	}
	must(t, h.decideProposal(otto, p.ID, api.Approve))
}

func TestP10_OnlyOperatorsChangeThePolicy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	audrey, erin, mallory := h.person("audrey", "auditors"), h.person("erin", "engineers"), h.person("mallory", "engineers")
	p := h.propose(olga, otherPolicy)
	// What the caller says of their own roles counts for nothing.
	mallory.Roles, mallory.Groups = olga.Roles, olga.Groups
	for _, c := range []identity.Caller{audrey, erin, mallory} {
		_, err := h.Propose(t.Context(), c, api.PolicyInput{Document: otherPolicy})
		refused(t, err, approvals.ErrPolicyOperators)
		_, err = h.PreviewPolicy(t.Context(), c, api.PolicyInput{Document: otherPolicy})
		refused(t, err, approvals.ErrPolicyOperators)
		refused(t, h.decideProposal(c, p.ID, api.Approve), approvals.ErrPolicyOperators)
		refused(t, h.decideProposal(c, "pol-000000000000", api.Approve), approvals.ErrPolicyOperators)
		_, err = h.Withdraw(t.Context(), c, p.ID)
		refused(t, err, approvals.ErrPolicyOperators)
	}
	_, err := h.Withdraw(t.Context(), otto, p.ID)
	refused(t, err, approvals.ErrNotAuthor)
	for name, read := range map[string]func(identity.Caller) error{
		"in force":  func(c identity.Caller) error { _, err := h.PolicyInForce(t.Context(), c); return err },
		"version":   func(c identity.Caller) error { _, err := h.PolicyVersion(t.Context(), c, 1); return err },
		"versions":  func(c identity.Caller) error { _, err := h.PolicyVersions(t.Context(), c, "", 0); return err },
		"proposal":  func(c identity.Caller) error { _, err := h.Proposal(t.Context(), c, p.ID); return err },
		"proposals": func(c identity.Caller) error { _, err := h.Proposals(t.Context(), c, false, "", 0); return err },
	} {
		must(t, read(audrey))
		must(t, read(otto))
		if err := read(erin); refusal.As(err) == nil || refusal.As(err).Code != approvals.ErrPolicyReaders.Code {
			t.Errorf("an engineer reads the %s: %v", name, err)
		}
	}

	// Operator only under what is proposed: no operator.
	mallory = h.person("mallory", "engineers")
	grab := h.propose(olga, strings.Replace(testPolicy, "operator: [operators]", "operator: [operators, engineers]", 1))
	if r := grab.Effect.Roles; len(r) != 1 || r[0].Role != api.Operator || r[0].Gains.Count != 2 || !strings.Contains(grab.Effect.Summary[0], "2 people (erin, mallory) gain it") {
		t.Errorf("the effect hides new operators: %+v", grab.Effect)
	}
	refused(t, h.decideProposal(mallory, grab.ID, api.Approve), approvals.ErrPolicyOperators)

	// No longer in the group, although a sign-in of that time lives on.
	left := otto
	h.person("otto", "visitors")
	refused(t, h.decideProposal(left, p.ID, api.Approve), approvals.ErrPolicyOperators)
	if h.Policy().Version != 1 {
		t.Error("something came into force")
	}
}

func TestWhatCannotBeProposed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, _ := h.operators()
	lonely := h.person("lonely", "loners")
	for name, c := range map[string]struct {
		document string
		want     *refusal.Error
	}{
		"no policy":          {"hello", approvals.ErrBadPolicy},
		"an unknown key":     {testPolicy + "\nextra: 1\n", approvals.ErrBadPolicy},
		"a failing test":     {testPolicy + "\ntests:\n- {name: no, groups: [engineers], host: {class: web}, login: web, expect: {refused: true}}\n", approvals.ErrBadPolicy},
		"text turned around": {testPolicy + "\n# \u202e drawkcab\n", approvals.ErrBadPolicy},
		"a zero-width":       {testPolicy + "\n# a\u200bb\n", approvals.ErrBadPolicy},
		"a carriage return":  {testPolicy + "\n# visible\rhidden\n", approvals.ErrBadPolicy},
		"the same":           {testPolicy, approvals.ErrSamePolicy},
		"no operators":       {strings.Replace(testPolicy, "  operator: [operators]\n", "", 1), approvals.ErrLockOut},
		"a typo":             {strings.Replace(testPolicy, "[operators]", "[operaters]", 1), approvals.ErrLockOut},
		"one operator":       {strings.Replace(testPolicy, "[operators]", "[loners]", 1), approvals.ErrLockOut},
		"too much":           {testPolicy + strings.Repeat("#\n", 2<<20), approvals.ErrBadPolicy},
	} {
		_, err := h.Propose(t.Context(), olga, api.PolicyInput{Document: c.document})
		t.Run(name, func(t *testing.T) { refused(t, err, c.want) })
	}
	if n := h.count(`SELECT count(*) FROM policy_proposals`); n != 0 {
		t.Errorf("%d were taken", n)
	}
	if _, err := h.Propose(t.Context(), olga, api.PolicyInput{Document: strings.ReplaceAll(otherPolicy, "\n", "\r\n")}); err != nil {
		t.Errorf("lines that end as on Windows: %v", err)
	}
	for range approvals.MaxProposals - 1 {
		h.propose(olga, otherPolicy)
	}
	_, err := h.Propose(t.Context(), olga, api.PolicyInput{Document: otherPolicy})
	refused(t, err, approvals.ErrTooManyProposals)

	// An operator less since: what was fit when it was proposed is not any more.
	h2 := newHouse(t)
	olga, otto := h2.operators()
	h2.person("lonely", "loners")
	h2.person("second", "loners")
	p := h2.propose(olga, strings.Replace(testPolicy, "[operators]", "[loners]", 1))
	h2.person("second", "visitors")
	refused(t, h2.decideProposal(otto, p.ID, api.Approve), approvals.ErrLockOut)
	_ = lonely
}

func TestAProposalIsDecidedOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	third := h.person("third", "operators")

	withdrawn := h.propose(olga, otherPolicy)
	_, err := h.Withdraw(t.Context(), olga, withdrawn.ID)
	must(t, err)
	refused(t, h.decideProposal(otto, withdrawn.ID, api.Approve), approvals.ErrProposalClosed)
	_, err = h.Withdraw(t.Context(), olga, withdrawn.ID)
	refused(t, err, approvals.ErrProposalClosed)
	if len(h.all("policy.withdrawn")) != 1 {
		t.Error("the withdrawal is not in the log")
	}

	denied := h.propose(olga, otherPolicy)
	must(t, h.decideProposal(otto, denied.ID, api.Deny))
	refused(t, h.decideProposal(third, denied.ID, api.Approve), approvals.ErrProposalClosed)

	other := h.propose(olga, otherPolicy)
	_, err = h.DecideProposal(t.Context(), otto, other.ID, api.PolicyDecisionInput{Verdict: api.Approve, Statement: denied.Statement})
	refused(t, err, approvals.ErrOtherProposal)

	// Approvals and withdrawals at the same time, here and in another process.
	replica := h.openFile(testPolicy)
	var done, closed atomic.Int32
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			var err error
			switch i % 3 {
			case 0:
				err = h.decideProposal(otto, other.ID, api.Approve)
			case 1:
				_, err = replica.DecideProposal(t.Context(), third, other.ID, api.PolicyDecisionInput{Verdict: api.Approve})
			case 2:
				_, err = h.Withdraw(t.Context(), olga, other.ID)
			}
			switch r := refusal.As(err); {
			case err == nil:
				done.Add(1)
			case r != nil && (r.Is(approvals.ErrProposalClosed) || r.Is(approvals.ErrStaleProposal)):
				closed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done.Load() != 1 || closed.Load() != 11 {
		t.Errorf("%d did something, %d were too late", done.Load(), closed.Load())
	}
	if n := h.count(`SELECT count(*) FROM policy_versions`); n > 2 {
		t.Errorf("%d versions", n)
	}
}

// Two proposals for one version, approved at the same time: one comes into force,
// and what the other showed is no longer what it would change.
func TestAStaleProposalIsNotApproved(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	replica := h.openFile(testPolicy)
	a, b := h.propose(olga, otherPolicy), h.propose(otto, strings.Replace(testPolicy, "max: 2h", "max: 4h", 1))
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() { errs[0] = h.decideProposal(otto, a.ID, api.Approve) })
	wg.Go(func() {
		_, errs[1] = replica.DecideProposal(t.Context(), olga, b.ID, api.PolicyDecisionInput{Verdict: api.Approve})
	})
	wg.Wait()
	lost := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if lost < 0 || errs[1-lost] != nil {
		t.Fatalf("approvals: %v", errs)
	}
	refused(t, errs[lost], approvals.ErrStaleProposal)
	h.clock.Advance(time.Minute)
	h.ask(h.person("erin", "engineers"), "web", "web-1") // looks
	stale, err := h.Proposal(t.Context(), olga, []string{a.ID, b.ID}[lost])
	must(t, err)
	if stale.State != api.ProposalStale || h.Policy().Version != 2 {
		t.Errorf("the other is %s, version %d in force", stale.State, h.Policy().Version)
	}
	// It can still be denied, and it can be proposed anew.
	h.propose(olga, stale.Document)

	// Back to an earlier document is a change like any other.
	must(t, h.decideProposal(otto, h.propose(olga, testPolicy).ID, api.Approve))
	if v := h.Policy(); v.Version != 3 || v.Hash != a.Base.Hash {
		t.Errorf("back at the first document it is version %d", v.Version)
	}
}

func TestReplicasNoticeANewerVersion(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	watching, idle := h.openFile(testPolicy), h.openFile(testPolicy)
	audittest.Run(t, watching.Run)
	h.activate(otherPolicy)
	h.eventually(func() bool { return watching.Policy().Version == 2 })

	// One that could not look for some seconds looks before it decides, whatever it
	// remembers.
	erin := h.person("erin", "engineers")
	if idle.Policy().Version != 1 {
		t.Fatal("a process that does not look knows of the version")
	}
	h.clock.Advance(6 * time.Second)
	r, err := idle.Request(t.Context(), erin, input("web", "web-1"))
	must(t, err)
	if r.Policy.Version != 2 || r.Policy.Hash != h.Policy().Hash {
		t.Errorf("the old version decided: %+v", r.Policy)
	}
}

// A process that cannot find out which version is in force decides nothing and
// gives nobody a role, also with a version in memory.
func TestP9_NoDecisionByAnOldVersion(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, olga := h.person("erin", "engineers"), h.person("olga", "operators")
	_, err := h.admin().Exec(t.Context(), `REVOKE SELECT ON policy_activations FROM sallyport_app`)
	must(t, err)
	h.ask(erin, "web", "web-1") // it has just looked
	h.clock.Advance(6 * time.Second)
	_, err = h.Request(t.Context(), erin, input("web", "web-1"))
	refused(t, err, approvals.ErrPolicyUnknown)
	if roles, _ := h.Roles(olga.Groups); len(roles) != 0 {
		t.Errorf("roles %v", roles)
	}
	_, err = h.admin().Exec(t.Context(), `GRANT SELECT ON policy_activations TO sallyport_app`)
	must(t, err)
	h.ask(erin, "web", "web-1")
	h.clock.Advance(-time.Hour) // a clock that was put back
	h.ask(erin, "web", "web-1")
	if roles, _ := h.Roles(olga.Groups); fmt.Sprint(roles) != "[operator]" {
		t.Errorf("roles %v", roles)
	}
}
