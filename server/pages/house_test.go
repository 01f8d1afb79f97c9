package pages

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/sessions"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// house stands in for the rooms below: a few people, hosts and requests, and
// just enough behaviour to walk through the pages. The rules are not its
// business; it can be told what to refuse.
type house struct {
	clock     clock.Clock
	mu        sync.Mutex
	people    map[string]identity.Caller // by the first part of their address
	hosts     []api.Host
	asked     []api.Request // newest first
	leaves    []audit.Entry
	disclosed []disclosed
	inputs    []any // what was asked of the house, in order
	refuse    error // answers every change, if set
	lent      []api.Delegation
	behalf    map[string]*api.Delegate // by request, who decides on it, and verdict
	signed    bool                     // the provider signs reviews, and decisions on the policy
	sentTo    []string                 // where those come back to who were sent to the provider
	deployed  []*api.DeploymentAccount
}

var (
	errNoSuchRequest = refusal.New(refusal.NotFound, "unknown-request", "there is no such request", "the list shows yours")
	errNoSuchHost    = refusal.New(refusal.NotFound, "unknown-host", "there is no such host", "the list shows those you may ask for").On("host")
	errNoRule        = refusal.New(refusal.Denied, "no-rule", "no rule lets you ask for that", "choose another login").On("login")
	errNoReason      = refusal.New(refusal.Invalid, "reason-missing", "a reason is needed", "say what you are going to do").On("reason")
	errTooLong       = refusal.New(refusal.Invalid, "too-long", "that is longer than the rule allows", "ask for 2h at most").On("duration")
	errOtherTerms    = refusal.New(refusal.Conflict, "other-terms", "the request has other terms than you saw", "look at them again")
)

