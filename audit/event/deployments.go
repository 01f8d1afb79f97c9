package event

import (
	"fmt"
	"strings"
	"time"
)

// Deployments by agents. The subject's hosts are those that an event is about.

// DeploymentOpened records that an agent opened a deployment of one artifact, with its
// frozen terms.
type DeploymentOpened struct {
	DeploymentID string            `json:"deployment_id"`      // of the deployment
	Entry        string            `json:"entry"`              // of the policy's deployments, that allows it
	Service      string            `json:"service"`            // what is deployed
	Environment  string            `json:"environment"`        // where
	Digest       string            `json:"digest"`             // of the artifact
	Previous     string            `json:"previous,omitempty"` // digest that was verified there last, to which a rollback goes
	Batches      []string          `json:"batches"`            // how many hosts each has
	Login        string            `json:"login"`              // on the hosts
	Command      string            `json:"command"`            // the only one that certificates run
	Claims       map[string]string `json:"claims"`             // of the job's token
	TokenHash    string            `json:"token_hash"`         // SHA-256 of the job's token, hex
	TermsHash    string            `json:"terms_hash"`         // SHA-256 of the canonical terms, hex
}

func (DeploymentOpened) EventType() (string, int) { return "deployment.opened", 1 }
func (d DeploymentOpened) Summary() string {
	return fmt.Sprintf("opened a deployment of %s in %s: %s", d.Service, d.Environment, d.Digest)
}

// DeploymentRefused records something about a deployment that somebody may not do, or
// not now.
type DeploymentRefused struct {
	DeploymentID string `json:"deployment_id,omitempty"` // of the deployment, if it is one
	Action       string `json:"action"`                  // open, attach, batch, certificate, report, finish, abort, rollback, stop, resume or decide
	Service      string `json:"service,omitempty"`       // that was to be deployed
	Environment  string `json:"environment,omitempty"`   // where
	Batch        int    `json:"batch,omitempty"`         // that it was about
	Host         string `json:"host,omitempty"`          // that it was about, as it was asked for
	Code         string `json:"code"`                    // the refusal's code, as in docs/problems.md
	Reason       string `json:"reason"`                  // why, in words for people
}

func (DeploymentRefused) EventType() (string, int) { return "deployment.refused", 1 }
func (d DeploymentRefused) Summary() string {
	return fmt.Sprintf("was refused to %s: %s", orText(d.Action, "act"), d.Reason)
}

// DeploymentDecided records what a person said to the start of a deployment, to a gate
// or to going on in a freeze.
type DeploymentDecided struct {
	DeploymentID string   `json:"deployment_id"`     // of the deployment
	DecisionID   string   `json:"decision_id"`       // of the decision
	About        string   `json:"about"`             // start, gate or override
	Batch        int      `json:"batch,omitempty"`   // of the gate
	Gate         string   `json:"gate,omitempty"`    // its name
	Verdict      string   `json:"verdict"`           // approve or deny
	Comment      string   `json:"comment,omitempty"` // in the approver's words
	TermsHash    string   `json:"terms_hash"`        // SHA-256 of what was decided on, hex
	Groups       []string `json:"groups"`            // of the approver, at the decision
	Evidence     string   `json:"evidence"`          // the canonical statement, exactly
	EvidenceHash string   `json:"evidence_hash"`     // SHA-256 of it, hex
	// What proves it: see package approvals/evidence.
	Assurance   string `json:"assurance"`               // session or provider
	IDTokenHash string `json:"id_token_hash,omitempty"` // SHA-256 of the ID token, hex
	KeysHash    string `json:"keys_hash,omitempty"`     // of the note in provider.keys_seen that the token verifies with
}

func (DeploymentDecided) EventType() (string, int) { return "deployment.decided", 1 }
func (d DeploymentDecided) Summary() string {
	said, about := "approved ", d.About
	if d.Verdict == "deny" {
		said = "denied "
	}
	switch d.About {
	case "gate":
		about = fmt.Sprintf("gate %s after batch %d", d.Gate, d.Batch)
	case "start":
		about = "the deployment"
	case "override":
		about = "going on in a freeze"
	}
	return said + about + because(d.Comment)
}

