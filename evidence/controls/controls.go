// Package controls says which lists serve which criterion of a SOC 2 report and which
// control of ISO/IEC 27001:2022, Annex A. It is data, with a version of its own, and the
// texts are our own words: the official ones are the AICPA's and ISO's and are not
// repeated here.
//
// What an auditor tests under a criterion is for the auditor to decide; this is
// where to look first.
package controls

import (
	"slices"

	"sallyport/evidence/populations"
)

// Version of the mapping. Any change to All makes another one.
const Version = 3

// Control is one criterion, or one control of ISO 27001.
type Control struct {
	// ID is the criterion's in the Trust Services Criteria of 2017, such as CC6.1, or
	// the control's in Annex A of ISO/IEC 27001:2022, such as A.8.15.
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
		[]string{"people", "policy_changes", "hosts", "certificates", "disclosures"}},
	{"CC6.2", "Nobody gets credentials before that was authorised, and they end when the reason does.",
		"Certificates against the approvals before them; leavers against their last access.",
		[]string{"certificates", "agent_certificates", "decisions", "leavers", "sessions"}},
	{"CC6.3", "Access is as little as the work needs, duties are separated, and somebody looks at it again.",
		"Requests and grants against the rules, who approved them, and periodic reviews.",
		[]string{"access_requests", "decisions", "policy_changes", "access_reviews"}},
	{"CC6.6", "Access from outside the boundary needs more than a password.",
		"How people were authenticated, and from which addresses.",
		[]string{"people", "sessions"}},
	{"CC6.7", "Moving data out is restricted to those who may.",
		"Which certificates allowed forwarding, and the sessions under them; agents' certificates, which allow one command.",
		[]string{"certificates", "agent_certificates", "sessions", "disclosures"}},
	{"CC7.2", "What is out of the ordinary is noticed.",
		"Refusals, failed sign-ins, emergencies and alarms, and that somebody was told.",
		[]string{"alerts", "emergencies", "people", "access_requests"}},
	{"CC7.3", "What was noticed is evaluated, and acted on if need be.",
		"Reviews after emergencies: by whom, how soon, with what result.",
		[]string{"emergencies", "alerts"}},
	{"CC8.1", "Changes are authorised, tested and approved before they take effect, and there is a way for emergencies.",
		"Deployments: who began each, its approvals, the gates that it passed, its hosts and their sealing, overrides and rollbacks; changes of the policy and their approvals; emergencies.",
		[]string{"deployments", "deployment_hosts", "agent_certificates", "deployment_events", "policy_changes", "emergencies"}},

	{"A.5.3", "Duties that would conflict are not in one hand.",
		"That nobody approved what they asked for or deployed, or put a policy into force that they wrote.",
		[]string{"access_requests", "decisions", "deployments", "policy_changes"}},
	{"A.5.15", "Rules say who may get at what, and are followed.",
		"The policy's versions, and requests and certificates against the one in force.",
		[]string{"policy_changes", "access_requests", "certificates"}},
	{"A.5.16", "Identities are known from their beginning to their end.",
		"Who signs in, and what became of those who left.",
		[]string{"people", "leavers"}},
	{"A.5.18", "Rights are given on request, looked at again, and taken away.",
		"Grants against approvals; leavers; periodic reviews.",
		[]string{"access_requests", "decisions", "leavers", "access_reviews"}},
	{"A.5.28", "Evidence of what happened is gathered so that it can be relied on.",
		"Evidence packs and their proofs, and emergencies with what was said of them.",
		[]string{"disclosures", "emergencies"}},
	{"A.5.34", "Data about people is read by those who need to, for a purpose.",
		"Who looked up whom, and what was taken away.",
		[]string{"disclosures", "people"}},
	{"A.8.2", "Privileged access is restricted, limited in time, and followed up.",
		"Certificates with their validity, sessions, emergencies and their reviews.",
		[]string{"certificates", "sessions", "emergencies", "access_reviews"}},
	{"A.8.5", "Authentication is as strong as what it protects needs.",
		"How people were authenticated, and which attempts failed.",
		[]string{"people"}},
	{"A.8.9", "Configurations are known, and their changes too.",
		"What brokers were started with, versions of the policy, and changes of hosts.",
		[]string{"policy_changes", "hosts"}},
	{"A.8.15", "Logs are kept, protected and looked at.",
		"The log's own proofs; alarms about it; who searched it and read from it.",
		[]string{"disclosures", "alerts"}},
	{"A.8.16", "What is unusual is noticed and evaluated.",
		"Refusals, failed sign-ins, alarms, and reviews of emergencies.",
		[]string{"alerts", "emergencies", "people"}},
	{"A.8.24", "Keys are chosen, replaced and used as laid down.",
		"Keys of the CAs and of the log as brokers loaded them, and what was signed with them.",
		[]string{"policy_changes", "certificates", "hosts"}},
	{"A.8.32", "Changes follow a procedure that includes their approval.",
		"Deployments with their approvals, gates and hosts, and that each agent's certificate belongs to one open batch; changes of the policy and of the schema.",
		[]string{"deployments", "deployment_hosts", "agent_certificates", "deployment_events", "policy_changes"}},
}

// IDs are those of all criteria and controls.
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