func newHouse(clk clock.Clock) *house {
	now := clk.Now()
	h := &house{clock: clk, people: map[string]identity.Caller{}}
	for _, p := range []struct {
		name, group string
		roles       []api.Role
	}{
		{"Erin Engineer", "engineers", nil}, {"Ada Approver", "approvers", nil}, {"Sam Security", "security", nil},
		{"Audrey Auditor", "auditors", []api.Role{api.Auditor}}, {"Oscar Operator", "operators", []api.Role{api.Operator}},
		{"Priya Natarajan", "approvers", nil},
	} {
		key := strings.ToLower(strings.Fields(p.name)[1])
		h.people[key] = identity.Caller{Person: identity.Person{
			ID: "per-" + (key + "000000000000")[:12], Issuer: "https://id.example.com", Subject: key, Name: p.name,
			Email: key + "@example.com", Groups: []string{p.group}, SignedInAt: now.Add(-time.Hour),
		}, Source: "192.0.2.17", Via: "web", AuthTime: now.Add(-time.Hour), Roles: p.roles}
	}
	approvers := api.Slot{Stage: 1, Groups: []string{"approvers"}, Count: 1, People: []api.Person{h.person("approver"), h.person("natarajan")}}
	security := api.Slot{Stage: 1, Groups: []string{"security"}, Count: 1, People: []api.Person{h.person("security")}}
	need := &api.TextRule{Required: true, Message: "Say what you are going to do."}
	dba := api.HostRule{Login: "dba", Rule: "databases", MaxDuration: "2h0m0s", DefaultDuration: "30m0s", Approvers: []api.Slot{approvers}, Reason: need}
	root := api.HostRule{Login: "root", Rule: "root-anywhere", MaxDuration: "1h0m0s", DefaultDuration: "15m0s", Approvers: []api.Slot{approvers, security}, Reason: need, Ticket: need}
	www := api.HostRule{Login: "web", Rule: "web", MaxDuration: "1h0m0s", DefaultDuration: "30m0s", Automatic: true}
	for i, x := range []struct {
		name, class, env string
		rules            []api.HostRule
	}{
		{"db-1", "database", "demo", []api.HostRule{dba, root}}, {"web-1", "web", "demo", []api.HostRule{root, www}},
		{"payments-replica-3.eu-west", "database", "prod", []api.HostRule{dba}},
	} {
		host := api.Host{ID: fmt.Sprintf("host-7k3m9q2x4f%02d", i), Name: x.name, Address: fmt.Sprintf("10.0.3.%d:22", i+7),
			Labels: map[string]string{"class": x.class, "env": x.env}, State: "sealed", CreatedAt: now.Add(-72 * time.Hour), Rules: x.rules,
			HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"}
		for _, rule := range x.rules {
			host.Logins = append(host.Logins, rule.Login)
		}
		h.hosts = append(h.hosts, host)
	}
	h.hosts[0].State = "open"
	return h
}

func (h *house) person(key string) api.Person { return h.people[key].API() }

// furnish adds requests in every state, and their events.
func (h *house) furnish() *house {
	now := h.clock.Now()
	add := func(state api.State, who, host, login, reason, ticket string, ago time.Duration, change func(*api.Request)) {
		r := h.make(h.people[who], host, login, api.RequestInput{Duration: "30m", Reason: reason, Ticket: ticket}, now.Add(-ago))
		r.State = state
		if change != nil {
			change(&r)
		}
		h.asked = append(h.asked, r)
	}
	given := func(r *api.Request, from, until time.Duration) {
		s, e := now.Add(from), now.Add(until)
		r.StartsAt, r.EndsAt = &s, &e
	}
	decided := func(r *api.Request, who string, v api.Verdict, comment string, ago time.Duration) {
		r.Decisions = append(r.Decisions, api.Decision{ID: ids.New(ids.Decision), Approver: h.person(who), Verdict: v, Comment: comment,
			TermsHash: r.TermsHash, At: now.Add(-ago)})
		if v == api.Approve {
			for i := range r.Approvers {
				if slices.Contains(r.Approvers[i].Groups, h.people[who].Groups[0]) {
					r.Approvers[i].Filled++
				}
			}
		}
	}
	add(api.Requested, "engineer", "web-1", "root", "Kernel update did not come back cleanly; need to look at the boot log.", "INC-2044", 3*time.Minute,
		func(r *api.Request) { decided(r, "approver", api.Approve, "", time.Minute) })
	add(api.Requested, "natarajan", "payments-replica-3.eu-west", "dba", "Replication lag keeps growing since the 02:10 failover. I want to compare the slots and, if it is what I think, drop the stale one.", "INC-2051", 6*time.Minute, nil)
	add(api.Active, "engineer", "db-1", "dba", "Long-running migration holds a lock on orders; find and end the blocking backend.", "INC-2041", 14*time.Minute, func(r *api.Request) {
		decided(r, "approver", api.Approve, "Go ahead. Leave the replica alone, please.", 12*time.Minute)
		given(r, -12*time.Minute, 18*time.Minute)
		r.KeyFingerprint = "SHA256:4f9Qm2vX1cT7bKz0yWn8uRj5sLpD3hGaEoViNxYtMdA"
		r.Certificates = []api.CertificateInfo{{Serial: 1042, KeyID: r.ID + ":" + r.Requester.ID, Principal: "dba@" + r.HostID, Fingerprint: r.KeyFingerprint, ValidAfter: now.Add(-11 * time.Minute), ValidBefore: now.Add(-6 * time.Minute), Result: api.Signed},
			{Serial: 1043, KeyID: r.ID + ":" + r.Requester.ID, Principal: "dba@" + r.HostID, Fingerprint: r.KeyFingerprint, ValidAfter: now.Add(-4 * time.Minute), ValidBefore: now.Add(time.Minute), Result: api.NoResult}}
	})
	add(api.Approved, "engineer", "web-1", "web", "Rotate the access logs by hand", "", time.Minute, func(r *api.Request) { given(r, -time.Minute, 29*time.Minute); r.Approvers = nil })
	add(api.Denied, "engineer", "web-1", "root", "quick look", "INC-1", 26*time.Hour, func(r *api.Request) {
		decided(r, "security", api.Deny, "The login web is enough for reading logs. Ask for that one; it opens without me.", 25*time.Hour)
	})
	for i, s := range []struct {
		state  api.State
		reason string
	}{{api.Ended, "finished"}, {api.Ended, "time"}, {api.Ended, "unused"}, {api.Ended, "revoked"}, {api.Cancelled, ""}, {api.Expired, ""}} {
		add(s.state, "engineer", "db-1", "dba", "Vacuum the sessions table", "", time.Duration(30+i*9)*time.Hour, func(r *api.Request) {
			r.EndReason = s.reason
			if s.state == api.Ended {
				given(r, -time.Duration(30+i*9)*time.Hour, -time.Duration(29+i*9)*time.Hour)
				decided(r, "approver", api.Approve, "", time.Duration(30+i*9)*time.Hour)
			}
		})
	}
	h.write(h.people["operator"], "", event.HostRegistered{Name: "db-1", Address: "10.0.3.7:22", Labels: h.hosts[0].Labels, Logins: h.hosts[0].Logins})
	for _, r := range slices.Backward(h.asked) {
		c := h.people[r.Requester.Subject]
		h.write(c, r.ID, event.RequestCreated{Terms: `{"format":"sallyport.terms/1"}`, TermsHash: r.TermsHash, Host: r.Host, Login: r.Login, Duration: "30m", Rule: r.Rule, Reason: r.Reason, Ticket: r.Ticket})
		for _, d := range r.Decisions {
			h.write(h.people[d.Approver.Subject], r.ID, event.RequestDecided{DecisionID: d.ID, Verdict: string(d.Verdict), Comment: d.Comment, TermsHash: r.TermsHash, Groups: []string{"approvers"}})
		}
		if r.StartsAt != nil {
			h.write(identity.Caller{}, r.ID, event.GrantStarted{TermsHash: r.TermsHash, Automatic: r.Approvers == nil, StartsAt: *r.StartsAt, EndsAt: *r.EndsAt})
		}
		for _, cert := range r.Certificates {
			h.write(c, r.ID, event.CertificateIssued{Serial: cert.Serial, KeyID: cert.KeyID, Principal: cert.Principal, Login: r.Login, Host: r.Host, Key: cert.Fingerprint, PreCertificate: []byte(strings.Repeat("certificate", 20)), ValidAfter: cert.ValidAfter, ValidBefore: cert.ValidBefore})
		}
	}
	return h
}

// write adds an event to the log.
func (h *house) write(c identity.Caller, request string, d event.Data) {
	actor := c.Actor()
	if c.ID == "" {
		actor = event.Actor{Kind: event.Broker}
	}
	e := event.New(h.clock.Now().Add(-time.Minute), actor, c.Source, event.Subject{RequestID: request}, d)
	leaf, err := e.Encode()
	if err != nil {
		panic(err)
	}
	h.leaves = append(h.leaves, audit.Entry{Index: int64(len(h.leaves)), ID: e.ID, Type: e.Type, Time: e.Time, Leaf: leaf, LeafHash: tlog.RecordHash(leaf)})
}

func (h *house) make(c identity.Caller, host, login string, in api.RequestInput, at time.Time) api.Request {
	r := api.Request{ID: ids.New(ids.Request), State: api.Requested, Requester: c.API(), Host: host, Login: login,
		Duration: cmp.Or(in.Duration, "30m"), Reason: in.Reason, Ticket: in.Ticket, TermsHash: strings.Repeat("0123456789abcdef", 4),
		Policy: api.PolicyRef{Version: 3, Hash: strings.Repeat("fedcba9876543210", 4)}, CreatedAt: at, ApproveBy: at.Add(time.Hour), CertificateLifetime: "5m"}
	for _, x := range h.hosts {
		if x.Name == host {
			r.HostID = x.ID
			for _, rule := range x.Rules {
				if rule.Login == login {
					r.Rule, r.Approvers = rule.Rule, slices.Clone(rule.Approvers)
					for i, s := range r.Approvers {
						r.Approvers[i].People = slices.DeleteFunc(slices.Clone(s.People), func(p api.Person) bool { return p.ID == c.ID })
					}
				}
			}
		}
	}
	return r
}

// saw notes what was asked for, and gives the refusal that is due.
func (h *house) saw(in any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inputs = append(h.inputs, in)
	return h.refuse
}

func (h *house) Preview(_ context.Context, c identity.Caller, in api.RequestInput) (api.Preview, error) {
	host, all, err := h.selected(in)
	if err != nil {
		return api.Preview{}, err
	}
	i := slices.IndexFunc(host.Rules, func(r api.HostRule) bool { return r.Login == in.Login })
	if i < 0 {
		return api.Preview{}, errNoRule
	}
	rule := host.Rules[i]
	d, err := time.ParseDuration(cmp.Or(in.Duration, rule.DefaultDuration))
	if err != nil || d > 2*time.Hour {
		return api.Preview{}, errTooLong
	}
	if rule.Reason != nil && in.Reason == "" {
		return api.Preview{}, errNoReason
	}
	e, err := h.emergency(rule, in)
	return api.Preview{Host: host, Hosts: all, Login: in.Login, Rule: rule.Rule, Duration: d.String(), Automatic: rule.Automatic,
		Approvers: rule.Approvers, ApproveBy: h.clock.Now().Add(time.Hour), CertificateLifetime: "5m0s", Emergency: e}, err
}

func (h *house) Request(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Request, error) {
	if err := h.saw(in); err != nil {
		return api.Request{}, err
	}
	pre, err := h.Preview(ctx, c, in)
	if err != nil {
		return api.Request{}, err
	}
	r := h.make(c, pre.Host.Name, in.Login, in, h.clock.Now())
	r.Hosts, r.Selector = pre.Hosts, in.Selector
	if r.Emergency = pre.Emergency; pre.Automatic || pre.Emergency != nil {
		end := h.clock.Now().Add(30 * time.Minute)
		r.State, r.StartsAt, r.EndsAt = api.Approved, &r.CreatedAt, &end
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append([]api.Request{r}, h.asked...)
	return r, nil
}

func (h *house) may(c identity.Caller, r api.Request) bool {
	return r.State == api.Requested && r.Requester.ID != c.ID && h.behalf[r.ID+c.Subject+"approve"] != nil ||
		r.State == api.Requested && r.Requester.ID != c.ID && slices.ContainsFunc(r.Approvers, func(s api.Slot) bool {
			return s.Filled < s.Count && slices.Contains(s.Groups, c.Groups[0])
		})
}

func (h *house) List(_ context.Context, c identity.Caller, f approvals.ListFilter) (api.Page[api.Request], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	limit, start := cmp.Or(f.Limit, 50), 0
	if f.Cursor != "" {
		start, _ = strconv.Atoi(f.Cursor)
	}
	var page api.Page[api.Request]
	for i, r := range h.asked {
		switch {
		case i < start,
			f.Scope == approvals.Mine && r.Requester.ID != c.ID,
			f.Scope == approvals.Waiting && !h.may(c, r),
			(f.Emergency || f.Scope == approvals.Reviews) && r.Emergency == nil,
			f.Scope == approvals.Reviews && !mayReview(c, r),
			f.States != nil && !slices.Contains(f.States, r.State),
			f.HostID != "" && f.HostID != r.HostID:
			continue
		}
		if len(page.Items) == limit {
			page.Next = strconv.Itoa(i)
			break
		}
		for _, name := range []string{"approve", "deny"} {
			r.Actions = append(slices.Clone(r.Actions), api.Action{Name: name, Allowed: h.may(c, r), Delegate: h.behalf[r.ID+c.Subject+name]})
		}
		page.Items = append(page.Items, r)
	}
	return page, nil
}

func (h *house) CountWaiting(ctx context.Context, c identity.Caller) (int, error) {
	page, err := h.List(ctx, c, approvals.ListFilter{Scope: approvals.Waiting})
	return len(page.Items), err
}

// change does something to a request that the caller may see.
func (h *house) change(in any, id string, do func(*api.Request) error) (api.Request, error) {
	if err := h.saw(in); err != nil {
		return api.Request{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.asked {
		if h.asked[i].ID == id {
			err := do(&h.asked[i])
			return h.asked[i], err
		}
	}
	return api.Request{}, errNoSuchRequest
}

func (h *house) Decide(_ context.Context, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
	if slices.ContainsFunc(h.asked, func(r api.Request) bool { return r.ID == id && r.Assurance == evidence.Provider }) {
		return api.Request{}, approvals.ErrProviderEvidence
	}
	return h.change(in, id, func(r *api.Request) error {
		if in.TermsHash != r.TermsHash {
			return errOtherTerms
		}
		r.Decisions = append(r.Decisions, api.Decision{Approver: c.API(), Verdict: in.Verdict, Comment: in.Comment, At: h.clock.Now()})
		r.State = api.Denied
		if in.Verdict == api.Approve {
			now, end := h.clock.Now(), h.clock.Now().Add(30*time.Minute)
			r.State, r.StartsAt, r.EndsAt, r.Approvers[0].Filled = api.Approved, &now, &end, 1
		}
		return nil
	})
}

func (h *house) Cancel(_ context.Context, c identity.Caller, id string) (api.Request, error) {
	return h.change("cancel", id, func(r *api.Request) error { r.State = api.Cancelled; return nil })
}

func (h *house) Finish(_ context.Context, c identity.Caller, id string) (api.Request, error) {
	return h.change("finish", id, func(r *api.Request) error { r.State, r.EndReason = api.Ended, "finished"; return nil })
}

// rooms gives the house a second face: two rooms have a method Request.
type rooms struct{ *house }

func (h rooms) Request(_ context.Context, c identity.Caller, id string) (api.Request, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.asked, func(r api.Request) bool { return r.ID == id })
	if i < 0 {
		return api.Request{}, errNoSuchRequest
	}
	r := h.asked[i]
	mine := r.Requester.ID == c.ID
	act := func(name string, ok bool, why string) {
		if ok {
			why = ""
		}
		r.Actions = append(r.Actions, api.Action{Name: name, Allowed: ok, Why: why})
	}
	why := "you are in none of the groups whose approval is missing"
	if mine {
		why = "nobody decides on their own request"
	}
	act("approve", h.may(c, r), why)
	act("deny", h.may(c, r), why)
	for i := range r.Actions {
		r.Actions[i].Delegate = h.behalf[r.ID+c.Subject+r.Actions[i].Name]
	}
	act("cancel", mine && r.State == api.Requested, "only the requester cancels, and only before it is decided")
	act("finish", mine && (r.State == api.Approved || r.State == api.Active), "there is no grant of yours to finish")
	act("extend", mine && r.Extend != nil && r.ExtendedBy == "" && r.State == api.Active, "it has been extended already")
	act("connect", mine && (r.State == api.Approved || r.State == api.Active), "there is no grant of yours")
	if r.Emergency != nil {
		act("review", mayReview(c, r), "you are in none of the groups that review this emergency")
	}
	r.Timeline = nil
	for _, e := range h.leaves {
		if shown := e.API(false); shown.Request == id {
			r.Timeline = append(r.Timeline, shown)
		}
	}
	return r, nil
}

func (h *house) ListHosts(_ context.Context, c identity.Caller, f broker.HostFilter) (api.Page[api.Host], error) {
	if strings.Contains(f.Selector, "((") {
		return api.Page[api.Host]{}, refusal.New(refusal.Invalid, "bad-selector", "the labels could not be read", "write them like class=database").On("selector")
	}
	var page api.Page[api.Host]
	for _, x := range h.hosts {
		if strings.Contains(x.Name, f.Search) && (f.Selector == "" || slices.Contains(slices.Collect(maps.Values(x.Labels)), strings.TrimPrefix(f.Selector, "class="))) &&
			(len(f.States) == 0 || slices.Contains(f.States, x.State)) {
			page.Items = append(page.Items, x)
		}
	}
	return page, nil
}

func (h *house) Host(_ context.Context, c identity.Caller, name string) (api.Host, error) {
	return h.find(name)
}

func (h *house) find(name string) (api.Host, error) {
	for _, x := range h.hosts {
		if x.Name == name || x.ID == name {
			return x, nil
		}
	}
	return api.Host{}, errNoSuchHost
}

func (h *house) Entry(_ context.Context, index int64) (audit.Entry, error) {
	if index >= int64(len(h.leaves)) {
		return audit.Entry{}, audit.ErrNoEntry
	}
	return h.leaves[index], nil
}

func (h *house) Search(_ context.Context, f audit.Filter) (audit.Found, error) {
	h.saw(f)
	out := audit.Found{Thorough: f.Text != "stops early"}
	if !out.Thorough {
		out.Next = 3
		return out, nil
	}
	for _, e := range slices.Backward(h.leaves) {
		if len(out.Entries) < f.Limit && (f.Before == 0 || e.Index < f.Before) && strings.HasPrefix(e.Type, f.Type) && (f.RequestID == "" || strings.Contains(string(e.Leaf), f.RequestID)) &&
			(f.HostID == "" || strings.Contains(string(e.Leaf), f.HostID)) && (f.PersonID == "" || strings.Contains(string(e.Leaf), f.PersonID)) {
			out.Entries = append(out.Entries, e)
		}
	}
	if n := len(out.Entries); n == f.Limit {
		out.Next = out.Entries[n-1].Index
	}
	out.Newer = max(0, f.Before-1)
	return out, nil
}

func (h *house) Receipt(_ context.Context, index int64) ([]byte, error) {
	return fmt.Appendf(nil, "c2sp.org/tlog-proof@v1\nindex %d\nTJZtF2uKqk2vI0mLZ5TjcYyVt7w2h2nNp0b4bYkq3xU=\n8Qb1lNn1y1m0X9x3Yf3Jr4p5Qq8s7T6u5V4w3X2y1Z0=\n\nsallyport.example.com/log\n%d\nq3m9Xn1vFvQqgkq9sZ3mT7n5c1m2o3p4q5r6s7t8u9v=\n\n— sallyport.example.com/log Wq3x9k2mN0p1Q2r3S4t5U6v7W8x9Y0z1A2b3C4d5E6f7G8h9==\n", index, len(h.leaves)), nil
}

// tried is an attempt to read the log.
type tried struct {
	who    identity.Caller
	action string
}

func (h *house) Notifications(_ context.Context, c identity.Caller, action string, f notify.Filter) (api.Page[api.Notification], error) {
	h.saw(f)
	if !c.Has(api.Operator) && !c.Has(api.Auditor) {
		return api.Page[api.Notification]{}, approvals.ErrNotForYou
	}
	at := h.clock.Now().Add(-time.Minute)
	page := api.Page[api.Notification]{Next: "more"}
	for _, n := range []api.Notification{
		{ID: "msg-000000000002", Kind: "request.waiting", Channel: "mail", Person: &api.Person{ID: "per-000000000001", Name: "Arne <i>Approver"},
			State: "failed", Attempts: 10, Error: "the receiver answered <script>503"},
		{ID: "msg-000000000001", Kind: "request.waiting", Request: "req-4f8k2m9qhx1z", Channel: "dba-chat", State: "sent", Attempts: 1},
	} {
		n.CreatedAt, n.EndedAt = at, &at
		if f.State == "" || n.State == f.State {
			page.Items = append(page.Items, n)
		}
	}
	return page, nil
}

func (h *house) DiscloseSearch(_ context.Context, c identity.Caller, f audit.Filter) error {
	return h.disclose(c, f)
}

func (h *house) DiscloseEntry(_ context.Context, c identity.Caller, e audit.Entry) error {
	return h.disclose(c, e.Index)
}

// disclosed is what somebody was shown of the log.
type disclosed struct {
	personID string
	what     any // a filter or an index
}

func (h *house) disclose(c identity.Caller, what any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disclosed = append(h.disclosed, disclosed{c.ID, what})
	return h.refuse
}

func (h *house) OnlyAuditors(_ context.Context, c identity.Caller, action string) error {
	if c.Has(api.Auditor) {
		return nil
	}
	if err := h.saw(tried{c, action}); err != nil {
		return err
	}
	return approvals.ErrNotAuditor
}

func (h *house) VerifierKey() string {
	return "sallyport.example.com/log+5e9f3a1c+AVy3m1Qd2k9XvT0nRj5sLpD3hGaEoViNxYtMdA4f9Qm2"
}

func (r rooms) HostSessions(_ context.Context, c identity.Caller, name string, _ sessions.Filter) (api.Page[api.Session], error) {
	at := r.clock.Now().Add(-time.Hour)
	page := api.Page[api.Session]{Items: []api.Session{}}
	if c.Has(api.Operator) || c.Has(api.Auditor) {
		page.Items = append(page.Items, api.Session{ID: "ses-000000000001", Host: name, Login: "root", Client: "203.0.113.9",
			StartedAt: &at, EndedAt: &at, EndReason: "revoked", Alarm: "no-certificate", ReportedAt: at})
	}
	return page, nil
}

func (r rooms) Posture(_ context.Context, _ identity.Caller, name string) (api.HostPosture, error) {
	at := r.clock.Now().Add(-time.Minute)
	return api.HostPosture{HostID: name, State: api.HostDrifted, SeenAt: &at, TakenAt: &at, Enrolled: &api.Enrolled{At: at, OS: "Debian 12"},
		Checks: []api.HostCheck{{ID: "keys", Result: "fail", Findings: []string{"/root/.ssh/<b>keys</b>"}, Remedy: "remove it"}, {ID: "sudo", Result: "pass"}},
		Probe:  &api.HostProbe{At: at, Result: "pass", Login: "dba"}}, nil
}

func (r rooms) Count(context.Context) (map[api.HostState]int, error) {
	count := map[api.HostState]int{api.HostPending: 2}
	for _, h := range r.hosts {
		count[h.State]++
	}
	return count, nil
}

func (r rooms) OnlyOperators(_ context.Context, c identity.Caller, _, _ string) error {
	if !c.Has(api.Operator) {
		return hosts.ErrNotOperator
	}
	return nil
}

func (r rooms) MakeToken(ctx context.Context, c identity.Caller, in api.JoinTokenInput) (api.JoinToken, error) {
	if in.Name == "db-1" {
		return api.JoinToken{}, fleet.ErrTokenOfHost
	}
	if in.Address == "nowhere" {
		return api.JoinToken{}, hosts.ErrAddress
	}
	now := r.clock.Now()
	return api.JoinToken{ID: "join-4f8k2m9qhx1z", Token: "sjt_secret", Name: in.Name, Address: in.Address, Labels: in.Labels, Logins: in.Logins,
		MadeBy: c.API(), MadeAt: now, ExpiresAt: now.Add(time.Hour), State: "waiting"}, r.OnlyOperators(ctx, c, "", "")
}

func (r rooms) Tokens(ctx context.Context, c identity.Caller) ([]api.JoinToken, error) {
	now := r.clock.Now()
	list := []api.JoinToken{
		{ID: "join-000000000001", Name: "db-2", Labels: map[string]string{"class": "database", "env": "prod"}, Logins: []string{"dba", "root"}, State: "waiting"},
		{ID: "join-000000000002", Name: "web-7", Address: "10.0.3.40:22", Labels: map[string]string{"class": "web"}, Logins: []string{"web"}, State: "used", HostID: "host-7k3m9q2x4f01"},
		{ID: "join-000000000003", Name: "cache-1.eu-west", Labels: map[string]string{}, Logins: []string{"root"}, State: "expired"},
	}
	for i := range list {
		list[i].MadeBy, list[i].MadeAt = r.person("operator"), now.Add(-time.Duration(i*i*7+1)*time.Hour/4)
		list[i].ExpiresAt = list[i].MadeAt.Add(time.Hour)
	}
	return list, r.OnlyOperators(ctx, c, "", "")
}

func (r rooms) WithdrawToken(ctx context.Context, c identity.Caller, id string) error {
	if id != "join-000000000001" {
		return fleet.ErrTokenOver
	}
	return r.OnlyOperators(ctx, c, "", "")
}

const waitingKey = "SHA256:iVqz0XXaPqL5y8k3vT2mWcE9dRb7uYhNfJsGoKtAeQ4"

func (r rooms) Pending(ctx context.Context, c identity.Caller) ([]api.PendingHost, error) {
	now := r.clock.Now()
	return []api.PendingHost{
		{ID: "enr-4f8k2m9qhx1z", Name: "db-3", Fingerprint: waitingKey, Address: "10.0.3.43:22", Source: "10.0.3.43", Logins: []string{"dba"}, OS: "Debian GNU/Linux 12 (bookworm)",
			OpenSSH: "OpenSSH_9.2p1 Debian-2+deb12u3", AskedAt: now.Add(-4 * time.Minute), ExpiresAt: now.Add(24 * time.Hour)},
		{ID: "enr-000000000002", Name: "<b>payments</b>", Fingerprint: waitingKey, Address: "203.0.113.66:22", Source: "203.0.113.66", AskedAt: now.Add(-3 * time.Hour), ExpiresAt: now.Add(21 * time.Hour)},
	}, r.OnlyOperators(ctx, c, "", "")
}

func (r rooms) Approve(ctx context.Context, c identity.Caller, id string, in api.PendingDecision) (api.Host, error) {
	if in.Fingerprint != waitingKey {
		return api.Host{}, fleet.ErrFingerprint
	}
	return r.hosts[0], r.OnlyOperators(ctx, c, "", "")
}

func (r rooms) Refuse(ctx context.Context, c identity.Caller, id, reason string) error {
	if reason == "" {
		return approvals.ErrNoWhy
	}
	return r.OnlyOperators(ctx, c, "", "")
}

func (r rooms) Relabel(ctx context.Context, c identity.Caller, in api.LabelsInput) ([]api.Host, error) {
	if in.Selector == "((" {
		return nil, hosts.ErrSelector
	}
	list := slices.Clone(r.hosts)
	for i := range list {
		list[i].Labels = maps.Clone(list[i].Labels)
		maps.Copy(list[i].Labels, in.Set)
		for _, key := range in.Remove {
			delete(list[i].Labels, key)
		}
	}
	return list, r.OnlyOperators(ctx, c, "", "")
}
