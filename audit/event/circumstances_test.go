package event

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Every type says what its events carry, and nothing else does.
func TestEveryTypeHasCircumstances(t *testing.T) {
	t.Parallel()
	types := map[string]bool{}
	for k := range registry {
		types[k.name] = true
		if c, ok := CircumstancesOf(k.name); !ok || len(c.By) == 0 {
			t.Errorf("%s has no circumstances", k.name)
		}
	}
	for name := range circumstances {
		if !types[name] {
			t.Errorf("circumstances of %s, which is no type", name)
		}
	}
}

func TestCompleteNamesWhatIsLacking(t *testing.T) {
	t.Parallel()
	whole := func() Event {
		e := New(time.Now(), Actor{Kind: Person, ID: "per-1"}, "192.0.2.7",
			Subject{RequestID: "req-1", PersonID: "per-1", HostID: "host-1"}, RequestCreated{}).Under(PolicyRef{Version: 1, Hash: "ab"})
		return e
	}
	if err := whole().Complete(); err != nil {
		t.Fatal(err)
	}
	of := func(data Data, actor Actor, source string) Event {
		return New(time.Now(), actor, source, Subject{}, data)
	}
	broker := Actor{Kind: Broker}
	for name, c := range map[string]struct {
		event Event
		want  string // "" for none
	}{
		"no id":                    {func() Event { e := whole(); e.ID = uuid.Nil; return e }(), "no id"},
		"no time":                  {func() Event { e := whole(); e.Time = time.Time{}; return e }(), "no time"},
		"nobody":                   {func() Event { e := whole(); e.Actor = Actor{}; return e }(), "actor of kind"},
		"nobody known":             {func() Event { e := whole(); e.Actor.ID = ""; return e }(), `the id ""`},
		"another kind":             {func() Event { e := whole(); e.Actor.Kind = Agent; return e }(), "actor of kind"},
		"no source":                {func() Event { e := whole(); e.Source = ""; return e }(), "no source"},
		"a name for a source":      {func() Event { e := whole(); e.Source = "localhost"; return e }(), "source address"},
		"no policy":                {func() Event { e := whole(); e.Policy = nil; return e }(), "policy"},
		"an empty policy":          {func() Event { e := whole(); e.Policy = &PolicyRef{}; return e }(), "policy"},
		"no request":               {func() Event { e := whole(); e.Subject.RequestID = ""; return e }(), "no request"},
		"no person":                {func() Event { e := whole(); e.Subject.PersonID = ""; return e }(), "no person"},
		"no host":                  {func() Event { e := whole(); e.Subject.HostID = ""; return e }(), "no host"},
		"for nobody":               {of(PackMade{}, broker, ""), "for whom"},
		"the broker with an id":    {of(KeysLoaded{}, Actor{Kind: Broker, ID: "b"}, ""), `the id "b"`},
		"the broker by itself":     {of(KeysLoaded{}, broker, ""), ""},
		"a stranger":               {of(SignInFailed{}, Actor{Kind: Person}, "192.0.2.7"), ""},
		"a stranger from nowhere":  {of(SignInFailed{}, Actor{Kind: Person}, ""), "no source"},
		"what is in no catalogue":  {of(private{}, broker, ""), "catalogue"},
		"an event without content": {Event{Type: "grant.ended"}, "catalogue"},
	} {
		err := c.event.Complete()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every type is written by some part of the broker: none is only promised. That what
// is written is complete is checked of every event that any test causes (package
// audittest).
func TestEveryTypeIsWritten(t *testing.T) {
	t.Parallel()
	made := regexp.MustCompile(`\bevent\.([A-Z]\w+)\{`)
	written := map[string]bool{}
	for _, room := range []string{"approvals", "audit", "broker", "evidence", "server", "cmd"} {
		err := filepath.WalkDir(filepath.Join("../..", room), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range made.FindAllSubmatch(text, -1) {
				written[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range Catalogue() {
		if name := reflect.TypeOf(d).Name(); !written[name] {
			t.Errorf("nothing writes %s", name)
		}
	}
}
