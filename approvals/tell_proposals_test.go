package approvals_test

import (
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/notify"
)

// Operators hear of a proposal at once, and of what became of it; who did it knows.
// Groups that the file names hear of it, too.
func TestOperatorsHearOfProposals(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "routes: {operators: [mail], audit: [ops]}\nrequester: mail\nproposals: [audit]")
	h.until(h.Run)
	olga, otto, nora := h.person("olga", "operators"), h.person("otto", "operators"), h.person("nora", "operators")
	h.person("erin", "engineers")
	p := h.propose(olga, strings.Replace(tellPolicy, "max: 2h", "max: 3h", 1))
	proposes := "olga proposes to change the policy"
	h.eventuallyEqual(h.mailed, []string{"nora@example.com: " + proposes, "otto@example.com: " + proposes})
	mail := strings.ReplaceAll(h.mailAbout(proposes), "=\n", "") // lines that quoted-printable broke
	for _, want := range []string{"Who:           olga <olga@example.com>", "Comment:       because", "Follows:       version 1", p.Hash,
		"See what it changes: https://sp.example.com/policy/proposals/" + p.ID} {
		if !strings.Contains(mail, want) {
			t.Errorf("the mail lacks %q:\n%s", want, mail)
		}
	}
	told := func(kind notify.Kind) []notify.Payload {
		h.hook.mu.Lock()
		defer h.hook.mu.Unlock()
		var out []notify.Payload
		for _, g := range h.hook.got {
			if g.Type == kind {
				out = append(out, g.Payload)
			}
		}
		return out
	}
	h.eventually(func() bool { return len(told(notify.ProposalWaiting)) == 1 })
	if got := told(notify.ProposalWaiting)[0].Data.Proposal; got == nil || got.ID != p.ID || got.State != api.ProposalOpen || got.Author.ID != olga.ID || got.Hash != p.Hash {
		t.Errorf("the webhook says %+v", got)
	}

	must(t, h.decideProposal(otto, p.ID, api.Approve))
	changed := "The policy changed: what olga proposed was approved"
	h.eventuallyEqual(h.mailed, []string{"nora@example.com: " + changed, "nora@example.com: " + proposes, "olga@example.com: " + changed, "otto@example.com: " + proposes})
	if mail := h.mailAbout(changed); !strings.Contains(mail, "Decided by:    otto <otto@example.com>") || !strings.Contains(mail, "In force as:   version 2") {
		t.Errorf("the mail is\n%s", mail)
	}
	h.eventually(func() bool { return len(told(notify.ProposalClosed)) == 1 })
	if got := told(notify.ProposalClosed)[0].Data.Proposal; got.Version != 2 || got.Decision == nil || got.Decision.Approver.ID != otto.ID {
		t.Errorf("the webhook says %+v", got)
	}

	// Denied and withdrawn; an author who is no operator any more is still told.
	p = h.propose(olga, tellPolicy+"# again\n")
	h.person("olga", "engineers")
	must(t, h.decideProposal(nora, p.ID, api.Deny))
	h.eventually(func() bool {
		return slices.Contains(h.mailed(), "olga@example.com: Denied: the policy that olga proposed")
	})
	p = h.propose(otto, tellPolicy+"# and again\n")
	_, err := h.Withdraw(t.Context(), otto, p.ID)
	must(t, err)
	h.eventually(func() bool {
		return slices.Contains(h.mailed(), "nora@example.com: Withdrawn: the policy that otto proposed")
	})
	h.quiet()
	for _, m := range h.mailed() {
		if strings.HasPrefix(m, "erin") || m == "nora@example.com: Denied: the policy that olga proposed" || m == "otto@example.com: Withdrawn: the policy that otto proposed" {
			t.Errorf("told all the same: %s", m)
		}
	}
}

// What can no longer come into force is not announced, and what was refused tells
// nobody.
func TestClosedProposalsAreNotAnnounced(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "default: [mail]")
	olga, otto := h.person("olga", "operators"), h.person("otto", "operators")
	stale := h.propose(olga, tellPolicy+"# stale\n")
	p := h.propose(olga, tellPolicy+"# denied\n")
	if h.decideProposal(olga, p.ID, api.Approve) == nil {
		t.Fatal("the author approved it")
	}
	must(t, h.decideProposal(otto, p.ID, api.Deny))
	must(t, h.decideProposal(otto, h.propose(olga, tellPolicy+"# in force\n").ID, api.Approve))
	h.until(h.Run)
	h.eventually(func() bool { return len(h.mailed()) >= 2 })
	h.quiet()
	if got := h.mailed(); !slices.Equal(got, []string{
		"olga@example.com: Denied: the policy that olga proposed", "olga@example.com: The policy changed: what olga proposed was approved"}) {
		t.Errorf("told %q; %s is stale", got, stale.ID)
	}
}

// CountProposals counts what the caller could approve.
func TestProposalsThatWaitForMe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	erin, audrey := h.person("erin", "engineers"), h.person("audrey", "auditors")
	count := func(want map[string]int) {
		t.Helper()
		for _, c := range []struct {
			name string
			n    func() (int, error)
		}{
			{"olga", func() (int, error) { return h.CountProposals(t.Context(), olga) }},
			{"otto", func() (int, error) { return h.CountProposals(t.Context(), otto) }},
			{"erin", func() (int, error) { return h.CountProposals(t.Context(), erin) }},
			{"audrey", func() (int, error) { return h.CountProposals(t.Context(), audrey) }},
		} {
			if n, err := c.n(); err != nil || n != want[c.name] {
				t.Errorf("%d proposals wait for %s, %v; want %d", n, c.name, err, want[c.name])
			}
		}
	}
	count(nil)
	first := h.propose(olga, otherPolicy)
	h.propose(olga, otherPolicy+"# another\n")
	h.propose(otto, otherPolicy+"# otto's\n")
	count(map[string]int{"olga": 1, "otto": 2})
	must(t, h.decideProposal(otto, first.ID, api.Approve)) // the others are stale
	count(nil)
}
