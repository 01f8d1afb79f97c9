package cli

import "github.com/spf13/cobra"

func (s *sally) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Read the log, take evidence away, and check what it proves",
		Long: `Read events of the log with their receipts, the story of one request, host or person
(auditors), and figures about requests by week (auditors and operators); take
evidence away; and check certificates and evidence packs against the log's public
key. The checks need neither a broker nor its word.`,
		Example: `  sally audit timeline --host db-1
  sally audit trends --weeks 26
  sally audit receipt 24 --vkey log.vkey > 24.tlog-proof
  sally audit check-certificate id-cert.pub --vkey log.vkey
  sally audit verify pack.zip --policy policy.txt
  sally audit replay ses-4f8k2m9qhx1z --identity key.txt`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(s.auditTimelineCommand(), s.auditTrendsCommand(), s.auditEventCommand(), s.auditReceiptCommand(),
		s.checkCertificateCommand(), s.auditExportCommand(), s.auditPacksCommand(), s.auditVerifyCommand(), s.auditReplayCommand())
	return c
}
