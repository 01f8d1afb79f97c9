package notify

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"sallyport/approvals/policy"
)

// Limits on a file.
const (
	maxBytes    = 1 << 20
	maxChannels = 200
	maxPerRoute = 20 // channels of one group
	maxTo       = 20 // addresses of one channel
)

// Settings are a parsed, valid file. It looks like this:
//
//	channels:
//	  dba-chat:
//	    slack: {url_file: /etc/sallyport/slack-dba}
//	  mail:
//	    smtp: {server: 'mail.example.com:587', from: 'Sallyport <sallyport@example.com>'}
//	routes:                 # group: channels
//	  dba-leads: [dba-chat, mail]
//	default: [mail]         # for groups that have no route
//	requester: mail         # tells people what became of their requests
//	operators: [dba-chat]   # emergencies, and messages that do not arrive
//	proposals: [audit]      # groups that are told of proposed policies, besides operators
//
// It names secrets (by file or environment variable) and holds none. Unknown and
// duplicate keys, aliases, and channels that are not there are refused with line
// and column.
type Settings struct{ doc document }

// The file as YAML has it.
type document struct {
	Channels  map[string]placed[channel]          `yaml:"channels"`
	Routes    map[string]placed[[]placed[string]] `yaml:"routes"`
	Default   []placed[string]                    `yaml:"default"`
	Requester placed[string]                      `yaml:"requester"`
	Operators []placed[string]                    `yaml:"operators"`
	Proposals []placed[string]                    `yaml:"proposals"`
}

type channel struct {
	Slack   *slackSettings   `yaml:"slack"`
	SMTP    *smtpSettings    `yaml:"smtp"`
	Webhook *webhookSettings `yaml:"webhook"`
}

type slackSettings struct {
	URLFile string `yaml:"url_file"`
	URLEnv  string `yaml:"url_env"`
}

type webhookSettings struct {
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secret_file"`
	SecretEnv  string `yaml:"secret_env"`
}

type smtpSettings struct {
	Server       string   `yaml:"server"` // host:port
	TLS          string   `yaml:"tls"`    // starttls, implicit or none; empty: starttls
	From         string   `yaml:"from"`
	To           []string `yaml:"to"` // empty: each member of the group personally
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	PasswordEnv  string   `yaml:"password_env"`
}

