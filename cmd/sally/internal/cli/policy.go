package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

func (s *sally) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Read the policy; operators also propose another one and decide on it",
		Long: `Read the policy (operators and auditors), and change it (operators). A change is
proposed as a whole document, and comes into force when another operator
approves it: nobody approves their own. What it changes is shown before: who
gains or loses which logins on which hosts, and which rules say something else.`,
		Example: `  sally policy show > policy.yaml
  sally policy diff policy.yaml
  sally policy propose policy.yaml --comment "two approvals for databases"
  sally policy approve pol-4f8k2m9qhx1z`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(s.policyShowCommand(), s.policyVersionsCommand(), s.policyDiffCommand(), s.policyProposeCommand(),
		s.policyProposalsCommand(), s.policyDecideCommand(api.Approve), s.policyDecideCommand(api.Deny), s.policyWithdrawCommand())
	return c
}

func (s *sally) policyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show [VERSION|PROPOSAL]",
		Short: "Print the document in force, that of a version, or a proposal",
		Long: `Print the document in force, or that of a version, exactly as it is. Of a
proposal, print what it would change.`,
		Example: `  sally policy show > policy.yaml
  sally policy show 3
  sally policy show pol-4f8k2m9qhx1z`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var n int64
			if len(args) == 1 && !ids.Valid(ids.Proposal, args[0]) {
				var err error
				if n, err = strconv.ParseInt(args[0], 10, 64); err != nil || n < 1 {
					return usage("%q is neither a version's number nor a proposal's id", args[0]).hinting("sally policy versions, sally policy proposals")
				}
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			var v api.PolicyVersion
			switch {
			case len(args) == 0:
				v, err = client.Policy(c.Context())
			case n > 0:
				v, err = client.PolicyVersion(c.Context(), n)
			default:
				p, err := client.PolicyProposal(c.Context(), args[0])
				if err != nil {
					return err
				}
				return s.printProposal(p)
			}
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(v)
			}
			s.err.Line("version %d, %s, from %s, SHA-256 %s", v.Version, force(v), s.moment(&v.ActivatedAt), v.Hash)
			return s.printDocument(v.Document)
		},
	}
}

func force(v api.PolicyVersion) string {
	if v.InForce {
		return "in force"
	}
	return "was in force"
}

// printDocument prints a document: as it is for programs, and so that it cannot
// play tricks for a terminal.
func (s *sally) printDocument(document string) error {
	if !term.IsTerminal(int(s.Out.Fd())) {
		_, err := io.WriteString(s.Out, document)
		return err
	}
	for line := range strings.Lines(document) {
		s.out.Line("%s", strings.TrimRight(line, "\r\n"))
	}
	return nil
}

func (s *sally) policyVersionsCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:     "versions",
		Short:   "List the versions of the policy",
		Example: "  sally policy versions --output json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(limit, func(cursor string, limit int) (api.Page[api.PolicyVersion], error) {
				return client.PolicyVersions(c.Context(), cursor, limit)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.PolicyVersion]{Items: all, Next: more})
			}
			rows := make([][]show.Cell, len(all))
			for i, v := range all {
				author, approver, state := "the broker's file", "", show.Cell{}
				if v.Author != nil && v.Approver != nil {
					author, approver = name(*v.Author), name(*v.Approver)
				}
				if v.InForce {
					state = show.Cell{Text: "in force", Style: show.Green}
				}
				rows[i] = append([]show.Cell{{Text: strconv.FormatInt(v.Version, 10), Style: show.Bold}, state},
					show.Cells(s.out.When(v.ActivatedAt), author, approver, v.Hash[:min(12, len(v.Hash))], v.Comment)...)
			}
			s.out.Table([]string{"VERSION", "STATE", "SINCE", "AUTHOR", "APPROVER", "SHA-256", "COMMENT"}, rows)
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many at most")
	return c
}

