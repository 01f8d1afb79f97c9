package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) deployExplainCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "explain --token-file FILE",
		Short: "Say whether the policy trusts a job's token, and which claim fails",
		Long: `Says which entry of the policy trusts a job's OIDC token, and of those that do not,
which claims fail. The token is not taken and can be used afterwards; nothing is
granted. It is read from a file, or with - from the standard input, so that it is in
no list of processes.

Nobody needs to be signed in: it works within a job. Operators who are hear of every
entry for the token's issuer, and of what it lists.`,
		Example: `  sally deploy explain --token-file token.jwt
  buildkite-agent oidc request-token --audience https://sallyport.example.com | sally deploy explain --token-file -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usage("--token-file is missing").hinting("%s --token-file token.jwt", c.CommandPath())
			}
			token, err := s.readToken(file)
			if err != nil {
				return err
			}
			client, err := s.clientOfJob()
			if err != nil {
				return err
			}
			e, err := client.ExplainAgent(c.Context(), token)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(e)
			}
			s.printAgentExplanation(e)
			return nil
		},
	}
	c.Flags().StringVar(&file, "token-file", "", "file with the token, or - for the standard input")
	return c
}

func (s *sally) readToken(file string) (string, error) {
	text, err := s.readInput(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(text)
	if token == "" {
		return "", usage("there is no token in %s", file).hinting("it is one line of three parts with dots between")
	}
	return token, nil
}

// clientOfJob calls the broker as whoever is signed in, or as nobody: in a job there is
// nobody.
func (s *sally) clientOfJob() (*api.Client, error) {
	broker, err := s.broker()
	if err != nil {
		return nil, err
	}
	if s.Getenv("SALLYPORT_TOKEN") != "" || s.tokens().Known(broker) {
		return s.client()
	}
	return api.NewClient(api.ClientConfig{URL: broker, UserAgent: "sally/" + version(), Transport: s.transport()})
}

func (s *sally) printAgentExplanation(e api.AgentExplanation) {
	switch {
	case e.Admitted:
		s.out.Line("%s by the entry %s", show.Cell{Text: "trusted", Style: show.Green}, show.Cell{Text: e.Entry, Style: show.Bold})
	default:
		s.out.Line("%s", show.Cell{Text: "not trusted", Style: show.Red})
	}
	signed := "yes"
	if !e.Verified {
		signed = "no"
	}
	s.fields("because", e.Detail, "issuer", e.Issuer, "subject", e.Subject, "signed", signed, "hint", e.Hint)
	for _, v := range e.Entries {
		if v.Fits {
			continue
		}
		s.out.Line("\n%s wants otherwise", show.Cell{Text: v.Entry, Style: show.Bold})
		var rows [][]show.Cell
		for _, u := range v.Unmet {
			says := u.Detail
			if u.Got != "" {
				says += ": " + u.Got
			}
			if len(u.Want) > 0 {
				says += "; it wants " + strings.Join(u.Want, " or ")
			}
			rows = append(rows, []show.Cell{{Text: "  " + u.Claim, Style: show.Bold}, {Text: says}})
		}
		s.out.Columns(rows)
	}
}
