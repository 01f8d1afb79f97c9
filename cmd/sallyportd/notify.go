package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

var errNoNotify = refusal.New(refusal.Unavailable, "notify-unreadable",
	"the notifications file cannot be used", "sallyportd notify check FILE shows what is wrong with it")

func notifyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "notify", Short: "Work with the notifications: who is told, and how"}
	cmd.AddCommand(notifyCheck(), notifyTest())
	return cmd
}

func notifyCheck() *cobra.Command {
	var policyFile string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether serve would accept the notifications file",
		Long: `Says whether serve would accept the file, and whether the secrets that it names
are there. It sends nothing. A fault is told with line and column. With --policy
it also names groups that nobody would be told for, and routes of groups that the
policy does not have.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			setup, err := readNotify(args[0])
			if err != nil {
				var at *policy.Error
				if errors.As(err, &at) && at.Excerpt != "" {
					fmt.Fprintln(cmd.ErrOrStderr(), at.Excerpt)
				}
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "OK: %d channels\n", len(setup.Channels()))
			if policyFile == "" {
				return nil
			}
			p, err := readPolicy(policyFile)
			if err != nil {
				return fmt.Errorf("%s: %w", policyFile, err)
			}
			for _, doubt := range setup.Doubts(p.Told()) {
				fmt.Fprintln(cmd.OutOrStdout(), "  doubt:", doubt)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&policyFile, "policy", "", "Policy to compare the routes with.")
	return cmd
}

func notifyTest() *cobra.Command {
	var file, to, url string
	cmd := &cobra.Command{
		Use:   "test CHANNEL",
		Short: "Send a test message through a channel, once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := cmp.Or(file, os.Getenv(variable("notify")))
			if file == "" {
				return usageError{fmt.Errorf("--notify is not set; neither is $%s", variable("notify"))}
			}
			setup, err := readNotify(file)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			channel, personal := setup.Channel(args[0])
			if channel == nil {
				return usageError{fmt.Errorf("%s has no channel %q; it has %q", file, args[0], setup.Channels())}
			}
			m := notify.Message{ID: ids.New(ids.Message), At: time.Now(), Kind: notify.Test, Link: cmp.Or(url, os.Getenv(variable("url")), "https://sallyport.example.com")}
			if personal != (to != "") {
				return usageError{errors.New("--to goes with a channel that tells people personally, and only with that")}
			}
			if personal {
				if m.To, err = mail.ParseAddress(to); err != nil {
					return usageError{fmt.Errorf("--to: %w", err)}
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			if err := channel.Send(ctx, m); err != nil {
				return fmt.Errorf("channel %s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "sent %s through %s\n", m.ID, args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "notify", "", "The notifications file. [$"+variable("notify")+"]")
	cmd.Flags().StringVar(&to, "to", "", "Address to send to, where the channel tells people personally.")
	cmd.Flags().StringVar(&url, "url", "", "Where the message links to. [$"+variable("url")+"]")
	return cmd
}

// readNotify reads the file and the secrets that it names.
func readNotify(file string) (*notify.Setup, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	settings, err := notify.Parse(text)
	if err != nil {
		return nil, err
	}
	return settings.Open(os.LookupEnv)
}
