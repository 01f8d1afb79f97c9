package approvals_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

func sum(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

// forge is a grant made by hand, as good as somebody could make it who may write
// every column: all hashes fit.
type forge struct {
	terms      approvals.Terms
	statements []approvals.Statement
	state      api.State
	start, end time.Time
	key        string
}

// goodForge is what an honest grant of two approvals looks like.
func goodForge() *forge {
	f := &forge{state: api.Approved, start: start.Add(20 * time.Minute), end: start.Add(50 * time.Minute)}
	f.terms = approvals.Terms{
		Format: approvals.TermsFormat, RequestID: ids.New(ids.Request),
		Person: approvals.TermsPerson{ID: ids.New(ids.Person), Issuer: "https://id.test", Subject: "erin"},
		Host:   approvals.TermsHost{ID: ids.New(ids.Host), Name: "db-1"}, Login: "root", Duration: "30m",
		CreatedAt: start, ApproveBy: start.Add(time.Hour), PolicyHash: strings.Repeat("ab", 32), PolicyVersion: 1,
		Rule: approvals.TermsRule{Name: "root", CertificateLifetime: "5m", SourceAddress: []string{}, Assurance: evidence.Session,
			Stages: []approvals.TermsStage{{Slots: []approvals.TermsSlot{
				{Groups: []string{"approvers"}, Count: 1}, {Groups: []string{"security"}, Count: 1}}}}},
	}
	f.approve("ann", "approvers", 10*time.Minute)
	f.approve("sam", "security", 20*time.Minute)
	return f
}

func (f *forge) approve(subject, group string, after time.Duration) {
	f.statements = append(f.statements, approvals.Statement{
		Format: approvals.StatementFormat, RequestID: f.terms.RequestID, Verdict: api.Approve,
		Approver: approvals.StatementApprover{ID: ids.New(ids.Person), Issuer: "https://id.test", Subject: subject},
		Groups:   []string{group}, PolicyHash: f.terms.PolicyHash, Time: start.Add(after), Random: strings.Repeat("0", 32),
		Assurance: evidence.Session, SignIn: &approvals.StatementSignIn{AuthTime: start},
	})
}

// grant makes all hashes fit, also those in statements that name none.
func (f *forge) grant(t testing.TB) approvals.Grant {
	t.Helper()
	text, err := f.terms.Encode()
	must(t, err)
	g := approvals.Grant{
		RequestID: f.terms.RequestID, State: f.state, Terms: f.terms, TermsText: text, TermsHash: sum(text),
		Person:   f.terms.Person,
		StartsAt: f.start, EndsAt: f.end, Key: f.key,
	}
	for _, s := range f.statements {
		if s.TermsHash == "" {
			s.TermsHash = g.TermsHash
		}
		text, err := s.Encode()
		must(t, err)
		g.Decisions = append(g.Decisions, approvals.Evidence{Statement: text, Hash: sum(text), Taken: s.Time})
	}
	return g
}

// What somebody could write into the database to get a certificate, with all
// hashes right, and what Check says to it.
func TestP5_CheckRefusesForgedGrants(t *testing.T) {
	t.Parallel()
	noGrant, ended, notStarted := approvals.ErrNoGrant, approvals.ErrGrantEnded, approvals.ErrNotStarted
	badEvidence := approvals.ErrEvidence
	now := start.Add(25 * time.Minute)
	for name, tt := range map[string]struct {
		forge func(*forge)
		want  *refusal.Error
	}{
		"honest":                       {func(f *forge) {}, nil},
		"honest, active":               {func(f *forge) { f.state, f.key = api.Active, "SHA256:k" }, nil},
		"honest, ended early":          {func(f *forge) { f.end = now }, ended},
		"undecided":                    {func(f *forge) { f.state = api.Requested }, noGrant},
		"denied":                       {func(f *forge) { f.state = api.Denied }, noGrant},
		"cancelled":                    {func(f *forge) { f.state = api.Cancelled }, noGrant},
		"expired":                      {func(f *forge) { f.state = api.Expired }, noGrant},
		"ended":                        {func(f *forge) { f.state = api.Ended }, ended},
		"state unknown":                {func(f *forge) { f.state = "" }, noGrant},
		"no decision":                  {func(f *forge) { f.statements = nil; f.start, f.end = start, start.Add(30*time.Minute) }, badEvidence},
		"one slot empty":               {func(f *forge) { f.statements = f.statements[1:] }, badEvidence},
		"one group for both slots":     {func(f *forge) { f.statements[1].Groups = []string{"approvers"} }, badEvidence},
		"no groups":                    {func(f *forge) { f.statements[1].Groups = nil }, badEvidence},
		"one person twice":             {func(f *forge) { f.statements[1].Approver = f.statements[0].Approver }, badEvidence},
		"one id twice":                 {func(f *forge) { f.statements[1].Approver.ID = f.statements[0].Approver.ID }, badEvidence},
		"one subject under two ids":    {func(f *forge) { f.statements[1].Approver.Subject = "ann" }, badEvidence},
		"by the requester":             {func(f *forge) { f.statements[1].Approver.ID = f.terms.Person.ID }, badEvidence},
		"by the requester's other id":  {func(f *forge) { f.statements[1].Approver.Subject = "erin" }, badEvidence},
		"by no person":                 {func(f *forge) { f.statements[1].Approver.ID = "agent-1" }, badEvidence},
		"a denial":                     {func(f *forge) { f.statements[1].Verdict = api.Deny }, badEvidence},
		"a denial besides":             {func(f *forge) { f.approve("di", "security", 20*time.Minute); f.statements[2].Verdict = api.Deny }, badEvidence},
		"another request's decision":   {func(f *forge) { f.statements[1].RequestID = ids.New(ids.Request) }, badEvidence},
		"a decision on other terms":    {func(f *forge) { f.statements[1].TermsHash = strings.Repeat("0", 64) }, badEvidence},
		"a decision on another policy": {func(f *forge) { f.statements[1].PolicyHash = "" }, badEvidence},
		"decided before it was asked":  {func(f *forge) { f.statements[0].Time = start.Add(-time.Second) }, badEvidence},
		"decided out of order":         {func(f *forge) { f.statements[0].Time = start.Add(21 * time.Minute) }, badEvidence},
		"decided at approve_by":        {func(f *forge) { f.terms.ApproveBy = start.Add(20 * time.Minute) }, badEvidence},
		"starts early":                 {func(f *forge) { f.start = start.Add(19 * time.Minute) }, badEvidence},
		"moved to later":               {func(f *forge) { f.start, f.end = f.start.Add(24*time.Hour), f.end.Add(24*time.Hour) }, badEvidence},
		"longer than asked for":        {func(f *forge) { f.end = f.end.Add(time.Microsecond) }, badEvidence},
		"before its start": {func(f *forge) {
			at := start.Add(40 * time.Minute)
			f.terms.NotBefore, f.start, f.end = &at, at, at.Add(30*time.Minute)
		}, notStarted},
		"another key than named": {func(f *forge) { f.terms.PublicKey, f.key = "SHA256:a", "SHA256:b" }, badEvidence},
		"the key that is named":  {func(f *forge) { f.terms.PublicKey, f.key = "SHA256:a", "SHA256:a" }, nil},
		"unused for too long":    {func(f *forge) { f.terms.Rule.StartWithin = "5m" }, ended},
		"used in time":           {func(f *forge) { f.terms.Rule.StartWithin, f.state = "5m", api.Active }, nil},
		"a slot for nobody":      {func(f *forge) { f.terms.Rule.Stages[0].Slots[1].Groups = nil }, badEvidence},
		"no stages": {func(f *forge) {
			f.terms.Rule.Stages = nil
			f.statements = nil
			f.start, f.end = start, start.Add(30*time.Minute)
		}, badEvidence},
		"automatic besides": {func(f *forge) { f.terms.Rule.Automatic = true }, badEvidence},
		"automatic": {func(f *forge) {
			f.terms.Rule.Automatic, f.terms.Rule.Stages, f.statements = true, nil, nil
			f.start, f.end = start, start.Add(30*time.Minute)
		}, nil},
		"terms without an assurance": {func(f *forge) { f.terms.Rule.Assurance = "" }, badEvidence},
		"terms with another":         {func(f *forge) { f.terms.Rule.Assurance = evidence.Provider }, badEvidence},
		"an assurance of no kind": {func(f *forge) {
			f.terms.Rule.Assurance = "trust me"
			f.statements[0].Assurance, f.statements[1].Assurance = "trust me", "trust me"
		}, badEvidence},
		"decided before signing in": {func(f *forge) { f.statements[0].SignIn.AuthTime = start.Add(11 * time.Minute) }, badEvidence},
		"decided without a sign-in": {func(f *forge) { f.statements[0].SignIn = nil }, badEvidence},
		"of no form":                {func(f *forge) { f.terms.Format = "sallyport.terms/0" }, badEvidence},
		"endless":                   {func(f *forge) { f.terms.Duration = "forever" }, badEvidence},
		"for no time":               {func(f *forge) { f.terms.Duration = "-1h" }, badEvidence},
		"no certificate":            {func(f *forge) { f.terms.Rule.CertificateLifetime = "" }, badEvidence},
	} {
		f := goodForge()
		tt.forge(f)
		err := f.grant(t).Check(now)
		if tt.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if tt.want != nil && (refusal.As(err) == nil || refusal.As(err).Code != tt.want.Code) {
			t.Errorf("%s: %v, want %s", name, err, tt.want.Code)
		}
	}
}

// What could be wrong between the texts and the columns.
func TestP4_CheckTrustsOnlyTheTexts(t *testing.T) {
	t.Parallel()
	now := start.Add(25 * time.Minute)
	for name, change := range map[string]func(*approvals.Grant){
		"other terms than the text's": func(g *approvals.Grant) { g.Terms.Login = "postgres" },
		"text without its hash":       func(g *approvals.Grant) { g.TermsHash = strings.Repeat("0", 64) },
		"changed text": func(g *approvals.Grant) {
			g.TermsText = []byte(strings.Replace(string(g.TermsText), `"30m"`, `"90m"`, 1))
		},
		"text with a space": func(g *approvals.Grant) {
			g.TermsText = append(g.TermsText, ' ')
			g.TermsHash = sum(g.TermsText)
		},
		"no text":           func(g *approvals.Grant) { g.TermsText = nil; g.TermsHash = sum(nil) },
		"another request":   func(g *approvals.Grant) { g.RequestID = ids.New(ids.Request) },
		"another person":    func(g *approvals.Grant) { g.Person.ID = ids.New(ids.Person) },
		"another subject":   func(g *approvals.Grant) { g.Person.Subject = "eve" },
		"another issuer":    func(g *approvals.Grant) { g.Person.Issuer = "https://evil.test" },
		"decision's hash":   func(g *approvals.Grant) { g.Decisions[0].Hash = g.Decisions[1].Hash },
		"decision repeated": func(g *approvals.Grant) { g.Decisions[1] = g.Decisions[0] },
		"decision that is none": func(g *approvals.Grant) {
			g.Decisions[1] = approvals.Evidence{Statement: []byte("{}"), Hash: sum([]byte("{}"))}
		},
		"decision with one key more": func(g *approvals.Grant) {
			text := []byte(strings.Replace(string(g.Decisions[1].Statement), `{"format"`, `{"override":true,"format"`, 1))
			g.Decisions[1].Statement, g.Decisions[1].Hash = text, sum(text)
		},
		"decision taken before it was said": func(g *approvals.Grant) { g.Decisions[0].Taken = start },
		"decision taken long afterwards":    func(g *approvals.Grant) { g.Decisions[0].Taken = start.Add(15 * time.Minute) },
		"decision with a token besides":     func(g *approvals.Grant) { g.Decisions[0].Proof.IDToken = "a.b.c" },
		"decisions swapped":                 func(g *approvals.Grant) { slices.Reverse(g.Decisions) },
	} {
		g := goodForge().grant(t)
		must(t, g.Check(now))
		change(&g)
		if err := g.Check(now); refusal.As(err) == nil || refusal.As(err).Code != "evidence-refused" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestP3_CheckAtTheEdges(t *testing.T) {
	t.Parallel()
	g := goodForge().grant(t)
	const tick = time.Microsecond
	refused(t, g.Check(g.StartsAt.Add(-tick)), approvals.ErrNotStarted)
	must(t, g.Check(g.StartsAt))
	must(t, g.Check(g.EndsAt.Add(-tick)))
	refused(t, g.Check(g.EndsAt), approvals.ErrGrantEnded)
}
