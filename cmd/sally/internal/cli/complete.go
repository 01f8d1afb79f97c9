package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// completionTime is how long a shell may wait for completions. Whatever goes
// wrong, there are just none: a shell is no place for errors or questions.
const completionTime = 2 * time.Second

// completer calls the broker for completions of the first argument.
func (s *sally) completer(find func(context.Context, *api.Client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && c.Flags().ArgsLenAtDash() < 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client, err := s.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTime)
		defer cancel()
		found, err := find(ctx, client)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePlaces completes login@host.
func (s *sally) completePlaces(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		hosts, err := client.Hosts(ctx, api.HostFilter{Limit: 200})
		var found []cobra.Completion
		for _, h := range hosts.Items {
			for _, r := range h.Rules {
				how := "automatic"
				if !r.Automatic {
					how = "needs " + who(r.Approvers)
				}
				found = append(found, cobra.CompletionWithDesc(r.Login+"@"+h.Name, show.Clean(how)))
			}
		}
		return found, err
	})(c, args, word)
}

// completeHosts completes names of hosts.
func (s *sally) completeHosts(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		hosts, err := client.Hosts(ctx, api.HostFilter{Limit: 200})
		var found []cobra.Completion
		for _, h := range hosts.Items {
			found = append(found, cobra.CompletionWithDesc(h.Name, show.Clean(labels(h.Labels))))
		}
		return found, err
	})(c, args, word)
}

// completeRequests completes ids of requests.
func (s *sally) completeRequests(f api.RequestFilter) cobra.CompletionFunc {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		requests, err := client.Requests(ctx, f)
		var found []cobra.Completion
		for _, r := range requests.Items {
			found = append(found, cobra.CompletionWithDesc(r.ID,
				show.Clean(string(r.State)+" "+target(r)+" "+name(r.Requester))))
		}
		return found, err
	})
}
