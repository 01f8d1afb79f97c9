package approvals_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
)

// A change that is rolled back is told to nobody.
func TestWhatIsRolledBackIsNotTold(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.until(h.Run)
	erin := h.person("erin", "engineers")
	// The event is staged last, after the notices.
	_, err := h.admin().Exec(t.Context(), `REVOKE EXECUTE ON FUNCTION audit.enqueue FROM sallyport_app`)
	must(t, err)
	if _, err := h.Request(t.Context(), erin, input("dba", "db-1")); err == nil {
		t.Fatal("a request was made without the log")
	}
	if n := h.count(`SELECT count(*) FROM jobs.river_job WHERE kind IN ('notice', 'message')`) + h.count(`SELECT count(*) FROM messages`); n > 0 {
		t.Errorf("%d jobs and messages are there of a change that was not", n)
	}
	if got := h.hook.told(); len(got) > 0 {
		t.Errorf("told %q", got)
	}
}

// A broker that dies after the commit and before sending loses nothing: another
// one, or the same after its restart, sends.
func TestWhatIsCommittedIsToldByAnotherBroker(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.ask(h.person("erin", "engineers"), "dba", "db-1") // h works off nothing
	if got := h.hook.told(); len(got) > 0 {
		t.Fatalf("told %q by a broker that sends nothing", got)
	}
	// It dies between spreading and sending.
	other := h.openTelling(byHook)
	h.until(other.Run)
	h.wantTold("approvers request.waiting")
}

// A broker that dies while it sends may have sent: the message comes again, with
// the same id, and once only for the receiver who looks at it.
func TestAnInterruptedMessageComesAgainWithItsID(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	stop := h.until(h.Run)
	h.ask(h.person("erin", "engineers"), "dba", "db-1")
	h.wantTold("approvers request.waiting")
	stop()
	must(t, h.exec(`UPDATE messages SET state = 'sending', ended_at = NULL`))
	must(t, h.exec(`UPDATE jobs.river_job SET state = 'available', finalized_at = NULL WHERE kind = 'message'`))
	h.until(h.openTelling(byHook).Run)
	h.wantTold("approvers request.waiting", "approvers request.waiting")
	if ids := h.hook.ids(); ids[0] != ids[1] || !strings.HasPrefix(ids[0], "msg-") {
		t.Errorf("the attempts have the ids %q", ids)
	}
}

