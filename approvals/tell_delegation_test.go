package approvals_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/notify"
)

const byMail = "routes: {approvers: [mail], directors: [directors]}\noperators: [ops]\nrequester: mail"

// mailAbout is one mail with the subject.
func (h *tellHouse) mailAbout(subject string) string {
	h.t.Helper()
	for _, m := range h.mail.Mails() {
		if strings.Contains(m.Data, "Subject: "+subject+"\n") {
			return m.Data
		}
	}
	h.t.Fatalf("no mail %q in %q", subject, h.mailed())
	return ""
}

// The two whom a delegation names hear of it at once, whoever made it, and of its end.
func TestBothHearOfADelegation(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook) // no channel is personal but the requesters'
	h.until(h.Run)
	arne, dora, olga := h.person("arne", "approvers"), h.person("dora", "interns"), h.person("olga", "operators")
	h.lend(arne, dora)
	until := start.Add(24 * time.Hour).Format("Mon 2 Jan 2006, 15:04 UTC")
	made := "dora decides for arne until " + until
	mails := []string{"arne@example.com: " + made, "dora@example.com: " + made}
	h.eventuallyEqual(h.mailed, mails)
	text := h.mailAbout(made)
	for _, want := range []string{"Who decides:   dora <dora@example.com>", "For:           arne <arne@example.com>", "Groups:        approvers", "Reason:        away", "https://sp.example.com/delegations"} {
		if !strings.Contains(text, want) {
			t.Errorf("the mail lacks %q:\n%s", want, text)
		}
	}
	d := h.lend(arne, h.person("eve"))
	mails = append(mails, "arne@example.com: eve decides for arne until "+until, "eve@example.com: eve decides for arne until "+until)
	slices.Sort(mails)
	h.eventuallyEqual(h.mailed, mails)
	_, err := h.EndDelegation(t.Context(), olga, d.ID)
	must(t, err)
	mails = append(mails, "arne@example.com: eve no longer decides for arne", "eve@example.com: eve no longer decides for arne")
	slices.Sort(mails)
	h.eventuallyEqual(h.mailed, mails)
	if got := h.mailAbout("eve no longer decides for arne"); !strings.Contains(got, "Ended by:      olga <olga@example.com>") {
		t.Errorf("the mail does not say who ended it:\n%s", got)
	}

	// An operator takes away somebody's say: they hear of it, and of who did it.
	in := lending(h.house, h.person("zoe"))
	in.Delegator = arne.ID
	_, err = h.Delegate(t.Context(), olga, in)
	must(t, err)
	h.eventually(func() bool { return len(h.mailed()) == 8 })
	if got := h.mailAbout("zoe decides for arne until " + until); !strings.Contains(got, "Made by:       olga <olga@example.com>") {
		t.Errorf("the mail does not say who made it:\n%s", got)
	}
	// And who is named in it and removed is told nothing; the other is told that it has ended.
	_, err = h.RemovePerson(t.Context(), olga, dora.ID, "left")
	must(t, err)
	h.eventually(func() bool { return slices.Contains(h.mailed(), "arne@example.com: dora no longer decides for arne") })
	h.quiet()
	if slices.Contains(h.mailed(), "dora@example.com: dora no longer decides for arne") {
		t.Error("who was removed is told")
	}
}

// What was ended before it could be told misleads nobody.
func TestAnEndedDelegationIsNotAnnounced(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byMail)
	arne, dora := h.person("arne", "approvers"), h.person("dora")
	d := h.lend(arne, dora)
	_, err := h.EndDelegation(t.Context(), arne, d.ID)
	must(t, err)
	h.until(h.Run)
	h.eventuallyEqual(h.mailed, []string{"arne@example.com: dora no longer decides for arne", "dora@example.com: dora no longer decides for arne"})
	// A delegation that was refused tells nobody.
	_, err = h.Delegate(t.Context(), dora, lending(h.house, arne))
	if err == nil {
		t.Fatal("who decides on nothing delegated")
	}
	h.quiet()
	if n := len(h.mailed()); n != 2 {
		t.Errorf("%d mails", n)
	}
}

// A delegate is told of requests that they can decide because of it, and only of those.
func TestDelegatesAreToldOfRequests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		routes string
		arne   bool // has a mail of his own
	}{"where members have mails": {byMail, true}, "where members have a chat": {byHook, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTellHouse(t, c.routes)
			erin, arne, dora := h.person("erin", "engineers"), h.person("arne", "approvers"), h.person("dora", "interns")
			h.lend(arne, dora)
			h.lend(h.person("bo", "approvers"), erin) // to the requester
			h.until(h.Run)
			r := h.ask(erin, "dba", "db-1")
			asks := "erin asks for dba@db-1 for 40m"
			h.eventually(func() bool { return slices.Contains(h.mailed(), "dora@example.com: "+asks) })
			h.quiet()
			if got := slices.Contains(h.mailed(), "arne@example.com: "+asks); got != c.arne {
				t.Errorf("the delegator is told by mail: %v", got)
			}
			if slices.Contains(h.mailed(), "erin@example.com: "+asks) {
				t.Error("the requester is told as a delegate")
			}
			if mail := h.mailAbout(asks); !strings.Contains(mail, "dora for arne") {
				t.Errorf("the mail does not name the delegate:\n%s", mail)
			}
			got := h.approve(dora, r.ID)
			if got.State != api.Approved {
				t.Fatalf("the request is %s", got.State)
			}
			h.eventually(func() bool { return slices.Contains(h.mailed(), "erin@example.com: Approved: dba@db-1 for erin") })
			if mail := h.mailAbout("Approved: dba@db-1 for erin"); !strings.Contains(mail, "dora for arne") {
				t.Errorf("the mail does not say for whom it was decided:\n%s", mail)
			}
			// Who can decide by themselves, or by nothing, is told once, or not at all.
			h.quiet()
			if n := h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND kind = $2 AND person_id = $3`, r.ID, notify.Waiting, dora.ID); n != 1 {
				t.Errorf("the delegate was told %d times", n)
			}
			h.clock.Advance(25 * time.Hour)
			other := h.ask(erin, "dba", "db-2")
			h.quiet()
			if n := h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND person_id = $2`, other.ID, dora.ID); n != 0 {
				t.Errorf("after the delegation they were told %d times", n)
			}
		})
	}
}
