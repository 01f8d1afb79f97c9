package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/hosts"
)

// The reach of a person is exactly what their own list of hosts offers them, page
// by page, whoever asks.
func TestPersonReachIsWhatTheyAreOffered(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 5 {
		s.host(fmt.Sprintf("app-%d", i), "10.0.4.1", "app", "web") // for nobody
		s.host(fmt.Sprintf("more-%d", i), "10.0.4.2", "database", "dba", "other")
	}
	people := []identity.Caller{s.engineer, s.approver, s.person("wanda", "web-people"), s.operator}
	for _, person := range people {
		list, err := s.ListHosts(t.Context(), person, broker.HostFilter{Filter: hosts.Filter{Limit: 200}})
		must(t, err)
		offered := []string{}
		for _, h := range list.Items {
			for _, r := range h.Rules {
				offered = append(offered, r.Login+"@"+h.Name+" by "+r.Rule)
			}
		}
		for as, who := range map[*identity.Caller]string{&person: "me", &s.auditor: person.ID} {
			found, cursor := []string{}, ""
			for {
				page, err := s.PersonReach(t.Context(), *as, who, hosts.Filter{Cursor: cursor, Limit: 2})
				must(t, err)
				if page.Person.ID != person.ID || len(page.Hosts.Items) > 2 {
					t.Fatalf("a page of %s: %+v", person.Name, page)
				}
				for _, h := range page.Hosts.Items {
					for _, l := range h.Logins {
						found = append(found, l.Login+"@"+h.Host+" by "+l.Rule)
					}
				}
				if cursor = page.Hosts.Next; cursor == "" {
					break
				}
			}
			if !slices.Equal(found, offered) {
				t.Errorf("%s (%s): reaches %q, is offered %q", person.Name, who, found, offered)
			}
		}
	}
	some, err := s.PersonReach(t.Context(), s.engineer, "me", hosts.Filter{Selector: "class=web"})
	if err != nil || len(some.Hosts.Items) != 1 || some.Hosts.Items[0].Host != "web-1" || len(some.Hosts.Items[0].Logins) != 1 {
		t.Errorf("with a selector: %+v, %v", some, err)
	}
	if _, err := s.PersonReach(t.Context(), s.engineer, s.approver.ID, hosts.Filter{}); !errors.Is(err, identity.ErrUnknownPerson) {
		t.Errorf("an engineer about others: %v", err)
	}
	must(t, func() error {
		_, err := s.PersonReach(t.Context(), s.operator, s.approver.ID, hosts.Filter{})
		return err
	}())
}
