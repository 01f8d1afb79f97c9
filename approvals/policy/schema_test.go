package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

func decoded[T any](t testing.TB, text []byte, decode func([]byte, any) error) T {
	t.Helper()
	var v T
	if err := decode(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unyaml(text []byte, v any) error { return yaml.Unmarshal(text, v) }

func TestSchemaTakesWhatParseTakes(t *testing.T) {
	t.Parallel()
	s := decoded[schema](t, Schema(), json.Unmarshal)
	for _, file := range []string{"testdata/complete.yaml", "../../internal/demo/policy.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if err := validate(s, decoded[any](t, text, unyaml), ""); err != nil {
			t.Errorf("%s: the schema refuses it: %v", file, err)
		}
	}
}

// The complete document has every key of the schema, the schema has a description
// for each, and a mistake in form is a mistake to both.
func TestSchemaKnowsEveryKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := decoded[schema](t, Schema(), json.Unmarshal)
	known, used := map[string]bool{}, map[string]bool{}
	keysOfSchema(t, s, "", known)
	keysOf(decoded[any](t, text, unyaml), "", known, used)
	for key := range known {
		if !used[key] {
			t.Errorf("the complete document lacks %s", key)
		}
	}
	for key := range keysOfTypes(reflect.TypeFor[document](), "") {
		if !known[key] {
			t.Errorf("the schema lacks %s", key)
		}
	}
	for _, c := range [][2]string{
		{"sallyport: 1", "sallyport: 2"}, {"auditor: [auditors]", "admin: [auditors]"}, {"logins: [root]", "logins: root"},
		{"logins: [root]", "logins: []"}, {"name: web", "name: Web Rule"}, {"max: 1h", "max: soon"}, {"count: 2", "count: 0"},
		{"approve_within:", "aprove_within:"}, {"days: [fri]", "days: [friday]"}, {`to: "12:30"`, `to: "12:60"`},
		{"assurance: provider", "assurance: trust"}, {"[phr, phrh]", "[phr, phr]"}, {"forwarding: [port, agent]", "forwarding: [sockets]"},
		{"who: [oncall]", "who: []"}, {"times: 2, by: 30m", "times: 2"}, {"automatic: true\ntests", "automatic: sometimes\ntests"}, {"hosts: 10%", "hosts: 0%"}, {"on_failure: rollback", "on_failure: ignore"},
		{"uses: 2", "uses: 200"}, {"source_address: [192.0.2.0/24], ", ""}, {"< 0.01", "about 1"}, {"from: \"2026-12-20T18:00\"", "from: \"2026-12-20\""},
		{"    where: class=app\n", ""}, {"zone: Europe/Berlin", "zones: Europe/Berlin"}, {"[1 from approvers]", "[approvers]"},
	} {
		if !strings.Contains(string(text), c[0]) {
			t.Fatalf("the document has no %q", c[0])
		}
		wrong := []byte(strings.Replace(string(text), c[0], c[1], 1))
		if _, err := Parse(wrong); err == nil {
			t.Errorf("%q: Parse takes it", c[1])
		}
		if validate(s, decoded[any](t, wrong, unyaml), "") == nil {
			t.Errorf("%q: the schema takes it", c[1])
		}
	}
}

func keysOfSchema(t *testing.T, s schema, path string, known map[string]bool) {
	for _, choice := range orEmpty[[]any](s["anyOf"]) {
		keysOfSchema(t, choice.(schema), path, known)
	}
	if items, ok := s["items"].(schema); ok {
		keysOfSchema(t, items, path+"[]", known)
	}
	for key, property := range orEmpty[schema](s["properties"]) {
		at := path + "." + key
		known[at] = true
		if d := orEmpty[string](property.(schema)["description"]); d == "" && path != ".roles" {
			t.Errorf("%s has no description", at)
		}
		keysOfSchema(t, property.(schema), at, known)
	}
}

