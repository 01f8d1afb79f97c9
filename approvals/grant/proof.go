package grant

import (
	"fmt"
	"time"

	"sallyport/approvals/evidence"
	"sallyport/approvals/policy"
)

// Assured is how strongly what somebody says must be proved.
type Assured struct {
	Assurance string        // session or provider, see package evidence
	MaxAge    time.Duration // of the person's authentication; 0: any
	ACRValues []string
}

// Assured is how strongly decisions on the terms must be proved.
func (t Terms) Assured() (Assured, error) {
	times, err := t.Times()
	return Assured{t.Rule.Assurance, times.MaxAge, t.Rule.ACRValues}, err
}

// ReviewAssured is how strongly a review of the terms' emergency must be proved: as
// a decision on them.
func (t Terms) ReviewAssured() (Assured, error) {
	want, err := t.Assured()
	want.Assurance = t.Emergency.ReviewAssurance()
	return want, err
}

// PolicyAssured is how strongly decisions on the version that is to follow p must
// be proved.
func PolicyAssured(p *policy.Policy) Assured { return Assured{Assurance: string(p.Assurance)} }

// Said is what a statement says of itself that its proof must fit.
type Said struct {
	By        StatementApprover
	Groups    []string // that the provider must say they are in
	At        time.Time
	Assurance string
	SignIn    *StatementSignIn
	ClientID  string
}

// Said is what the proof of the decision must fit.
func (s Statement) Said() Said {
	return Said{s.Approver, s.ownGroups(), s.Time, s.Assurance, s.SignIn, s.ClientID}
}

// Said is what the proof of the review must fit. Reviews of before there was a
// choice do not say what proves them.
func (s ReviewStatement) Said() Said {
	assurance := s.Assurance
	if assurance == "" {
		assurance = evidence.Session
	}
	return Said{s.Reviewer, s.Groups, s.Time, assurance, s.SignIn, s.ClientID}
}

// Said is what the proof of the decision must fit.
func (s PolicyStatement) Said() Said {
	return Said{s.Approver, s.Groups, s.Time, s.Assurance, s.SignIn, s.ClientID}
}

// Proved says why what was said is not proved as it must be, or nil. It has the
// assurance that is wanted, neither a weaker one nor another.
func (s Said) Proved(want Assured, e Evidence, a evidence.Anchor) error {
	if s.Assurance != want.Assurance {
		return fmt.Errorf("it has assurance %q, and %q is wanted", s.Assurance, want.Assurance)
	}
	d := evidence.Decision{
		Statement: e.Statement, Issuer: s.By.Issuer, Subject: s.By.Subject, ClientID: s.ClientID,
		Groups: s.Groups, Made: s.At, Taken: e.Taken, MaxAge: want.MaxAge, ACRValues: want.ACRValues,
	}
	if s.SignIn != nil {
		d.AuthTime = s.SignIn.AuthTime
	}
	return evidence.Verify(s.Assurance, d, e.Proof, a)
}

func (s *StatementSignIn) utc() *StatementSignIn {
	if s == nil {
		return nil
	}
	out := *s
	out.AuthTime = out.AuthTime.UTC()
	return &out
}
