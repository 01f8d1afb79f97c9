package populations

import (
	"strconv"
	"strings"
)

// Population is one list.
type Population struct {
	// Name is the file's, without .csv.
	Name string
	// About says what the list is of, Empty what it means that it has no rows.
	About, Empty string
	// Types are the events in it: names, or prefixes that end in a dot.
	Types []string
	// Fields are its own columns, which are the data's fields of these names.
	Fields []string
}

// All are the populations, in the order of a pack. The last takes what no other does.
var All = []Population{
	{
		Name:  "access_requests",
		About: "what people asked for, what became of it, and the grants that followed",
		Empty: "nobody asked for access in the period",
		Types: []string{"request.created", "request.refused", "request.closed", "grant."},
		Fields: []string{"login", "host", "hosts", "duration", "rule", "reason", "ticket", "emergency", "drill", "extends",
			"state", "comment", "code", "automatic", "starts_at", "ends_at", "terms_hash", "decisions"},
	},
	{
		Name:  "decisions",
		About: "who approved or denied what, decisions that were refused or became void, and who decided for whom",
		Empty: "nobody decided on a request in the period",
		Types: []string{"request.decided", "request.decision_refused", "request.decision_voided", "delegation."},
		Fields: []string{"decision_id", "verdict", "comment", "groups", "for", "assurance", "code", "reason", "approver",
			"delegation_id", "delegator", "delegate", "delegate_id", "from", "until",
			"terms_hash", "evidence_hash", "id_token_hash", "keys_hash", "note_hash"},
	},
	{
		Name:  "certificates",
		About: "user certificates that were to be signed, with what allowed them, what became of that, and those that were refused",
		Empty: "no certificate was issued or refused in the period",
		Types: []string{"certificate.", "revocation."},
		Fields: []string{"serial", "login", "host", "principal", "key_id", "key", "ca", "valid_after", "valid_before",
			"emergency", "drill", "code", "reason", "terms_hash", "decisions", "intent", "certificate", "failure"},
	},
	{
		Name:  "sessions",
		About: "logins on hosts and what was recorded of them, as the hosts report them; and what must not be",
		Empty: "no host reported a login in the period: hosts without sally-host report none, so that this is no proof that nobody logged in",
		Types: []string{"session."},
		Fields: []string{"session_id", "serial", "key_id", "login", "host", "principal", "started_at", "ended_at", "client", "reason",
			"exit_code", "problem", "error", "code", "recording", "bytes", "digest", "cut"},
	},
	{
		Name:  "emergencies",
		About: "doors that were opened before anybody approved, and their reviews",
		Empty: "nobody opened an emergency in the period, and none was reviewed",
		Types: []string{"emergency.", "review."},
		Fields: []string{"drill", "login", "host", "hosts", "reason", "told", "review_groups", "review_by", "verdict", "comment", "late",
			"groups", "code", "assurance", "terms_hash", "evidence_hash", "id_token_hash", "keys_hash"},
	},
	{
		Name:  "deployment_events",
		About: "events of deployments: runs of pipelines that were let in or refused, batches, gates, decisions, leases",
		Empty: "no deployment ran through Sallyport in the period, and no pipeline came",
		Types: []string{"deployment.", "batch.", "gate.", "agent.", "rollout."},
		Fields: []string{"deployment_id", "service", "environment", "digest", "previous", "entry", "batches", "batch", "rollback", "gate", "before", "state",
			"about", "decision_id", "verdict", "comment", "groups", "assurance", "run", "epoch", "ok", "failed", "skipped", "failures", "until", "decisions",
			"unsealed", "action", "host", "reason", "code", "run_id", "provider", "issuer", "subject", "claims", "binding", "key", "first_key", "second_key",
			"first_source", "first_at", "revoked", "verified", "unmet", "expires_at", "login", "command", "token_hash", "terms_hash", "evidence_hash",
			"id_token_hash", "keys_hash"},
	},
	{
		Name:  "agent_certificates",
		About: "certificates of deploy agents that were to be signed, with the batch that they are for, and what became of that",
		Empty: "no agent was issued a certificate in the period",
		Types: []string{"deployment.certificate_issued", "deployment.certificate_signed"},
		Fields: []string{"serial", "deployment_id", "batch", "epoch", "rollback", "digest", "login", "host", "principal", "key_id", "key", "ca", "command", "uses",
			"batch_ends_at", "valid_after", "valid_before", "terms_hash", "token_hash", "decisions", "intent", "certificate", "failure"},
	},
	{
		Name:  "policy_changes",
		About: "versions of the policy that were proposed, decided on and put into force, keys, configuration and schema of the broker",
		Empty: "neither policy nor configuration changed in the period, and no broker was started",
		Types: []string{"policy.", "broker.", "database.", "provider.", "configuration.", "config.", "ca.", "retention."},
		Fields: []string{"proposal_id", "decision_id", "verdict", "action", "comment", "code", "reason", "author", "approver", "groups",
			"rules", "bytes", "document_hash", "proposal_hash", "diff_hash", "assurance", "evidence_hash", "id_token_hash", "keys_hash", "user_ca", "host_ca", "log", "issuer", "client_id",
			"note_hash", "before", "name", "value", "version", "schema", "configuration", "changed", "settings", "replaced"},
	},
	{
		Name:   "people",
		About:  "sign-ins, their failures and ends, and other credentials of people",
		Empty:  "nobody signed in, or failed to, in the period",
		Types:  []string{"person.signed_in", "person.signed_out", "person.sign_in_failed", "token.", "passkey."},
		Fields: []string{"via", "issuer", "subject", "email", "groups", "auth_time", "amr", "acr", "code", "reason", "family", "name"},
	},
	{
		Name:   "leavers",
		About:  "people who were removed, or let in again",
		Empty:  "nobody was removed or restored in the period",
		Types:  []string{"person.removed", "person.restored", "person."},
		Fields: []string{"name", "reason", "sign_ins", "cancelled", "ended", "voided", "code"},
	},
	{
		Name:   "hosts",
		About:  "hosts that were registered, changed or removed, and their certificates",
		Empty:  "no host was registered, changed or removed in the period",
		Types:  []string{"host.", "posture."},
		Fields: []string{"name", "address", "labels", "logins", "host_key", "serial", "host", "principals", "key", "ca", "valid_after", "valid_before", "intent", "certificate", "failure", "state", "reason", "code"},
	},
	{
		Name:   "alerts",
		About:  "what somebody tried in vain at Sallyport itself, messages that reached nobody, and alarms of the log and its witnesses",
		Empty:  "nothing of the kind happened in the period",
		Types:  []string{"access.", "message.", "witness.", "log.", "stream.", "alert."},
		Fields: []string{"action", "code", "reason", "message_id", "notice", "channel", "attempts", "error", "name", "size", "lag", "state"},
	},
	{
		Name:  "disclosures",
		About: "what was shown to people by their role alone: requests, people, events and searches of the log; and evidence packs",
		Empty: "no auditor or operator looked at anything in the period that was not theirs",
		Types: []string{"disclosed.", "pack."},
		Fields: []string{"what", "roles", "type", "index", "first", "last", "request", "person", "host", "states", "from", "to", "text",
			"pack_id", "zone", "controls", "seed", "manifest", "end", "exceptions", "missing", "code", "reason"},
	},
	{
		Name:   "access_reviews",
		About:  "periodic reviews of who can reach what",
		Empty:  "no access review was held in Sallyport in the period",
		Types:  []string{"access_review."},
		Fields: []string{"review_id", "scope", "verdict", "comment", "kept", "removed", "evidence_hash"},
	},
	{
		Name:   "other",
		About:  "events of all other types, so that the lists together are the whole log of the period",
		Empty:  "every event of the period is in one of the other lists",
		Types:  []string{""},
		Fields: []string{"name", "code", "reason", "state", "error"},
	},
}