func keysOf(v any, path string, known, used map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if at := path + "." + key; known[at] { // others are labels
				used[at] = true
				keysOf(value, at, known, used)
			}
		}
	case []any:
		for _, item := range v {
			keysOf(item, path+"[]", known, used)
		}
	}
}

func keysOfTypes(t reflect.Type, path string) map[string]bool {
	out := map[string]bool{}
	switch t.Kind() {
	case reflect.Pointer:
		return keysOfTypes(t.Elem(), path)
	case reflect.Slice:
		return keysOfTypes(t.Elem(), path+"[]")
	case reflect.Struct:
		for i := range t.NumField() {
			f, at := t.Field(i), path
			if key := f.Tag.Get("yaml"); key != "" {
				at += "." + key
				out[at] = true
			}
			maps.Copy(out, keysOfTypes(f.Type, at))
		}
	}
	return out
}

func orEmpty[T any](v any) T { out, _ := v.(T); return out }

// validate is as much of JSON Schema (draft 7) as the schema uses; what it does
// not know, it refuses.
func validate(s schema, v any, path string) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...))
	}
	number := func(v any) float64 {
		rv := reflect.ValueOf(v)
		switch {
		case rv.CanInt():
			return float64(rv.Int())
		case rv.CanUint():
			return float64(rv.Uint())
		}
		return orEmpty[float64](v)
	}
	text, isText := v.(string)
	array, isArray := v.([]any)
	object, isObject := v.(map[string]any)
	for key, want := range s {
		ok := true
		switch key {
		case "$schema", "title", "description", "examples", "format":
		case "type":
			_, isBool := v.(bool)
			rv := reflect.ValueOf(v)
			ok = map[string]bool{"string": isText, "array": isArray, "object": isObject, "boolean": isBool,
				"integer": rv.IsValid() && (rv.CanInt() || rv.CanUint())}[want.(string)]
		case "const":
			ok = number(v) == number(want)
		case "enum":
			ok = slices.Contains(want.([]any), v)
		case "anyOf":
			ok = slices.ContainsFunc(want.([]any), func(choice any) bool { return validate(choice.(schema), v, path) == nil })
		case "pattern":
			ok = isText && regexp.MustCompile(want.(string)).MatchString(text)
		case "minLength":
			ok = float64(utf8.RuneCountInString(text)) >= number(want)
		case "maxLength":
			ok = float64(utf8.RuneCountInString(text)) <= number(want)
		case "minimum":
			ok = number(v) >= number(want)
		case "maximum":
			ok = number(v) <= number(want)
		case "minItems":
			ok = float64(len(array)) >= number(want)
		case "maxItems":
			ok = float64(len(array)) <= number(want)
		case "uniqueItems":
			for i, item := range array {
				ok = ok && slices.Index(array, item) == i
			}
		case "items":
			for i, item := range array {
				if err := validate(want.(schema), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
					return err
				}
			}
		case "minProperties":
			ok = float64(len(object)) >= number(want)
		case "maxProperties":
			ok = float64(len(object)) <= number(want)
		case "propertyNames":
			for name := range object {
				if err := validate(want.(schema), name, path+"."+name); err != nil {
					return err
				}
			}
		case "required":
			for _, name := range want.([]any) {
				_, there := object[name.(string)]
				ok = ok && there
			}
		case "properties":
			for name, value := range object {
				if property, known := want.(schema)[name].(schema); known {
					if err := validate(property, value, path+"."+name); err != nil {
						return err
					}
				}
			}
		case "additionalProperties":
			properties := orEmpty[schema](s["properties"])
			for name, value := range object {
				if _, known := properties[name]; known {
					continue
				}
				if want == false {
					return wrong("unknown key %q", name)
				}
				if err := validate(want.(schema), value, path+"."+name); err != nil {
					return err
				}
			}
		default:
			return wrong("this test knows no %q", key)
		}
		if !ok {
			return wrong("%v is not as %s: %v wants it", v, key, want)
		}
	}
	return nil
}
