package approvals

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/names"
)

// Limits on an ask. Those on texts count characters.
const (
	maxReason = 2000
	maxTicket = 200
	maxAhead  = 30 * 24 * time.Hour // of a future start
)

// ask is an ask that the policy allows to be made, ready to be frozen.
type ask struct {
	policy  *policy.Policy // that decided
	targets []Target       // in the order of the terms' hosts
	rule    *policy.Rule
	terms   Terms
}

// ask turns the input into terms, or says why it cannot be asked for:
//
//  1. the input is well-formed,
//  2. the host exists, and some rule lets the caller ask for it,
//  3. a rule lets the caller ask for the login, which the host has; of several
//     hosts it is the same rule (targets),
//  4. duration, reason and ticket are as the rule wants them.
func (s *Service) ask(ctx context.Context, c identity.Caller, in api.RequestInput) (ask, error) {
	p, err := s.current(ctx)
	if err != nil {
		return ask{}, err
	}
	a, err := s.askUnder(ctx, p, c, in, func(r *policy.Rule) *policy.Rule { return r })
	a.policy = p
	return a, err
}

// askUnder is ask under a version, with the rule that decides looked at in
// another way.
func (s *Service) askUnder(ctx context.Context, p *policy.Policy, c identity.Caller, in api.RequestInput, as func(*policy.Rule) *policy.Rule) (ask, error) {
	now := s.cfg.Clock.Now()
	t, duration, err := form(in, now)
	if err != nil {
		return ask{}, err
	}
	targets, rule, err := s.targets(ctx, p, c, in)
	if err != nil {
		return ask{}, err
	}
	rule = as(rule)
	if err := checkKeyType(rule, in.PublicKey); err != nil {
		return ask{}, err
	}
	var emergency *policy.Emergency
	if in.Emergency {
		emergency, duration, err = emergencyUnder(rule, c, in, t, duration, now)
	} else if duration, err = rule.CheckDuration(duration); err == nil {
		err = rule.CheckText(t.Reason, t.Ticket)
	}
	if err != nil {
		return ask{}, err
	}
	t.Format = TermsFormat
	t.RequestID = ids.New(ids.Request)
	t.Person = TermsPerson{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject}
	setHosts(&t, targets)
	t.Duration = short(duration)
	t.CreatedAt, t.ApproveBy = now, now.Add(rule.ApproveWithin)
	t.PolicyHash, t.PolicyVersion = p.Hash, p.Version
	t.Rule = grant.RuleOf(rule, rule.AutomaticAt(now) && (t.NotBefore == nil || rule.AutomaticAt(*t.NotBefore)))
	if emergency != nil {
		makeEmergency(&t, rule, emergency, in.Drill)
	}
	return ask{targets: targets, rule: rule, terms: t}, nil
}

// ruleFor finds the rule for a login. Who may ask for nothing on the host is not
// told that it exists.
func ruleFor(p *policy.Policy, c identity.Caller, t Target, login string) (*policy.Rule, error) {
	logins := p.Logins(c.Groups, t.Labels, t.Logins)
	if len(logins) == 0 {
		return nil, ErrUnknownHost
	}
	others := make([]string, len(logins))
	for i, l := range logins {
		if l.Login == login {
			return l.Rule, nil
		}
		others[i] = l.Login
	}
	return nil, policy.ErrNoRule.With("no rule of the policy lets you ask for %s on %s", login, t.Name).
		Hinting("on this host you may ask for: %s", strings.Join(others, ", "))
}

// form checks what can be checked without knowing host or policy. A duration of
// 0 asks for the rule's default.
func form(in api.RequestInput, now time.Time) (Terms, time.Duration, error) {
	t := Terms{Login: in.Login, Reason: trim(in.Reason), Ticket: trim(in.Ticket), Selector: in.Selector}
	switch {
	case in.Host != "" && len(in.Selector) > 0:
		return t, 0, ErrHostAndSelector
	case len(in.Selector) > 0:
		if err := grant.CheckSelector(in.Selector); err != nil {
			return t, 0, err
		}
	case !names.Host(in.Host):
		return t, 0, ErrBadHost
	}
	if !names.Login(in.Login) {
		return t, 0, ErrBadLogin
	}
	if in.Drill && !in.Emergency {
		return t, 0, ErrDrill
	}
	if in.Emergency && in.NotBefore != nil {
		return t, 0, ErrEmergencyLater
	}
	var duration time.Duration
	if in.Duration != "" {
		d, err := time.ParseDuration(in.Duration)
		if err != nil || d <= 0 {
			return t, 0, policy.ErrBadDuration
		}
		duration = d
	}
	if err := text("reason", t.Reason, maxReason); err != nil {
		return t, 0, err
	}
	if err := text("ticket", t.Ticket, maxTicket); err != nil {
		return t, 0, err
	}
	if in.NotBefore != nil {
		start := in.NotBefore.UTC().Truncate(time.Microsecond)
		if start.Before(now) || start.After(now.Add(maxAhead)) {
			return t, 0, ErrBadStart
		}
		t.NotBefore = &start
	}
	if strings.TrimSpace(in.PublicKey) != "" {
		fingerprint, err := fingerprint(in.PublicKey)
		if err != nil {
			return t, 0, err
		}
		t.PublicKey = fingerprint
	}
	return t, duration, nil
}

// hidden reports whether a character is not seen, or makes a text read otherwise
// than it is written (Unicode UTR #36, "Trojan Source"). Line breaks and tabs are
// layout; joiners and direction marks belong to the spelling of many scripts.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point) &&
		!strings.ContainsRune("\n\r\t"+marks, r)
}

// marks are seen only by what they do to their neighbours: the joiners and the
// marks of direction.
const marks = "\u200c\u200d\u200e\u200f\u061c"

// trim cuts off what is blank at both ends: what is nothing but that is no text.
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || r == '\u2800' || strings.ContainsRune(marks, r)
	})
}

// text refuses what is too long or is no text: what is hidden in it would be
// approved by somebody who has not read it.
func text(field, s string, most int) error {
	if utf8.RuneCountInString(s) > most {
		return ErrBadText.With("the %s has more than %d characters", field, most).On(field)
	}
	if !utf8.ValidString(s) {
		return ErrBadText.On(field)
	}
	if i := strings.IndexFunc(s, hidden); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return ErrBadText.With("the %s has a character that cannot be seen, %U", field, r).On(field)
	}
	return nil
}

// fingerprint reads one public key in authorized_keys format. Whether the key is
// strong enough is for package broker to say. The input may be a private key
// pasted by mistake, so no error repeats any of it (P11).
func fingerprint(line string) (string, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 || strings.TrimSpace(string(rest)) != "" {
		return "", ErrBadKey
	}
	if _, certificate := key.(*ssh.Certificate); certificate {
		return "", ErrBadKey
	}
	return ssh.FingerprintSHA256(key), nil
}

// checkKeyType refuses a key that fingerprint has read and the rule does not take.
// The broker does the same with whatever key it certifies; here it spares people
// approvals that are good for nothing.
func checkKeyType(rule *policy.Rule, line string) error {
	kind, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if kind == "" || len(rule.KeyTypes) == 0 || slices.Contains(rule.KeyTypes, kind) {
		return nil
	}
	return ErrBadKey.With("rule %q does not take keys of type %s", rule.Name, kind).
		Hinting("it takes: %s", strings.Join(rule.KeyTypes, ", "))
}
