package event

import (
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// full fills every field of the catalogue's struct with something.
func full(t reflect.Type) Data {
	v := reflect.New(t).Elem()
	for field, value := range v.Fields() {
		value.Set(something(field.Name, value.Type()))
	}
	return v.Interface().(Data)
}

func something(name string, t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch v.Interface().(type) {
	case string:
		v.SetString(name + " <&> ü \u2028")
	case bool:
		v.SetBool(true)
	case int:
		v.SetInt(12)
	case uint64:
		v.SetUint(1<<63 + 1)
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 3, 4, 6, 6, 7, 890_000, time.FixedZone("", 3600))))
	case []byte:
		v.SetBytes([]byte{0, 1, 254, 255})
	case []string:
		v.Set(reflect.ValueOf([]string{name, "b"}))
	case map[string]string:
		v.Set(reflect.ValueOf(map[string]string{"env": "prod", "class": name}))
	default:
		panic("the catalogue has a field of type " + t.String() + ": say here and in TestFieldTypes how it is encoded")
	}
	return v
}

func sample(d Data) Event {
	e := New(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Actor{Kind: Person, ID: "per-4f8k2m9qhx1z", Name: "Erin <Engineer>"},
		"192.0.2.7", Subject{RequestID: "req-4f8k2m9qhx1z", PersonID: "per-000000000001", HostID: "host-7k3m9q2x4f8h"}, d).
		Under(PolicyRef{Version: 1<<53 + 1, Hash: "ab12"})
	e.ID = uuid.MustParse("0195f000-0000-7000-8000-000000000001")
	e.OnBehalfOf = &Actor{Kind: Agent, ID: "agent-1"}
	return e
}

// The golden files are the published contract: a difference here breaks the
// programs of auditors, and needs a new version of the event.
func TestGolden(t *testing.T) {
	t.Parallel()
	for k, typ := range registry {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for form, data := range map[string]Data{"full": full(typ), "empty": reflect.New(typ).Elem().Interface().(Data)} {
				leaf, err := sample(data).Encode()
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", "golden", k.name+"."+form+".json")
				if *update {
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, leaf, 0o644)); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if string(leaf) != string(want) {
					t.Errorf("%s is now\n\t%s\nand was published as\n\t%s", path, leaf, want)
				}
				back, err := Decode(want)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				if again, err := back.Encode(); err != nil || string(again) != string(want) {
					t.Errorf("decoded and encoded again: %s, %v", again, err)
				}
				if strings.TrimSpace(back.Data.Summary()) == "" {
					t.Errorf("%s has no summary", k.name)
				}
			}
		})
	}
}

// Every struct of the package that is Data is in the registry.
func TestTheCatalogueIsRegistered(t *testing.T) {
	t.Parallel()
	registered := make(map[string]bool)
	for k, typ := range registry {
		registered[typ.Name()] = true
		if d := reflect.New(typ).Elem().Interface().(Data); kindOf(d) != k || k.version < 1 || !strings.Contains(k.name, ".") {
			t.Errorf("%s is registered as %v", typ.Name(), k)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "EventType" {
				continue
			}
			found++
			if name := f.Recv.List[0].Type.(*ast.Ident).Name; !registered[name] {
				t.Errorf("%s is not in the registry", name)
			}
		}
	}
	if found != len(registry) {
		t.Errorf("%d structs have EventType, %d are registered", found, len(registry))
	}
}

// The encoding's rules, for every field that there is: no floats, nothing whose
// order or form may vary, 64-bit integers as strings.
func TestFieldTypes(t *testing.T) {
	t.Parallel()
	allowed := []reflect.Type{
		reflect.TypeFor[string](), reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[time.Time](),
		reflect.TypeFor[[]byte](), reflect.TypeFor[[]string](), reflect.TypeFor[map[string]string](),
		reflect.TypeFor[Kind](), reflect.TypeFor[uuid.UUID](), reflect.TypeFor[Data](),
	}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for field := range typ.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" || strings.ToLower(name) != name {
				t.Errorf("%s.%s has the JSON name %q", typ, field.Name, name)
			}
			ft := field.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			switch {
			case ft.Kind() == reflect.Int64 || ft.Kind() == reflect.Uint64:
				if options != "string" {
					t.Errorf("%s.%s is a 64-bit integer and not encoded as a string", typ, field.Name)
				}
			case slices.Contains(allowed, ft):
			case ft.Kind() == reflect.Struct && ft.PkgPath() == typ.PkgPath() && typ == reflect.TypeFor[Event]():
				check(ft)
			default:
				t.Errorf("%s.%s is a %s", typ, field.Name, ft)
			}
		}
	}
	check(reflect.TypeFor[Event]())
	for _, typ := range registry {
		check(typ)
	}
}

