package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/internal/names"
)

// Error is a fault in a document and where it is.
type Error struct {
	Line, Column int    // from 1; 0 if the fault has no place
	Path         string // such as "rules[2].duration.max"; may be empty
	Message      string
	Excerpt      string // the lines around it with a marker; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d, column %d: ", e.Line, e.Column)
	}
	if e.Path != "" {
		fmt.Fprintf(&b, "%s: ", e.Path)
	}
	b.WriteString(e.Message)
	return b.String()
}

// The document as YAML has it. Pointers tell a missing key from an empty value.
type document struct {
	Sallyport int                 `yaml:"sallyport"`
	Roles     map[string][]string `yaml:"roles"`
	Rules     []rule              `yaml:"rules"`
}

type rule struct {
	Name          string      `yaml:"name"`
	Description   string      `yaml:"description"`
	Who           []string    `yaml:"who"`
	Where         string      `yaml:"where"`
	Logins        []string    `yaml:"logins"`
	Duration      duration    `yaml:"duration"`
	ApproveWithin string      `yaml:"approve_within"`
	StartWithin   string      `yaml:"start_within"`
	Certificate   certificate `yaml:"certificate"`
	Automatic     bool        `yaml:"automatic"`
	Approvals     []stage     `yaml:"approvals"`
	Reason        text        `yaml:"reason"`
	Ticket        text        `yaml:"ticket"`
}

type duration struct {
	Default string `yaml:"default"`
	Max     string `yaml:"max"`
}

type certificate struct {
	Lifetime      string   `yaml:"lifetime"`
	SourceAddress []string `yaml:"source_address"`
}

type stage struct {
	Slots []slot `yaml:"slots"`
}

type slot struct {
	Groups []string `yaml:"groups"`
	Count  *int     `yaml:"count"`
}

type text struct {
	Required  bool   `yaml:"required"`
	MinLength int    `yaml:"min_length"`
	Pattern   string `yaml:"pattern"`
	Message   string `yaml:"message"`
}

// nameForm is that of rules.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Parse reads a document. The error is an *Error.
func Parse(source []byte) (policy *Policy, err error) {
	// The YAML library panics on some garbage (fuzzing found a tag without a
	// value); to the author of a policy that is one more document it cannot read.
	defer func() {
		if v := recover(); v != nil {
			policy, err = nil, &Error{Message: fmt.Sprintf("the document is not YAML that can be read: %v", v)}
		}
	}()
	return parse(source)
}

func parse(source []byte) (*Policy, error) {
	if len(source) > MaxBytes {
		return nil, &Error{Message: fmt.Sprintf("the document has %d bytes, more than %d", len(source), MaxBytes)}
	}
	if !utf8.Valid(source) {
		return nil, &Error{Message: "the document is not UTF-8"}
	}
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		return nil, located(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &Error{Message: "the file must hold exactly one YAML document"}
	}
	p := &reader{body: file.Docs[0].Body}
	if err := p.refuseIndirection(); err != nil {
		return nil, err
	}
	var doc document
	if err := yaml.NodeToValue(p.body, &doc, yaml.Strict()); err != nil {
		return nil, located(err)
	}
	policy, err := p.policy(doc)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(source)
	policy.Text, policy.Hash = slices.Clone(source), hex.EncodeToString(sum[:])
	return policy, nil
}

// located turns the YAML library's errors into ours.
func located(err error) error {
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return &Error{Message: err.Error()}
	}
	e := &Error{Message: ye.GetMessage(), Excerpt: ye.FormatError(false, true)}
	if t := ye.GetToken(); t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}

// reader checks what YAML's types cannot say, and finds the place of a fault.
type reader struct{ body ast.Node }

// fault is an error at a path such as "rules[2].who".
func (p *reader) fault(path, format string, args ...any) error {
	e := &Error{Path: path, Message: fmt.Sprintf(format, args...)}
	// A key that is missing has no place; its parent has.
	for at := path; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		yp, err := yaml.PathString("$." + at)
		if err != nil {
			continue
		}
		node, err := yp.FilterNode(p.body)
		if err != nil || node == nil || node.GetToken() == nil {
			continue
		}
		if pos := node.GetToken().Position; pos != nil {
			e.Line, e.Column = pos.Line, pos.Column
		}
		break
	}
	return e
}

// refuseIndirection: a reviewer must be able to read a rule where it stands, so
// there are no aliases, and no tags that change what a value is.
func (p *reader) refuseIndirection() error {
	for _, kind := range []struct {
		node ast.NodeType
		what string
	}{{ast.AliasType, "aliases"}, {ast.TagType, "tags"}} {
		found := ast.Filter(kind.node, p.body)
		if len(found) == 0 {
			continue
		}
		e := &Error{Message: "YAML " + kind.what + " are not allowed: write the value out"}
		if t := found[0].GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
		return e
	}
	return nil
}

