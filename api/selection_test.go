package api

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func TestHostNames(t *testing.T) {
	t.Parallel()
	for n, want := range []string{"", "db-1", "db-1 and db-2", "db-1, db-2 and db-3", "db-1, db-2 and 2 more", "db-1, db-2 and 3 more"} {
		r := Request{Login: "dba", Host: "db-1", HostID: "host-1"}
		for i := range n {
			r.Hosts = append(r.Hosts, RequestHost{ID: fmt.Sprintf("host-%d", i+1), Name: fmt.Sprintf("db-%d", i+1)})
		}
		if got := HostNames(r.Hosts); got != want {
			t.Errorf("%d hosts: %q, want %q", n, got, want)
		}
		// A broker of an older version says no hosts but the one.
		if got := r.Where(); got != "dba@"+max(want, "db-1") && n != 0 || n == 0 && got != "dba@db-1" {
			t.Errorf("%d hosts: %q", n, got)
		}
		if last := fmt.Sprintf("db-%d", max(1, n)); !r.On(last) || !r.On("host-1") || r.On("db-9") || r.On("") {
			t.Errorf("%d hosts: %+v", n, r.Hosts)
		}
	}
}

func TestSelectorText(t *testing.T) {
	t.Parallel()
	got, err := ParseSelector(" env=prod, class=database ,empty=")
	if err != nil || SelectorText(got) != "class=database,empty=,env=prod" {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "a", "=", "=b", ",", "a=b,", "a=b,a=c", "a==b", "a!=b", "a in (b)", "!a", "a>1"} {
		if got, err := ParseSelector(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	for _, text := range []string{"class=database,env=prod", "a=", " a = b ", "a!=b", "a=b,a=b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(SelectorText(got))
		if err != nil || !maps.Equal(got, again) {
			t.Errorf("%q is read as %v, and that as %v (%v)", text, got, again, err)
		}
		for label := range got {
			if strings.ContainsAny(label, ",=") {
				t.Errorf("%q has the label %q", text, label)
			}
		}
	})
}