// A notice that is worked off twice, also by two replicas, tells everybody once.
func TestANoticeTellsOnce(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.ask(h.person("erin", "engineers"), "dba", "db-1")
	for range 5 {
		must(t, h.exec(`INSERT INTO jobs.river_job (args, kind, max_attempts, queue, state, scheduled_at)
			SELECT args, kind, max_attempts, queue, state, scheduled_at FROM jobs.river_job WHERE kind = 'notice' LIMIT 1`))
	}
	h.until(h.Run)
	h.until(h.openTelling(byHook).Run)
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE kind = 'notice' AND state <> 'completed'`) == 0
	})
	h.wantTold("approvers request.waiting")
}

// A receiver that is down is told when it is up again; what was decided meanwhile
// is dropped, and the follow-up comes instead.
func TestAReceiverThatWasDown(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.hook.answer("approvers", http.StatusServiceUnavailable)
	h.until(h.Run)
	erin, arne := h.person("erin", "engineers"), h.person("arne", "approvers")
	open, decided := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-2")
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM messages WHERE state = 'retrying' AND error LIKE '%503%'`) == 2
	})
	h.approve(arne, decided.ID)
	h.hook.answer("approvers", http.StatusOK)
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND state = 'sent'`, open.ID) == 1 &&
			h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND state = 'dropped' AND kind = 'request.waiting'`, decided.ID) == 1 &&
			h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND state = 'sent' AND kind = 'request.closed'`, decided.ID) == 2
	})
	h.hook.mu.Lock()
	defer h.hook.mu.Unlock()
	for _, g := range h.hook.got {
		if g.Type == notify.Closed && g.Data.Request.State != api.Approved {
			t.Errorf("the follow-up says %s", g.Data.Request.State)
		}
	}
}

// After its last attempt a message is given up: that is an event, operators see
// it, and the operators' channel is told, once for many.
func TestGivingUpIsSeen(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.hook.answer("approvers", http.StatusGone)
	h.until(h.Run)
	erin := h.person("erin", "engineers")
	r := h.ask(erin, "dba", "db-1")
	h.ask(erin, "dba", "db-2")
	h.wantTold("approvers request.waiting", "approvers request.waiting", "ops message.failed")
	failed := h.all("message.failed")
	if len(failed) != 2 || failed[0].Data["channel"] != "approvers" || failed[0].Request == "" {
		t.Errorf("events are %+v", failed)
	}
	oscar, audrey := h.person("oscar", "operators"), h.person("audrey", "auditors")
	for _, c := range []identity.Caller{oscar, audrey} {
		page, err := h.Notifications(t.Context(), c, "GET /x", notify.Filter{State: "failed", RequestID: r.ID})
		must(t, err)
		if len(page.Items) != 1 || page.Items[0].Error != "the receiver answered 410 Gone" || page.Items[0].Attempts != 1 {
			t.Errorf("%s sees %+v", c.Name, page.Items)
		}
	}
	page, err := h.Notifications(t.Context(), oscar, "GET /x", notify.Filter{Limit: 2})
	must(t, err)
	rest, err := h.Notifications(t.Context(), oscar, "GET /x", notify.Filter{Limit: 2, Cursor: page.Next})
	must(t, err)
	if len(page.Items) != 2 || len(rest.Items) != 1 || rest.Next != "" {
		t.Errorf("pages have %d and %d of 3", len(page.Items), len(rest.Items))
	}
	_, err = h.Notifications(t.Context(), oscar, "GET /x", notify.Filter{Cursor: "x"})
	refused(t, err, notify.ErrBadFilter)
	_, err = h.Notifications(t.Context(), erin, "GET /x", notify.Filter{})
	refused(t, err, approvals.ErrNotForYou)
	if len(h.all("access.refused")) != 1 {
		t.Error("that somebody else tried is not in the log")
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.hook.answer("approvers", http.StatusBadGateway)
	h.until(h.Run)
	h.ask(h.person("erin", "engineers"), "dba", "db-1")
	h.eventually(func() bool { return slices.Equal(h.states(notify.Waiting), []string{"approvers retrying"}) })
	must(t, h.exec(`UPDATE messages SET attempts = $1`, notify.MaxAttempts-1))
	h.eventually(func() bool { return slices.Equal(h.states(notify.Waiting), []string{"approvers failed"}) })
	if n := h.count(`SELECT max(attempts) FROM messages`); n != notify.MaxAttempts {
		t.Errorf("there were %d attempts", n)
	}
}

// A request that nobody could be told of is a failure that operators hear of.
func TestAnEmptyGroupIsNoticed(t *testing.T) {
	t.Parallel()
	for name, routes := range map[string]string{
		"no route":   "operators: [ops]",
		"no members": "routes: {nobody: [mail]}\noperators: [ops]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTellHouse(t, routes)
			h.until(h.Run)
			r := h.ask(h.person("erin", "engineers"), "dba", "lonely")
			h.wantTold("ops message.failed")
			if e := h.all("message.failed"); len(e) != 1 || e[0].Request != r.ID || !strings.Contains(fmt.Sprint(e[0].Data["error"]), "nobody") {
				t.Errorf("events are %+v", e)
			}
		})
	}
}

func TestAGroupWithoutARouteTakesTheDefault(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "routes: {directors: [directors]}\ndefault: [managers]")
	h.until(h.Run)
	h.ask(h.person("erin", "engineers"), "dba", "db-1")
	h.wantTold("managers request.waiting")
}

// A group of ten thousand gets a bounded number of mails, and operators are told
// that it was too large. The state change itself enqueues one job.
func TestALargeGroupIsBounded(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "routes: {approvers: [mail]}\noperators: [ops]")
	erin := h.person("erin", "engineers")
	_, err := h.admin().Exec(t.Context(), `INSERT INTO people (id, issuer, subject, name, email, groups, first_signed_in_at, signed_in_at)
		SELECT 'per-' || lpad(n::text, 12, '0'), 'https://id.test', 's' || n, 'p' || n, 'p' || n || '@example.com', '{approvers}', $1, $1
		FROM generate_series(1, 10000) n`, start)
	must(t, err)
	h.ask(erin, "dba", "db-1")
	if n := h.count(`SELECT count(*) FROM jobs.river_job WHERE kind IN ('notice', 'message')`); n != 1 {
		t.Errorf("the ask enqueued %d jobs", n)
	}
	h.until(h.Run)
	h.wantTold("ops message.failed")
	h.eventually(func() bool { return len(h.mail.Mails()) == notify.MaxPeople })
	h.quiet()
	if n := len(h.mail.Mails()); n != notify.MaxPeople {
		t.Errorf("%d mails", n)
	}
}

// The broker's role cannot take back what people were told.
func TestMessagesStay(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	stop := h.until(h.Run)
	h.ask(h.person("erin", "engineers"), "dba", "db-1")
	h.wantTold("approvers request.waiting")
	stop()
	for _, sql := range []string{`DELETE FROM messages`, `TRUNCATE messages`, `UPDATE messages SET channel = 'x'`, `UPDATE messages SET created_at = now()`} {
		if err := h.exec(sql); err == nil {
			t.Errorf("%s succeeded", sql)
		}
	}
	if _, err := h.admin().Exec(t.Context(), `DELETE FROM messages`); err == nil {
		t.Error("the owner can delete them")
	}
}
