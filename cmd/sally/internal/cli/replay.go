package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/audit/recording"
	"sallyport/cmd/sally/internal/replay"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

// replaying is what the flags of `sally audit replay` say.
type replaying struct {
	identity, vkey   string
	event, proof, to string
	number           int
	speed            float64
	idle             time.Duration
	unproved         bool
}

func (s *sally) auditReplayCommand() *cobra.Command {
	var o replaying
	c := &cobra.Command{
		Use:   "replay SESSION|FILE",
		Short: "Play what was recorded of a session, with your own key",
		Long: `Play what was recorded of a session. Without --identity, list it (auditors).

The recording is fetched as it is encrypted, compared with its hash in the log, and
decrypted here, with the private key in the file that --identity names (age-keygen
makes them). With --vkey the log's own proof of the hash is checked, too; without it,
that is the broker's word. FILE is a recording that you have already; then give the
event's bytes and its proof:

  sally audit event INDEX --leaf > event.json
  sally audit receipt INDEX > event.tlog-proof

What moves no cursor and paints nothing is not shown: a recording can tell your
terminal nothing else. --to writes the asciicast as it is, for other players.

A recording that the log does not prove is not played, but with --unproved.`,
		Example: `  sally audit replay ses-4f8k2m9qhx1z
  sally audit replay ses-4f8k2m9qhx1z --identity key.txt --vkey log.vkey --speed 2
  sally audit replay ses-4f8k2m9qhx1z --identity key.txt --to session.cast
  sally audit replay recording.rec --identity key.txt --vkey log.vkey --event event.json --proof event.tlog-proof`,
		Args: one("SESSION or FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.speed <= 0 || o.idle <= 0 {
				return usage("--speed and --idle must be more than 0")
			}
			if ids.Valid(ids.Session, args[0]) {
				return s.replaySession(c.Context(), args[0], o)
			}
			return s.replayFile(c.Context(), args[0], o)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&o.identity, "identity", "i", "", "file with your private key, as age-keygen writes it")
	flags.StringVar(&o.vkey, "vkey", "", "file with the log's verifier key, to check the proof with")
	flags.IntVar(&o.number, "number", 1, "which recording of the session")
	flags.StringVar(&o.event, "event", "", "for a FILE: the bytes of the event of its end")
	flags.StringVar(&o.proof, "proof", "", "for a FILE: the proof that this event is in the log")
	flags.StringVar(&o.to, "to", "", "write the asciicast to this file instead")
	flags.Float64Var(&o.speed, "speed", 1, "how much faster than it was")
	flags.DurationVar(&o.idle, "idle", 2*time.Second, "no pause lasts longer")
	flags.BoolVar(&o.unproved, "unproved", false, "play what the log does not prove, too")
	for _, name := range []string{"identity", "vkey", "event", "proof"} {
		c.MarkFlagFilename(name)
	}
	return c
}

// replaySession lists what was recorded of a session, or plays one of it.
func (s *sally) replaySession(ctx context.Context, session string, o replaying) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	list, err := client.Recordings(ctx, session)
	if err != nil {
		return err
	}
	if o.identity == "" {
		return s.listRecordings(list)
	}
	keys, err := readIdentities(o.identity)
	if err != nil {
		return err
	}
	var r *api.Recording
	for i := range list.Items {
		if list.Items[i].Number == o.number {
			r = &list.Items[i]
		}
	}
	if r == nil {
		return usage("session %s has no recording %d", session, o.number).hinting("sally audit replay SESSION lists them")
	}
	var text bytes.Buffer
	if _, err := client.DownloadRecording(ctx, session, o.number, &bounded{&text, recording.MaxSize}); err != nil {
		return err
	}
	said, err := s.proveRecording(ctx, client, session, *r, text.Bytes(), o.vkey)
	if err := s.judge(said, err, o.unproved); err != nil {
		return err
	}
	return s.play(ctx, text.Bytes(), keys, o)
}

func (s *sally) listRecordings(list api.Page[api.Recording]) error {
	if s.output == "json" {
		return s.json(list)
	}
	if len(list.Items) == 0 {
		s.err.Line("nothing was recorded of this session")
		return nil
	}
	rows := make([][]show.Cell, len(list.Items))
	for i, r := range list.Items {
		what, place := "command", "not in the log yet"
		if r.Terminal {
			what = "terminal"
		}
		if r.Event != nil {
			place = "entry " + strconv.FormatInt(*r.Event, 10)
		}
		rows[i] = show.Cells(strconv.Itoa(r.Number), what, r.Login+"@"+r.Host, name(r.Person), s.out.Relative(*r.StartedAt), fmt.Sprint(r.Bytes), string(r.State), place, r.Cut)
		if r.State == api.RecordingDiffers {
			rows[i][6].Style = show.Red
		}
	}
	s.out.Table([]string{"NUMBER", "", "WHERE", "WHO", "BEGAN", "BYTES", "STATE", "LOG", "CUT OFF"}, rows)
	s.err.Line("play one with your key: --identity FILE --number N")
	return nil
}

// errUnproved says that nothing proves what a recording is.
var errUnproved = errors.New("nothing proves that this is what the host recorded")

