package machine

import (
	"time"
)

// Event is something that happens to a deployment. Who may cause it is for the caller
// to find out; By is what an agent proves.
type Event interface{ event() }

// By is an agent that acts: a run, and the epoch of the lease that it believes to have.
type By struct {
	Run   string
	Epoch int64
}

// What agents do.
type (
	// Attach takes the lease, if nobody else has it.
	Attach struct{ Run string }
	// Renew says that the agent is there, and waits.
	Renew struct{ By }
	// OpenBatch opens a batch.
	OpenBatch struct {
		By
		Batch int
	}
	// Report says what became of hosts, and that the agent is there. Done closes the
	// batch, whatever is missing.
	Report struct {
		By
		Batch   int
		Results map[string]Result // by host
		Done    bool
	}
	// Finish says that the agent has nothing left to do.
	Finish struct{ By }
	// AgentAborts and AgentRollsBack end the deployment.
	AgentAborts struct {
		By
		Why string
	}
	AgentRollsBack struct {
		By
		Why string
	}
	// Leave gives the lease back; Revoked takes it from a run, if it has it.
	Leave   struct{ By }
	Revoked struct{ Run, Why string }
)

// What people do.
type (
	// Start begins: at once, or when it is approved.
	Start struct{}
	// Approved and Denied are of the start, of a gate or of going on in a freeze, when
	// enough people have said so.
	Approved struct {
		Subject Subject
		Until   time.Time // of an override
	}
	Denied struct {
		Subject Subject
		Why     string
	}
	// Stop holds it; an open batch closes.
	Stop struct{ Why string }
	// Resume ends what a person can end.
	Resume struct{ Why string }
	// Abort and Rollback end the deployment.
	Abort    struct{ Why string }
	Rollback struct{ Why string }
)

// What the broker finds.
type (
	// Tick is that time passes.
	Tick struct{}
	// Shut says that the certificates and sessions of a batch's hosts have ended.
	Shut struct{ Batch int }
	// Verified is what a host has shown of itself, and when.
	Verified struct {
		Host   string
		Sealed bool // else it has drifted
		At     time.Time
		Why    string
	}
	// Entered is that a person came to the host, for whatever reason: what was known of
	// it is in question again.
	Entered struct {
		Host string
		At   time.Time
		Why  string
	}
	// Strayed is that a host of the service has drifted that the deployment is not of.
	Strayed struct{ Why string }
	// Measured is what a gate saw.
	Measured struct {
		Batch   int
		Gate    string
		Outcome Verdict
		Why     string
	}
)

func (Attach) event()         {}
func (Renew) event()          {}
func (OpenBatch) event()      {}
func (Report) event()         {}
func (Finish) event()         {}
func (AgentAborts) event()    {}
func (AgentRollsBack) event() {}
func (Leave) event()          {}
func (Revoked) event()        {}
func (Start) event()          {}
func (Approved) event()       {}
func (Denied) event()         {}
func (Stop) event()           {}
func (Resume) event()         {}
func (Abort) event()          {}
func (Rollback) event()       {}
func (Tick) event()           {}
func (Shut) event()           {}
func (Verified) event()       {}
func (Entered) event()        {}
func (Strayed) event()        {}
func (Measured) event()       {}

// Subject is what people decide on.
type Subject struct {
	Kind  SubjectKind
	Batch int    // of a gate
	Gate  string // its name
}

// SubjectKind is what kind of thing that is.
type SubjectKind string

// The kinds of subjects.
const (
	ToStart    SubjectKind = "start"
	ToPass     SubjectKind = "gate"
	ToOverride SubjectKind = "override"
)

// Effect is something that a step did, to be said in the log.
type Effect interface{ effect() }

// The effects.
type (
	// PhaseMoved is that the deployment went on.
	PhaseMoved struct {
		From, To Phase
		Why      string
	}
	// HoldSet and HoldEnded are of the deployment.
	HoldSet   struct{ Code, Why string }
	HoldEnded struct{ Code, Why string }
	// LeaseTaken is that a run has the lease, in a new epoch.
	LeaseTaken struct {
		Run   string
		Epoch int64
	}
	// LeaseOver is that it has it no more.
	LeaseOver struct {
		Run string
		Why string
	}
	// BatchMoved is that a batch went on.
	BatchMoved struct {
		Batch    int
		From, To BatchPhase
		Why      string
	}
	// HostsReported are results that are new.
	HostsReported struct {
		Batch   int
		Results map[string]Result
	}
	// HostMoved is that a host was found sealed, or was not.
	HostMoved struct {
		Batch int
		Host  string
		To    HostPhase
		Why   string
	}
	// GateDecided is a gate's verdict.
	GateDecided struct {
		Batch    int
		Gate     string
		Verdict  Verdict
		Why      string
		Failures int
	}
	// Unfrozen is that freezes do not hold until then.
	Unfrozen struct{ Until time.Time }
)

func (PhaseMoved) effect()    {}
func (HoldSet) effect()       {}
func (HoldEnded) effect()     {}
func (LeaseTaken) effect()    {}
func (LeaseOver) effect()     {}
func (BatchMoved) effect()    {}
func (HostsReported) effect() {}
func (HostMoved) effect()     {}
func (GateDecided) effect()   {}
func (Unfrozen) effect()      {}
