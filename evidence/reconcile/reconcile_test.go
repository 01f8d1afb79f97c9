package reconcile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/audit/event"
	"sallyport/evidence/populations"
	"sallyport/evidence/reconcile"
	"sallyport/internal/history"
	"sallyport/internal/ids"
)

// scene is a history with people in it.
type scene struct {
	*history.History
	erin, eve, liam, sam, olga, omar history.Person

	first   int64
	missing map[int64]bool
	from    time.Time
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{History: history.New(t, history.Document), missing: map[int64]bool{}, from: history.Start}
	s.erin, s.eve = s.Person("Erin", "engineers"), s.Person("Eve", "engineers")
	s.liam, s.sam = s.Person("Liam", "leads"), s.Person("Sam", "security")
	s.olga, s.omar = s.Person("Olga", "ops"), s.Person("Omar", "ops")
	return s
}

// find reconciles the history. To is the end of time.
func (s *scene) find() []reconcile.Exception {
	s.T.Helper()
	var found []reconcile.Exception
	g, err := reconcile.New(reconcile.Config{From: s.from, To: s.Now.Add(1000 * time.Hour), First: s.first, LogKey: s.Key,
		Document: func(hash string) ([]byte, error) {
			if text, ok := s.Document(hash); ok {
				return text, nil
			}
			return nil, errors.New("gone")
		},
		Report: func(x reconcile.Exception) error { found = append(found, x); return nil },
		Row:    func(*populations.Register, *populations.Event, []string) error { return nil }})
	must(s.T, err)
	for i, leaf := range s.Leaves[s.first:] {
		index := s.first + int64(i)
		if s.missing[index] {
			must(s.T, g.Missing(index))
			continue
		}
		e := populations.Read(index, leaf)
		token := ""
		if st, ok := e.Statement(); ok {
			all, err := s.IDTokens(s.T.Context(), []string{st.ID})
			must(s.T, err)
			token = all[st.ID]
		}
		must(s.T, g.Add(&e, token))
	}
	must(s.T, g.Finish())
	return found
}

