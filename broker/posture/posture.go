// Package posture keeps what is known of the state of hosts: what each last said of
// itself, what the broker saw from outside, and whether an operator keeps it shut. From
// these one function, Facts.State, says what a host is shown as; nothing else does.
//
// A host is sealed only if it is known to be: a full pass that is fresh and younger than
// the last session, and a look from outside that agrees. Root on a host can lie, so that
// the host's own word alone never seals it; and what failed to be found out is unknown,
// never passed.
package posture

import (
	"time"

	"sallyport/api"
	"sallyport/api/hostapi"
)

const (
	// Every is how often a host looks at itself, at least.
	Every = 10 * time.Minute
	// Fresh is for how long a posture, or a look from outside, says how a host is.
	Fresh = 30 * time.Minute
	// SilentAfter is when a host that says nothing is silent. It asks for revocations
	// once a minute, at least.
	SilentAfter = 3 * time.Minute
)

// Report is the last posture of a host.
type Report struct {
	Number     uint64 // of the report that it came in
	BootID     string
	List       uint64    // number of the list of revocations that the host had: it looked after that
	TakenAt    time.Time // by the host's clock
	ReceivedAt time.Time
	Ports      []int           // on which something listens, beside sshd; nil: not known
	Checks     []hostapi.Check // with those that it left out; in Facts, those that passed may be missing
}

// Probe is the last look at a host from outside.
type Probe struct {
	At       time.Time
	Result   hostapi.Result
	Login    string // that was refused, or not
	Findings []string
}

// Facts are all that the state of one host is made of.
type Facts struct {
	Quarantined bool
	Granted     bool // a grant runs that opens it
	Deploying   bool // a deployment has opened it
	Live        int  // sessions that have not ended, as far as it has reported

	Enrolled bool // it speaks for itself; all that follows is of such hosts only
	SeenAt   time.Time
	Posture  *Report // nil: none yet
	Probe    *Probe  // nil: none yet
	// LastSession is the number of the last report about a session, and LastSessionAt
	// when the broker took it.
	LastSession   uint64
	LastSessionAt time.Time
	// LastSealing is the number that the list of revocations had when a deployment sealed
	// it last, and LastSealingAt when that was.
	LastSealing   uint64
	LastSealingAt time.Time
}

// State is what the host is shown as, and why: in this order of precedence.
//
//  1. quarantined: an operator keeps it shut.
//  2. A host that does not speak for itself is open while a grant runs or a deployment has
//     opened it, else unknown: whatever else opens it, nobody would be told.
//  3. silent: it has said nothing for SilentAfter.
//  4. drifted: a check failed, whenever that was, or the outside look found a way in.
//     Connections are no drift while somebody may be on it.
//  5. open: a grant runs, a deployment has opened it, or a session lasts.
//  6. unknown: a full pass or an agreeing look from outside is missing, older than Fresh,
//     or older than the last session or sealing.
//  7. sealed.
func (f Facts) State(now time.Time) (api.HostState, []string) {
	open := f.Granted || f.Deploying || f.Live > 0
	switch {
	case f.Quarantined:
		return api.HostQuarantined, nil
	case !f.Enrolled && open:
		return api.HostOpen, nil
	case !f.Enrolled:
		return api.HostUnknown, []string{"it runs no sally-host: that no grant is open is all that is known"}
	case now.Sub(f.SeenAt) > SilentAfter:
		return api.HostSilent, []string{"it was last heard of at " + f.SeenAt.UTC().Format(time.RFC3339)}
	}
	if why := f.drift(open); len(why) > 0 {
		return api.HostDrifted, why
	}
	if open {
		return api.HostOpen, nil
	}
	if why := f.doubts(now); len(why) > 0 {
		return api.HostUnknown, why
	}
	return api.HostSealed, nil
}

func (f Facts) drift(open bool) (why []string) {
	if f.Posture != nil {
		for _, c := range f.Posture.Checks {
			if c.Result == hostapi.Fail && !(open && c.ID == sessionsCheck) {
				why = append(why, "check "+c.ID+" fails"+first(c.Findings))
			}
		}
	}
	if f.Probe != nil && f.Probe.Result == hostapi.Fail {
		why = append(why, "seen from outside"+first(f.Probe.Findings))
	}
	return why
}

func (f Facts) doubts(now time.Time) (why []string) {
	switch p := f.Posture; {
	case p == nil:
		why = append(why, "it has not reported its posture yet")
	case now.Sub(p.ReceivedAt) > Fresh || now.Sub(p.TakenAt) > Fresh:
		why = append(why, "its posture is of "+p.TakenAt.UTC().Format(time.RFC3339))
	case p.Number < f.LastSession:
		why = append(why, "its posture is older than the last session")
	case p.List < f.LastSealing:
		why = append(why, "it has not reported its posture since a deployment sealed it")
	default:
		for _, c := range p.Checks {
			if c.Result != hostapi.Pass {
				why = append(why, "check "+c.ID+" is unknown"+first(c.Findings))
			}
		}
	}
	switch p := f.Probe; {
	case p == nil:
		why = append(why, "nobody has looked from outside yet")
	case now.Sub(p.At) > Fresh:
		why = append(why, "the last look from outside was at "+p.At.UTC().Format(time.RFC3339))
	case p.At.Before(f.LastSessionAt):
		why = append(why, "nobody has looked from outside since the last session")
	case p.At.Before(f.LastSealingAt):
		why = append(why, "nobody has looked from outside since a deployment sealed it")
	case p.Result != hostapi.Pass:
		why = append(why, "seen from outside"+first(p.Findings))
	}
	return why
}

const sessionsCheck = "sessions"

func first(findings []string) string {
	if len(findings) == 0 {
		return ""
	}
	return ": " + findings[0]
}
