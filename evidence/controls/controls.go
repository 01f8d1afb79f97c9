// Package controls says which lists serve which criterion of a SOC 2 report. It is
// data, with a version of its own, and the texts are our own words: the criteria's
// official text is the AICPA's and is not repeated here.
//
// What an auditor tests under a criterion is for the auditor to decide; this is
// where to look first.
package controls

import (
	"slices"

	"sallyport/evidence/populations"
)

// Version of the mapping. Any change to All makes another one.
const Version = 1

// Control is one criterion.
type Control struct {
	// ID is the criterion's in the Trust Services Criteria of 2017.
	ID string
	// Concerns is what it is about, and Tested what is usually tested, in our words.
	Concerns, Tested string
	// Populations are the lists to draw from.
	Populations []string
}

// All are the criteria that Sallyport has evidence for.
var All = []Control{
	{"CC6.1", "Only those who are meant to can get at systems, by ways that are protected.",
		"How people sign in, which rules and keys decide about access, and which hosts fall under them.",
		[]string{"people", "policy_changes", "hosts", "certificates"}},
	{"CC6.2", "Nobody gets credentials before that was authorised, and they end when the reason does.",
		"Certificates against the approvals before them; leavers against their last access.",
		[]string{"certificates", "decisions", "leavers", "sessions"}},
	{"CC6.3", "Access is as little as the work needs, duties are separated, and somebody looks at it again.",
		"Requests and grants against the rules, who approved them, and periodic reviews.",
		[]string{"access_requests", "decisions", "policy_changes", "access_reviews"}},
	{"CC6.6", "Access from outside the boundary needs more than a password.",
		"How people were authenticated, and from which addresses.",
		[]string{"people", "sessions"}},
	{"CC6.7", "Moving data out is restricted to those who may.",
		"Which certificates allowed forwarding, and the sessions under them.",
		[]string{"certificates", "sessions", "deployments"}},
	{"CC7.2", "What is out of the ordinary is noticed.",
		"Refusals, failed sign-ins, emergencies and alarms, and that somebody was told.",
		[]string{"alerts", "emergencies", "people", "access_requests"}},
	{"CC7.3", "What was noticed is evaluated, and acted on if need be.",
		"Reviews after emergencies: by whom, how soon, with what result.",
		[]string{"emergencies", "alerts"}},
	{"CC8.1", "Changes are authorised, tested and approved before they take effect, and there is a way for emergencies.",
		"Deployments and their gates, changes of the policy and their approvals, emergencies.",
		[]string{"deployments", "policy_changes", "emergencies"}},
}

// IDs are all criteria's.
func IDs() []string {
	ids := make([]string, len(All))
	for i, c := range All {
		ids[i] = c.ID
	}
	return ids
}

// Of are the criteria that a list serves.
func Of(population string) []string {
	var ids []string
	for _, c := range All {
		if slices.Contains(c.Populations, population) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// Criteria are those that events of a type serve.
func Criteria(eventType string) []string {
	return Of(populations.All[populations.Of(eventType)].Name)
}

// Serves reports whether a list serves one of the criteria; an empty list of them
// means all, and then every list is wanted.
func Serves(population string, ids []string) bool {
	return len(ids) == 0 || slices.ContainsFunc(Of(population), func(id string) bool { return slices.Contains(ids, id) })
}