// proveRecording compares a recording with what the log says of its end. It is of the
// session that was asked for, whatever the broker calls it.
func (s *sally) proveRecording(ctx context.Context, client *api.Client, session string, r api.Recording, text []byte, vkey string) (said string, err error) {
	if r.Event == nil {
		return "", fmt.Errorf("%w: its end is not in the log yet", errUnproved)
	}
	e, err := client.Event(ctx, *r.Event)
	if err != nil {
		return "", err
	}
	var proof []byte
	if vkey != "" {
		if proof, err = client.Receipt(ctx, *r.Event); err != nil {
			return "", err
		}
	}
	d, said, err := prove(e.Leaf, proof, vkey, text)
	if err == nil && (d.SessionID != session || d.Recording != r.Number) {
		return "", fmt.Errorf("%w: the event is about another recording", errUnproved)
	}
	return said, err
}

// prove checks that the event, which the proof shows to be in the log, has the hash of
// the recording. Without a verifier key only the event is compared.
func prove(leaf, proof []byte, vkey string, text []byte) (d event.SessionRecorded, said string, err error) {
	e, err := event.Decode(leaf)
	if err != nil {
		return d, "", fmt.Errorf("%w: %v", errUnproved, err)
	}
	d, ok := e.Data.(event.SessionRecorded)
	if !ok {
		return d, "", fmt.Errorf("%w: the event is %s, not the end of a recording", errUnproved, e.Type)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != d.Digest || uint64(len(text)) != d.Bytes {
		return d, "", fmt.Errorf("%w: the log has hash %s of %d bytes, and these %d bytes have %x", errUnproved, d.Digest, d.Bytes, len(text), sum)
	}
	cut := ""
	if d.Cut != "" {
		cut = "; it was CUT OFF: " + d.Cut
	}
	if vkey == "" {
		return d, "MATCHES the event that the broker shows; --vkey proves that it is in the log" + cut, nil
	}
	verifier, err := readVerifier(vkey)
	if err != nil {
		return d, "", err
	}
	index, err := receipt.Verify(leaf, proof, verifier)
	if err != nil {
		return d, "", fmt.Errorf("%w: %v", errUnproved, err)
	}
	return d, fmt.Sprintf("PROVED: this is what %s recorded, by entry %d of the log %s%s", d.Host, index, verifier.Name(), cut), nil
}

// judge says what was proved, and lets what was not pass only if it is wanted.
func (s *sally) judge(said string, err error, unproved bool) error {
	switch {
	case err == nil:
		s.err.Line("%s", said)
		return nil
	case !errors.Is(err, errUnproved):
		return err
	}
	s.err.Line("NOT PROVED: %s", err.Error())
	if unproved {
		return nil
	}
	return exitStatus(api.ExitFailed)
}

func (s *sally) replayFile(ctx context.Context, file string, o replaying) error {
	f, err := os.Open(file)
	if err != nil {
		return usage("%s", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 8*recording.MaxSize))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if bytes.HasPrefix(text, []byte("{")) { // an asciicast, of --to or of anybody
		return s.playCast(ctx, bytes.NewReader(text), o)
	}
	if o.identity == "" {
		return usage("--identity is missing: the recording is encrypted").hinting("see: sally audit replay --help")
	}
	keys, err := readIdentities(o.identity)
	if err != nil {
		return err
	}
	said, err := "", fmt.Errorf("%w: --event, --proof and --vkey are not all given", errUnproved)
	if o.event != "" && o.proof != "" && o.vkey != "" {
		leaf, rerr := readSmall(o.event)
		proof, perr := readSmall(o.proof)
		if err := errors.Join(rerr, perr); err != nil {
			return err
		}
		_, said, err = prove(leaf, proof, o.vkey, text)
	}
	if err := s.judge(said, err, o.unproved); err != nil {
		return err
	}
	return s.play(ctx, text, keys, o)
}

// play decrypts a recording and plays it, or writes it down.
func (s *sally) play(ctx context.Context, text []byte, keys []age.Identity, o replaying) error {
	var plain bytes.Buffer
	err := recording.Decrypt(&bounded{&plain, 8 * recording.MaxSize}, bytes.NewReader(text), keys...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return usage("the recording is for other keys than those in %s", o.identity)
	case errors.Is(err, recording.ErrForm) && plain.Len() > 0:
		s.err.Line("the recording is cut off within a part; what is before that follows")
	case err != nil:
		return err
	}
	if o.to == "" {
		return s.playCast(ctx, &plain, o)
	}
	f, err := os.OpenFile(o.to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return usage("%s", err)
	}
	_, err = f.Write(plain.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	s.err.Line("%s", o.to)
	return nil
}

func (s *sally) playCast(ctx context.Context, r io.Reader, o replaying) error {
	cast, err := recording.ReadCast(r)
	if err != nil {
		return err
	}
	h := cast.Header
	s.err.Line("%s, recorded at %s, %d by %d", or(h.Title, h.Sallyport.Login), time.Unix(h.Timestamp, 0).UTC().Format(time.RFC3339), h.Width, h.Height)
	err = replay.Play(ctx, s.Out, cast, replay.Options{Speed: o.speed, Idle: o.idle, Sleep: func(ctx context.Context, d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}})
	if term.IsTerminal(int(s.Out.Fd())) {
		io.WriteString(s.Out, replay.Reset)
	}
	s.err.Line("")
	return err
}

// readIdentities reads private keys as age-keygen writes them.
func readIdentities(file string) ([]age.Identity, error) {
	text, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	keys, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		return nil, usage("%s has no private key of age", file).hinting("age-keygen -o key.txt makes one; its public key goes to the operators")
	}
	return keys, nil
}

// bounded is a buffer that takes no more than so many bytes.
type bounded struct {
	to   *bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.to.Len()+len(p) > b.most {
		return 0, fmt.Errorf("the recording has more than %d bytes", b.most)
	}
	return b.to.Write(p)
}
