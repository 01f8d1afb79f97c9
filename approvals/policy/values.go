package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	wallForm = regexp.MustCompile(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`)
)

// The values of keys that have a few, in the order of what they stand for.
var (
	days        = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // as time.Weekday
	forwardings = []string{string(AgentForwarding), string(PortForwarding), string(X11Forwarding)}
	assurances  = []string{string(Session), string(Provider)}
	// keyTypes are those that package broker/certs takes for strong.
	keyTypes = []string{
		"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	}
)

// names checks a list of group names: exact strings, none twice, never empty.
func (p *reader) names(path string, list []string, most int) error {
	if len(list) == 0 {
		return p.fault(path, "the list is empty, which means nobody: name at least one group")
	}
	if len(list) > most {
		return p.fault(path, "%d groups are more than %d", len(list), most)
	}
	for i, name := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if name == "" || len(name) > 255 || strings.TrimSpace(name) != name {
			return p.fault(at, "%q is not a group's name", name)
		}
		if slices.Index(list, name) != i {
			return p.fault(at, "%q stands twice in the list", name)
		}
	}
	return nil
}

// oneOf checks a list, possibly empty, of values out of a few, none twice.
func (p *reader) oneOf(path, what string, list, known []string) error {
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !slices.Contains(known, v) {
			return p.fault(at, "%q is not %s; there are %s", v, what, strings.Join(known, ", "))
		}
		if slices.Index(list, v) != i {
			return p.fault(at, "%q stands twice in the list", v)
		}
	}
	return nil
}

func (p *reader) selector(path, s string) (labels.Selector, error) {
	switch s {
	case "":
		return nil, p.fault(path, `a rule must say which hosts it is for, such as class=database, or "*" for every host`)
	case "*":
		return labels.Everything(), nil
	}
	sel, err := labels.Parse(s)
	if err != nil {
		return nil, p.fault(path, "not a label selector: %v", err)
	}
	return sel, nil
}

func (p *reader) duration(path, s string, fallback, least, longest time.Duration) (time.Duration, error) {
	if s == "" {
		return fallback, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, p.fault(path, "%q is not a duration such as 30m or 1h30m", s)
	}
	if d < least || d > longest || d%time.Second != 0 {
		return 0, p.fault(path, "%s is not a whole number of seconds between %s and %s", d, least, longest)
	}
	return d, nil
}

// wallClock reads a time of day, as time since midnight.
func (p *reader) wallClock(path, s string) (time.Duration, error) {
	if !wallForm.MatchString(s) {
		return 0, p.fault(path, "%q is not a time of day such as 09:00", s)
	}
	d, err := time.ParseDuration(strings.Replace(s, ":", "h", 1) + "m")
	if err != nil {
		return 0, p.fault(path, "%q is not a time of day such as 09:00", s)
	}
	return d, nil
}

func (p *reader) readAssurance(path, s string, fallback Assurance) (Assurance, error) {
	if s == "" {
		return fallback, nil
	}
	if !slices.Contains(assurances, s) {
		return "", p.fault(path, "%q is not an assurance; there are %s", s, strings.Join(assurances, " and "))
	}
	return Assurance(s), nil
}

func (p *reader) text(path string, t text) (Text, error) {
	out := Text{Required: t.Required, MinLength: t.MinLength, Message: t.Message}
	if t.MinLength < 0 || t.MinLength > MaxMinLength {
		return out, p.fault(path+".min_length", "must be between 0 and %d", MaxMinLength)
	}
	if t.Pattern != "" {
		re, err := regexp.Compile(`\A(?:` + t.Pattern + `)\z`)
		if err != nil {
			return out, p.fault(path+".pattern", "not a regular expression: %v", err)
		}
		out.Pattern = re
	}
	return out, nil
}
