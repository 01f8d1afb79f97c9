package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/vouch"
	"sallyport/internal/ids"
)

// DecisionFormat names the form of Statement, and DecisionKind what the broker's note
// about one vouches for (package audit/vouch): its hash.
const (
	DecisionFormat = "sallyport.deployment-decision/1"
	DecisionKind   = "deployment-decision/1"
)

// Statement is what a person says to a deployment, in a form that is kept.
type Statement struct {
	Format       string                  `json:"format"` // DecisionFormat
	DeploymentID string                  `json:"deployment_id"`
	TermsHash    string                  `json:"terms_hash"`
	About        string                  `json:"about"` // start, gate/…, override/…: what, and which time
	Verdict      api.Verdict             `json:"verdict"`
	Approver     grant.StatementApprover `json:"approver"`
	Groups       []string                `json:"groups"` // of the approver then, of those that the terms name
	Comment      string                  `json:"comment,omitempty"`
	Until        time.Time               `json:"until,omitzero"` // of an override
	Time         time.Time               `json:"time"`
	Random       string                  `json:"random"`              // 128 bits, hex
	Assurance    string                  `json:"assurance"`           // how it is proved, see package evidence
	SignIn       *grant.StatementSignIn  `json:"sign_in,omitempty"`   // of the approver, with session
	ClientID     string                  `json:"client_id,omitempty"` // Sallyport's at the approver's issuer, with provider
}

// Encode returns the canonical bytes.
func (s Statement) Encode() ([]byte, error) {
	s.Time, s.Until = s.Time.UTC(), s.Until.UTC()
	return grant.Canonical(s)
}

// ParseStatement reads a canonical statement.
func ParseStatement(text []byte) (s Statement, err error) {
	if err := grant.ParseCanonical(text, &s); err != nil {
		return s, fmt.Errorf("reading a decision: %w", err)
	}
	return s, nil
}

// Of is what the statement is about: start, override or gate, and of a gate which.
func (s Statement) Of() (kind string, batch int, gate string) {
	parts := strings.SplitN(s.About, "/", 4)
	if len(parts) == 4 {
		batch, _ = strconv.Atoi(parts[1]) // what is no number is no batch
		gate = parts[3]
	}
	return parts[0], batch, gate
}

// Said is what the proof of the decision must fit.
func (s Statement) Said() grant.Said {
	return grant.Said{By: s.Approver, Groups: s.Groups, At: s.Time, Assurance: s.Assurance, SignIn: s.SignIn, ClientID: s.ClientID}
}

// Assured is how strongly decisions on the deployment must be proved.
func (t *Terms) Assured() grant.Assured {
	return grant.Assured{Assurance: t.Assurance, MaxAge: t.MaxAgeFor(), ACRValues: t.ACRValues}
}

// Decision is a statement as it is kept, with the note that vouches for it and what
// proves it.
type Decision struct {
	Text, Note []byte
	Taken      time.Time
	IDToken    string // with assurance provider
	Keys       []byte // and the note about the provider's keys then
}

// Open reads the decision, if the log's key vouches for it, it is about the deployment,
// and it is proved as strongly as the terms want it.
func (d Decision) Open(t *Terms, termsHash, logKey string) (s Statement, hash string, err error) {
	if s, err = ParseStatement(d.Text); err != nil {
		return s, "", err
	}
	hash = Hash(d.Text)
	said, err := vouch.Open(DecisionKind, d.Note, logKey)
	switch {
	case err != nil:
		return s, "", err
	case said != hash:
		return s, "", errors.New("the note vouches for another decision")
	case s.Format != DecisionFormat || s.TermsHash != termsHash || s.DeploymentID != t.DeploymentID || !ids.Valid(ids.Person, s.Approver.ID):
		return s, "", errors.New("the decision is about something else, or nobody's")
	}
	kept := grant.Evidence{Statement: d.Text, Hash: hash, Taken: d.Taken, Proof: evidence.Proof{IDToken: d.IDToken, Keys: d.Keys}}
	if err := s.Said().Proved(t.Assured(), kept, evidence.Anchor{LogKey: logKey}); err != nil {
		return s, "", fmt.Errorf("%w: %w", ErrUnproved, err)
	}
	return s, hash, nil
}

// ErrUnproved is of a decision that is not proved as the terms want it.
var ErrUnproved = errors.New("the decision is not proved")

// Tally is what people have said about one thing.
type Tally struct {
	policy.Progress
	Denied   bool
	Hashes   []string // of the evidence, in order
	Until    time.Time
	Approved []policy.Approval
}

// Count recomputes from what is kept how far the stages are filled. It takes nobody's
// word for it: a decision that the log's key does not vouch for, or that is not proved, is
// an error.
func (t *Terms) Count(about string, stages []grant.TermsStage, decisions []Decision, termsHash, logKey string) (Tally, error) {
	var out Tally
	for _, d := range decisions {
		s, hash, err := d.Open(t, termsHash, logKey)
		if err != nil {
			return out, err
		}
		if s.About != about {
			continue
		}
		if s.Verdict == api.Deny {
			out.Denied = true
		} else {
			out.Approved = append(out.Approved, policy.Approval{PersonID: s.Approver.ID, Groups: s.Groups})
			if out.Until.IsZero() || s.Until.Before(out.Until) {
				out.Until = s.Until
			}
		}
		out.Hashes = append(out.Hashes, hash)
	}
	out.Progress = policy.Quorum(Stages(stages), out.Approved)
	return out, nil
}

// Overridden is until when people let the deployment go on in freezes, by what is kept,
// each time that they were asked; zero, if they never did.
func (t *Terms) Overridden(decisions []Decision, termsHash, logKey string) (until time.Time, err error) {
	asked := map[string]bool{}
	for _, d := range decisions {
		if s, err := ParseStatement(d.Text); err == nil && strings.HasPrefix(s.About, "override/") {
			asked[s.About] = true
		}
	}
	for about := range asked {
		tally, err := t.Count(about, t.Override, decisions, termsHash, logKey)
		if err != nil {
			return time.Time{}, err
		}
		if tally.Complete && tally.Until.After(until) {
			until = tally.Until
		}
	}
	return until, nil
}

// Started reports whether the job's token says that a person with the address caused it.
func (t *Terms) Started(email string) bool {
	if email == "" {
		return false
	}
	for _, value := range t.Agent.Claims {
		if strings.EqualFold(value, email) {
			return true
		}
	}
	return false
}
