package stream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/audit/event"
)

// schema is testdata/ocsf.json: of OCSF's classes and objects what documents use of
// them, and what they must have.
type schema struct {
	Version  string            `json:"version"`
	Category struct{ UID int } `json:"category"`
	Classes  map[string]shape  `json:"classes"`
	Objects  map[string]shape  `json:"objects"`
}

type shape struct {
	AtLeastOne []string             `json:"at_least_one"`
	Attributes map[string]attribute `json:"attributes"`
}

type attribute struct {
	Requirement string            `json:"requirement"`
	Type        string            `json:"type"`
	Array       bool              `json:"array"`
	Enum        map[string]string `json:"enum"`
}

func readSchema(t testing.TB) schema {
	t.Helper()
	text, err := os.ReadFile("testdata/ocsf.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// check says what is wrong with a document.
func (s schema) check(line []byte) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	var doc map[string]any
	if err := dec.Decode(&doc); err != nil {
		return []string{err.Error()}
	}
	class := fmt.Sprint(doc["class_uid"])
	of, ok := s.Classes[class]
	if !ok {
		return []string{"class " + class}
	}
	if fmt.Sprint(doc["category_uid"]) != fmt.Sprint(s.Category.UID) {
		say("category_uid %v", doc["category_uid"])
	}
	uid, _ := strconv.Atoi(class)
	activity, _ := strconv.Atoi(fmt.Sprint(doc["activity_id"]))
	if fmt.Sprint(doc["type_uid"]) != fmt.Sprint(100*uid+activity) {
		say("type_uid %v of class %s, activity %d", doc["type_uid"], class, activity)
	}
	s.object(doc, of, "", say)
	return wrong
}

func (s schema) object(doc map[string]any, of shape, path string, say func(string, ...any)) {
	for name, a := range of.Attributes {
		if _, ok := doc[name]; !ok && a.Requirement == "required" {
			say("%s%s is missing", path, name)
		}
	}
	if len(of.AtLeastOne) > 0 && !slices.ContainsFunc(of.AtLeastOne, func(name string) bool { _, ok := doc[name]; return ok }) {
		say("%sneeds one of %v", path, of.AtLeastOne)
	}
	for name, value := range doc {
		a, ok := of.Attributes[name]
		if !ok {
			say("%s%s is no attribute", path, name)
			continue
		}
		if !a.Array {
			s.value(value, a, path+name, say)
			continue
		}
		list, ok := value.([]any)
		if !ok {
			say("%s%s is no list", path, name)
		}
		for _, item := range list {
			s.value(item, a, path+name, say)
		}
	}
}

func (s schema) value(value any, a attribute, path string, say func(string, ...any)) {
	switch a.Type {
	case "string_t":
		if _, ok := value.(string); !ok {
			say("%s is no string", path)
		}
	case "ip_t":
		text, _ := value.(string)
		if _, err := netip.ParseAddr(text); err != nil {
			say("%s is no address: %v", path, value)
		}
	case "integer_t", "long_t", "timestamp_t":
		n, ok := value.(json.Number)
		if _, err := n.Int64(); !ok || err != nil {
			say("%s is no integer: %v", path, value)
		}
		if _, known := a.Enum[n.String()]; len(a.Enum) > 0 && !known {
			say("%s is %v, which is not in %v", path, value, a.Enum)
		}
	case "object":
	default:
		inner, ok := value.(map[string]any)
		if !ok {
			say("%s is no object", path)
			return
		}
		of, known := s.Objects[a.Type]
		if !known {
			say("%s is of type %s", path, a.Type)
			return
		}
		s.object(inner, of, path+".", say)
	}
}

func entry(t testing.TB, leaf []byte) audit.Entry {
	t.Helper()
	var l struct {
		ID   uuid.UUID `json:"id"`
		Type string    `json:"type"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal(leaf, &l); err != nil {
		t.Fatal(err)
	}
	return audit.Entry{Index: 7, ID: l.ID, Type: l.Type, Time: l.Time, Leaf: leaf, LeafHash: tlog.RecordHash(leaf)}
}

// Every type of event that there is becomes a document that the schema allows, with the
// leaf in it.
func TestEveryEventIsOCSF(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	if s.Version != OCSFVersion {
		t.Errorf("the table is of version %s, documents of %s", s.Version, OCSFVersion)
	}
	files, err := filepath.Glob("../event/testdata/golden/*.json")
	if err != nil || len(files) < 80 {
		t.Fatalf("%d events, %v", len(files), err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		leaf, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		leaf = bytes.TrimSuffix(leaf, []byte("\n"))
		e := entry(t, leaf)
		seen[e.Type] = true
		if _, ok := meanings[e.Type]; !ok {
			t.Errorf("%s has no meaning in OCSF: add it to meanings", e.Type)
		}
		line := origin{"log.example.com", "1.2.3"}.convert(e)
		for _, wrong := range s.check(line) {
			t.Errorf("%s: %s", filepath.Base(file), wrong)
		}
		if bytes.ContainsAny(line, "\n\r") {
			t.Errorf("%s is more than one line", file)
		}
		var doc document
		if err := json.Unmarshal(line, &doc); err != nil || doc.RawData != string(leaf) || doc.Metadata.UID != e.ID.String() || doc.Message == "" {
			t.Errorf("%s: %v, %+v", file, err, doc)
		}
	}
	for typ := range meanings {
		if !seen[typ] {
			t.Errorf("%s means something in OCSF, and there is no such event", typ)
		}
	}
}

// What the requester writes is data, whatever it looks like; and what cannot be read, or
// is of a newer version, is told all the same.
func TestHostileLeavesAreOneLineEach(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	evil := event.New(time.Unix(1e9, 0), event.Actor{Kind: event.Person, ID: "per-000000000000", Name: "a\n{\"class_uid\":1}\u2028<script>"}, "192.0.2.7",
		event.Subject{}, event.RequestClosed{State: "cancelled", Comment: "\r\n\"},{\"x\":\"\x00"})
	leaf, err := evil.Encode()
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(leaf), `"request.closed"`, `"quantum.entangled"`, 1)
	for name, leaf := range map[string]string{"hostile": string(leaf), "newer": newer} {
		line := origin{"log.example.com", ""}.convert(entry(t, []byte(leaf)))
		if wrong := s.check(line); len(wrong) > 0 || bytes.Count(line, []byte("\n")) != 0 {
			t.Errorf("%s: %v\n%s", name, wrong, line)
		}
	}
	broken := audit.Entry{Index: 1, Type: "x", Time: time.Unix(1e9, 0), Leaf: []byte("\xff no JSON")}
	line := origin{"log.example.com", ""}.convert(broken)
	if wrong := s.check(line); len(wrong) > 0 || !strings.Contains(string(line), "cannot be read") {
		t.Errorf("%v\n%s", wrong, line)
	}
}

// The check of the other tests finds what is wrong.
func TestTheCheckChecks(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	leaf, err := os.ReadFile("../event/testdata/golden/person.signed_in.empty.json")
	if err != nil {
		t.Fatal(err)
	}
	leaf = bytes.ReplaceAll(leaf, []byte(`,"host_id":"host-7k3m9q2x4f8h"`), nil)
	good := string(origin{"log.example.com", "1"}.convert(entry(t, bytes.TrimSuffix(leaf, []byte("\n")))))
	if wrong := s.check([]byte(good)); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for name, change := range map[string][2]string{
		"no user":       {`"user":{`, `"nobody":{`},
		"no version":    {`"version":"1.9.0-dev"`, `"verse":""`},
		"severity":      {`"severity_id":1`, `"severity_id":17`},
		"activity":      {`"activity_id":1`, `"activity_id":40`},
		"type":          {`"type_uid":300201`, `"type_uid":300299`},
		"category":      {`"category_uid":3`, `"category_uid":4`},
		"no service":    {`"service":{"name":"sallyport"},`, ``},
		"time as text":  {`"time":`, `"time":"x","x":`},
		"message":       {`"message":"`, `"message":1,"y":"`},
		"another class": {`"class_uid":3002`, `"class_uid":3003`},
	} {
		changed := strings.Replace(good, change[0], change[1], 1)
		if changed == good {
			t.Errorf("%s: nothing changed", name)
		} else if len(s.check([]byte(changed))) == 0 {
			t.Errorf("%s is not found", name)
		}
	}
}
