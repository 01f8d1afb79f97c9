package brokertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sallyport/api"
)

// extend makes a request that follows another, as the real broker does under a
// rule that asks nobody.
func (b *Broker) extend(w http.ResponseWriter, r *http.Request, who string) {
	q := b.find(w, r)
	var in api.ExtendInput
	if q == nil || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	switch {
	case q.Extend == nil:
		refuse(w, 403, "no-extension", "the rule does not let this grant be extended", "make a new request")
		return
	case q.ExtendedBy != "":
		refuse(w, 409, "already-extended", "the grant has been extended already, by "+q.ExtendedBy, "extend that one")
		return
	case q.KeyFingerprint == "":
		refuse(w, 409, "nothing-to-extend", "the grant has not been used", "log in first")
		return
	}
	by, _ := time.ParseDuration(q.Extend.By)
	if in.Duration != "" {
		by, _ = time.ParseDuration(in.Duration)
	}
	next := *q
	from, until := *q.EndsAt, q.EndsAt.Add(by)
	next.ID, next.State, next.Extends = fmt.Sprintf("req-%012d", len(b.requests)+1), api.Approved, q.ID
	next.StartsAt, next.EndsAt, next.Duration, next.Extend = &from, &until, by.String(), nil
	q.ExtendedBy = next.ID
	b.requests = append(b.requests, &next)
	answer(w, 201, next)
}

func (b *Broker) known(p api.Person) api.KnownPerson {
	return api.KnownPerson{Person: p, Roles: []api.Role{}, SignedInAt: time.Now().UTC(), Removed: b.removed[p.ID]}
}

// governor refuses whoever is not the operator.
func governor(w http.ResponseWriter, who string) bool {
	if who != "operator" {
		refuse(w, 403, "operators-only", "only operators may do that", "ask an operator")
	}
	return who == "operator"
}

func (b *Broker) people(w http.ResponseWriter, r *http.Request, who string) {
	if !governor(w, who) {
		return
	}
	page := api.Page[api.KnownPerson]{Items: []api.KnownPerson{}}
	for i, name := range []string{"approver", "engineer", "operator"} {
		p := people[name]
		p.ID = fmt.Sprintf("per-%012d", i+7)
		known := b.known(p)
		if search := r.FormValue("search"); (search == "" || search == p.ID || strings.Contains(strings.ToLower(p.Name), search)) &&
			(r.FormValue("removed") == "" || known.Removed != nil) {
			page.Items = append(page.Items, known)
		}
	}
	answer(w, 200, page)
}

func (b *Broker) govern(w http.ResponseWriter, r *http.Request, who string) {
	var in api.WhyInput
	if !governor(w, who) || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	p := api.Person{ID: r.PathValue("id"), Name: "Erin Engineer"}
	if r.PathValue("what") == "restore" {
		delete(b.removed, p.ID)
		answer(w, 200, b.known(p))
		return
	}
	b.removed[p.ID] = &api.Removal{At: time.Now().UTC(), By: people[who], Reason: in.Reason}
	answer(w, 200, api.RemovedPerson{Person: b.known(p), SignIns: 2, Ended: []string{"req-000000000001"},
		Stand: []string{"req-000000000007"}})
}

func (b *Broker) revoke(w http.ResponseWriter, r *http.Request, who string) {
	var in api.RevocationInput
	if !governor(w, who) || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	out := api.Revocation{Ended: []string{}, Cancelled: []string{}}
	for _, q := range b.requests {
		if (q.ID == in.Request || in.Person != "") && q.EndsAt != nil && !q.State.Final() {
			now := time.Now().UTC()
			q.State, q.EndReason, q.EndsAt = api.Ended, "revoked", &now
			out.Ended = append(out.Ended, q.ID)
		}
	}
	b.wake()
	answer(w, 200, out)
}
