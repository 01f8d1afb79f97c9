package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) auditExportCommand() *cobra.Command {
	var (
		in            api.PackInput
		quarter, file string
		noWait        bool
	)
	c := &cobra.Command{
		Use:   "export",
		Short: "Have an evidence pack made, and download it",
		Long: `Have the broker make an evidence pack for a period, and download it when it is
ready: a zip with lists, exceptions, samples and the log itself. "sally audit
verify" checks it without the broker.

The period is a quarter, or from --from to --to, which is excluded: dates, which
begin at midnight in the zone, or times in RFC 3339. Without --to it ends now.`,
		Example: `  sally audit export --quarter 2026Q1
  sally audit export --from 2026-01-01 --to 2026-04-01 --zone Europe/Zurich --controls CC6.1,CC6.2
  sally audit export --from 2026-03-01
  sally audit export --from 2026-03-01T00:00:00Z --to 2026-03-08T00:00:00Z --file week.zip`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if quarter != "" {
				var err error
				if in.From, in.To, err = quarterOf(quarter); err != nil {
					return err
				}
			}
			if in.From == "" {
				return usage("the period is missing").hinting("--quarter 2026Q1, or --from 2026-03-01, which ends now without --to")
			}
			return s.export(c.Context(), in, file, noWait)
		},
	}
	flags := c.Flags()
	flags.StringVar(&quarter, "quarter", "", "a calendar quarter, such as 2026Q1")
	flags.StringVar(&in.From, "from", "", "start of the period")
	flags.StringVar(&in.To, "to", "", "end of the period, excluded (default: now)")
	flags.StringVar(&in.Zone, "zone", "UTC", "time zone of dates")
	flags.StringSliceVar(&in.Controls, "controls", nil, "criteria, such as CC6.1,CC8.1 (default: all)")
	flags.StringVar(&in.Seed, "seed", "", "chooses the samples: yours, so that nobody else can choose them")
	flags.StringVarP(&file, "file", "f", "", "where to write the zip (default: here, as the broker names it)")
	flags.BoolVar(&noWait, "no-wait", false, "only ask for it, and exit with 4")
	c.MarkFlagsMutuallyExclusive("quarter", "from")
	c.MarkFlagsMutuallyExclusive("quarter", "to")
	return c
}

// quarterOf are the first day of a quarter and that of the next.
func quarterOf(text string) (from, to string, err error) {
	var year, n int
	if _, err := fmt.Sscanf(strings.ToUpper(text), "%4dQ%1d", &year, &n); err != nil || n < 1 || n > 4 ||
		fmt.Sprintf("%04dQ%d", year, n) != strings.ToUpper(text) {
		return "", "", usage("--quarter is a quarter such as 2026Q1, not %q", text)
	}
	start := time.Date(year, time.Month(3*n-2), 1, 0, 0, 0, 0, time.UTC)
	return start.Format(time.DateOnly), start.AddDate(0, 3, 0).Format(time.DateOnly), nil
}

// packPause is how long to wait before asking again how far a pack has come.
const packPause = time.Second

func (s *sally) export(ctx context.Context, in api.PackInput, file string, noWait bool) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	p, err := client.MakePack(ctx, in)
	if err != nil {
		return err
	}
	if noWait {
		if s.output == "json" {
			if err := s.json(p); err != nil {
				return err
			}
		}
		return &waitingError{p.ID + " is being made", "see: sally audit packs"}
	}
	if p, err = s.waitForPack(ctx, client, p); err != nil {
		return err
	}
	if file == "" {
		file = filepath.Base(filepath.Clean(p.File)) // a name, whatever the broker says
	}
	if err := s.download(ctx, client, p, file); err != nil {
		return err
	}
	if s.output == "json" {
		return s.json(struct {
			api.Pack
			Path string `json:"path"`
		}{p, file})
	}
	s.out.Line("%s", file)
	found := "no exceptions"
	if p.Exceptions > 0 {
		found = fmt.Sprintf("%d exceptions, listed in exceptions.csv", p.Exceptions)
	}
	s.err.Line("%d bytes, %s; verify it: sally audit verify %s --policy policy.txt", p.Bytes, found, file)
	return nil
}

// waitForPack waits until a pack is ready.
func (s *sally) waitForPack(ctx context.Context, client *api.Client, p api.Pack) (api.Pack, error) {
	progress := s.err.Progress(s.columns(), "making "+p.ID)
	defer progress.Stop()
	for {
		switch p.State {
		case api.PackReady:
			return p, nil
		case api.PackFailed, api.PackExpired:
			return p, fmt.Errorf("%s: %s", p.ID, p.Problem)
		}
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(packPause):
		}
		var err error
		if p, err = client.Pack(ctx, p.ID); err != nil {
			return p, err
		}
		if p.Total > 0 && s.columns() > 0 {
			progress.Say(fmt.Sprintf("making %s: %d of %d entries", p.ID, p.Done, p.Total))
		}
	}
}

// download writes the pack to the file, whole or not at all. It replaces none.
func (s *sally) download(ctx context.Context, client *api.Client, p api.Pack, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage("%s is there already", file).hinting("choose another name: --file")
	}
	if err != nil {
		return fmt.Errorf("write the pack: %w", err)
	}
	progress := s.err.Progress(s.columns(), "downloading "+p.ID)
	defer progress.Stop()
	_, err = client.DownloadPack(ctx, p.ID, f)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(file)
		return err
	}
	return nil
}

func (s *sally) auditPacksCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "packs",
		Short: "List evidence packs that were asked for",
		Example: `  sally audit packs
  sally audit packs --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(limit, func(cursor string, limit int) (api.Page[api.Pack], error) {
				return client.Packs(c.Context(), cursor, limit)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.Pack]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("nobody has asked for any")
				return nil
			}
			rows := make([][]show.Cell, len(all))
			for i, p := range all {
				rows[i] = show.Cells(p.ID, p.From.Format(time.DateOnly)+" to "+p.To.Format(time.DateOnly), string(p.State),
					fmt.Sprint(p.Exceptions), name(p.By), s.out.Relative(p.CreatedAt))
			}
			s.out.Table([]string{"PACK", "PERIOD (UTC)", "STATE", "EXCEPTIONS", "ASKED FOR BY", ""}, rows)
			if more != "" {
				s.err.Line("there are more: --limit")
			}
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many at most")
	return c
}
