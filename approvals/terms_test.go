package approvals_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sallyport/approvals"
)

func TestTermsHaveOneForm(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 3, 11, 9, 30, 0, 120_000, time.FixedZone("CET", 3600))
	f := goodForge()
	f.terms.Reason, f.terms.NotBefore = `<a href="x">&`+"\u2028\n", &at
	text, err := f.terms.Encode()
	must(t, err)
	if !strings.Contains(string(text), `"reason":"<a href=\"x\">&\u2028\n"`) || !strings.Contains(string(text), `"not_before":"2025-03-11T08:30:00.00012Z"`) {
		t.Errorf("terms are %s", text)
	}
	got, err := approvals.ParseTerms(text)
	must(t, err)
	if again, err := got.Encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("again: %s, %v", again, err)
	}
	s := string(text)
	for name, other := range map[string]string{
		"white space":     strings.Replace(s, ",", ", ", 1),
		"line at the end": s + "\n",
		"second document": s + s,
		"unknown key":     strings.Replace(s, `"login"`, `"sudo":true,"login"`, 1),
		"missing key":     strings.Replace(s, `"ticket":"",`, "", 1),
		"key twice":       strings.Replace(s, `"login":"root"`, `"login":"dba","login":"root"`, 1),
		"key in capitals": strings.Replace(s, `"login"`, `"Login"`, 1),
		"other order":     strings.Replace(s, `"login":"root","duration":"30m"`, `"duration":"30m","login":"root"`, 1),
		"escaped letters": strings.Replace(s, `"root"`, `"\u0072oot"`, 1),
		"HTML escaping":   strings.Replace(s, `&`, `\u0026`, 1),
		"another zone":    strings.Replace(s, `2025-03-11T08:30:00.00012Z`, `2025-03-11T09:30:00.00012+01:00`, 1),
		"number as such":  strings.Replace(s, `"policy_version":"1"`, `"policy_version":1`, 1),
		"another format":  strings.Replace(s, approvals.TermsFormat, "sallyport.terms/2", 1),
		"not UTF-8":       strings.Replace(s, `"root"`, "\"r\xffot\"", 1),
		"null":            "null",
		"nothing":         "",
	} {
		if other == s {
			t.Fatalf("%s: the test changes nothing", name)
		}
		if _, err := approvals.ParseTerms([]byte(other)); err == nil {
			t.Errorf("%s is taken for terms", name)
		}
	}
}

func FuzzParseTerms(f *testing.F) {
	text, err := goodForge().terms.Encode()
	must(f, err)
	f.Add(text)
	f.Add([]byte(`{"format":"sallyport.terms/1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		terms, err := approvals.ParseTerms(text)
		if err != nil {
			return
		}
		if again, err := terms.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q was read, and is written as %q", text, again)
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	for _, e := range goodForge().grant(f).Decisions {
		f.Add(e.Statement)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := approvals.ParseStatement(text)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q was read, and is written as %q", text, again)
		}
	})
}