// DeploymentMoved records that a deployment went on: its state is another.
type DeploymentMoved struct {
	DeploymentID string `json:"deployment_id"`    // of the deployment
	Before       string `json:"before"`           // its state until then
	State        string `json:"state"`            // planned, awaiting_approval, active, held, verifying, complete, aborted, rolling_back, rolled_back or rollback_failed
	Digest       string `json:"digest"`           // of the artifact, or of the one that a rollback went back to
	Reason       string `json:"reason,omitempty"` // why
	// Unsealed are the hosts that are not proved to be sealed when it ends.
	Unsealed []string `json:"unsealed,omitempty"`
}

func (DeploymentMoved) EventType() (string, int) { return "deployment.moved", 1 }
func (d DeploymentMoved) Summary() string {
	return "the deployment is " + strings.ReplaceAll(d.State, "_", " ") + because(d.Reason)
}

// DeploymentHeld records why a deployment does not go on.
type DeploymentHeld struct {
	DeploymentID string `json:"deployment_id"` // of the deployment
	Code         string `json:"code"`          // lease-lost, stopped, gates-unclear, host-drifted or batch-failed
	Reason       string `json:"reason"`        // why, in words for people
}

func (DeploymentHeld) EventType() (string, int) { return "deployment.held", 1 }
func (d DeploymentHeld) Summary() string        { return "held the deployment: " + d.Reason }

// DeploymentResumed records that a reason for which a deployment was held is no more.
type DeploymentResumed struct {
	DeploymentID string `json:"deployment_id"` // of the deployment
	Code         string `json:"code"`          // of the reason
	Reason       string `json:"reason"`        // in words for people, or in a person's own
}

func (DeploymentResumed) EventType() (string, int) { return "deployment.resumed", 1 }
func (d DeploymentResumed) Summary() string {
	return "ended what held the deployment (" + d.Code + "): " + d.Reason
}

// DeploymentLeased records that a run of a pipeline has the lease of a deployment.
type DeploymentLeased struct {
	DeploymentID string `json:"deployment_id"` // of the deployment
	Run          string `json:"run"`           // id of the run
	Epoch        uint64 `json:"epoch,string"`  // that begins: what an older one says is void
}

func (DeploymentLeased) EventType() (string, int) { return "deployment.leased", 1 }
func (d DeploymentLeased) Summary() string        { return "has the lease, in epoch " + fmt.Sprint(d.Epoch) }

// DeploymentReleased records that a run no longer has the lease.
type DeploymentReleased struct {
	DeploymentID string `json:"deployment_id"` // of the deployment
	Run          string `json:"run"`           // id of the run
	Reason       string `json:"reason"`        // why
}

func (DeploymentReleased) EventType() (string, int) { return "deployment.released", 1 }
func (d DeploymentReleased) Summary() string        { return "run " + d.Run + " lost the lease: " + d.Reason }

// DeploymentUnfrozen records that a deployment may go on in freezes for a while.
type DeploymentUnfrozen struct {
	DeploymentID string    `json:"deployment_id"` // of the deployment
	Until        time.Time `json:"until"`         // excluded
	Decisions    []string  `json:"decisions"`     // hashes of the evidence of those who allowed it
}

func (DeploymentUnfrozen) EventType() (string, int) { return "deployment.unfrozen", 1 }
func (d DeploymentUnfrozen) Summary() string {
	return "let the deployment go on in freezes until " + d.Until.Format(time.RFC3339)
}

// BatchMoved records that a batch went on: its state is another.
type BatchMoved struct {
	DeploymentID string `json:"deployment_id"`      // of the deployment
	Batch        int    `json:"batch"`              // number, from 1
	Rollback     bool   `json:"rollback,omitempty"` // it puts back what was there before
	Epoch        uint64 `json:"epoch,string"`       // of the lease in which it was opened
	Before       string `json:"before"`             // its state until then
	State        string `json:"state"`              // pending, open, closing, sealing, soaking, gating, passed, failed or inconclusive
	Reason       string `json:"reason,omitempty"`   // why
}

func (BatchMoved) EventType() (string, int) { return "batch.moved", 1 }
func (d BatchMoved) Summary() string {
	return fmt.Sprintf("batch %d is %s%s", d.Batch, d.State, because(d.Reason))
}

// BatchReported records what an agent said of hosts of the open batch.
type BatchReported struct {
	DeploymentID string   `json:"deployment_id"` // of the deployment
	Batch        int      `json:"batch"`         // number
	OK           []string `json:"ok"`            // hosts' ids
	Failed       []string `json:"failed"`        // hosts' ids
	Skipped      []string `json:"skipped"`       // hosts' ids
}

