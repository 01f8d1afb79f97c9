package notify

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/mail"
	"os"
	"slices"

	"sallyport/internal/standardwebhooks"
)

// Setup is a file with its secrets read: through which channels whom to tell.
type Setup struct {
	channels  map[string]Channel
	people    map[string]bool     // channels that tell each person at their own address
	byGroup   map[string][]string // channels
	fallback  []string            // channels of groups that have no route
	requester string              // channel, or "": requesters are not told
	operators []string            // channels
	proposals []string            // groups that are told of proposed policies
}

// Open reads the secrets that the file names, and makes its channels. lookupEnv
// is os.LookupEnv, but for tests. Errors do not repeat secrets.
func (s *Settings) Open(lookupEnv func(string) (string, bool)) (*Setup, error) {
	out := &Setup{channels: map[string]Channel{}, people: map[string]bool{}, byGroup: map[string][]string{},
		fallback: values(s.doc.Default), requester: s.doc.Requester.value, operators: values(s.doc.Operators), proposals: values(s.doc.Proposals)}
	client := newHTTPClient()
	for _, name := range sortedKeys(s.doc.Channels) {
		c := s.doc.Channels[name].value
		made, err := c.open(client, lookupEnv)
		if err != nil {
			return nil, fmt.Errorf("channel %s: %w", name, err)
		}
		out.channels[name], out.people[name] = made, c.personal()
	}
	for group, route := range s.doc.Routes {
		out.byGroup[group] = values(route.value)
	}
	return out, nil
}

func (c channel) open(client *http.Client, lookupEnv func(string) (string, bool)) (Channel, error) {
	switch {
	case c.Slack != nil:
		address, err := secret(c.Slack.URLFile, c.Slack.URLEnv, lookupEnv)
		if err != nil {
			return nil, err
		}
		if err := checkURL(address); err != nil {
			return nil, err
		}
		return &slack{url: address, client: client}, nil
	case c.Webhook != nil:
		text, err := secret(c.Webhook.SecretFile, c.Webhook.SecretEnv, lookupEnv)
		if err != nil {
			return nil, err
		}
		key, err := standardwebhooks.Key(text)
		if err != nil {
			return nil, err
		}
		return &webhook{url: c.Webhook.URL, key: key, client: client}, nil
	}
	return c.SMTP.open(lookupEnv)
}

func (s *smtpSettings) open(lookupEnv func(string) (string, bool)) (Channel, error) {
	host, _, _ := net.SplitHostPort(s.Server) // checked by Parse, as the addresses are
	from, err := mail.ParseAddress(s.From)
	if err != nil {
		return nil, err
	}
	m := &mailer{address: s.Server, host: host, security: s.TLS, from: *from, username: s.Username,
		tls: clientTLS(host)}
	if m.security == "" {
		m.security = startTLS
	}
	for _, text := range s.To {
		a, err := mail.ParseAddress(text)
		if err != nil {
			return nil, err
		}
		m.to = append(m.to, *a)
	}
	if s.Username != "" {
		if m.password, err = secret(s.PasswordFile, s.PasswordEnv, lookupEnv); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// secret is the contents of the file, without the line feed at its end, or the
// value of the variable.
func secret(file, env string, lookupEnv func(string) (string, bool)) (string, error) {
	if file == "" {
		value, ok := lookupEnv(env)
		if !ok || value == "" {
			return "", fmt.Errorf("$%s is not set", env)
		}
		return value, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if text = bytes.TrimRight(text, "\r\n"); len(text) == 0 {
		return "", errors.New(file + " is empty")
	}
	return string(text), nil
}

// any reports whether anything is configured.
func (s *Setup) any() bool { return len(s.channels) > 0 }

// personal reports whether the channel tells each person at their own address.
func (s *Setup) personal(channel string) bool { return s.people[channel] }

// Channel is the channel of the name and whether it needs an address to send to,
// or nil.
func (s *Setup) Channel(name string) (c Channel, personal bool) {
	return s.channels[name], s.people[name]
}

// Channels are the channels' names.
func (s *Setup) Channels() []string { return sortedKeys(s.channels) }

// route is a channel and the groups that are told through it.
type route struct {
	channel string
	groups  []string
}

// routes are the channels through which the groups are told, each once. A group
// without a route of its own is told through the default.
func (s *Setup) routes(groups []string) []route {
	var out []route
	for _, g := range groups {
		channels, ok := s.byGroup[g]
		if !ok {
			channels = s.fallback
		}
		for _, c := range channels {
			i := slices.IndexFunc(out, func(r route) bool { return r.channel == c })
			if i < 0 {
				i, out = len(out), append(out, route{channel: c})
			}
			if !slices.Contains(out[i].groups, g) {
				out[i].groups = append(out[i].groups, g)
			}
		}
	}
	return out
}

// told are the groups that the notice is for.
func (s *Setup) told(n Notice) []string {
	if n.ProposalID != "" {
		return slices.Concat(n.Groups, s.proposals)
	}
	return n.Groups
}

// Doubts are what an operator should look at, given the groups that the policy
// tells of something: routes of groups that are not among them, and groups that
// nobody would be told for.
func (s *Setup) Doubts(groups []string) []string {
	for _, g := range s.proposals {
		if !slices.Contains(groups, g) {
			groups = append(slices.Clip(groups), g)
		}
	}
	var out []string
	for _, g := range sortedKeys(s.byGroup) {
		if !slices.Contains(groups, g) {
			out = append(out, fmt.Sprintf("routes.%s: the policy never tells a group of this name", g))
		}
	}
	for _, g := range groups {
		if len(s.routes([]string{g})) == 0 {
			out = append(out, fmt.Sprintf("group %s has no route and there is no default: nobody in it is told", g))
		}
	}
	if len(s.operators) == 0 {
		out = append(out, "there is no operators channel: that messages do not arrive is seen on /notifications only")
	}
	return out
}

func values[T any](list []placed[T]) []T {
	var out []T
	for _, p := range list {
		out = append(out, p.value)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
