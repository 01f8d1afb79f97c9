package notify

import (
	"slices"
	"testing"

	"sallyport/api"
)

// Whoever decides on several hosts reads it in the first line, and every name below.
func TestMessagesNameEveryHost(t *testing.T) {
	t.Parallel()
	r := asked()
	for _, name := range []string{"db-1", "db-2", "db-3", "db-4", "db-5"} {
		r.Hosts = append(r.Hosts, api.RequestHost{ID: "host-00000000000" + name[3:], Name: name})
	}
	m := messageOf(Waiting, r)
	if got := m.headline(); got != "Erin Engineer asks for dba@db-1, db-2 and 3 more for 30m" {
		t.Errorf("headline %q", got)
	}
	if facts := m.facts(); !slices.Contains(facts, fact{"All 5 hosts", "db-1, db-2, db-3, db-4, db-5"}) {
		t.Errorf("facts %q", facts)
	}
	if hosts := payload(m).Data.Request.Hosts; len(hosts) != 5 || hosts[4] != (PayloadHost{"host-000000000005", "db-5"}) {
		t.Errorf("the webhook says %+v", hosts)
	}
	r.Hosts = r.Hosts[:1]
	if hosts := payload(messageOf(Waiting, r)).Data.Request.Hosts; hosts != nil {
		t.Errorf("of one host the webhook says %+v", hosts)
	}
}
