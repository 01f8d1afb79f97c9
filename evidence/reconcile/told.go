package reconcile

import (
	"slices"

	"sallyport/approvals/grant"
	"sallyport/audit/event"
)

// Events tell in fields of their own what the texts in them say, and lists show
// those fields. What counts is the text, which has a hash, and often somebody's
// signature. So both must say the same: a verifier that looks at the texts alone
// would let a list say something else.

func tellsTerms(d event.RequestCreated, t grant.Terms) bool {
	return d.Host == t.Host.Name && slices.Equal(d.Hosts, t.HostNames()) && d.Login == t.Login && d.Duration == t.Duration &&
		d.Rule == t.Rule.Name && d.Reason == t.Reason && d.Ticket == t.Ticket && d.Emergency == (t.Emergency != nil) &&
		d.Drill == t.Drill() && d.Extends == t.Extends
}

func tellsDecision(d event.RequestDecided, s grant.Statement) bool {
	return d.Verdict == string(s.Verdict) && d.Comment == s.Comment && d.TermsHash == s.TermsHash && slices.Equal(d.Groups, s.Groups) &&
		tellsAssurance(d.Assurance, s.Assurance)
}

func tellsReview(d event.ReviewGiven, s grant.ReviewStatement) bool {
	return d.Verdict == s.Verdict && d.Comment == s.Comment && d.TermsHash == s.TermsHash && d.Late == s.Late &&
		slices.Equal(d.Groups, s.Groups) && tellsAssurance(d.Assurance, s.Said().Assurance)
}

func tellsPolicyDecision(d event.PolicyDecided, s grant.PolicyStatement) bool {
	return d.ProposalID == s.ProposalID && d.ProposalHash == s.ProposalHash && d.Verdict == string(s.Verdict) && d.Comment == s.Comment &&
		slices.Equal(d.Groups, s.Groups) && tellsAssurance(d.Assurance, s.Assurance)
}

// tellsAssurance: events of before there was a choice do not say it.
func tellsAssurance(told, said string) bool { return told == "" || told == said }
