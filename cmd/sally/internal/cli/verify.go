package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/audit/cosignature"
	"sallyport/cmd/sally/internal/show"
	"sallyport/evidence/pack"
)

// maxTrusted bounds the files that say whom to trust.
const maxTrusted = 64 << 10

func (s *sally) auditVerifyCommand() *cobra.Command {
	var policy, previous string
	c := &cobra.Command{
		Use:   "verify PACK",
		Short: "Verify an evidence pack, offline",
		Long: `Verify an evidence pack with nothing but what is given here: no network, no
configuration, no broker. One line tells of each check; the last one is the
verdict. Exit code 0: verified; 1: not.

--policy names a file that says whose log it is, in lines:

  log VKEY                     the log's key, as the operator gave it to you
  witness NAME VKEY            witnesses, if there are any
  group NAME 2 NAME NAME NAME  so many of them together, or any, or all
  quorum NAME                  whose cosignatures there must be, or none

--previous names the checkpoint that you kept from last time. Without it, a log
that was written anew since then is not noticed.

Exceptions are what the log says that somebody should explain. They are counted
here and do not change the verdict, which is about whether the pack is true to
the log.`,
		Example: `  sally audit verify evidence.zip --policy policy.txt
  sally audit verify evidence.zip --policy policy.txt --previous checkpoint-2026-01`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if policy == "" {
				return usage("--policy is missing: a pack cannot say itself whom to trust").hinting("see: sally audit verify --help")
			}
			o, err := trusted(policy, previous)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the pack: %w", err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return fmt.Errorf("open the pack: %w", err)
			}
			if s.output == "text" {
				o.Report = s.showCheck
			}
			v, err := pack.Verify(c.Context(), f, info.Size(), o)
			if err != nil {
				return fmt.Errorf("verify the pack: %w", err)
			}
			return s.verdict(v)
		},
	}
	c.Flags().StringVar(&policy, "policy", "", "file that names the log's key and the witnesses")
	c.Flags().StringVar(&previous, "previous", "", "checkpoint kept from an earlier time")
	return c
}

// trusted reads what the auditor brings along.
func trusted(policy, previous string) (pack.Options, error) {
	var o pack.Options
	text, err := readSmall(policy)
	if err != nil {
		return o, err
	}
	if o.Trust, err = cosignature.ParsePolicy(text); err != nil {
		return o, usage("%s: %s", policy, err).hinting("see: sally audit verify --help")
	}
	if previous != "" {
		o.Previous, err = readSmall(previous)
	}
	return o, err
}

func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, usage("%s", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTrusted+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > maxTrusted {
		return nil, usage("%s has more than %d bytes", file, maxTrusted)
	}
	return text, nil
}

func (s *sally) showCheck(c pack.Check) {
	said := s.out.Paint(show.Green, "ok  ")
	if !c.OK {
		said = s.out.Paint(show.Red, "FAIL")
	}
	s.out.Line("%s %-33s %s", said, c.Name, c.Detail)
}

// verdict prints the last line, and is the exit code.
func (s *sally) verdict(v pack.Verdict) error {
	if s.output == "json" {
		if err := s.json(v); err != nil {
			return err
		}
	} else if v.OK {
		s.out.Line("VERIFIED: the pack is true to the log %s, %d entries; %d exceptions to ask about", v.Manifest.Log.Origin, v.Manifest.Log.End, v.Found())
	} else {
		failed := 0
		for _, c := range v.Checks {
			if !c.OK {
				failed++
			}
		}
		s.out.Line("NOT VERIFIED: %d of %d checks failed", failed, len(v.Checks))
	}
	if !v.OK {
		return exitStatus(api.ExitFailed)
	}
	return nil
}