// placed is a value that knows where it stands.
type placed[T any] struct {
	value        T
	line, column int
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (p *placed[T]) UnmarshalYAML(node ast.Node) error {
	if t := node.GetToken(); t != nil && t.Position != nil {
		p.line, p.column = t.Position.Line, t.Position.Column
	}
	return yaml.NodeToValue(node, &p.value, yaml.Strict())
}

func (p placed[T]) fault(format string, args ...any) error {
	return &policy.Error{Line: p.line, Column: p.column, Message: fmt.Sprintf(format, args...)}
}

var channelName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Parse reads a file. The error is a *policy.Error.
func Parse(source []byte) (settings *Settings, err error) {
	// The YAML library panics on some garbage.
	defer func() {
		if v := recover(); v != nil {
			settings, err = nil, &policy.Error{Message: fmt.Sprintf("the file is not YAML that can be read: %v", v)}
		}
	}()
	if len(source) > maxBytes || !utf8.Valid(source) {
		return nil, &policy.Error{Message: fmt.Sprintf("the file is not UTF-8, or has more than %d bytes", maxBytes)}
	}
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		return nil, located(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &policy.Error{Message: "the file must hold exactly one YAML document"}
	}
	for _, kind := range []ast.NodeType{ast.AliasType, ast.TagType} {
		if found := ast.Filter(kind, file.Docs[0].Body); len(found) > 0 {
			at := found[0].GetToken().Position
			return nil, &policy.Error{Line: at.Line, Column: at.Column, Message: "YAML aliases and tags are not allowed: write the value out"}
		}
	}
	s := &Settings{}
	if err := yaml.NodeToValue(file.Docs[0].Body, &s.doc, yaml.Strict()); err != nil {
		return nil, located(err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// located turns the YAML library's errors into ours.
func located(err error) error {
	var ours *policy.Error
	if errors.As(err, &ours) {
		return ours
	}
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return &policy.Error{Message: err.Error()}
	}
	e := &policy.Error{Message: ye.GetMessage(), Excerpt: ye.FormatError(false, true)}
	if t := ye.GetToken(); t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}

// check finds what YAML's types cannot say.
func (s *Settings) check() error {
	if len(s.doc.Channels) > maxChannels {
		return &policy.Error{Message: fmt.Sprintf("there are more than %d channels", maxChannels)}
	}
	for _, name := range sortedKeys(s.doc.Channels) {
		c := s.doc.Channels[name]
		if !channelName.MatchString(name) {
			return c.fault("channels.%s: a channel's name has lower-case letters, digits and hyphens", name)
		}
		if err := c.value.check(); err != nil {
			return c.fault("channels.%s: %v", name, err)
		}
	}
	lists := map[string][]placed[string]{"default": s.doc.Default, "operators": s.doc.Operators}
	for group, route := range s.doc.Routes {
		if group == "" {
			return route.fault("routes: a group has no name")
		}
		if len(route.value) == 0 {
			return route.fault("routes.%s: there is no channel; without the line, the default holds", group)
		}
		lists["routes."+group] = route.value
	}
	for _, where := range sortedKeys(lists) {
		if err := s.checkList(where, lists[where]); err != nil {
			return err
		}
	}
	for i, g := range s.doc.Proposals {
		if g.value == "" || slices.Contains(values(s.doc.Proposals[:i]), g.value) {
			return g.fault("proposals: %q is no group's name, or stands twice", g.value)
		}
	}
	if r := s.doc.Requester; r.value != "" && !s.doc.Channels[r.value].value.personal() {
		return r.fault("requester: %q is not an smtp channel without to, which could tell a person", r.value)
	}
	return nil
}

func (s *Settings) checkList(where string, list []placed[string]) error {
	seen := map[string]bool{}
	for i, c := range list {
		known, ok := s.doc.Channels[c.value]
		switch {
		case i >= maxPerRoute:
			return c.fault("%s: there are more than %d channels", where, maxPerRoute)
		case !ok:
			return c.fault("%s: there is no channel %q", where, c.value)
		case seen[c.value]:
			return c.fault("%s: %q stands twice", where, c.value)
		case where == "operators" && known.value.personal():
			return c.fault("operators: %q has no address of its own: give it to", c.value)
		}
		seen[c.value] = true
	}
	return nil
}

// personal reports whether the channel tells each person at their own address.
func (c channel) personal() bool { return c.SMTP != nil && len(c.SMTP.To) == 0 }

func (c channel) check() error {
	kinds := 0
	var err error
	if c.Slack != nil {
		kinds++
		err = oneOf("url_file", c.Slack.URLFile, "url_env", c.Slack.URLEnv, true)
	}
	if c.Webhook != nil {
		kinds++
		err = errors.Join(checkURL(c.Webhook.URL), oneOf("secret_file", c.Webhook.SecretFile, "secret_env", c.Webhook.SecretEnv, true))
	}
	if c.SMTP != nil {
		kinds++
		err = c.SMTP.check()
	}
	if kinds != 1 {
		return errors.New("it must be exactly one of slack, smtp and webhook")
	}
	return err
}

func (s *smtpSettings) check() error {
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("server: %q is not host:port", s.Server)
	}
	if !slices.Contains([]string{"", startTLS, implicitTLS, noTLS}, s.TLS) {
		return fmt.Errorf("tls: %q is none of starttls, implicit, none", s.TLS)
	}
	if s.TLS == noTLS && !loopback(host) {
		return errors.New("tls: none is only for a server on this machine")
	}
	if _, err := mail.ParseAddress(s.From); err != nil {
		return fmt.Errorf("from: %q is not an address", s.From)
	}
	if len(s.To) > maxTo {
		return fmt.Errorf("to: there are more than %d addresses", maxTo)
	}
	for _, a := range s.To {
		if _, err := mail.ParseAddress(a); err != nil {
			return fmt.Errorf("to: %q is not an address", a)
		}
	}
	return oneOf("password_file", s.PasswordFile, "password_env", s.PasswordEnv, s.Username != "")
}

// oneOf checks the two ways to name a secret: exactly one if it is needed, else none.
func oneOf(fileKey, file, envKey, env string, needed bool) error {
	switch {
	case file != "" && env != "":
		return fmt.Errorf("%s and %s are both set", fileKey, envKey)
	case needed && file == "" && env == "":
		return fmt.Errorf("it needs %s or %s", fileKey, envKey)
	case !needed && (file != "" || env != ""):
		return errors.New("there is a password, but no username")
	}
	return nil
}

// checkURL wants https, as messages carry what people wrote; a receiver on this
// machine may do without.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("the address is not a plain https URL")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("the address must begin with https (http is only for this machine)")
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
