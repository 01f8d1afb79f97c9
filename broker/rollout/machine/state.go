// Package machine is the course of a deployment as a pure state machine: Step takes a
// state, what happened and the time, and gives the next state with what is to be said
// of it. It keeps no clock, no database and no network, so that a restart in any state
// goes on where it was, and a model can try every order of things.
//
//	deployment  planned → awaiting_approval → active ⇄ held → verifying → complete
//	            … → aborted;  … → rolling_back → rolled_back | rollback_failed
//	batch       pending → open → closing → sealing → soaking → gating → passed
//	            … → failed | inconclusive
//	host        sealed → open → deployed → verifying → sealed | drifted | quarantined
//	            sealed → verifying, when a person was on it
//
// What it holds to, in every state:
//
//   - at most one batch is open, and a host only while its batch is;
//   - a batch opens when every batch before it has passed, and never in a freeze;
//   - a batch is sealed before its soak begins;
//   - failures of all batches add up to one budget;
//   - what is inconclusive does not pass;
//   - who holds the lease acts by its epoch, and nobody by an older one;
//   - in the end every host is sealed, or named as drifted or quarantined.
//
// What must be done outside (closing hosts, asking for their posture, measuring gates)
// is no effect of a step but follows from the state: Due says what. So nothing is lost
// when a process dies between a step and the deed; deeds are repeated until a step says
// that they are done.
package machine

import (
	"slices"
	"time"

	"sallyport/broker/rollout/plan"
)

// Phase is how far a deployment has come.
type Phase string

// The phases of a deployment.
const (
	Planned          Phase = "planned"
	AwaitingApproval Phase = "awaiting_approval"
	Active           Phase = "active"
	Held             Phase = "held"
	Verifying        Phase = "verifying"
	Complete         Phase = "complete"
	Aborted          Phase = "aborted"
	RollingBack      Phase = "rolling_back"
	RolledBack       Phase = "rolled_back"
	RollbackFailed   Phase = "rollback_failed"
)

// Over reports whether nothing can follow.
func (p Phase) Over() bool {
	return p == Complete || p == Aborted || p == RolledBack || p == RollbackFailed
}

// BatchPhase is how far a batch has come.
type BatchPhase string

// The phases of a batch.
const (
	Pending      BatchPhase = "pending"
	Open         BatchPhase = "open"
	Closing      BatchPhase = "closing" // no new certificates; those that exist and their sessions are ended
	Sealing      BatchPhase = "sealing" // until each host has shown that it is sealed
	Soaking      BatchPhase = "soaking"
	Gating       BatchPhase = "gating"
	Passed       BatchPhase = "passed"
	Failed       BatchPhase = "failed"
	Inconclusive BatchPhase = "inconclusive"
)

// HostPhase is what a deployment knows of a host.
type HostPhase string

// The phases of a host.
const (
	HostSealed      HostPhase = "sealed"
	HostOpen        HostPhase = "open"
	HostDeployed    HostPhase = "deployed"
	HostVerifying   HostPhase = "verifying"
	HostDrifted     HostPhase = "drifted"     // its posture shows that it can be opened
	HostQuarantined HostPhase = "quarantined" // it has not shown anything in time
)

// Result is what the agent says of a host.
type Result string

// The results. Missing is what nobody reported before the batch closed.
const (
	OK      Result = "ok"
	Fail    Result = "failed"
	Skipped Result = "skipped"
	Missing Result = "missing"
)

// Verdict is what came of a gate.
type Verdict string

// The verdicts.
const (
	Waiting Verdict = "waiting"
	Pass    Verdict = "pass"
	NoPass  Verdict = "fail"
	Unclear Verdict = "inconclusive"
)

// Hold is why a deployment does not go on.
type Hold struct {
	Code string    `json:"code"`
	Why  string    `json:"why"`
	At   time.Time `json:"at"`
}

// The codes of holds.
const (
	LeaseLost    = "lease-lost"    // ends when an agent attaches
	Stopped      = "stopped"       // ends when somebody resumes
	Drift        = "host-drifted"  // ends when somebody resumes
	GatesUnclear = "gates-unclear" // ends when somebody resumes: the gates are measured anew
	BatchFailed  = "batch-failed"  // ends with the deployment
)

// MaxOpenings is how often one batch can be opened, if agents keep losing it.
const MaxOpenings = 10

// State is how a deployment stands.
type State struct {
	Phase   Phase     `json:"phase"`
	Holds   []Hold    `json:"holds"`
	Epoch   int64     `json:"epoch,string"`
	Holder  string    `json:"holder,omitempty"` // run that has the lease
	Lease   time.Time `json:"lease,omitzero"`   // until when
	At      time.Time `json:"at"`               // of the last step; time does not go back
	Since   time.Time `json:"since"`            // of the phase
	Batches []Batch   `json:"batches"`
	Spent   int       `json:"spent"`            // hosts that failed, over all batches
	Unfroze time.Time `json:"unfroze,omitzero"` // freezes do not hold until then
	Ending  Phase     `json:"ending,omitempty"` // aborted or rolling_back, when no batch is open any more
	Why     string    `json:"why,omitempty"`    // it ends or ended so
	Digest  string    `json:"digest"`           // that is on its hosts when it ends well
}