func (BatchReported) EventType() (string, int) { return "batch.reported", 1 }
func (d BatchReported) Summary() string {
	return fmt.Sprintf("reported batch %d: %d ok, %d failed, %d skipped", d.Batch, len(d.OK), len(d.Failed), len(d.Skipped))
}

// BatchVerified records that hosts of a deployment were found sealed, or were not, or
// must show it again because somebody was on them (verifying).
type BatchVerified struct {
	DeploymentID string `json:"deployment_id"`    // of the deployment
	Batch        int    `json:"batch"`            // that they were in last
	State        string `json:"state"`            // sealed, verifying, drifted or quarantined
	Reason       string `json:"reason,omitempty"` // why not sealed
}

func (BatchVerified) EventType() (string, int) { return "batch.verified", 1 }
func (d BatchVerified) Summary() string {
	return fmt.Sprintf("found hosts of batch %d %s%s", d.Batch, d.State, because(d.Reason))
}

// GateDecided records the verdict of a gate after a batch.
type GateDecided struct {
	DeploymentID string `json:"deployment_id"` // of the deployment
	Batch        int    `json:"batch"`         // number
	Gate         string `json:"gate"`          // its name
	Verdict      string `json:"verdict"`       // pass, fail or inconclusive
	Failures     int    `json:"failures"`      // measurements that failed before
	Reason       string `json:"reason"`        // what was seen last
}

func (GateDecided) EventType() (string, int) { return "gate.decided", 1 }
func (d GateDecided) Summary() string {
	return fmt.Sprintf("gate %s after batch %d: %s%s", d.Gate, d.Batch, d.Verdict, because(d.Reason))
}

// DeploymentCertificateIssued records a certificate of an agent that is about to be
// signed; without this event there is none.
type DeploymentCertificateIssued struct {
	Serial         uint64    `json:"serial,string"`      // of the certificate
	DeploymentID   string    `json:"deployment_id"`      // of the deployment
	Batch          int       `json:"batch"`              // that is open, and has the host
	Epoch          uint64    `json:"epoch,string"`       // of the lease
	Rollback       bool      `json:"rollback,omitempty"` // it puts back what was there before
	Digest         string    `json:"digest"`             // of the artifact
	KeyID          string    `json:"key_id"`             // as sshd logs it
	Principal      string    `json:"principal"`          // the only one
	Login          string    `json:"login"`              // on the host
	Host           string    `json:"host"`               // name
	Key            string    `json:"key"`                // fingerprint of the key that it is for
	Command        string    `json:"command"`            // the only one that it runs
	Uses           int       `json:"uses"`               // sessions that it opens
	BatchEndsAt    time.Time `json:"batch_ends_at"`      // latest; by then they end
	PreCertificate []byte    `json:"pre_certificate"`    // the certificate without receipt and signature
	CA             string    `json:"ca"`                 // fingerprint of the key that signs
	ValidAfter     time.Time `json:"valid_after"`        // included
	ValidBefore    time.Time `json:"valid_before"`       // excluded
	TermsHash      string    `json:"terms_hash"`         // of the deployment, hex
	TokenHash      string    `json:"token_hash"`         // of the job's token, hex
	Decisions      []string  `json:"decisions"`          // hashes of the evidence of those who approved the start
}

func (DeploymentCertificateIssued) EventType() (string, int) {
	return "deployment.certificate_issued", 1
}
func (d DeploymentCertificateIssued) Summary() string {
	return fmt.Sprintf("was issued certificate %d for %s@%s in batch %d", d.Serial, d.Login, d.Host, d.Batch)
}

// DeploymentCertificateSigned records what came of the intent in
// deployment.certificate_issued.
type DeploymentCertificateSigned struct {
	Serial       uint64 `json:"serial,string"`     // of the certificate
	DeploymentID string `json:"deployment_id"`     // of the deployment
	Intent       string `json:"intent"`            // id of the event deployment.certificate_issued
	Certificate  string `json:"certificate"`       // SHA-256 of what was signed, hex; empty: nothing was
	Failure      string `json:"failure,omitempty"` // why not
}

func (DeploymentCertificateSigned) EventType() (string, int) {
	return "deployment.certificate_signed", 1
}
func (d DeploymentCertificateSigned) Summary() string {
	if d.Failure != "" {
		return fmt.Sprintf("did not sign certificate %d: %s", d.Serial, d.Failure)
	}
	return fmt.Sprintf("signed certificate %d", d.Serial)
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
