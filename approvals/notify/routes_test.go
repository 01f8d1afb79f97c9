package notify

import (
	"reflect"
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := &Setup{byGroup: map[string][]string{"dba": {"chat", "mail"}, "sec": {"mail", "pager"}}, fallback: []string{"list"}}
	for _, c := range []struct {
		name   string
		groups []string
		want   []route
	}{
		{"no group", nil, nil},
		{"one", []string{"dba"}, []route{{"chat", []string{"dba"}}, {"mail", []string{"dba"}}}},
		{"two share a channel, which tells once", []string{"dba", "sec"},
			[]route{{"chat", []string{"dba"}}, {"mail", []string{"dba", "sec"}}, {"pager", []string{"sec"}}}},
		{"one without a route takes the default", []string{"sec", "others"},
			[]route{{"mail", []string{"sec"}}, {"pager", []string{"sec"}}, {"list", []string{"others"}}}},
		{"named twice", []string{"dba", "dba"}, []route{{"chat", []string{"dba"}}, {"mail", []string{"dba"}}}},
	} {
		if got := s.routes(c.groups); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	s.fallback = nil
	if got := s.routes([]string{"others"}); got != nil {
		t.Errorf("without route and default: %v", got)
	}
}

func TestDoubts(t *testing.T) {
	t.Parallel()
	s := &Setup{byGroup: map[string][]string{"dba": {"chat"}, "gone": {"chat"}}}
	doubts := strings.Join(s.Doubts([]string{"dba", "sec"}), "\n")
	for _, want := range []string{"routes.gone", "group sec has no route", "operators"} {
		if !strings.Contains(doubts, want) {
			t.Errorf("nothing about %q in\n%s", want, doubts)
		}
	}
	s = &Setup{byGroup: map[string][]string{"dba": {"chat"}}, fallback: []string{"chat"}, operators: []string{"chat"}}
	if got := s.Doubts([]string{"dba", "sec"}); len(got) > 0 {
		t.Errorf("doubts about a whole file: %q", got)
	}
}