// Batch is how a batch stands.
type Batch struct {
	Number   int        `json:"number"`
	Rollback bool       `json:"rollback,omitempty"`
	Phase    BatchPhase `json:"phase"`
	Why      string     `json:"why,omitempty"`
	Partial  bool       `json:"partial,omitempty"` // it was closed before all its hosts were reported
	Openings int        `json:"openings"`
	Epoch    int64      `json:"epoch,string"` // in which it was opened
	Opened   time.Time  `json:"opened,omitzero"`
	Closed   time.Time  `json:"closed,omitzero"`
	Shut     time.Time  `json:"shut,omitzero"` // certificates and sessions have ended
	Sealed   time.Time  `json:"sealed,omitzero"`
	Gated    time.Time  `json:"gated,omitzero"`
	Hosts    []Host     `json:"hosts"`
	Gates    []Gate     `json:"gates,omitempty"`
}

// Host is how a host stands.
type Host struct {
	ID       string    `json:"id"`
	Phase    HostPhase `json:"phase"`
	Opened   bool      `json:"opened,omitempty"` // by this deployment, ever
	Result   Result    `json:"result,omitempty"`
	Verified time.Time `json:"verified,omitzero"` // when it showed that it is sealed
	Entered  time.Time `json:"entered,omitzero"`  // when a person was let in last, after it was sealed
	Why      string    `json:"why,omitempty"`
}

// Gate is how a gate stands.
type Gate struct {
	Name     string    `json:"name"`
	Verdict  Verdict   `json:"verdict"`
	Passes   int       `json:"passes"` // in a row
	Failures int       `json:"failures"`
	Next     time.Time `json:"next,omitzero"` // measurement
	Why      string    `json:"why,omitempty"` // what was seen last
}

// New is a deployment that has just been opened.
func New(t *plan.Terms, now time.Time) State {
	s := State{Phase: Planned, Holds: []Hold{}, At: now, Since: now, Batches: []Batch{}, Digest: t.Digest}
	for _, b := range t.Batches {
		batch := Batch{Number: b.Number, Phase: Pending}
		for _, h := range b.Hosts {
			batch.Hosts = append(batch.Hosts, Host{ID: h.ID, Phase: HostSealed})
		}
		s.Batches = append(s.Batches, batch)
	}
	return s
}

// clone is a state that shares nothing with the other.
func (s State) clone() State {
	s.Holds, s.Batches = slices.Clone(s.Holds), slices.Clone(s.Batches)
	for i := range s.Batches {
		s.Batches[i].Hosts, s.Batches[i].Gates = slices.Clone(s.Batches[i].Hosts), slices.Clone(s.Batches[i].Gates)
	}
	return s
}

// Batch is the batch with the number, or nil.
func (s *State) Batch(n int) *Batch {
	if n < 1 || n > len(s.Batches) {
		return nil
	}
	return &s.Batches[n-1]
}

// Current is the batch between being opened and its end, or nil: there is at most one.
func (s *State) Current() *Batch {
	for i := range s.Batches {
		switch s.Batches[i].Phase {
		case Open, Closing, Sealing, Soaking, Gating:
			return &s.Batches[i]
		}
	}
	return nil
}

// Next is the batch that comes next, or nil.
func (s *State) Next() *Batch {
	for i := range s.Batches {
		if b := &s.Batches[i]; s.Phase != RollingBack || b.Rollback {
			if b.Phase == Pending || b.Phase == Inconclusive && b.Partial {
				return b
			}
		}
	}
	return nil
}

// host is the batch's host with the id, or nil.
func (b *Batch) host(id string) *Host {
	i := slices.IndexFunc(b.Hosts, func(h Host) bool { return h.ID == id })
	if i < 0 {
		return nil
	}
	return &b.Hosts[i]
}

// gate is the batch's gate with the name, or nil.
func (b *Batch) gate(name string) *Gate {
	i := slices.IndexFunc(b.Gates, func(g Gate) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &b.Gates[i]
}

// Last is how each host of the deployment stands, by what the batch that it was in last
// says: a rollback's, if there was one.
func (s *State) Last() []*Host {
	at := map[string]int{}
	var list []*Host
	for i := range s.Batches {
		for j := range s.Batches[i].Hosts {
			h := &s.Batches[i].Hosts[j]
			if n, seen := at[h.ID]; seen {
				list[n] = h
				continue
			}
			at[h.ID] = len(list)
			list = append(list, h)
		}
	}
	return list
}

// held reports whether the deployment has the hold.
func (s *State) held(code string) bool {
	return slices.ContainsFunc(s.Holds, func(h Hold) bool { return h.Code == code })
}
