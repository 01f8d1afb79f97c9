package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/internal/names"
)

// rule reads one rule.
func (p *reader) rule(path string, r rule) (*Rule, error) {
	out := &Rule{Name: r.Name, Description: r.Description, Groups: r.Who, Logins: r.Logins, SingleUse: r.SingleUse,
		KeepSessions: r.AtEnd == keepSessions, Record: r.Record}
	if r.AtEnd != "" && !slices.Contains(atEnds, r.AtEnd) {
		return nil, p.fault(path+".at_end", "%q is not what becomes of sessions: end or keep", r.AtEnd)
	}
	if !nameForm.MatchString(r.Name) {
		return nil, p.fault(path+".name", "a rule needs a name of at most 63 lower-case letters, digits and hyphens")
	}
	if err := p.names(path+".who", r.Who, MaxGroups); err != nil {
		return nil, err
	}
	if len(r.Logins) == 0 || len(r.Logins) > MaxLogins {
		return nil, p.fault(path+".logins", "a rule needs 1 to %d logins", MaxLogins)
	}
	for i, login := range r.Logins {
		if !names.Login(login) {
			return nil, p.fault(fmt.Sprintf("%s.logins[%d]", path, i), "%q is not a login: it must match %s", login, names.LoginForm)
		}
	}
	var err error
	if out.Where, err = p.selector(path+".where", r.Where); err != nil {
		return nil, err
	}
	if out.DefaultDuration, out.MaxDuration, err = p.durations(path+".duration", r.Duration, MaxDuration); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		to             *time.Duration
		key, value     string
		fallback       time.Duration
		least, longest time.Duration
	}{
		{&out.ApproveWithin, "approve_within", r.ApproveWithin, DefaultApproveWithin, time.Second, MaxApproveWithin},
		{&out.StartWithin, "start_within", r.StartWithin, 0, time.Second, MaxDuration},
		{&out.MaxSignInAge, "max_sign_in_age", r.MaxSignInAge, 0, MinSignInAge, MaxSignInAge},
	} {
		if *d.to, err = p.duration(path+"."+d.key, d.value, d.fallback, d.least, d.longest); err != nil {
			return nil, err
		}
	}
	// In the order of the document's keys, as far as one does not need the other.
	for _, read := range []func(string, rule, *Rule) error{
		p.certificate, p.approvals, p.decisions, p.texts, p.extension, p.telling, p.emergency,
	} {
		if err := read(path, r, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// What becomes of sessions when the grant's time is up.
const keepSessions = "keep"

var atEnds = []string{"end", keepSessions}

// durations reads how long access may last, and does by default.
func (p *reader) durations(path string, d duration, longest time.Duration) (byDefault, most time.Duration, err error) {
	if d.Max == "" {
		return 0, 0, p.fault(path+".max", "a rule must say how long access may last, such as max: 2h")
	}
	if most, err = p.duration(path+".max", d.Max, 0, MinDuration, longest); err != nil {
		return 0, 0, err
	}
	if byDefault, err = p.duration(path+".default", d.Default, min(DefaultDuration, most), MinDuration, MaxDuration); err != nil {
		return 0, 0, err
	}
	if byDefault > most {
		return 0, 0, p.fault(path+".default", "the default is longer than max")
	}
	return byDefault, most, nil
}

func (p *reader) certificate(path string, r rule, out *Rule) (err error) {
	path += ".certificate"
	c := r.Certificate
	out.CertificateLifetime, err = p.duration(path+".lifetime", c.Lifetime, DefaultCertificateLifetime, MinCertificateLifetime, MaxCertificateLifetime)
	if err != nil {
		return err
	}
	if len(c.SourceAddress) > MaxSourceAddresses {
		return p.fault(path+".source_address", "%d blocks are more than %d", len(c.SourceAddress), MaxSourceAddresses)
	}
	for i, s := range c.SourceAddress {
		at := fmt.Sprintf("%s.source_address[%d]", path, i)
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return p.fault(at, "%q is not a CIDR block such as 10.0.0.0/8", s)
		}
		if prefix != prefix.Masked() {
			return p.fault(at, "%q has bits set beyond its length; write %s", s, prefix.Masked())
		}
		out.SourceAddress = append(out.SourceAddress, s)
	}
	out.NoPTY = c.PTY != nil && !*c.PTY
	if err := p.oneOf(path+".forwarding", "a kind of forwarding", c.Forwarding, forwardings); err != nil {
		return err
	}
	for _, f := range forwardings { // in one order, so that certificates have it
		if slices.Contains(c.Forwarding, f) {
			out.Forwarding = append(out.Forwarding, Forwarding(f))
		}
	}
	if c.KeyTypes != nil && len(c.KeyTypes) == 0 {
		return p.fault(path+".key_types", "the list is empty, which would allow no key at all")
	}
	if err := p.oneOf(path+".key_types", "a key type that may be certified", c.KeyTypes, keyTypes); err != nil {
		return err
	}
	out.KeyTypes, out.VerifyRequired = c.KeyTypes, c.VerifyRequired
	plain := func(t string) bool { return !strings.HasPrefix(t, "sk-") }
	if c.VerifyRequired && (len(c.KeyTypes) == 0 || slices.ContainsFunc(c.KeyTypes, plain)) {
		return p.fault(path+".verify_required", "only security keys can verify their person: let key_types name sk- types and no others")
	}
	return nil
}

// approvals reads who approves: nobody always, nobody at some times, or stages.
func (p *reader) approvals(path string, r rule, out *Rule) (err error) {
	if a := r.Automatic; a != nil {
		out.Automatic = a.always || a.schedule != nil
		if a.schedule != nil {
			if out.During, err = p.schedule(path+".automatic", *a.schedule); err != nil {
				return err
			}
		}
	}
	always := out.Automatic && out.During == nil
	switch {
	case always && len(r.Approvals) > 0:
		return p.fault(path+".automatic", "a rule is either automatic or has approvals, unless a schedule says when it is which")
	case always:
		return nil
	case len(r.Approvals) == 0 && out.During != nil:
		return p.fault(path+".automatic", "nobody could approve at other times: list approvals, or say automatic: true")
	case len(r.Approvals) == 0:
		return p.fault(path+".approvals", "nobody could approve: list approvals, or say automatic: true")
	case len(r.Approvals) > MaxStages:
		return p.fault(path+".approvals", "%d stages are more than %d", len(r.Approvals), MaxStages)
	}
	for i, s := range r.Approvals {
		st, err := p.stage(fmt.Sprintf("%s.approvals[%d].slots", path, i), s)
		if err != nil {
			return err
		}
		out.Stages = append(out.Stages, st)
	}
	return nil
}

func (p *reader) stage(path string, s stage) (Stage, error) {
	var out Stage
	if len(s.Slots) == 0 || len(s.Slots) > MaxSlots {
		return out, p.fault(path, "a stage needs 1 to %d slots", MaxSlots)
	}
	for i, sl := range s.Slots {
		at := fmt.Sprintf("%s[%d]", path, i)
		if err := p.names(at+".groups", sl.Groups, MaxGroups); err != nil {
			return out, err
		}
		count := 1
		if sl.Count != nil {
			count = *sl.Count
		}
		if count < 1 || count > MaxCount {
			return out, p.fault(at+".count", "a slot needs 1 to %d people", MaxCount)
		}
		out.Slots = append(out.Slots, Slot{Groups: sl.Groups, Count: count})
	}
	return out, nil
}

func (p *reader) schedule(path string, s schedule) (*Schedule, error) {
	// LoadLocation takes both for zones of its own: UTC, and whatever the machine has.
	if s.Zone == "" || s.Zone == "Local" {
		return nil, p.fault(path+".zone", "a schedule needs the name of a time zone, such as Europe/Berlin or UTC")
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil {
		return nil, p.fault(path+".zone", "%q is not a time zone such as Europe/Berlin", s.Zone)
	}
	if len(s.Times) == 0 || len(s.Times) > MaxTimes {
		return nil, p.fault(path+".times", "a schedule needs 1 to %d stretches", MaxTimes)
	}
	out := &Schedule{Zone: zone}
	for i, h := range s.Times {
		at := fmt.Sprintf("%s.times[%d]", path, i)
		if len(h.Days) == 0 {
			return nil, p.fault(at+".days", "name at least one day")
		}
		if err := p.oneOf(at+".days", "a day", h.Days, days); err != nil {
			return nil, err
		}
		var stretch Hours
		for _, day := range h.Days {
			stretch.Days = append(stretch.Days, time.Weekday(slices.Index(days, day)))
		}
		if stretch.From, err = p.wallClock(at+".from", h.From); err != nil {
			return nil, err
		}
		if stretch.To, err = p.wallClock(at+".to", h.To); err != nil {
			return nil, err
		}
		if stretch.From >= stretch.To {
			return nil, p.fault(at+".to", "%s is not after %s; write a stretch over midnight as two", h.To, h.From)
		}
		out.Times = append(out.Times, stretch)
	}
	return out, nil
}

func (p *reader) decisions(path string, r rule, out *Rule) (err error) {
	out.Proof, err = p.proof(path, r.Assurance, r.MaxAge, r.ACRValues)
	return err
}

// proof reads what proves a decision.
func (p *reader) proof(path, assurance, maxAge string, acrValues []string) (out Proof, err error) {
	if out.Assurance, err = p.readAssurance(path+".assurance", assurance, p.assurance); err != nil {
		return out, err
	}
	if out.MaxAge, err = p.duration(path+".max_age", maxAge, 0, time.Second, MaxSignInAge); err != nil {
		return out, err
	}
	if len(acrValues) > MaxACRValues {
		return out, p.fault(path+".acr_values", "%d values are more than %d", len(acrValues), MaxACRValues)
	}
	for i, v := range acrValues {
		// They travel in one parameter, separated by spaces (OpenID Connect Core 3.1.2.1).
		if v == "" || len(v) > 255 || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return out, p.fault(fmt.Sprintf("%s.acr_values[%d]", path, i), "%q is not an authentication context class", v)
		}
		if slices.Index(acrValues, v) != i {
			return out, p.fault(fmt.Sprintf("%s.acr_values[%d]", path, i), "%q stands twice in the list", v)
		}
	}
	out.ACRValues = acrValues
	if out.Assurance == Provider {
		return out, nil
	}
	for key, set := range map[string]bool{"max_age": out.MaxAge > 0, "acr_values": len(acrValues) > 0} {
		if set {
			return out, p.fault(path+"."+key, "only the identity provider can vouch for that: say assurance: provider")
		}
	}
	return out, nil
}

func (p *reader) texts(path string, r rule, out *Rule) (err error) {
	if out.Reason, err = p.text(path+".reason", r.Reason); err != nil {
		return err
	}
	out.Ticket, err = p.text(path+".ticket", r.Ticket)
	return err
}

func (p *reader) extension(path string, r rule, out *Rule) (err error) {
	if r.Extend == nil {
		return nil
	}
	path += ".extend"
	out.Extend = Extend{Times: r.Extend.Times, Automatic: r.Extend.Automatic}
	if r.Extend.Times < 1 || r.Extend.Times > MaxExtensions {
		return p.fault(path+".times", "must be between 1 and %d", MaxExtensions)
	}
	if r.Extend.By == "" {
		return p.fault(path+".by", "say how long each extension lasts, such as by: 30m")
	}
	out.Extend.By, err = p.duration(path+".by", r.Extend.By, 0, MinDuration, out.MaxDuration)
	return err
}

// telling reads who is told while nobody decides.
func (p *reader) telling(path string, r rule, out *Rule) (err error) {
	if len(out.Stages) == 0 && (r.Remind != "" || len(r.Escalate) > 0) {
		key := ".remind"
		if r.Remind == "" {
			key = ".escalate"
		}
		return p.fault(path+key, "nobody is asked under an automatic rule")
	}
	// Both come while there is still time to decide.
	latest := out.ApproveWithin - time.Second
	if out.Remind, err = p.duration(path+".remind", r.Remind, 0, time.Second, latest); err != nil {
		return err
	}
	if len(r.Escalate) > MaxEscalations {
		return p.fault(path+".escalate", "%d steps are more than %d", len(r.Escalate), MaxEscalations)
	}
	var before time.Duration
	for i, e := range r.Escalate {
		at := fmt.Sprintf("%s.escalate[%d]", path, i)
		if e.After == "" {
			return p.fault(at+".after", "say how long after the request, such as after: 15m")
		}
		after, err := p.duration(at+".after", e.After, 0, time.Second, latest)
		if err != nil {
			return err
		}
		if after <= before {
			return p.fault(at+".after", "%s is not later than the step before it", after)
		}
		if err := p.names(at+".groups", e.Groups, MaxGroups); err != nil {
			return err
		}
		before = after
		out.Escalate = append(out.Escalate, Escalation{After: after, Groups: e.Groups})
	}
	return nil
}

func (p *reader) emergency(path string, r rule, out *Rule) (err error) {
	e := r.Emergency
	if e == nil {
		return nil
	}
	path += ".emergency"
	if len(out.Stages) == 0 {
		return p.fault(path, "an automatic rule needs no emergency")
	}
	em := &Emergency{Groups: e.Who, Tell: e.Tell, ReviewBy: e.Review.By}
	if err := p.names(path+".who", e.Who, MaxGroups); err != nil {
		return err
	}
	if em.DefaultDuration, em.MaxDuration, err = p.durations(path+".duration", e.Duration, out.MaxDuration); err != nil {
		return err
	}
	if e.Tell != nil {
		if err := p.names(path+".tell", e.Tell, MaxGroups); err != nil {
			return err
		}
	}
	if err := p.names(path+".review.by", e.Review.By, MaxGroups); err != nil {
		return err
	}
	em.ReviewWithin, err = p.duration(path+".review.within", e.Review.Within, DefaultReviewWithin, MinReviewWithin, MaxReviewWithin)
	out.Emergency = em
	return err
}
