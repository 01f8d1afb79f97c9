package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api"
	"sallyport/audit/receipt"
	"sallyport/evidence/pack"
)

func (s *sally) auditEventCommand() *cobra.Command {
	var leaf bool
	var file string
	c := &cobra.Command{
		Use:   "event INDEX",
		Short: "Show one event of the log",
		Long: `Show one event of the log. With --leaf print its exact bytes and nothing else:
what its receipt proves.

An entry that was pruned is in an archive: --pack reads it there, or out of any
evidence pack, without the broker.`,
		Example: `  sally audit event 24
  sally audit event 24 --pack archive.zip
  sally audit event 24 --leaf > 24.json`,
		Args: one("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			index, err := logIndex(args[0])
			if err != nil {
				return err
			}
			if file != "" {
				text, _, err := readEntry(file, index)
				if err != nil {
					return err
				}
				return s.printDocument(text)
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			e, err := client.Event(c.Context(), index)
			if err != nil {
				return err
			}
			switch {
			case leaf:
				_, err := s.Out.Write(e.Leaf)
				return err
			case s.output == "json":
				return s.json(e)
			}
			s.out.Line("%d  %s", e.Index, e.Type)
			s.fields(
				"happened", e.Time.UTC().Format("2006-01-02 15:04:05.999999 MST"),
				"who", actor(e.Actor), "for", forWhom(e), "what", e.Summary, "from", e.Source,
				"request", e.Request, "person", e.Person, "host", e.Host,
				"event", e.ID, "leaf hash", e.LeafHash,
			)
			return s.printDocument("\n" + string(e.Leaf) + "\n")
		},
	}
	c.Flags().BoolVar(&leaf, "leaf", false, "print the exact bytes")
	c.Flags().StringVar(&file, "pack", "", "archive or evidence pack to read it from; prints the exact bytes")
	c.MarkFlagFilename("pack", "zip")
	return c
}

func actor(a api.EventActor) string { return or(a.Name, or(a.ID, a.Kind)) }

func forWhom(e api.Event) string {
	if e.OnBehalfOf == nil {
		return ""
	}
	return actor(*e.OnBehalfOf)
}

func (s *sally) auditReceiptCommand() *cobra.Command {
	var vkey, file string
	c := &cobra.Command{
		Use:   "receipt INDEX",
		Short: "Print the proof that an event is in the log",
		Long: `Print the proof that an event is in the log, a c2sp.org/tlog-proof. With --vkey
it is first checked, with the event's bytes, against a verifier key that you
have from somebody whom you trust.

The receipt of an entry that was pruned can still be had. Its bytes are in an
archive: with --pack they, and the receipt, are read there, without the broker.`,
		Example: `  sally audit receipt 24 --vkey log.vkey > 24.tlog-proof
  sally audit receipt 24 --vkey log.vkey --pack archive.zip`,
		Args: one("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			index, err := logIndex(args[0])
			if err != nil {
				return err
			}
			leaf, text, err := s.entry(c.Context(), index, file)
			pruned := prunedEntry(err)
			if err != nil && pruned == nil {
				return err
			}
			if pruned != nil {
				s.err.Line("PRUNED: %s", pruned.Detail)
			}
			if vkey != "" && pruned != nil {
				return usage("without its bytes the receipt of entry %d cannot be checked", index).hinting("read them from the archive: --pack FILE")
			}
			if vkey != "" {
				verifier, err := readVerifier(vkey)
				if err != nil {
					return err
				}
				proved, err := receipt.Verify(leaf, text, verifier)
				if err != nil || proved != index {
					s.err.Line("NOT PROVED: entry %d is not shown to be in the log %s: %v", index, verifier.Name(), err)
					return exitStatus(api.ExitFailed)
				}
				s.err.Line("PROVED: entry %d is in the log %s", index, verifier.Name())
			}
			if s.output == "json" {
				return s.json(map[string]any{"index": strconv.FormatInt(index, 10), "receipt": string(text)})
			}
			return s.printDocument(string(text))
		},
	}
	c.Flags().StringVar(&vkey, "vkey", "", "file with the log's verifier key, to check the receipt with")
	c.MarkFlagFilename("vkey")
	c.Flags().StringVar(&file, "pack", "", "archive or evidence pack to read the entry from")
	c.MarkFlagFilename("pack", "zip")
	return c
}

// entry is an entry's bytes with its receipt, from the broker or from a pack. Of one
// that was pruned the broker has the receipt alone, and the error says so.
func (s *sally) entry(ctx context.Context, index int64, file string) (leaf, text []byte, err error) {
	if file != "" {
		leaf, text, err := readEntry(file, index)
		return []byte(leaf), text, err
	}
	client, err := s.client()
	if err != nil {
		return nil, nil, err
	}
	if text, err = client.Receipt(ctx, index); err != nil {
		return nil, nil, err
	}
	e, err := client.Event(ctx, index)
	return e.Leaf, text, err
}

// prunedEntry is what the broker says of an entry that was pruned, or nil.
func prunedEntry(err error) *api.Problem {
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Code == "pruned" {
		return p
	}
	return nil
}

// readEntry reads an entry, and its receipt, from a pack. Nothing is believed of it
// until the receipt is checked.
func readEntry(file string, index int64) (leaf string, proof []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", nil, usage("%s", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	b, proof, err := pack.Entry(f, info.Size(), index)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", file, err)
	}
	return string(b), proof, nil
}

func logIndex(text string) (int64, error) {
	index, err := strconv.ParseInt(text, 10, 64)
	if err != nil || index < 0 {
		return 0, usage("%q is no place in the log: they count from 0", text)
	}
	return index, nil
}

// maxInput bounds files that are read to be checked.
const maxInput = 1 << 20

// readInput reads a file, or the standard input for "-".
func (s *sally) readInput(file string) (string, error) {
	in := s.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("%s", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > maxInput {
		return "", usage("%s has more than %d bytes", file, maxInput)
	}
	return string(text), nil
}

// readVerifier reads a verifier key in note format, as /log/vkey serves it.
func readVerifier(file string) (note.Verifier, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%s", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, usage("%s is not a verifier key", file).hinting("it is one line, NAME+ID+KEY: sallyportd ca show prints it, /log/vkey serves it")
	}
	return verifier, nil
}
