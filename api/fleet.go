package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// HostState is what a host is shown as.
type HostState string

// States of hosts. Hosts that are not let in yet are no hosts; they are pending.
const (
	HostSealed      HostState = "sealed"      // known to be shut, from inside and outside
	HostOpen        HostState = "open"        // somebody may be on it
	HostDrifted     HostState = "drifted"     // it is not as it should be
	HostSilent      HostState = "silent"      // it has said nothing for minutes
	HostUnknown     HostState = "unknown"     // it is not known to be shut
	HostQuarantined HostState = "quarantined" // an operator keeps it shut
	HostPending     HostState = "pending"     // it waits to be let in
)

// HostStates are all of them, worst first.
var HostStates = []HostState{HostDrifted, HostSilent, HostUnknown, HostQuarantined, HostOpen, HostPending, HostSealed}

// Quarantine says since when an operator keeps a host shut, and why.
type Quarantine struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Session is one login on a host, as the host reports it.
type Session struct {
	ID         string     `json:"id" example:"ses-4f8k2m9qhx1z"`
	HostID     string     `json:"host_id"`
	Host       string     `json:"host" doc:"The host's name"`
	Request    string     `json:"request_id,omitempty" doc:"Whose certificate opened it; absent: none that is known, and alarm says why"`
	Person     Person     `json:"person"`
	Deployment string     `json:"deployment_id,omitempty" doc:"Whose agent's certificate opened it, instead of a request's"`
	Serial     uint64     `json:"serial,string" doc:"Of the certificate, as the host says; 0: it was something else"`
	Login      string     `json:"login"`
	Client     string     `json:"client" doc:"Address that the client came from"`
	StartedAt  *time.Time `json:"started_at,omitempty" doc:"By the host's clock; absent: the report was lost"`
	EndedAt    *time.Time `json:"ended_at,omitempty" doc:"Absent while it lasts, as far as is known"`
	EndReason  string     `json:"end_reason,omitempty" enum:"closed,time,finished,revoked,refused,reboot,lost" doc:"Why it ended"`
	Alarm      string     `json:"alarm,omitempty" doc:"Code of what is wrong with it"`
	ReportedAt time.Time  `json:"reported_at" doc:"When the broker first heard of it"`
}

// JoinTokenInput lets one host enrol.
type JoinTokenInput struct {
	Name    string            `json:"name" minLength:"1" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$" doc:"Of the host. If there is one already, the token is for it: with it, it enrols, also with another key"`
	Address string            `json:"address,omitempty" maxLength:"255" doc:"Of a new host: where ssh reaches it. If empty, the host says where, and that cannot be loopback or link-local"`
	Labels  map[string]string `json:"labels,omitempty" doc:"Of a new host"`
	Logins  []string          `json:"logins,omitempty" maxItems:"64" doc:"Of a new host; a host that exists keeps its address, labels and logins"`
	Expires string            `json:"expires_in,omitempty" maxLength:"16" example:"1h" doc:"How long it is good: 1m to 24h; 1h if empty"`
}

// JoinToken is one that was made.
type JoinToken struct {
	ID        string            `json:"id" example:"join-4f8k2m9qhx1z"`
	Token     string            `json:"token,omitempty" doc:"The token itself, in the answer to its making and never again"`
	Name      string            `json:"name"`
	HostID    string            `json:"host_id,omitempty" doc:"The host that it is for, or that it made"`
	Address   string            `json:"address,omitempty" doc:"Absent: as the host proposes"`
	Labels    map[string]string `json:"labels"`
	Logins    []string          `json:"logins"`
	MadeBy    Person            `json:"made_by"`
	MadeAt    time.Time         `json:"made_at"`
	ExpiresAt time.Time         `json:"expires_at"`
	State     string            `json:"state" enum:"waiting,used,expired,withdrawn"`
}

