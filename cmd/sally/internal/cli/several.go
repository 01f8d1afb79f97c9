package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// parsePlace reads LOGIN@HOST, or LOGIN@LABEL=VALUE,… for several hosts: no name
// of a host has an equals sign.
func parsePlace(text string) (place, error) {
	login, labels, _ := strings.Cut(text, "@")
	if login == "" || !strings.Contains(labels, "=") {
		return parseTarget(text)
	}
	selector, err := api.ParseSelector(labels)
	if err != nil {
		return place{}, usage("%s", err).hinting("like: %s@class=database,env=prod", login)
	}
	return place{login: login, selector: selector}, nil
}

// selection is a place that is named by flags.
type selection struct {
	login    string
	selector []string
}

func (n *selection) flags(s *sally, c *cobra.Command) {
	c.Flags().StringSliceVar(&n.selector, "select", nil, "several hosts: those with all of these labels, LABEL=VALUE,…; instead of LOGIN@HOST, with --login")
	c.Flags().StringVar(&n.login, "login", "", "with --select: the login")
	c.RegisterFlagCompletionFunc("select", s.completeLabels)
	c.RegisterFlagCompletionFunc("login", s.completeLogins)
}

// args accepts one place, or none if the flags name one.
func (n *selection) args(c *cobra.Command, args []string) error {
	if len(n.selector) == 0 && n.login == "" {
		return one("LOGIN@HOST")(c, args)
	}
	if len(args) > 0 || n.login == "" || len(n.selector) == 0 {
		return usage("--select and --login go together, without LOGIN@HOST").hinting("like: %s --login dba --select class=database,env=prod", c.CommandPath())
	}
	return nil
}

func (n *selection) place(args []string) (place, error) {
	if len(args) > 0 {
		return parsePlace(args[0])
	}
	return parsePlace(n.login + "@" + strings.Join(n.selector, ","))
}

// printHosts says which hosts something is for, if it is for several, or if which
// was left to their labels.
func (s *sally) printHosts(to *show.Text, where place, hosts []api.RequestHost) {
	if len(hosts) > 1 || where.selector != nil {
		to.Line("  on %s: %s", count(len(hosts), "host"), allHosts(hosts))
	}
}

// allHosts names every one: nobody approves what they have not seen.
func allHosts(hosts []api.RequestHost) string {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.Name
	}
	return strings.Join(names, ", ")
}

// hostIDs identifies what is decided on: the one host, or each of several by name.
func hostIDs(r api.Request) string {
	if len(r.Hosts) < 2 {
		return r.HostID
	}
	return fmt.Sprintf("%s: %s", count(len(r.Hosts), "host"), allHosts(r.Hosts))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// hostLines are, for a request for several hosts, what has become of each.
func (s *sally) hostLines(r api.Request) {
	if len(r.Hosts) < 2 {
		return
	}
	asked := ""
	if len(r.Selector) > 0 {
		asked = ", asked for by " + api.SelectorText(r.Selector)
	}
	s.out.Line("\n%s%s", count(len(r.Hosts), "host"), asked)
	rows := make([][]show.Cell, len(r.Hosts))
	for i, h := range r.Hosts {
		has := show.Cell{Text: "no certificate", Style: show.Faint}
		if h.Certificates > 0 {
			has = show.Cell{Text: count(h.Certificates, "certificate"), Style: show.Green}
		}
		rows[i] = []show.Cell{{Text: "  " + h.Name}, {Text: h.ID, Style: show.Faint}, has, {Text: h.Why, Style: show.Yellow}}
	}
	s.out.Columns(rows)
}

// again is how the request would be made again.
func again(r api.Request) string {
	if len(r.Selector) > 0 {
		return r.Login + "@" + api.SelectorText(r.Selector)
	}
	return target(r)
}

// anyHost is the command's word for the hosts of a request: the one, or any.
func anyHost(r api.Request) string {
	if len(r.Hosts) > 1 {
		return r.Login + "@HOST"
	}
	return target(r)
}

// hostOf finds which of the request's hosts is meant by a name or id; empty is
// the only one.
func hostOf(r api.Request, nameOrID string) (api.RequestHost, error) {
	if len(r.Hosts) < 2 && (nameOrID == "" || nameOrID == r.Host || nameOrID == r.HostID) {
		return api.RequestHost{ID: r.HostID, Name: r.Host}, nil
	}
	for _, h := range r.Hosts {
		if h.Name == nameOrID || h.ID == nameOrID {
			return h, nil
		}
	}
	if nameOrID == "" {
		return api.RequestHost{}, usage("%s is for %d hosts, and a certificate is for one", r.ID, len(r.Hosts)).hinting("--host, one of: %s", allHosts(r.Hosts))
	}
	return api.RequestHost{}, usage("%s is not for %s", r.ID, nameOrID).hinting("it is for: %s", or(allHosts(r.Hosts), r.Host))
}

// ruleForAny is a rule under which the caller would ask on some of the selected
// hosts, or nil; the broker says whether it is one for all.
func ruleForAny(ctx context.Context, client *api.Client, where place) (*api.HostRule, error) {
	hosts, err := client.Hosts(ctx, api.HostFilter{Selector: api.SelectorText(where.selector), Limit: 200})
	if err != nil {
		return nil, err
	}
	for _, h := range hosts.Items {
		if i := slices.IndexFunc(h.Rules, func(r api.HostRule) bool { return r.Login == where.login }); i >= 0 {
			return &h.Rules[i], nil
		}
	}
	return nil, nil
}

// completeLabels completes LABEL=VALUE, after what stands there already.
func (s *sally) completeLabels(c *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := word[:strings.LastIndex(word, ",")+1]
	found, directive := s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		hosts, err := client.Hosts(ctx, api.HostFilter{Limit: 200})
		labels := map[string]int{}
		for _, h := range hosts.Items {
			for label, value := range h.Labels {
				labels[label+"="+value]++
			}
		}
		var found []cobra.Completion
		for _, label := range slices.Sorted(maps.Keys(labels)) {
			found = append(found, cobra.CompletionWithDesc(before+show.Clean(label), count(labels[label], "host")))
		}
		return found, err
	})(c, nil, word)
	return found, directive | cobra.ShellCompDirectiveNoSpace
}

// completeLogins completes logins that the caller may ask for somewhere.
func (s *sally) completeLogins(c *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		hosts, err := client.Hosts(ctx, api.HostFilter{Limit: 200})
		logins := map[string]bool{}
		for _, h := range hosts.Items {
			for _, r := range h.Rules {
				logins[show.Clean(r.Login)] = true
			}
		}
		return slices.Sorted(maps.Keys(logins)), err
	})(c, nil, word)
}

// completeHostsOf completes the hosts of the request that the first argument names.
func (s *sally) completeHostsOf(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		if len(args) == 0 {
			return nil, nil
		}
		r, err := client.Request(ctx, args[0])
		var found []cobra.Completion
		for _, h := range r.Hosts {
			found = append(found, show.Clean(h.Name))
		}
		return found, err
	})(c, nil, word)
}