func (s *sally) policyProposalsCommand() *cobra.Command {
	var (
		limit int
		open  bool
	)
	c := &cobra.Command{
		Use:     "proposals",
		Short:   "List proposals",
		Example: "  sally policy proposals --open",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(limit, func(cursor string, limit int) (api.Page[api.PolicyProposal], error) {
				return client.PolicyProposals(c.Context(), open, cursor, limit)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.PolicyProposal]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("no proposals")
				return nil
			}
			rows := make([][]show.Cell, len(all))
			for i, p := range all {
				rows[i] = append([]show.Cell{{Text: p.ID, Style: show.Bold}, proposalState(p)},
					show.Cells(name(p.Author), s.out.Relative(p.CreatedAt), p.Comment)...)
			}
			s.out.Table([]string{"PROPOSAL", "STATE", "AUTHOR", "WHEN", "COMMENT"}, rows)
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many at most")
	c.Flags().BoolVar(&open, "open", false, "only those that nobody has decided on")
	return c
}

func proposalState(p api.PolicyProposal) show.Cell {
	style := show.Faint
	switch p.State {
	case api.ProposalOpen:
		style = show.Yellow
	case api.ProposalApproved:
		style = show.Green
	case api.ProposalDenied:
		style = show.Red
	}
	return show.Cell{Text: string(p.State), Style: style}
}

func (s *sally) policyDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what a document would change, and propose nothing (operators)",
		Long: `Show how a document differs from the policy in force, and what it would change
for the people and hosts that are known now. FILE may be - for the standard input.`,
		Example: "  sally policy diff policy.yaml",
		Args:    one("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			document, err := s.readDocument(args[0])
			if err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			p, err := client.PreviewPolicy(c.Context(), api.PolicyInput{Document: document})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(p)
			}
			s.printChange(s.out, p)
			return nil
		},
	}
}

func (s *sally) policyProposeCommand() *cobra.Command {
	var comment string
	c := &cobra.Command{
		Use:   "propose FILE",
		Short: "Propose a document as the next version (operators)",
		Long: `Propose a document as the next version of the policy. It comes into force when
another operator approves it. FILE may be - for the standard input.`,
		Example: `  sally policy propose policy.yaml --comment "two approvals for databases"`,
		Args:    one("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			document, err := s.readDocument(args[0])
			if err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			p, err := client.ProposePolicy(c.Context(), api.PolicyInput{Document: document, Comment: comment})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(p)
			}
			s.printChange(s.err, p)
			s.out.Line("%s  %s", show.Cell{Text: p.ID, Style: show.Bold}, proposalState(p))
			s.err.Line("next: another operator approves it: sally policy approve %s, or %s/policy/proposals/%s", p.ID, client.URL(), p.ID)
			return nil
		},
	}
	c.Flags().StringVarP(&comment, "comment", "c", "", "what it is for, for whoever decides on it")
	return c
}

// maxDocument is how long a policy may be; the broker has the same limit.
const maxDocument = 4 << 20

func (s *sally) readDocument(file string) (string, error) {
	from := s.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("the policy cannot be read: %v", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxDocument+1))
	if err != nil {
		return "", fmt.Errorf("read the policy: %w", err)
	}
	if len(text) > maxDocument {
		return "", usage("%s is longer than %d bytes, which no policy may be", file, maxDocument)
	}
	return string(text), nil
}

func (s *sally) printDecided(p api.PolicyProposal) error {
	if s.output == "json" {
		return s.json(p)
	}
	said := ""
	if p.Version > 0 {
		said = fmt.Sprintf("  version %d", p.Version)
	}
	s.out.Line("%s  %s%s", show.Cell{Text: p.ID, Style: show.Bold}, proposalState(p), said)
	return nil
}

// printProposal prints all that is known of a proposal, but not the document.
func (s *sally) printProposal(p api.PolicyProposal) error {
	if s.output == "json" {
		return s.json(p)
	}
	s.out.Line("%s  %s", show.Cell{Text: p.ID, Style: show.Bold}, proposalState(p))
	decided := ""
	if d := p.Decision; d != nil {
		decided = fmt.Sprintf("%s by %s: %s", d.Verdict, name(d.Approver), or(d.Comment, "no comment"))
	}
	version := ""
	if p.Version > 0 {
		version = strconv.FormatInt(p.Version, 10)
	}
	s.fields("author", person(p.Author), "comment", p.Comment, "proposed", s.moment(&p.CreatedAt),
		"follows", fmt.Sprintf("version %d", p.Base.Version), "decision", decided, "version", version, "document", p.Hash, "proposal", p.Statement)
	s.printChange(s.out, p)
	return nil
}

// printChange prints what a document changes: in words, then line by line.
func (s *sally) printChange(to *show.Text, p api.PolicyProposal) {
	if e := p.Effect; e != nil {
		to.Line("what it changes, for %d people and %d hosts known now:", e.People, e.Hosts)
		for _, line := range e.Summary {
			to.Line("  %s", line)
		}
	}
	if p.Diff == nil {
		return
	}
	for line := range strings.Lines(p.Diff.Text) {
		style := show.Plain
		switch line[0] {
		case '+':
			style = show.Green
		case '-':
			style = show.Red
		case '@':
			style = show.Faint
		}
		to.Line("%s", show.Cell{Text: strings.TrimRight(line, "\r\n"), Style: style})
	}
	if p.Diff.Truncated {
		to.Line("… this is only the beginning: %d lines are added, %d removed", p.Diff.Added, p.Diff.Removed)
	}
}
