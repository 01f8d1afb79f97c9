package approvals

import (
	"time"

	"sallyport/approvals/grant"
)

// The texts that are kept, and the rules that hold for them, are package grant's,
// which is pure. They are this room's words too.
type (
	Terms          = grant.Terms
	TermsPerson    = grant.TermsPerson
	TermsHost      = grant.TermsHost
	TermsRule      = grant.TermsRule
	TermsExtend    = grant.TermsExtend
	TermsEmergency = grant.TermsEmergency
	TermsStage     = grant.TermsStage
	TermsSlot      = grant.TermsSlot

	Statement          = grant.Statement
	StatementApprover  = grant.StatementApprover
	StatementSignIn    = grant.StatementSignIn
	StatementDelegator = grant.StatementDelegator
	Delegation         = grant.Delegation
	ReviewStatement    = grant.ReviewStatement

	ProposalStatement = grant.ProposalStatement
	PolicyStatement   = grant.PolicyStatement
	Activation        = grant.Activation
	VersionEvidence   = grant.VersionEvidence
	VouchedStatement  = grant.VouchedStatement

	Grant    = grant.Grant
	Evidence = grant.Evidence
)

// Their forms and limits.
const (
	TermsFormat          = grant.TermsFormat
	StatementFormat      = grant.StatementFormat
	DelegationFormat     = grant.DelegationFormat
	ReviewFormat         = grant.ReviewFormat
	ProposalFormat       = grant.ProposalFormat
	PolicyDecisionFormat = grant.PolicyDecisionFormat
	ActivationFormat     = grant.ActivationFormat

	MaxHosts      = grant.MaxHosts
	MaxDelegation = grant.MaxDelegation
)

// What the rules refuse.
var (
	ErrEvidence     = grant.ErrEvidence
	ErrNoGrant      = grant.ErrNoGrant
	ErrNotStarted   = grant.ErrNotStarted
	ErrGrantEnded   = grant.ErrGrantEnded
	ErrSignInTooOld = grant.ErrSignInTooOld
	ErrBadSelector  = grant.ErrBadSelector
)

// Readers and checks of the texts.
var (
	ParseTerms     = grant.ParseTerms
	ParseStatement = grant.ParseStatement
	ParseReview    = grant.ParseReview
	CheckReview    = grant.CheckReview
	OpenDelegation = grant.OpenDelegation
)

func hash(text []byte) string { return grant.Hash(text) }

func short(d time.Duration) string { return grant.Short(d) }