// want wants exactly these codes, in this order.
func (s *scene) want(codes ...string) []reconcile.Exception {
	s.T.Helper()
	found := s.find()
	var got []string
	for _, x := range found {
		got = append(got, x.Code)
		if reconcile.Means(x.Code) == x.Code {
			s.T.Errorf("%s has no meaning", x.Code)
		}
	}
	if strings.Join(got, " ") != strings.Join(codes, " ") {
		s.T.Errorf("found %v, want %v", got, codes)
		for _, x := range found {
			s.T.Logf("  %s at %d: %s", x.Code, x.Index, x.Detail)
		}
	}
	return found
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// Each is something that must not happen, or that looks like it and may.
func TestExceptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		happens func(*scene)
		want    []string
	}{
		"nothing wrong": {func(s *scene) { s.Access(s.erin, s.liam, "databases", "db-1") }, nil},
		"signed by the provider": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "signed", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Decide(s.sam, api.Approve)
			r.Start()
			r.Certificate()
		}, nil},

		"a certificate that nobody approved": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"a certificate that the requester approved": {func(s *scene) {
			both := s.erin
			both.Groups = []string{"leads"}
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(both, api.Approve)
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"one of two approvals": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "signed", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"an approval that was denied": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Deny)
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"an approval of a provider that did not sign it": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "signed", "db-1"))
			r.Decide(s.liam, api.Approve)
			st := r.Statement(s.sam, api.Approve)
			someone := s.sam
			someone.Subject = "sub-Mallory" // whose token it is
			r.Say(someone, st)
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"an ID token that is not kept any more": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "signed", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Decide(s.sam, api.Approve)
			r.Start()
			r.Certificate()
			s.Forget()
		}, []string{reconcile.EvidenceMissing, reconcile.EvidenceMissing, reconcile.EvidenceMissing, reconcile.CertWithoutQuorum}},
		"terms that the policy does not give": {func(s *scene) {
			terms := s.Terms(s.erin, "databases", "db-1")
			terms.Rule.Automatic, terms.Rule.Stages = true, []grant.TermsStage{}
			r := s.Ask(s.erin, terms)
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"a policy that never was in force": {func(s *scene) {
			terms := s.Terms(s.erin, "databases", "db-1")
			terms.PolicyHash = strings.Repeat("ab", 32)
			r := s.Ask(s.erin, terms)
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
		}, []string{reconcile.RequestOtherPolicy, reconcile.CertWithoutQuorum}},
		"a policy that was in force before": {func(s *scene) {
			terms := s.Terms(s.erin, "databases", "db-1")
			s.Propose(s.olga, history.Document+"# two\n").Approve(s.omar)
			s.Now = s.Now.Add(time.Hour)
			terms.CreatedAt, terms.ApproveBy = s.Now, s.Now.Add(time.Hour)
			r := s.Ask(s.erin, terms)
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
		}, []string{reconcile.RequestOtherPolicy}},
		"a voided decision": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			s.By(s.olga, event.Subject{RequestID: r.ID}, event.DecisionVoided{DecisionID: decisionOf(s), Approver: s.liam.ID})
			r.Start()
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},
		"a grant that nobody used and nobody approved": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Start()
		}, []string{reconcile.GrantWithoutQuorum}},
		"a certificate without any request": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.ID = ids.New(ids.Request)
			r.Certificate()
		}, []string{reconcile.CertWithoutQuorum}},

		"a certificate for another host": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			u := r.Template()
			u.HostID = s.Host("db-2")
			r.Issue(u)
		}, []string{reconcile.CertOutsideGrant}},
		"a certificate for another login": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			u := r.Template()
			u.Login = "root"
			r.Issue(u)
		}, []string{reconcile.CertOutsideGrant}},
		"a certificate that lasts longer than the grant": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			u := r.Template()
			u.Lifetime, u.GrantEnds = time.Hour, s.Now.Add(time.Hour)
			r.Issue(u)
		}, []string{reconcile.CertOutsideGrant}},
		"a certificate with forwarding that the rule does not give": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			u := r.Template()
			u.Forwarding = []string{"agent"}
			r.Issue(u)
		}, []string{reconcile.CertOutsideGrant}},
		"a certificate for another key": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
			r.Key = s.eve.Key
			r.Certificate()
		}, []string{reconcile.CertOutsideGrant}},
		"a certificate after the end": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
			r.End("revoked")
			r.Certificate()
		}, []string{reconcile.CertOutsideGrant}},
		"a shorter certificate than there could be": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Approve)
			r.Start()
			u := r.Template()
			u.Lifetime = time.Minute
			r.Issue(u)
		}, nil},

		"an extension":                          {func(s *scene) { s.extended(s.erin) }, nil},
		"an extension of somebody else's grant": {func(s *scene) { s.extended(s.eve) }, []string{reconcile.CertWithoutQuorum}},

		"a login without a certificate":       {func(s *scene) { s.Session(s.Host("db-1"), `"login":"dba"`) }, []string{reconcile.SessionWithoutCert}},
		"a login with an unknown certificate": {func(s *scene) { s.Session(s.Host("db-1"), `"serial":"99","login":"dba"`) }, []string{reconcile.SessionWithoutCert}},
		"a login by its certificate": {func(s *scene) {
			r := s.Access(s.erin, s.liam, "databases", "db-1")
			s.Session(r.Host, fmt.Sprintf(`"serial":"%d","key_id":"%s:%s","login":"dba"`, s.Serial, r.ID, s.erin.ID))
		}, nil},
		"a login on another host": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			s.Session(s.Host("db-2"), fmt.Sprintf(`"serial":"%d","login":"dba"`, s.Serial))
		}, []string{reconcile.SessionOutsideCert}},
		"a login after the certificate's end": {func(s *scene) {
			r := s.Access(s.erin, s.liam, "databases", "db-1")
			s.Now = s.Now.Add(2 * time.Hour)
			s.Session(r.Host, fmt.Sprintf(`"serial":"%d","login":"dba"`, s.Serial))
		}, []string{reconcile.SessionOutsideCert}},
		"a login that was reported late": {func(s *scene) {
			r := s.Access(s.erin, s.liam, "databases", "db-1")
			at := s.Now
			s.Now = s.Now.Add(12 * time.Hour)
			s.Session(r.Host, fmt.Sprintf(`"serial":"%d","login":"dba","started_at":%q`, s.Serial, at.Format(time.RFC3339)))
		}, nil},

		"an emergency that was reviewed": {func(s *scene) { s.Emergency(s.erin, "databases", "db-1").Review(s.sam) }, nil},
		"an emergency whose review is not due": {func(s *scene) {
			s.Emergency(s.erin, "databases", "db-1")
		}, nil},
		"an emergency without review": {func(s *scene) {
			s.Emergency(s.erin, "databases", "db-1")
			s.Now = s.Now.Add(48 * time.Hour)
			s.Broker(event.KeysLoaded{})
		}, []string{reconcile.EmergencyUnreviewed}},
		"an emergency that was reviewed late": {func(s *scene) {
			r := s.Emergency(s.erin, "databases", "db-1")
			s.Now = s.Now.Add(48 * time.Hour)
			r.Review(s.sam)
		}, []string{reconcile.EmergencyLate}},
		"an emergency that its own person reviewed": {func(s *scene) {
			r := s.Emergency(s.erin, "databases", "db-1")
			own := s.erin
			own.Groups = []string{"security"}
			r.Review(own)
			s.Now = s.Now.Add(48 * time.Hour)
			s.Broker(event.KeysLoaded{})
		}, []string{reconcile.ReviewInvalid, reconcile.EmergencyUnreviewed}},
		"a second emergency": {func(s *scene) {
			s.Emergency(s.erin, "databases", "db-1")
			r := s.Emergency(s.erin, "databases", "db-2")
			r.Review(s.sam)
		}, []string{reconcile.EmergencySecond}},

		"an emergency whose review the provider signed": {func(s *scene) { s.Emergency(s.erin, "signed", "db-1").Review(s.sam) }, nil},
		"a review that the provider signed for somebody else": {func(s *scene) {
			r := s.Emergency(s.erin, "signed", "db-1")
			someone := s.sam
			someone.Subject = "sub-Mallory"
			r.SayReview(someone, r.ReviewStatement(s.sam))
		}, []string{reconcile.ReviewInvalid}},
		"a review that the provider was to sign": {func(s *scene) {
			r := s.Emergency(s.erin, "signed", "db-1")
			st := r.ReviewStatement(s.sam)
			st.Assurance, st.ClientID = evidence.Session, ""
			st.SignIn = &grant.StatementSignIn{AuthTime: s.Now.Add(-time.Minute), AMR: []string{}}
			r.SayReview(s.sam, st)
		}, []string{reconcile.ReviewInvalid}},
		"a review whose ID token is not kept": {func(s *scene) {
			s.Emergency(s.erin, "signed", "db-1").Review(s.sam)
			s.ForgetTokens()
		}, []string{reconcile.EvidenceMissing, reconcile.ReviewInvalid}},
		"a review with another comment than its statement": {func(s *scene) {
			n := s.Emergency(s.erin, "databases", "db-1").Review(s.sam)
			s.Leaves[n] = []byte(strings.Replace(string(s.Leaves[n]), `"comment":"the dashboards agree"`, `"comment":"all is well"`, 1))
		}, []string{reconcile.ReviewInvalid}},

		"a leaver with later access": {func(s *scene) {
			s.By(s.olga, event.Subject{PersonID: s.erin.ID}, event.PersonRemoved{Reason: "left"})
			s.Access(s.erin, s.liam, "databases", "db-1")
		}, []string{reconcile.LeaverAccess, reconcile.LeaverAccess}},
		"a leaver who came back": {func(s *scene) {
			s.By(s.olga, event.Subject{PersonID: s.erin.ID}, event.PersonRemoved{Reason: "left"})
			s.By(s.olga, event.Subject{PersonID: s.erin.ID}, event.PersonRestored{Reason: "is back"})
			s.Access(s.erin, s.liam, "databases", "db-1")
		}, nil},
		"a leaver's session": {func(s *scene) {
			r := s.Access(s.erin, s.liam, "databases", "db-1")
			s.By(s.olga, event.Subject{PersonID: s.erin.ID}, event.PersonRemoved{Reason: "left"})
			s.Session(r.Host, fmt.Sprintf(`"serial":"%d","key_id":"%s:%s","login":"dba"`, s.Serial, r.ID, s.erin.ID))
		}, []string{reconcile.LeaverAccess}},

		"a policy whose approval the provider signed": {func(s *scene) {
			s.Propose(s.olga, history.SignedDocument).Approve(s.omar)
			s.Propose(s.olga, history.SignedDocument+"# three\n").Approve(s.omar)
		}, nil},
		"a policy whose approval the provider signed for somebody else": {func(s *scene) {
			s.Propose(s.olga, history.SignedDocument).Approve(s.omar)
			q := s.Propose(s.olga, history.SignedDocument+"# three\n")
			q.TokenOf("sub-Mallory")
			q.Approve(s.omar)
		}, []string{reconcile.PolicyWithoutQuorum}},
		"a policy whose approval's ID token is not kept": {func(s *scene) {
			s.Propose(s.olga, history.SignedDocument).Approve(s.omar)
			s.Propose(s.olga, history.SignedDocument+"# three\n").Approve(s.omar)
			s.ForgetTokens()
		}, []string{reconcile.EvidenceMissing, reconcile.PolicyWithoutQuorum}},
		"a decision on a policy with other groups than its statement": {func(s *scene) {
			n := s.Propose(s.olga, history.Document+"# two\n").Approve(s.omar) - 1
			s.Leaves[n] = []byte(strings.Replace(string(s.Leaves[n]), `"groups":["ops"],"evidence"`, `"groups":["ops","chiefs"],"evidence"`, 1))
		}, []string{reconcile.DecisionAltered, reconcile.PolicyWithoutQuorum}},
		"a policy that somebody else approved": {func(s *scene) { s.Propose(s.olga, history.Document+"# two\n").Approve(s.omar) }, nil},
		"a policy that its author approved": {func(s *scene) {
			s.Propose(s.olga, history.Document+"# two\n").Approve(s.olga)
		}, []string{reconcile.PolicyByAuthor}},
		"a policy that its author approved under another id": {func(s *scene) {
			other := s.olga
			other.ID = ids.New(ids.Person)
			s.Propose(s.olga, history.Document+"# two\n").Approve(other)
		}, []string{reconcile.PolicyByAuthor}},
		"a policy that no operator approved": {func(s *scene) {
			s.Propose(s.olga, history.Document+"# two\n").Approve(s.erin)
		}, []string{reconcile.PolicyWithoutQuorum}},
		"a policy that nobody proposed": {func(s *scene) {
			s.Activate(history.Document+"# two\n", event.PolicyActivated{ProposalID: ids.New(ids.Proposal), Author: s.olga.ID, Approver: s.omar.ID})
		}, []string{reconcile.PolicyWithoutQuorum}},
		"a policy from the broker's file": {func(s *scene) {
			s.Activate(history.Document+"# two\n", event.PolicyActivated{})
		}, []string{reconcile.PolicyFromFile}},

		"a certificate of which nothing was heard": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			s.Broker(event.CertificateSigned{Serial: 99, Intent: "0195f000-0000-7000-8000-000000000000"})
			s.Now = s.Now.Add(time.Hour)
			s.Broker(event.KeysLoaded{})
		}, []string{reconcile.IntentWithoutResult}},
		"a certificate that was signed": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			s.Broker(event.CertificateSigned{Serial: s.Serial, Intent: intentOf(s)})
			s.Now = s.Now.Add(time.Hour)
			s.Broker(event.KeysLoaded{})
		}, nil},

		"an entry that is missing": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			n := s.Broker(event.KeysLoaded{})
			s.Broker(event.KeysLoaded{})
			s.missing[n] = true
		}, []string{reconcile.LogGap}},
		"three that are missing": {func(s *scene) {
			for range 3 {
				s.missing[s.Broker(event.KeysLoaded{})] = true
			}
		}, []string{reconcile.LogGap}},
		"an entry that is no event": {func(s *scene) { s.Leaf([]byte(`{"type":"grant.started"`)) }, []string{reconcile.EventUnreadable}},
		"an event with a field too many": {func(s *scene) {
			n := s.Broker(event.KeysLoaded{})
			s.Leaves[n] = []byte(strings.Replace(string(s.Leaves[n]), `"data":{`, `"data":{"colour":"red",`, 1))
		}, []string{reconcile.EventUnreadable}},
		"a request with other terms than its hash": {func(s *scene) {
			terms := s.Terms(s.erin, "databases", "db-1")
			r := s.Ask(s.erin, terms)
			last := s.Leaves[len(s.Leaves)-1]
			s.Leaves[len(s.Leaves)-1] = []byte(strings.Replace(string(last), `\"login\":\"dba\"`, `\"login\":\"sys\"`, 1))
			r.Decide(s.liam, api.Approve)
			r.Start()
			r.Certificate()
		}, []string{reconcile.RequestAltered, reconcile.CertWithoutQuorum}},
		"a request with another reason than its terms": {func(s *scene) {
			s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			last := s.Leaves[len(s.Leaves)-1]
			s.Leaves[len(s.Leaves)-1] = []byte(strings.Replace(string(last), `"reason":"look at`, `"reason":"forget`, 1))
		}, []string{reconcile.RequestAltered}},
		"a decision with another verdict than its statement": {func(s *scene) {
			r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
			r.Decide(s.liam, api.Deny)
			last := s.Leaves[len(s.Leaves)-1]
			s.Leaves[len(s.Leaves)-1] = []byte(strings.Replace(string(last), `"verdict":"deny"`, `"verdict":"approve"`, 1))
		}, []string{reconcile.DecisionAltered}},
		"entries that were pruned without a word": {func(s *scene) {
			s.Broker(event.KeysLoaded{})
			s.first = 2
		}, []string{reconcile.PrunedWithoutRecords}},
		"a request before the pack": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			s.first = 4
			s.Prune(4)
		}, []string{reconcile.BeforePack, reconcile.BeforePack, reconcile.PrunedInPeriod}},
		"less was pruned than is not there": {func(s *scene) {
			s.Access(s.erin, s.liam, "databases", "db-1")
			s.first = 2
			s.Prune(1)
		}, []string{reconcile.PrunedInPeriod, reconcile.PrunedWithoutRecords}},
		"entries of before the period were pruned": {func(s *scene) {
			for range 4 {
				s.Broker(event.KeysLoaded{})
			}
			s.first = 4
			d := s.Pruned(4)
			d.Earliest, d.Latest = history.Start.AddDate(0, 0, -2), history.Start.AddDate(0, 0, -1)
			s.Broker(s.VouchPruned(d))
		}, nil},
		"the oldest record of pruning is about some of those pruned": {func(s *scene) {
			for range 4 {
				s.Broker(event.KeysLoaded{})
			}
			s.first = 4
			d := s.Pruned(4)
			d.First, d.Count = 2, 2
			d.Earliest, d.Latest = s.Now.AddDate(9, 0, 0), s.Now.AddDate(9, 0, 1)
			s.Broker(s.VouchPruned(d))
		}, []string{reconcile.PrunedInPeriod}},
		"a record of pruning with a forged archive hash": {func(s *scene) {
			s.Broker(event.KeysLoaded{})
			s.first = 2
			d := s.VouchPruned(s.Pruned(2))
			d.ArchiveSHA256 = "cd34"
			s.Broker(d)
		}, []string{reconcile.PrunedWithoutRecords, reconcile.PrunedWithoutRecords}},
		"a record of pruning that the log's key does not vouch for": {func(s *scene) {
			s.Broker(event.KeysLoaded{})
			s.first = 2
			other := history.New(t, history.Document)
			n := other.Prune(2)
			s.Leaf(other.Leaves[n])
		}, []string{reconcile.PrunedWithoutRecords, reconcile.PrunedWithoutRecords}},
		"a record of pruning more than there is": {func(s *scene) {
			s.Prune(1000)
		}, []string{reconcile.PrunedWithoutRecords}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			tt.happens(s)
			s.want(tt.want...)
		})
	}
}

