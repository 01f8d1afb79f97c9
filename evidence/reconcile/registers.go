package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/broker/rollout/machine"
	"sallyport/evidence/populations"
)

// ended is a deployment that is remembered until nothing more of it can be reported.
type ended struct {
	id string
	at time.Time
}

// forgetEnded makes the rows of deployments that ended long enough ago, and lets go of
// them.
func (g *Engine) forgetEnded(now time.Time) {
	for len(g.ending) > 0 && now.After(g.ending[0].at.Add(reported)) {
		g.forgetDeployment(g.deployments[g.ending[0].id])
		g.ending = g.ending[1:]
	}
}

// forgetAll makes the rows of what is left, at the end: first what has ended.
func (g *Engine) forgetAll() {
	for _, of := range g.ending {
		g.forgetDeployment(g.deployments[of.id])
	}
	g.ending = nil
	rest := slices.SortedFunc(maps.Values(g.deployments), func(a, b *deployment) int { return cmp.Compare(a.event.Index, b.event.Index) })
	for _, x := range rest {
		g.forgetDeployment(x)
	}
}

func (g *Engine) forgetDeployment(x *deployment) {
	delete(g.deployments, x.id)
	if x.partial || !x.event.Time.Before(g.cfg.To) || x.over() && x.ended.Before(g.cfg.From) {
		return
	}
	g.row(&populations.Deployments, x.event, x.cells())
	for _, b := range x.batches {
		for _, h := range b.hosts {
			if h.first != nil {
				g.row(&populations.DeploymentHosts, h.first, x.hostCells(b, h))
			}
		}
	}
}

func (g *Engine) row(r *populations.Register, e *populations.Event, cells []string) {
	if g.err == nil {
		g.err = g.cfg.Row(r, e, cells)
	}
}

// cells are those of populations.Deployments.
func (x *deployment) cells() []string {
	d, e := x.opened, x.event
	version, hash := "", ""
	if e.Policy != nil {
		version, hash = strconv.FormatInt(e.Policy.Version, 10), e.Policy.Hash
	}
	first, opened, certificates, sessions := time.Time{}, map[string]bool{}, 0, 0
	var failed, rollback []string
	for _, b := range x.batches {
		for _, h := range b.hosts {
			if h.first != nil {
				opened[h.id] = true
				if first.IsZero() || h.first.Time.Before(first) {
					first = h.first.Time
				}
			}
			if certificates, sessions = certificates+len(h.serials), sessions+len(h.sessions); h.failed {
				failed = append(failed, h.id)
			}
		}
	}
	if x.rolledBack {
		rollback = append(rollback, "to "+or(d.Previous, "nothing"))
	}
	ended, unsealed := "", strings.Join(x.unsealed, ", ")
	if x.over() {
		ended = populations.Time(x.ended)
	}
	return []string{d.DeploymentID, d.Service, d.Environment, d.Digest, d.Previous, d.Entry,
		e.Actor.ID, e.Actor.Name, x.trust, x.issuer, claim(d.Claims, repositories), claim(d.Claims, commits), claim(d.Claims, refs), claim(d.Claims, persons),
		claimsText(d.Claims), strings.Join(x.runs, ", "),
		x.needed(), x.people("start", api.Approve), x.people("", api.Deny), x.people("gate", api.Approve),
		strings.Join(d.Batches, ", "), x.tests(), strings.Join(x.hosts, ", "), strconv.Itoa(len(opened)), strings.Join(failed, ", "),
		populations.Time(first), ended, string(x.phase), x.reason, x.digest, unsealed,
		strconv.Itoa(certificates), strconv.Itoa(sessions), strings.Join(x.held, ", "), x.overridden(), strings.Join(rollback, ", "), yes(x.emergency),
		version, hash, d.TermsHash, d.TokenHash}
}

