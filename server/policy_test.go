package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/internal/clock"
	"sallyport/server/rest"
)

// join adds somebody to the kit's people.
func (k *kit) join(t *testing.T, name string, groups ...string) {
	t.Helper()
	people, err := identity.New(identity.Config{Pool: k.db.Pool, Log: k.log, Clock: clock.System})
	if err != nil {
		t.Fatal(err)
	}
	p, err := people.SignIn(t.Context(), identity.Claims{Issuer: "http://127.0.0.1:1", Subject: name, Name: name,
		Groups: groups, AuthTime: time.Now()}, "web", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	k.arrives(name, p)
}

func proposalBody(t *testing.T, document string) string {
	t.Helper()
	b, err := json.Marshal(api.PolicyInput{Document: document, Comment: "more time"})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPolicyThroughTheAPI takes a document from its proposal into force.
func TestPolicyThroughTheAPI(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.join(t, "second", "operators")
	k.host(t, "db-1", "database", "dba")
	before := get[api.PolicyVersion](t, k.do(t, "auditor", "GET", "/api/v1/policy", ""), 200)
	document := strings.Replace(testPolicy, "max: 2h", "max: 3h", 1)
	const at = "/api/v1/policy/proposals"

	dry := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at+"?dry_run=true", proposalBody(t, document)), 200)
	if dry.ID != "" || !strings.Contains(dry.Diff.Text, "+    duration: {default: 30m, max: 3h}") || len(dry.Effect.Reach) != 1 {
		t.Errorf("a dry run: %+v", dry)
	}
	p := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at, proposalBody(t, document)), 201)
	if p.Base != before.PolicyRef || p.Diff.Hash != dry.Diff.Hash {
		t.Errorf("proposal %+v", p)
	}
	own := problemOf(t, k.do(t, "operator", "POST", at+"/"+p.ID+"/decisions", `{"verdict":"approve"}`), 403)
	if own.Code != "own-proposal" {
		t.Errorf("one's own: %s", own.Code)
	}
	page := k.do(t, "operator", "GET", "/policy/proposals/"+p.ID, "", "Accept", "text/html")
	if page.StatusCode != 200 || !strings.Contains(string(page.body), "Nobody decides on their own proposal.") {
		t.Errorf("the author's page: %s", page.Status)
	}
	done := get[api.PolicyProposal](t, k.do(t, "second", "POST", at+"/"+p.ID+"/decisions",
		fmt.Sprintf(`{"verdict":"approve","statement_hash":%q}`, p.Statement)), 200)
	if done.State != api.ProposalApproved || done.Version != 2 {
		t.Errorf("approved: %+v", done)
	}
	force := get[api.PolicyVersion](t, k.do(t, "auditor", "GET", "/api/v1/policy", ""), 200)
	if force.Version != 2 || force.Document != document || force.Approver.Name != "second" {
		t.Errorf("in force: %+v", force)
	}
	if r := k.ask(t, "db-1", "dba"); r.Policy != force.PolicyRef {
		t.Errorf("a request is under %+v", r.Policy)
	}
	list := get[api.Page[api.PolicyVersion]](t, k.do(t, "auditor", "GET", "/api/v1/policy/versions", ""), 200)
	one := get[api.PolicyVersion](t, k.do(t, "auditor", "GET", "/api/v1/policy/versions/1", ""), 200)
	if len(list.Items) != 2 || one.Document != testPolicy || one.InForce {
		t.Errorf("versions %+v, %+v", list, one)
	}
	problemOf(t, k.do(t, "auditor", "GET", "/api/v1/policy/versions/3", ""), 404)
	problemOf(t, k.do(t, "auditor", "GET", at+"/pol-000000000000", ""), 404)
	open := get[api.Page[api.PolicyProposal]](t, k.do(t, "auditor", "GET", at+"?open=true", ""), 200)
	all := get[api.Page[api.PolicyProposal]](t, k.do(t, "auditor", "GET", at, ""), 200)
	if len(open.Items) != 0 || len(all.Items) != 1 || all.Items[0].Document != "" {
		t.Errorf("proposals %+v, open %+v", all, open)
	}
	back := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at, proposalBody(t, testPolicy)), 201)
	gone := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at+"/"+back.ID+"/withdraw", ""), 200)
	if gone.State != api.ProposalWithdrawn {
		t.Errorf("withdrawn: %+v", gone)
	}
}

