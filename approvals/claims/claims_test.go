package claims

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

const minimal = `{"iss":"https://i.example.com","sub":"s","aud":"a"}`

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(`{"iss":"https://i.example.com","sub":"s","aud":["a","b"],"jti":"j","iat":1700000000,"nbf":1.7e9,"exp":1700000300.75,"n":{"m":[1,true,null]}}`))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 0).UTC()
	if c.Issuer != "https://i.example.com" || c.Subject != "s" || c.ID != "j" || len(c.Audience) != 2 ||
		!c.IssuedAt.Equal(at) || !c.NotBefore.Equal(at) || !c.Expires.Equal(at.Add(300*time.Second)) {
		t.Errorf("%+v", c)
	}
	if _, there := c.at("n", "m"); !there {
		t.Error("what is within an object is not found")
	}
	for _, path := range [][]string{{"n", "x"}, {"x", "m"}, {"sub", "x"}, {"n", "m", "x"}} {
		if v, there := c.at(path...); there {
			t.Errorf("%v: %v", path, v)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for what, text := range map[string]string{
		"nothing": ``, "no object": `[]`, "text": `"x"`, "half": minimal[:20], "more": minimal + " x", "no issuer": `{"sub":"s","aud":"a"}`,
		"no subject": `{"iss":"i","aud":"a"}`, "no audience": `{"iss":"i","sub":"s"}`, "an empty subject": `{"iss":"i","sub":"","aud":"a"}`,
		"an issuer that is a number": `{"iss":1,"sub":"s","aud":"a"}`, "an id that is a number": strings.Replace(minimal, "{", `{"jti":1,`, 1),
		"an id that is null": strings.Replace(minimal, "{", `{"jti":null,`, 1), "no end": minimal[:len(minimal)-1], "a comma": strings.Replace(minimal, "}", ",}", 1),
		"a long subject": strings.Replace(minimal, `"s"`, `"`+strings.Repeat("s", 1025)+`"`, 1), "a long id": strings.Replace(minimal, "{", `{"jti":"`+strings.Repeat("j", 257)+`",`, 1),
		"large": strings.Replace(minimal, `"s"`, `"s"`+strings.Repeat(" ", MaxBytes), 1), "a tab": strings.Replace(minimal, `"s"`, `"s\t"`, 1),
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Errors say what is wrong with a token, and not what stands in it (P11).
func TestErrorsDoNotQuoteTheToken(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"secret":"hunter2"`, `{"iss":"hunter2"}`, `{"a":hunter2}`, `{"iss":"i","sub":"s","aud":"a","exp":"hunter2"}`, `{"hunter2":1,"hunter2":2}`} {
		if _, err := Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}

// By the address that GitLab gives of who started a job they are known, and kept from
// deciding about it.
func TestWhoStartedAJobAtGitLabIsTold(t *testing.T) {
	c, err := Parse([]byte(strings.Replace(minimal, "{", `{"user_email":"erin@example.com",`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if told := Told(Entry{Provider: GitLab}, c); told["user_email"] != "erin@example.com" {
		t.Errorf("%q", told)
	}
}

// What is told of a token is what its entry goes by and what ran, in bounds, and no more.
func TestToldOfAnEntry(t *testing.T) {
	t.Parallel()
	entry := Entry{Provider: Buildkite, Demands: []Demand{{Key: "build_branch", Path: []string{"build_branch"}, Values: []string{"main"}}}}
	c, err := Parse([]byte(strings.Replace(minimal, "{", `{"build_branch":"main","build_number":5,"step_key":null,"user_email":"x@example.com","job_id":"`+strings.Repeat("ü", 400)+`",`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	told := Told(entry, c)
	if len(told) != 3 || told["build_branch"] != "main" || told["build_number"] != "5" || len(told["job_id"]) != maxTold {
		t.Errorf("%q", told)
	}
	for provider, rules := range always {
		for _, r := range rules {
			if len(r.path) == 0 {
				t.Errorf("a rule of %s is about no claim", provider)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"iss":"i","sub":"s","aud":["a"],"exp":1e9,"iat":-1,"kubernetes.io":{"namespace":"n","pod":{"uid":"u"}}}`))
	f.Add([]byte(`{"iss":"i","sub":"s","aud":"a","a":1,"\u0061":2}`))
	entries := []Entry{
		{Provider: GitHub, Demands: []Demand{{Path: []string{"repository_id"}, Identity: true, Values: []string{"74061"}}}},
		{Provider: GitLab, Demands: []Demand{{Key: "environment", Path: []string{"environment"}, Values: []string{"production"}}}},
		{Provider: CircleCI, Demands: []Demand{{Path: []string{"oidc.circleci.com/project-id"}, Values: []string{"p"}}}},
		{Provider: Kubernetes, Demands: []Demand{{Path: []string{"kubernetes.io", "serviceaccount", "uid"}, Values: []string{"u"}}}},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		// What is read means the same to Go's own reader, whose last of two names counts.
		var all map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("%q is no JSON, and was read", text)
		}
		if all["iss"] != c.Issuer || all["sub"] != c.Subject || c.Issuer == "" {
			t.Fatalf("%q: %+v", text, c)
		}
		for i := range entries {
			e := entries[i]
			unmet := Match(e, c)
			value, there := c.at(e.Demands[0].Path...)
			got, ok := texts(value)
			listed := there && ok && strings.Contains("\x00"+strings.Join(got, "\x00")+"\x00", "\x00"+e.Demands[0].Values[0]+"\x00")
			if !listed && len(unmet) == 0 {
				t.Fatalf("%q fits the entry of %s", text, e.Provider)
			}
			for name, told := range Told(e, c) {
				if len(told) > maxTold || name == "" {
					t.Fatalf("%q is told of %q", told, name)
				}
			}
			if len(Times(c, time.Hour, time.Unix(1e9, 0))) == 0 && c.Expires.Sub(c.IssuedAt) > time.Hour {
				t.Fatalf("%q is good for too long", text)
			}
		}
	})
}