func TestEncoding(t *testing.T) {
	t.Parallel()
	leaf, err := sample(full(reflect.TypeFor[CertificateIssued]())).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"serial":"9223372036854775809"`, `"version":"9007199254740993"`, `Erin <Engineer>`,
		`"valid_after":"2026-03-04T05:06:07.00089Z"`, `"time":"2026-03-04T05:06:07Z"`, `"pre_certificate":"AAH+/w=="`} {
		if !strings.Contains(string(leaf), want) {
			t.Errorf("no %s in %s", want, leaf)
		}
	}
	if strings.Contains(string(leaf), `\u003c`) || leaf[len(leaf)-1] != '}' {
		t.Errorf("HTML escapes, or something at the end: %s", leaf)
	}
}

// Whatever text people send, its event is encoded, as what Decode takes back.
func TestAnyTextRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.SampledFrom([]byte("\x00\x01\\u0fd\xef\xbf\xbd\xff\xe2\x80\xa8\"<\n a")), 0, 40).Draw(t, "text"))
		e := sample(SignInFailed{Via: text, Reason: text})
		leaf, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(leaf)
		if err != nil {
			t.Fatalf("%q: %v", leaf, err)
		}
		want := strings.ReplaceAll(strings.ToValidUTF8(perByte(text), "\uFFFD"), "\x00", "\uFFFD")
		if got := back.Data.(SignInFailed).Reason; got != want {
			t.Fatalf("%q became %q, want %q", text, got, want)
		}
	})
}

// perByte replaces each invalid byte by itself; strings.ToValidUTF8 replaces runs.
func perByte(s string) string { return string([]rune(s)) }

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]Event{
		"no data":       {ID: uuid.New(), Type: "grant.ended", Version: 1},
		"no id":         func() Event { e := sample(GrantEnded{}); e.ID = uuid.Nil; return e }(),
		"another type":  func() Event { e := sample(GrantEnded{}); e.Type = "grant.started"; return e }(),
		"not published": sample(private{}),
		"too long":      sample(RequestCreated{Reason: strings.Repeat("x", MaxSize)}),
		"a time that JSON has not": func() Event {
			e := sample(GrantEnded{})
			e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
			return e
		}(),
	} {
		if leaf, err := e.Encode(); err == nil {
			t.Errorf("%s: %s", name, leaf)
		}
	}
}

type private struct{}

func (private) EventType() (string, int) { return "private.event", 1 }
func (private) Summary() string          { return "" }

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	leaf, err := sample(GrantEnded{Reason: "time"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		s := strings.Replace(string(leaf), old, new, 1)
		if s == string(leaf) {
			t.Fatalf("%s is not in %s", old, leaf)
		}
		return s
	}
	for name, text := range map[string]string{
		"nothing":               "",
		"null":                  "null",
		"no object":             "[]",
		"cut off":               string(leaf[:len(leaf)-1]),
		"something follows":     string(leaf) + "{}",
		"a space follows":       string(leaf) + " ",
		"a line end follows":    string(leaf) + "\n",
		"a space":               replace(`,`, `, `),
		"unknown field":         replace(`"type"`, `"colour":"red","type"`),
		"unknown field of data": replace(`"reason"`, `"colour":"red","reason"`),
		"unknown type":          replace(`grant.ended`, `grant.begun`),
		"unknown version":       replace(`"version":1`, `"version":2`),
		"no data":               replace(`"data":{"reason":"time"}`, `"data":null`),
		"a field twice":         replace(`"reason":"time"`, `"reason":"time","reason":"time"`),
		"another case":          replace(`"reason"`, `"Reason"`),
		"an escape":             replace(`"time"}`, `"\u0074ime"}`),
		"another order":         replace(`"type":"grant.ended","version":1`, `"version":1,"type":"grant.ended"`),
		"another zone":          replace(`05:06:07Z`, `06:06:07+01:00`),
		"id in capitals":        replace(`0195f000`, `0195F000`),
		"no id":                 replace(`0195f000-0000-7000-8000-000000000001`, `00000000-0000-0000-0000-000000000000`),
		"a number, not text":    replace(`"version":"9007199254740993"`, `"version":9007199254740993`),
		"too long":              replace(`"time"`, `"`+strings.Repeat("x", MaxSize)+`"`),
	} {
		e, err := Decode([]byte(text))
		if err == nil {
			t.Errorf("%s: %+v", name, e)
		}
		if newer := name == "unknown type" || name == "unknown version"; newer && !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDsAreOfVersion7(t *testing.T) {
	t.Parallel()
	if v := New(time.Now(), Actor{}, "", Subject{}, GrantEnded{}).ID.Version(); v != 7 {
		t.Errorf("version %d", v)
	}
}

func FuzzDecode(f *testing.F) {
	for _, typ := range registry {
		leaf, err := sample(full(typ)).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(leaf)
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"type":"grant.ended","version":1,"data":{}}`))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		e, err := Decode(leaf)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil || string(again) != string(leaf) {
			t.Errorf("%q decodes, and encodes as %q, %v", leaf, again, err)
		}
		e.Data.Summary()
		e.Complete()
	})
}

// What is about several hosts says so, in one more field: what is about one is
// written as it always was.
func TestSubjectOfSeveralHosts(t *testing.T) {
	t.Parallel()
	e := sample(GrantEnded{Reason: "time"})
	one, err := e.Encode()
	if err != nil || strings.Contains(string(one), "host_ids") {
		t.Fatalf("%s, %v", one, err)
	}
	e.Subject.HostIDs = []string{"host-7k3m9q2x4f8h", "host-000000000001"}
	several, err := e.Encode()
	if err != nil || !strings.Contains(string(several), `"host_id":"host-7k3m9q2x4f8h","host_ids":["host-7k3m9q2x4f8h","host-000000000001"]}`) {
		t.Fatalf("%s, %v", several, err)
	}
	if back, err := Decode(several); err != nil || !slices.Equal(back.Subject.HostIDs, e.Subject.HostIDs) {
		t.Errorf("%+v, %v", back.Subject, err)
	}
}