// hostCells are those of populations.DeploymentHosts.
func (x *deployment) hostCells(b *batch, h *target) []string {
	digest := x.opened.Digest
	if b.rollback {
		digest = x.opened.Previous
	}
	state, verified := string(h.state), ""
	switch {
	case h.open || h.awaits && b.opening.closed.IsZero():
		state = string(machine.HostOpen)
	case h.awaits || state == "":
		state = "not shown to be sealed"
	default:
		verified = populations.Time(h.at)
	}
	return []string{x.id, x.opened.Service, x.opened.Environment, digest, h.id, h.name, strconv.Itoa(b.number), yes(b.rollback),
		strconv.Itoa(len(h.epochs)), strings.Join(h.epochs, ", "), populations.Time(h.first.Time), populations.Time(h.closed),
		string(h.result), strings.Join(h.serials, ", "), strings.Join(h.sessions, ", "), state, verified, h.why}
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// Claims by which providers name one thing (package approvals/claims), the first
// that is there.
var (
	repositories = []string{"repository", "project_path", "pipeline_slug", "oidc.circleci.com/vcs-origin"}
	commits      = []string{"sha", "build_commit"}
	refs         = []string{"ref", "ref_path", "build_branch", "oidc.circleci.com/vcs-ref"}
	persons      = []string{"actor", "user_login", "user_email"}
)

func claim(claims map[string]string, names []string) string {
	for _, name := range names {
		if claims[name] != "" {
			return claims[name]
		}
	}
	return ""
}

func claimsText(claims map[string]string) string {
	var list []string
	for _, name := range sorted(claims) {
		list = append(list, name+"="+claims[name])
	}
	return strings.Join(list, ", ")
}

// needed is who had to approve the start.
func (x *deployment) needed() string {
	if x.entry == nil {
		return "unknown: the policy cannot be read"
	}
	if len(x.entry.Stages) == 0 {
		return "nobody"
	}
	return stagesText(x.entry.Stages)
}

func stagesText(stages []policy.Stage) string {
	var list []string
	for _, s := range stages {
		var slots []string
		for _, slot := range s.Slots {
			slots = append(slots, fmt.Sprintf("%d of %s", slot.Count, strings.Join(slot.Groups, " or ")))
		}
		list = append(list, strings.Join(slots, " and "))
	}
	return strings.Join(list, ", then ")
}

// people are those who said so about something, with what proves it; about is a prefix.
func (x *deployment) people(about string, v api.Verdict) string {
	var list []string
	for _, s := range x.decisions {
		if s.Verdict != v || !strings.HasPrefix(s.About, about) {
			continue
		}
		what, n, gate := s.Of()
		if what == "gate" {
			what = fmt.Sprintf("gate %s after batch %d", gate, n)
		}
		assurance := s.Assurance
		if s.unproved != "" {
			assurance += ", not proved"
		}
		list = append(list, fmt.Sprintf("%s %s: %s, at %s (%s, evidence %s)", s.name, s.Approver.ID, what, populations.Time(s.Time), assurance, s.hash))
	}
	return strings.Join(list, "; ")
}

// tests are the gates after each batch, with their results, and how long each soaked.
func (x *deployment) tests() string {
	var list []string
	for _, b := range x.batches {
		if b.opening == nil {
			continue
		}
		said := fmt.Sprintf("batch %d is %s", b.number, b.phase)
		if !b.soaking.IsZero() && !b.gating.IsZero() {
			said += ", soaked " + b.gating.Sub(b.soaking).String()
		}
		for _, v := range b.verdicts {
			said += fmt.Sprintf(", %s: %s", v.gate, v.verdict)
			if v.reason != "" {
				said += " (" + v.reason + ")"
			}
		}
		list = append(list, said)
	}
	return strings.Join(list, "; ")
}

func (x *deployment) overridden() string {
	var list []string
	for _, o := range x.overrides {
		list = append(list, fmt.Sprintf("from %s until %s by %s", populations.Time(o.from), populations.Time(o.until), o.by))
	}
	return strings.Join(list, "; ")
}
