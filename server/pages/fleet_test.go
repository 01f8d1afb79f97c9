package pages

import (
	"strings"
	"testing"

	"sallyport/api"
)

// The page of a host that speaks for itself shows how it is, to those who may know.
func TestHostPageShowsPosture(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.hosts[0].State, h.hosts[0].Helper, h.hosts[0].StateWhy = api.HostDrifted, true, []string{"check keys fails: <i>"}
	h.hosts[0].Quarantine = &api.Quarantine{Reason: "odd <b>packets</b>"}
	for who, sees := range map[string]bool{"operator": true, "auditor": true, "engineer": false} {
		page := v.page(who, "/hosts/"+h.hosts[0].Name)
		for _, text := range []string{"/root/.ssh/&lt;b&gt;keys", "Fails", "Debian 12", "no-certificate", "203.0.113.9", "Seen from outside"} {
			if strings.Contains(page, text) != sees {
				t.Errorf("%s sees %q: %v, want %v", who, text, !sees, sees)
			}
		}
		if !strings.Contains(page, "it is not as it should be") || !strings.Contains(page, "odd &lt;b&gt;packets") {
			t.Errorf("%s does not see how the host is", who)
		}
	}
}