// PendingHost is a host that came without a token and waits for an operator. All that
// it says of itself is nobody's word; the fingerprint is what to compare.
type PendingHost struct {
	ID          string    `json:"id" example:"enr-4f8k2m9qhx1z"`
	Fingerprint string    `json:"fingerprint" doc:"Of the host key, SHA256:…; on the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"`
	HostKey     string    `json:"host_key"`
	Name        string    `json:"name,omitempty" doc:"That it proposes"`
	Address     string    `json:"address" doc:"That it proposes, or that it came from"`
	Logins      []string  `json:"logins" doc:"That it proposes"`
	Source      string    `json:"source" doc:"Address that it came from"`
	OS          string    `json:"os,omitempty"`
	OpenSSH     string    `json:"openssh,omitempty"`
	AskedAt     time.Time `json:"asked_at"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// PendingDecision lets a pending host in. What is empty is as the host proposes, but
// the fingerprint must be said, and the labels are the operator's alone.
type PendingDecision struct {
	Fingerprint string            `json:"fingerprint" minLength:"1" maxLength:"128" doc:"Of the host's key, as read on the host itself"`
	Name        string            `json:"name,omitempty" maxLength:"63"`
	Address     string            `json:"address,omitempty" maxLength:"255"`
	Labels      map[string]string `json:"labels,omitempty"`
	Logins      []string          `json:"logins,omitempty" maxItems:"64"`
}

// HostPosture is how a host is, and what says so.
type HostPosture struct {
	HostID     string      `json:"host_id"`
	State      HostState   `json:"state" enum:"sealed,open,drifted,silent,unknown,quarantined"`
	StateWhy   []string    `json:"state_why,omitempty"`
	Sessions   int         `json:"sessions" doc:"That last now, as far as the host has reported"`
	Enrolled   *Enrolled   `json:"enrolled,omitempty" doc:"Absent: it runs no sally-host, and nothing that follows is there"`
	SeenAt     *time.Time  `json:"seen_at,omitempty" doc:"When it was last heard of, to a quarter of a minute"`
	Number     uint64      `json:"number,omitempty,string" doc:"Of the report that the posture came in"`
	TakenAt    *time.Time  `json:"taken_at,omitempty" doc:"By the host's clock"`
	ReceivedAt *time.Time  `json:"received_at,omitempty"`
	Checks     []HostCheck `json:"checks" doc:"What the host found on itself"`
	Probe      *HostProbe  `json:"probe,omitempty" doc:"What the broker saw from outside"`
}

// Enrolled says how and as what a host was let in.
type Enrolled struct {
	At         time.Time `json:"at"`
	LetInBy    Person    `json:"let_in_by"`
	LastReport uint64    `json:"last_report,string"`
	OS         string    `json:"os,omitempty" doc:"This and the next three as the host says"`
	OpenSSH    string    `json:"openssh,omitempty"`
	Kernel     string    `json:"kernel,omitempty"`
	Helper     string    `json:"helper,omitempty"`
}

// HostCheck is one thing that a host looked at on itself.
type HostCheck struct {
	ID       string   `json:"id" example:"keys"`
	Result   string   `json:"result" enum:"pass,fail,unknown" doc:"unknown: it could not be found out, which is no pass"`
	Findings []string `json:"findings,omitempty"`
	Remedy   string   `json:"remedy,omitempty"`
}

// HostProbe is a look at a host from outside.
type HostProbe struct {
	At       time.Time `json:"at"`
	Result   string    `json:"result" enum:"pass,fail,unknown"`
	Login    string    `json:"login" doc:"That was tried, without a certificate"`
	Findings []string  `json:"findings,omitempty"`
}

// LabelsInput changes the labels of many hosts.
type LabelsInput struct {
	Selector string            `json:"selector" minLength:"1" maxLength:"1000" example:"class=database" doc:"Which hosts, in Kubernetes label-selector syntax"`
	Set      map[string]string `json:"set,omitempty"`
	Remove   []string          `json:"remove,omitempty" maxItems:"64"`
	DryRun   bool              `json:"dry_run,omitempty" doc:"Say what would change, and change nothing"`
}

// SessionFilter narrows HostSessions. Zero fields do not filter.
type SessionFilter struct {
	Live   bool // only those that have not ended
	Cursor string
	Limit  int
}

// MakeJoinToken lets one host enrol. Operators only, as all of these but the last.
func (c *Client) MakeJoinToken(ctx context.Context, in JoinTokenInput) (JoinToken, error) {
	return fetch[JoinToken](ctx, c, v1(http.MethodPost, "hosts", "join-tokens").with(in))
}

// JoinTokens are those of the last days, latest first.
func (c *Client) JoinTokens(ctx context.Context) (Page[JoinToken], error) {
	return fetch[Page[JoinToken]](ctx, c, v1(http.MethodGet, "hosts", "join-tokens"))
}

// WithdrawJoinToken makes one good for nothing.
func (c *Client) WithdrawJoinToken(ctx context.Context, id string) error {
	return c.do(ctx, v1(http.MethodDelete, "hosts", "join-tokens", id), nil)
}

// PendingHosts are those that wait to be let in, oldest first.
func (c *Client) PendingHosts(ctx context.Context) (Page[PendingHost], error) {
	return fetch[Page[PendingHost]](ctx, c, v1(http.MethodGet, "hosts", "pending"))
}

// ApproveHost lets a pending host in.
func (c *Client) ApproveHost(ctx context.Context, id string, in PendingDecision) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodPost, "hosts", "pending", id, "approve").with(in))
}

// RefuseHost sends a pending host away.
func (c *Client) RefuseHost(ctx context.Context, id, reason string) error {
	return c.do(ctx, v1(http.MethodPost, "hosts", "pending", id, "refuse").with(WhyInput{Reason: reason}), nil)
}

// HostPosture is how a host is, and what says so. Operators and auditors only.
func (c *Client) HostPosture(ctx context.Context, nameOrID string) (HostPosture, error) {
	return fetch[HostPosture](ctx, c, v1(http.MethodGet, "hosts", nameOrID, "posture"))
}

// QuarantineHost keeps a host shut. Operators only, as are the next two.
func (c *Client) QuarantineHost(ctx context.Context, nameOrID, reason string) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodPost, "hosts", nameOrID, "quarantine").with(WhyInput{Reason: reason}))
}

// ReleaseHost ends a quarantine.
func (c *Client) ReleaseHost(ctx context.Context, nameOrID, reason string) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodPost, "hosts", nameOrID, "release").with(WhyInput{Reason: reason}))
}

// LabelHosts changes the labels of many hosts, and returns those that are different.
func (c *Client) LabelHosts(ctx context.Context, in LabelsInput) (Page[Host], error) {
	return fetch[Page[Host]](ctx, c, v1(http.MethodPost, "hosts", "labels").with(in))
}

// HostSessions are those on a host, latest first: operators and auditors see all of
// them, others their own.
func (c *Client) HostSessions(ctx context.Context, nameOrID string, f SessionFilter) (Page[Session], error) {
	what := v1(http.MethodGet, "hosts", nameOrID, "sessions")
	what.query = url.Values{}
	if f.Live {
		what.query.Set("live", "true")
	}
	if f.Cursor != "" {
		what.query.Set("cursor", f.Cursor)
	}
	if f.Limit > 0 {
		what.query.Set("limit", strconv.Itoa(f.Limit))
	}
	return fetch[Page[Session]](ctx, c, what)
}
