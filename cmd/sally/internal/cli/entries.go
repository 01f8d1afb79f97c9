package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api"
	"sallyport/audit/receipt"
)

func (s *sally) auditEventCommand() *cobra.Command {
	var leaf bool
	c := &cobra.Command{
		Use:   "event INDEX",
		Short: "Show one event of the log",
		Long: `Show one event of the log. With --leaf print its exact bytes and nothing else:
what its receipt proves.`,
		Example: `  sally audit event 24
  sally audit event 24 --leaf > 24.json`,
		Args: one("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			index, err := logIndex(args[0])
			if err != nil {
				return err
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
	var vkey string
	c := &cobra.Command{
		Use:   "receipt INDEX",
		Short: "Print the proof that an event is in the log",
		Long: `Print the proof that an event is in the log, a c2sp.org/tlog-proof. With --vkey
it is first checked, with the event's bytes, against a verifier key that you
have from somebody whom you trust.`,
		Example: `  sally audit receipt 24 --vkey log.vkey > 24.tlog-proof`,
		Args:    one("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			index, err := logIndex(args[0])
			if err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			text, err := client.Receipt(c.Context(), index)
			if err != nil {
				return err
			}
			if vkey != "" {
				verifier, err := readVerifier(vkey)
				if err != nil {
					return err
				}
				e, err := client.Event(c.Context(), index)
				if err != nil {
					return err
				}
				proved, err := receipt.Verify(e.Leaf, text, verifier)
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
	return c
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