// extended is a grant of Erin's with an extension by somebody.
func (s *scene) extended(by history.Person) {
	r := s.Ask(s.erin, s.Terms(s.erin, "databases", "db-1"))
	r.Decide(s.liam, api.Approve)
	r.Start()
	r.Certificate()
	terms := s.Terms(by, "databases", "db-1")
	terms.Extends, terms.NotBefore, terms.Rule = r.ID, &r.Window.End, grant.RuleOf(&s.Policy.Rules[0], true)
	terms.PublicKey, terms.Rule.Extend = fingerprint(s.erin), nil
	e := s.Ask(by, terms)
	e.Key = s.erin.Key
	e.Start()
	r.End("time")
	e.Certificate()
	e.End("time")
}

// What is outside of the period is context, and not reported.
func TestOnlyThePeriodIsReported(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.Session(s.Host("db-1"), `"login":"dba"`)
	s.Now = s.Now.Add(24 * time.Hour)
	s.from = s.Now.Add(-time.Hour)
	n := s.Session(s.Host("db-1"), `"login":"dba"`)
	if found := s.want(reconcile.SessionWithoutCert); len(found) == 1 && found[0].Index != n {
		t.Errorf("it is about entry %d, not %d", found[0].Index, n)
	}
}

// However long the log, what is remembered is what is going on.
func TestWhatIsOverIsForgotten(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for range 3000 {
		s.Access(s.erin, s.liam, "databases", "db-1")
		s.Now = s.Now.Add(time.Hour)
	}
	g, err := reconcile.New(reconcile.Config{From: s.from, To: s.Now, LogKey: s.Key,
		Document: func(hash string) ([]byte, error) { text, _ := s.Document(hash); return text, nil },
		Report:   func(x reconcile.Exception) error { return fmt.Errorf("%s: %s", x.Code, x.Detail) },
		Row:      func(*populations.Register, *populations.Event, []string) error { return nil }})
	must(t, err)
	most := 0
	for i, leaf := range s.Leaves {
		e := populations.Read(int64(i), leaf)
		must(t, g.Add(&e, ""))
		most = max(most, g.Remembered())
	}
	if most > 1200 {
		t.Errorf("up to %d things were remembered of %d events", most, len(s.Leaves))
	}
}
