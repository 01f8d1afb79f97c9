package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"sallyport/api"
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
type reader struct {
	body      ast.Node
	assurance Assurance // of rules that are silent
}

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
	var err error
	if p.assurance, err = p.readAssurance("assurance", doc.Assurance, Provider); err != nil {
		return nil, err
	}
	out := &Policy{Roles: map[api.Role][]string{}, Assurance: p.assurance}
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
	if out.Listening, err = p.listening(doc.Listen); err != nil {
		return nil, err
	}
	if out.Agents, err = p.agents(doc.Agents); err != nil {
		return nil, err
	}
	out.index = newIndex(out.Rules, func(*Rule) bool { return true })
	if err := p.deployments(doc.Deployments, out); err != nil {
		return nil, err
	}
	if err := p.runTests(out, doc.Tests); err != nil {
		return nil, err
	}
	return out, nil
}
