package api

import (
	"context"
	"net/http"
	"time"
)

// DeploymentInput opens a deployment, or attaches to the one of the same artifact that
// is under way.
type DeploymentInput struct {
	Service     string           `json:"service" minLength:"1" maxLength:"63"`
	Environment string           `json:"environment" minLength:"1" maxLength:"63"`
	Digest      string           `json:"digest" minLength:"71" maxLength:"71" example:"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" doc:"Of the artifact"`
	Narrow      DeploymentNarrow `json:"narrow,omitzero" doc:"What is to be less than the policy's plan; of a deployment that is under way it changes nothing"`
}

// DeploymentNarrow makes a plan smaller. Absent fields leave it as it is.
type DeploymentNarrow struct {
	Hosts []string `json:"hosts,omitempty" maxItems:"2000" doc:"Names or ids: these of the policy's hosts only"`
	Batch int      `json:"batch,omitempty" minimum:"1" maximum:"2000" doc:"Hosts of each batch at most"`
	Soak  string   `json:"soak,omitempty" maxLength:"16" example:"1h" doc:"After each batch at least"`
}

// Deployment is how a deployment stands.
type Deployment struct {
	ID          string            `json:"id" example:"dep-4f8k2m9qhx1z"`
	Service     string            `json:"service"`
	Environment string            `json:"environment"`
	Digest      string            `json:"digest" doc:"Of the artifact"`
	Previous    string            `json:"previous,omitempty" doc:"Digest that was verified last, to which a rollback goes"`
	State       string            `json:"state" enum:"planned,awaiting_approval,active,held,verifying,complete,aborted,rolling_back,rolled_back,rollback_failed"`
	Why         string            `json:"why,omitempty" doc:"Why it ends or ended so"`
	Entry       string            `json:"entry" doc:"Of the policy's deployments"`
	Policy      int64             `json:"policy,string" doc:"Version under which it was opened"`
	TermsHash   string            `json:"terms_hash" doc:"SHA-256 of its frozen terms; decisions name it"`
	OpenedBy    string            `json:"opened_by" doc:"Id of the run"`
	Claims      map[string]string `json:"claims" doc:"Of that run's token"`
	OpenedAt    time.Time         `json:"opened_at"`
	EndedAt     *time.Time        `json:"ended_at,omitempty"`
	Epoch       uint64            `json:"epoch,string" doc:"Of the lease; agents name it in every call"`
	Holder      string            `json:"holder,omitempty" doc:"Id of the run that has the lease"`
	LeaseUntil  *time.Time        `json:"lease_until,omitempty"`
	Blockers    []Blocker         `json:"blockers" doc:"What keeps it from going on now"`
	Next        int               `json:"next,omitempty" doc:"Number of the batch to open next"`
	Spent       int               `json:"spent" doc:"Hosts on which it failed, over all batches"`
	Budget      int               `json:"budget" doc:"Hosts on which it may fail"`
	Batches     []DeploymentBatch `json:"batches"`
	Decisions   []DeploymentSaid  `json:"decisions"`
	Assurance   string            `json:"assurance" enum:"session,provider" doc:"What proves decisions: the broker's word, or the identity provider's signature"`
	Visits      []DeploymentVisit `json:"visits,omitempty" doc:"Sessions on its hosts that no agent had, since it was opened, latest first; until another deployment has opened the host. For people"`
	Actions     []string          `json:"actions" doc:"What the caller may do: stop, resume, abort, rollback, decide"`
}

// DeploymentVisit is a session of a person on a host of a deployment. Until the host has
// shown since that it is sealed, it is verifying.
type DeploymentVisit struct {
	HostID    string     `json:"host_id"`
	Host      string     `json:"host" doc:"Its name"`
	RequestID string     `json:"request_id,omitempty" doc:"Whose certificate opened it; absent: none that is known"`
	Login     string     `json:"login"`
	At        time.Time  `json:"at" doc:"When the host told"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

// Blocker is why a deployment does not go on, for programs and for people.
type Blocker struct {
	Code  string     `json:"code" example:"deployment-frozen"`
	Why   string     `json:"why"`
	Hint  string     `json:"hint,omitempty" doc:"What to do"`
	Until *time.Time `json:"until,omitempty" doc:"When it ends by itself"`
}

// DeploymentBatch is how a batch stands.
type DeploymentBatch struct {
	Number   int              `json:"number"`
	Canary   bool             `json:"canary,omitempty"`
	Rollback bool             `json:"rollback,omitempty"`
	State    string           `json:"state" enum:"pending,open,closing,sealing,soaking,gating,passed,failed,inconclusive"`
	Why      string           `json:"why,omitempty"`
	OpenedAt *time.Time       `json:"opened_at,omitempty"`
	SealedAt *time.Time       `json:"sealed_at,omitempty"`
	Until    *time.Time       `json:"until,omitempty" doc:"When its state ends at the latest"`
	Hosts    []DeploymentHost `json:"hosts"`
	Gates    []DeploymentGate `json:"gates"`
}

// DeploymentHost is how a host of a batch stands.
type DeploymentHost struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state" enum:"sealed,open,deployed,verifying,drifted,quarantined"`
	Result string `json:"result,omitempty" enum:"ok,failed,skipped,missing"`
	Why    string `json:"why,omitempty"`
}

