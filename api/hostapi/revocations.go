package hostapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RevocationsKind is the kind of the note in which lists of revocations come, signed
// with the log's key (package audit/vouch): vouch.Open(RevocationsKind, body, logKey)
// is the text that ParseRevocations reads.
const RevocationsKind = "revocations/1"

// Revocations are what has ended before its time: the list with the number Number, or
// what came to it since the list Since, which is all of it if Since is 0.
//
// Each end has its own number, and numbers only grow; so a host that has list 7 may
// join a note with Since ≤ 7 to it ([Revocations.Join]), and nothing else. A note with
// Since = Number says that there is no news, at MadeAt: it is how a host knows that it
// still hears from the broker, and not from somebody who swallows what it says.
type Revocations struct {
	Number uint64    `json:"number"`
	Since  uint64    `json:"since"`
	MadeAt time.Time `json:"made_at"`
	// Oldest: what ended before it may have been left out, because no certificate of it
	// can be good any more and no session of it is known to live. A host whose own last
	// note was made before Oldest ends the sessions that began before then.
	Oldest  time.Time       `json:"oldest"`
	Serials []RevokedSerial `json:"serials"` // by serial
	Grants  []EndedGrant    `json:"grants"`  // by request
	// Extended are grants that others follow without a gap: what is open under them
	// stays open. By request.
	Extended []ExtendedGrant `json:"extended"`
	// Sealed are hosts that a deployment has sealed: once for each of both, the last time.
	// By host and deployment.
	Sealed []SealedHost `json:"sealed"`
}

// RevokedSerial is a certificate that must open nothing any more, and whose session
// ends. After Until hosts may forget it, if no session of it is left on them.
type RevokedSerial struct {
	Serial  uint64    `json:"serial,string"`
	Request string    `json:"request"` // under whose grant it was issued
	Until   time.Time `json:"until"`
}

// EndedGrant is a grant that was over before its time: no certificate of it, whichever
// serial it has, opens anything, and its sessions end, those of rules with at_end: keep
// too. Grants whose time is simply up are not listed: certificates say when that is.
type EndedGrant struct {
	Request string    `json:"request"` // the first half of the certificates' key id
	EndedAt time.Time `json:"ended_at"`
	Reason  EndReason `json:"reason"` // finished or revoked
	// Until is when hosts may forget it, if no session of it is left on them.
	Until time.Time `json:"until"`
}

// ExtendedGrant is a grant that another one follows: sessions of Request, whose
// certificates say that it ends earlier, last until EndsAt, or as long as By does.
type ExtendedGrant struct {
	Request string    `json:"request"`
	By      string    `json:"by"` // the request whose grant follows
	EndsAt  time.Time `json:"ends_at"`
	Until   time.Time `json:"until"` // when hosts may forget it
}

// SealedHost is a host on which nothing more is deployed: no certificate that an agent of
// the deployment was issued for it until At opens anything, and their sessions end. The
// host looks at itself anew, so that it is known soon that it is sealed.
type SealedHost struct {
	Host       string    `json:"host"` // id
	Deployment string    `json:"deployment"`
	At         time.Time `json:"at"`
	Until      time.Time `json:"until"` // when hosts may forget it
}

// ErrRolledBack is wrapped by errors about a list that must not replace the one that
// the host has.
var ErrRolledBack = errors.New("the list of revocations is not newer than the one that this host has")

// ParseRevocations reads the text of a note.
func ParseRevocations(text string) (Revocations, error) {
	var r Revocations
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("reading a list of revocations: %w", err)
	}
	if r.Since > r.Number || r.MadeAt.IsZero() {
		return r, errors.New("reading a list of revocations: its numbers contradict each other")
	}
	return r, nil
}

