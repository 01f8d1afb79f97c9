package pages

import (
	"net/http"
	"strings"
	"testing"
)

// Operators and auditors see what people were told and what did not arrive.
func TestNotifications(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	for _, as := range []string{"operator", "auditor"} {
		page := v.get(as, "/notifications?state=failed").Body.String()
		for _, want := range []string{"request.waiting", "mail", "Arne &lt;i&gt;Approver", "the receiver answered &lt;script&gt;503", "10 attempts",
			`href="/notifications?cursor=more&amp;state=failed"`, `<option value="failed" selected>`, `<a href="/notifications" aria-current="page"`} {
			if !strings.Contains(page, want) {
				t.Errorf("%s does not see %q in\n%s", as, want, page)
			}
		}
		if strings.Contains(page, "dba-chat") {
			t.Error("the filter shows what was sent")
		}
		if all := v.get(as, "/notifications").Body.String(); !strings.Contains(all, "dba-chat") || !strings.Contains(all, "the channel") ||
			!strings.Contains(all, `href="/requests/req-4f8k2m9qhx1z"`) {
			t.Errorf("%s does not see what was sent:\n%s", as, all)
		}
	}
	for _, as := range []string{"engineer", "approver"} {
		w := v.get(as, "/notifications")
		if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "dba-chat") {
			t.Errorf("%s: status %d", as, w.Code)
		}
		if strings.Contains(v.get(as, "/requests").Body.String(), `href="/notifications"`) {
			t.Errorf("%s is led to the page", as)
		}
	}
}