// common are the columns that every population begins with.
var common = []string{"index", "time", "event", "actor_kind", "actor_id", "actor", "on_behalf_of", "source",
	"request_id", "person_id", "host_ids", "policy_version", "policy_hash"}

// of finds a population by an event's type: by its name first, then by the longest
// prefix.
func Of(eventType string) int {
	best, length := len(All)-1, -1
	for i, p := range All {
		for _, t := range p.Types {
			if t == eventType {
				return i
			}
			if strings.HasSuffix(t, ".") && strings.HasPrefix(eventType, t) && len(t) > length {
				best, length = i, len(t)
			}
		}
	}
	return best
}

// Header is the file's first line.
func (p Population) Header() []string {
	header := append([]string{}, common...)
	for _, f := range p.Fields {
		if isCommon(f) {
			f = "data_" + f
		}
		header = append(header, f)
	}
	return header
}

func isCommon(name string) bool {
	for _, c := range common {
		if c == name {
			return true
		}
	}
	return false
}

// Row appends the cells of an event to dst, which may be nil.
func (p Population) Row(dst []string, e *Event) []string {
	var version, hash, behalf string
	if e.Policy != nil {
		version, hash = strconv.FormatInt(e.Policy.Version, 10), e.Policy.Hash
	}
	if e.OnBehalfOf != nil {
		behalf = e.OnBehalfOf.ID
	}
	dst = append(dst, strconv.FormatInt(e.Index, 10), Time(e.Time), e.Type, string(e.Actor.Kind), e.Actor.ID, e.Actor.Name,
		behalf, e.Source, e.Subject.RequestID, e.Subject.PersonID, strings.Join(e.Hosts(), ", "), version, hash)
	for _, f := range p.Fields {
		dst = append(dst, e.Text(f))
	}
	return dst
}