func (p *reader) policy(doc document) (*Policy, error) {
	if doc.Sallyport != 1 {
		return nil, p.fault("sallyport", "must be 1, the version of this format")
	}
	out := &Policy{Roles: map[api.Role][]string{}}
	for name, groups := range doc.Roles {
		path := "roles." + name
		if name != string(api.Operator) && name != string(api.Auditor) {
			return nil, p.fault(path, "unknown role; there are operator and auditor")
		}
		if err := p.names(path, groups, MaxGroups); err != nil {
			return nil, err
		}
		out.Roles[api.Role(name)] = groups
	}
	if len(doc.Rules) == 0 {
		return nil, p.fault("rules", "the policy needs at least one rule")
	}
	if len(doc.Rules) > MaxRules {
		return nil, p.fault("rules", "%d rules are more than %d", len(doc.Rules), MaxRules)
	}
	seen := map[string]bool{}
	for i, r := range doc.Rules {
		path := fmt.Sprintf("rules[%d]", i)
		rule, err := p.rule(path, r)
		if err != nil {
			return nil, err
		}
		if seen[rule.Name] {
			return nil, p.fault(path+".name", "another rule is named %q", rule.Name)
		}
		seen[rule.Name] = true
		out.Rules = append(out.Rules, *rule)
	}
	return out, nil
}

func (p *reader) rule(path string, r rule) (*Rule, error) {
	out := &Rule{Name: r.Name, Description: r.Description, Groups: r.Who, Logins: r.Logins, Automatic: r.Automatic}
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
	for _, d := range []struct {
		to             *time.Duration
		key, value     string
		fallback       time.Duration
		least, longest time.Duration
	}{
		{&out.MaxDuration, "duration.max", r.Duration.Max, 0, MinDuration, MaxDuration},
		{&out.DefaultDuration, "duration.default", r.Duration.Default, DefaultDuration, MinDuration, MaxDuration},
		{&out.ApproveWithin, "approve_within", r.ApproveWithin, DefaultApproveWithin, time.Second, MaxApproveWithin},
		{&out.StartWithin, "start_within", r.StartWithin, 0, time.Second, MaxDuration},
		{&out.CertificateLifetime, "certificate.lifetime", r.Certificate.Lifetime, DefaultCertificateLifetime, MinCertificateLifetime, MaxCertificateLifetime},
	} {
		if *d.to, err = p.duration(path+"."+d.key, d.value, d.fallback, d.least, d.longest); err != nil {
			return nil, err
		}
	}
	if out.MaxDuration == 0 {
		return nil, p.fault(path+".duration.max", "a rule must say how long access may last, such as max: 2h")
	}
	if r.Duration.Default == "" {
		out.DefaultDuration = min(out.DefaultDuration, out.MaxDuration)
	} else if out.DefaultDuration > out.MaxDuration {
		return nil, p.fault(path+".duration.default", "the default is longer than max")
	}
	for i, s := range r.Certificate.SourceAddress {
		at := fmt.Sprintf("%s.certificate.source_address[%d]", path, i)
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, p.fault(at, "%q is not a CIDR block such as 10.0.0.0/8", s)
		}
		if prefix != prefix.Masked() {
			return nil, p.fault(at, "%q has bits set beyond its length; write %s", s, prefix.Masked())
		}
		out.SourceAddress = append(out.SourceAddress, s)
	}
	if out.Stages, err = p.stages(path, r); err != nil {
		return nil, err
	}
	if out.Reason, err = p.text(path+".reason", r.Reason); err != nil {
		return nil, err
	}
	if out.Ticket, err = p.text(path+".ticket", r.Ticket); err != nil {
		return nil, err
	}
	return out, nil
}

func (p *reader) stages(path string, r rule) ([]Stage, error) {
	switch {
	case r.Automatic && len(r.Approvals) > 0:
		return nil, p.fault(path+".automatic", "a rule is either automatic or has approvals")
	case r.Automatic:
		return nil, nil
	case len(r.Approvals) == 0:
		return nil, p.fault(path+".approvals", "nobody could approve: list approvals, or say automatic: true")
	case len(r.Approvals) > MaxStages:
		return nil, p.fault(path+".approvals", "%d stages are more than %d", len(r.Approvals), MaxStages)
	}
	var out []Stage
	for i, s := range r.Approvals {
		at := fmt.Sprintf("%s.approvals[%d].slots", path, i)
		if len(s.Slots) == 0 || len(s.Slots) > MaxSlots {
			return nil, p.fault(at, "a stage needs 1 to %d slots", MaxSlots)
		}
		var st Stage
		for j, sl := range s.Slots {
			at := fmt.Sprintf("%s[%d]", at, j)
			if err := p.names(at+".groups", sl.Groups, MaxGroups); err != nil {
				return nil, err
			}
			count := 1
			if sl.Count != nil {
				count = *sl.Count
			}
			if count < 1 || count > MaxCount {
				return nil, p.fault(at+".count", "a slot needs 1 to %d people", MaxCount)
			}
			st.Slots = append(st.Slots, Slot{Groups: sl.Groups, Count: count})
		}
		out = append(out, st)
	}
	return out, nil
}

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

func (p *reader) text(path string, t text) (Text, error) {
	out := Text{Required: t.Required, MinLength: t.MinLength, Message: t.Message}
	if t.MinLength < 0 || t.MinLength > 500 {
		return out, p.fault(path+".min_length", "must be between 0 and 500")
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