// DeploymentGate is how a gate stands.
type DeploymentGate struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind" enum:"reported,http,prometheus,posture,approval"`
	Verdict  string   `json:"verdict" enum:"waiting,pass,fail,inconclusive"`
	Passes   int      `json:"passes,omitempty" doc:"In a row"`
	Times    int      `json:"times,omitempty" doc:"How many it needs"`
	Failures int      `json:"failures,omitempty"`
	Why      string   `json:"why,omitempty" doc:"What was seen last"`
	Needs    []string `json:"needs,omitempty" doc:"Whose approval"`

	Asks string     `json:"asks" doc:"What it wants to see, in words"`
	At   *time.Time `json:"at,omitempty" doc:"When that was seen"`
	By   *time.Time `json:"by,omitempty" doc:"When it is inconclusive, if it has not passed"`
}

// DeploymentSaid is what a person said.
type DeploymentSaid struct {
	ID      string    `json:"id" example:"dec-4f8k2m9qhx1z"`
	About   string    `json:"about" enum:"start,gate,override"`
	Batch   int       `json:"batch,omitempty"`
	Gate    string    `json:"gate,omitempty"`
	Verdict Verdict   `json:"verdict"`
	Person  Person    `json:"person"`
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`

	Evidence DecisionEvidence `json:"evidence"`
}

// BatchInput opens a batch.
type BatchInput struct {
	Epoch uint64 `json:"epoch,string"`
}

// AgentCertificateInput asks for a certificate for the run's own key.
type AgentCertificateInput struct {
	Epoch uint64 `json:"epoch,string"`
	Batch int    `json:"batch" minimum:"1"`
	Host  string `json:"host" minLength:"1" maxLength:"63" doc:"Name or id, of the open batch"`
}

// AgentCertificate is a certificate with what ssh needs to use it.
type AgentCertificate struct {
	Certificate
	SSHConfig string `json:"ssh_config" doc:"Lines for ssh_config, for the host's name"`
}

// ReportInput says what became of hosts; without any it says that the agent is there.
type ReportInput struct {
	Epoch   uint64            `json:"epoch,string"`
	Results map[string]string `json:"results,omitempty" doc:"By a host's name or id: ok, failed or skipped"`
	Done    bool              `json:"done,omitempty" doc:"Close the batch, whatever is missing"`
}

// EndInput finishes, aborts or rolls back a deployment.
type EndInput struct {
	Epoch  uint64 `json:"epoch,string"`
	Reason string `json:"reason,omitempty" maxLength:"2000"`
}

// ControlInput is what a person does with a deployment.
type ControlInput struct {
	Action string `json:"action" enum:"stop,resume,abort,rollback"`
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// DeploymentDecisionInput is what a person says to a deployment.
type DeploymentDecisionInput struct {
	About     string     `json:"about" enum:"start,gate,override"`
	Batch     int        `json:"batch,omitempty" doc:"Of the gate"`
	Gate      string     `json:"gate,omitempty" maxLength:"63" doc:"Its name"`
	Verdict   Verdict    `json:"verdict" enum:"approve,deny"`
	Comment   string     `json:"comment,omitempty" maxLength:"2000" doc:"Of an override: the reason, which it must have"`
	Until     *time.Time `json:"until,omitempty" doc:"Of an override: how long it goes on in freezes, at most 24 hours"`
	TermsHash string     `json:"terms_hash,omitempty" maxLength:"64" doc:"Of what the person saw; refused if the deployment has others"`
}

// DeploymentFilter narrows Deployments. Zero fields do not filter.
type DeploymentFilter struct {
	Service     string
	Environment string
	Running     bool
	Cursor      string
	Limit       int
}

// Deployments lists deployments that the caller may see, newest first.
func (c *Client) Deployments(ctx context.Context, f DeploymentFilter) (Page[Deployment], error) {
	return fetch[Page[Deployment]](ctx, c, v1(http.MethodGet, "deployments").where(query(
		"service", f.Service, "environment", f.Environment, "running", yes(f.Running), "cursor", f.Cursor, "limit", number(f.Limit))))
}

// Deployment is one deployment.
func (c *Client) Deployment(ctx context.Context, id string) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodGet, "deployments", id))
}

// ControlDeployment stops, resumes, aborts or rolls back a deployment.
func (c *Client) ControlDeployment(ctx context.Context, id string, in ControlInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "control").with(in))
}

// DecideDeployment approves or denies a deployment's start, a gate or an override.
func (c *Client) DecideDeployment(ctx context.Context, id string, in DeploymentDecisionInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "decisions").with(in))
}