// TestP10_WhoMayDoWhatWithThePolicy is the matrix of these calls.
func TestP10_WhoMayDoWhatWithThePolicy(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.join(t, "second", "operators")
	document := strings.Replace(testPolicy, "max: 2h", "max: 3h", 1)
	const at = "/api/v1/policy/proposals"
	p := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at, proposalBody(t, document)), 201)
	who := []string{"", "engineer", "stranger", "approver", "auditor", "operator", "second"}
	for _, c := range []struct {
		method, path, body string
		want               []int
	}{
		{"GET", "/api/v1/policy", "", []int{401, 403, 403, 403, 200, 200, 200}},
		{"GET", "/api/v1/policy/versions", "", []int{401, 403, 403, 403, 200, 200, 200}},
		{"GET", "/api/v1/policy/versions/1", "", []int{401, 403, 403, 403, 200, 200, 200}},
		{"GET", at, "", []int{401, 403, 403, 403, 200, 200, 200}},
		{"GET", at + "/" + p.ID, "", []int{401, 403, 403, 403, 200, 200, 200}},
		{"POST", at + "?dry_run=true", proposalBody(t, document), []int{401, 403, 403, 403, 403, 200, 200}},
		{"POST", at, proposalBody(t, document), []int{401, 403, 403, 403, 403, 201, 201}},
		{"POST", at + "/" + p.ID + "/decisions", `{"verdict":"deny"}`, []int{401, 403, 403, 403, 403, 403, 200}},
		{"POST", at + "/" + p.ID + "/withdraw", "", []int{401, 403, 403, 403, 403, 409, 403}},
	} {
		for i, want := range c.want {
			a := k.do(t, who[i], c.method, c.path, c.body)
			if a.StatusCode != want {
				t.Errorf("%s %s by %q: %d, want %d\n%s", c.method, c.path, who[i], a.StatusCode, want, a.body)
			} else if want >= 400 {
				problemOf(t, a, want)
			}
		}
	}
}

// TestLargePolicies sends documents that no other call would take.
func TestLargePolicies(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.join(t, "second", "operators")
	document := strings.Replace(testPolicy, "max: 2h", "max: 3h", 1)
	document += strings.Repeat("# "+strings.Repeat("x", 97)+"\n", 20_000) // 2 MB
	const at = "/api/v1/policy/proposals"
	p := get[api.PolicyProposal](t, k.do(t, "operator", "POST", at, proposalBody(t, document)), 201)
	if p.Document != document || !p.Diff.Truncated || p.Diff.Added != 20_001 || len(p.Diff.Text) > 300<<10 {
		t.Errorf("a large one: %d bytes of document, %d of diff", len(p.Document), len(p.Diff.Text))
	}
	done := get[api.PolicyProposal](t, k.do(t, "second", "POST", at+"/"+p.ID+"/decisions", `{"verdict":"approve"}`), 200)
	if done.Version != 2 {
		t.Errorf("approved: %s", done.State)
	}
	// Longer than a document may be, and than a body may be.
	if pr := problemOf(t, k.do(t, "operator", "POST", at, proposalBody(t, document+document+document)), 422); pr.Code != "invalid-input" {
		t.Errorf("6 MB: %s", pr.Code)
	}
	pr := problemOf(t, k.do(t, "operator", "POST", at, `{"document":"`+strings.Repeat("x", api.MaxPolicyBody)+`"}`), 413)
	if !strings.Contains(pr.Detail, "8 MiB") {
		t.Errorf("8 MiB: %s", pr.Detail)
	}
	// Others are refused without their body being read, and other calls take no more
	// than before.
	body := strings.NewReader(proposalBody(t, document))
	req, err := http.NewRequest("POST", k.http.URL+at, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	req.Header.Set(whoHeader, "engineer")
	problemOf(t, k.send(t, req), 403)
	problemOf(t, k.do(t, "operator", "POST", at+"/"+p.ID+"/decisions", `{"comment":"`+strings.Repeat("x", rest.MaxBody)+`"}`), 413)
	problemOf(t, k.do(t, "engineer", "POST", "/api/v1/requests", `{"reason":"`+strings.Repeat("x", rest.MaxBody)+`"}`), 413)
}
