package populations

// Register is a list whose rows are things, each put together from all that the log
// says of it, and not single events: those are in the populations.
//
//   - There is a row for everything that was under way at some moment of the period.
//   - A row says what is known at the log's end, whatever the period.
//   - Its first columns are the index, the time and the type of the event that began it.
//   - Rows stand in the order in which the things ended; those that have not come last.
//
// Package reconcile makes the rows, as it holds the events against each other.
type Register struct {
	// Name is the file's, without .csv.
	Name string
	// About says what the list is of, Empty what it means that it has no rows.
	About, Empty string
	// Sampled: each row has an event of its own that began it, so that the seed can choose.
	Sampled bool
	// Fields are its columns after the first three.
	Fields []string
}

// Registers are the registers, in the order of a pack.
var Registers = []*Register{&Deployments, &DeploymentHosts}

// Deployments has a row for each deployment.
var Deployments = Register{
	Name:    "deployments",
	About:   "deployments: what was deployed by whom, who approved it, what it was tested by, on which hosts, and what became of it",
	Empty:   "no deployment was under way in the period",
	Sampled: true,
	Fields: []string{"deployment_id", "service", "environment", "digest", "previous_digest", "entry",
		"run", "started_by", "trust_entry", "issuer", "repository", "commit", "ref", "person", "claims", "further_runs",
		"approvals_needed", "approved_by", "denied_by", "approvals_of_gates",
		"batches", "tests", "hosts", "hosts_opened", "failed_hosts", "first_opened_at", "ended_at", "result", "reason", "digest_at_end", "unsealed",
		"certificates", "sessions", "held", "overrides", "rollback", "emergency", "policy_version", "policy_hash", "terms_hash", "token_hash"},
}

// DeploymentHosts has a row for each host of each batch that was opened.
var DeploymentHosts = Register{
	Name:  "deployment_hosts",
	About: "hosts of deployments: when each was open to whom, what ran there, and that it was sealed afterwards; index is the entry that opened it first",
	Empty: "no host was opened to a deployment in the period",
	Fields: []string{"deployment_id", "service", "environment", "digest", "host_id", "host", "batch", "rollback", "openings", "epochs", "opened_at", "closed_at",
		"result", "certificates", "sessions", "state", "verified_at", "reason"},
}

// Header is the file's first line.
func (r *Register) Header() []string {
	return append([]string{"index", "time", "event"}, r.Fields...)
}
