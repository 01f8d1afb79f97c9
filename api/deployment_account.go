package api

import "time"

// DeploymentAccount is all that people are shown of one deployment, beside its events.
type DeploymentAccount struct {
	Deployment
	Agent     string               `json:"agent" doc:"Trust entry that admitted whoever opened it"`
	Issuer    string               `json:"issuer" doc:"Of that job's token"`
	Subject   string               `json:"subject" doc:"Of that job's token"`
	Login     string               `json:"login" doc:"On the hosts"`
	Command   string               `json:"command" doc:"The only one that certificates run"`
	Back      string               `json:"rollback_command,omitempty" doc:"The one that puts back what was there before"`
	Sources   []string             `json:"source_address" doc:"From where certificates are good"`
	Lifetime  string               `json:"lifetime" doc:"Of a certificate, at most"`
	Uses      int                  `json:"uses" doc:"Sessions that a certificate opens"`
	OnFailure string               `json:"on_failure" enum:"hold,rollback,abort" doc:"What follows when a batch has failed"`
	Unfrozen  *time.Time           `json:"unfrozen,omitempty" doc:"Until when freezes do not hold it"`
	Questions []DeploymentQuestion `json:"questions" doc:"What people are asked now"`

	Certificates []DeploymentCertificate `json:"certificates" doc:"Newest first; at most 500"`
	Sessions     []Session               `json:"sessions" doc:"Of its agents, newest first; at most 500"`
}

// DeploymentQuestion is something that people are asked now, and whether the caller is.
type DeploymentQuestion struct {
	About string `json:"about" enum:"start,gate,override"`
	Batch int    `json:"batch,omitempty" doc:"Of the gate"`
	Gate  string `json:"gate,omitempty" doc:"Its name"`
	Slots []Slot `json:"slots" doc:"Whose approvals it needs"`
	// MayApprove and MayDeny are the caller's.
	MayApprove bool   `json:"may_approve"`
	MayDeny    bool   `json:"may_deny"`
	Why        string `json:"why,omitempty" doc:"Why the caller may not approve"`
}

// DeploymentCertificate is a certificate that an agent was issued.
type DeploymentCertificate struct {
	Serial      uint64    `json:"serial,string"`
	HostID      string    `json:"host_id"`
	Batch       int       `json:"batch"`
	Epoch       uint64    `json:"epoch,string"`
	Run         string    `json:"run_id"`
	Uses        int       `json:"uses"`
	IssuedAt    time.Time `json:"issued_at"`
	ValidBefore time.Time `json:"valid_before"`
	Index       *int64    `json:"index,string,omitempty" doc:"Place of its event in the log; absent while that waits"`
}