// Join returns the list that a host has after it got news. It refuses, with
// ErrRolledBack, news of a lower number, and news that begin after what the host has.
// News of the same number may be older, as another replica of the broker made them:
// then MadeAt stays. What was good until before then is forgotten; keep says of a grant
// that it must stay, because a session of it lives (nil: none does).
func (r Revocations) Join(news Revocations, keep func(request string) bool) (Revocations, error) {
	switch {
	case news.Number < r.Number:
		return r, fmt.Errorf("%w: number %d after %d", ErrRolledBack, news.Number, r.Number)
	case news.Since > r.Number:
		return r, fmt.Errorf("news since list %d cannot be joined to list %d", news.Since, r.Number)
	}
	out := Revocations{Number: news.Number, MadeAt: later(news.MadeAt, r.MadeAt), Oldest: later(news.Oldest, r.Oldest)}
	stays := func(until time.Time, request string) bool {
		return until.After(out.MadeAt) || keep != nil && keep(request)
	}
	out.Serials = join(news.Serials, r.Serials, RevokedSerial.compare, func(s RevokedSerial) bool { return stays(s.Until, s.Request) })
	out.Grants = join(news.Grants, r.Grants, EndedGrant.compare, func(g EndedGrant) bool { return stays(g.Until, g.Request) })
	out.Extended = join(news.Extended, r.Extended, ExtendedGrant.compare, func(e ExtendedGrant) bool { return stays(e.Until, e.Request) })
	out.Sealed = slices.DeleteFunc(LastSealings(slices.Concat(news.Sealed, r.Sealed)), func(s SealedHost) bool { return !s.Until.After(out.MadeAt) })
	return out, nil
}

// LastSealings are the sealings in their order, of each host and deployment the last one.
func LastSealings(all []SealedHost) []SealedHost {
	slices.SortFunc(all, func(a, b SealedHost) int { return cmp.Or(a.compare(b), b.At.Compare(a.At)) })
	return slices.CompactFunc(all, func(a, b SealedHost) bool { return a.compare(b) == 0 })
}

// join sorts what stays of two lists; where both have the same, the first one's counts.
func join[E any](first, second []E, compare func(E, E) int, stays func(E) bool) []E {
	all := slices.DeleteFunc(slices.Concat(first, second), func(e E) bool { return !stays(e) })
	slices.SortStableFunc(all, compare)
	return slices.CompactFunc(all, func(a, b E) bool { return compare(a, b) == 0 })
}

func (s RevokedSerial) compare(t RevokedSerial) int { return cmp.Compare(s.Serial, t.Serial) }
func (g EndedGrant) compare(h EndedGrant) int       { return strings.Compare(g.Request, h.Request) }
func (e ExtendedGrant) compare(f ExtendedGrant) int { return strings.Compare(e.Request, f.Request) }

func (s SealedHost) compare(t SealedHost) int {
	return cmp.Or(strings.Compare(s.Host, t.Host), strings.Compare(s.Deployment, t.Deployment))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Revoked reports whether the list has the serial.
func (r Revocations) Revoked(serial uint64) bool {
	_, found := slices.BinarySearchFunc(r.Serials, RevokedSerial{Serial: serial}, RevokedSerial.compare)
	return found
}

// Ended returns the end of a request's grant, if the list has it.
func (r Revocations) Ended(request string) (EndedGrant, bool) {
	i, found := slices.BinarySearchFunc(r.Grants, EndedGrant{Request: request}, EndedGrant.compare)
	if !found {
		return EndedGrant{}, false
	}
	return r.Grants[i], true
}

// SealedAt returns when the deployment sealed the host after it was issued a certificate
// for it at that time, if the list has it.
func (r Revocations) SealedAt(host, deployment string, issued time.Time) (time.Time, bool) {
	i, found := slices.BinarySearchFunc(r.Sealed, SealedHost{Host: host, Deployment: deployment}, SealedHost.compare)
	if !found || r.Sealed[i].At.Before(issued) {
		return time.Time{}, false
	}
	return r.Sealed[i].At, true
}

// End says when the sessions of a certificate end, and why. grantEnds is what the
// certificate says of its request's grant. An end before its time is returned even if
// the rule keeps sessions; EndTime means the grant's time, or that of those that follow it.
func (r Revocations) End(serial uint64, request string, grantEnds time.Time) (time.Time, EndReason) {
	if r.Revoked(serial) {
		return r.MadeAt, EndRevoked
	}
	if g, over := r.Ended(request); over {
		return g.EndedAt, g.Reason
	}
	for range r.Extended { // so often, at most
		i, found := slices.BinarySearchFunc(r.Extended, ExtendedGrant{Request: request}, ExtendedGrant.compare)
		if !found {
			break
		}
		if g, over := r.Ended(r.Extended[i].By); over {
			return later(grantEnds, g.EndedAt), g.Reason
		}
		request, grantEnds = r.Extended[i].By, later(grantEnds, r.Extended[i].EndsAt)
	}
	return grantEnds, EndTime
}
