package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/broker/certs"
)

func (s *sally) checkCertificateCommand() *cobra.Command {
	var vkey, ca string
	c := &cobra.Command{
		Use:   "check-certificate FILE",
		Short: "Check offline that a certificate is in the log, and tell its story",
		Long: `Check that a certificate is in the log, by the receipt that it carries, and tell
what the log says of it: who got it, for which request, and what allowed it.
Nothing is asked of a broker. FILE is a -cert.pub file, a person's or a host's,
or - for the standard input.

Take the verifier key, and the CA's key for --ca, from somebody whom you trust.

Exit codes: 0 proved, 1 not.`,
		Example: `  sally audit check-certificate id-cert.pub --vkey log.vkey --ca user_ca.pub
  ssh-add -L | grep cert- | sally audit check-certificate - --vkey log.vkey`,
		Args: one("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if vkey == "" {
				return usage("--vkey is not set").hinting("it names a file with the log's verifier key, which sallyportd ca show prints")
			}
			return s.checkCertificate(args[0], vkey, ca)
		},
	}
	c.Flags().StringVar(&vkey, "vkey", "", "file with the log's verifier key. Required")
	c.Flags().StringVar(&ca, "ca", "", "file with the CA's public key, or several, one of which must have signed it")
	c.MarkFlagFilename("vkey")
	c.MarkFlagFilename("ca")
	return c
}

// checked is what `sally audit check-certificate --output json` prints.
type checked struct {
	Verdict string       `json:"verdict"` // proved or not-proved
	Reason  certs.Reason `json:"reason,omitempty"`
	Detail  string       `json:"detail,omitempty"`
	Log     string       `json:"log"`
	*story
}

type story struct {
	Index         int64     `json:"index,string"`
	Size          int64     `json:"size,string"`
	Event         string    `json:"event_id"`
	Type          string    `json:"type"`
	Time          time.Time `json:"time"`
	Serial        uint64    `json:"serial,string"`
	Actor         string    `json:"actor_id"`
	Name          string    `json:"actor_name,omitempty"`
	Source        string    `json:"source,omitempty"`
	Request       string    `json:"request_id,omitempty"`
	Host          string    `json:"host"`
	HostID        string    `json:"host_id"`
	Principals    []string  `json:"principals"`
	Key           string    `json:"key"`
	CA            string    `json:"ca"`
	ValidAfter    time.Time `json:"valid_after"`
	ValidBefore   time.Time `json:"valid_before"`
	PolicyVersion string    `json:"policy_version,omitempty"`
	PolicyHash    string    `json:"policy_hash,omitempty"`
	TermsHash     string    `json:"terms_hash,omitempty"`
	Decisions     []string  `json:"decisions,omitempty"`
	Emergency     bool      `json:"emergency,omitempty"`
	Drill         bool      `json:"drill,omitempty"`
}

func (s *sally) checkCertificate(file, vkey, ca string) error {
	verifier, err := readVerifier(vkey)
	if err != nil {
		return err
	}
	trusted, err := readCAs(ca)
	if err != nil {
		return err
	}
	line, err := s.readInput(file)
	if err != nil {
		return err
	}
	result := checked{Verdict: "proved", Log: verifier.Name()}
	wire, err := certs.ReadLine(line)
	var logged certs.Logged
	if err == nil {
		logged, err = certs.CheckReceipt(wire, verifier)
	}
	if err == nil && ca != "" && !slices.ContainsFunc(trusted, func(k ssh.PublicKey) bool {
		return bytes.Equal(k.Marshal(), logged.Certificate.SignatureKey.Marshal())
	}) {
		err = fmt.Errorf("the CA %s is not in %s", ssh.FingerprintSHA256(logged.Certificate.SignatureKey), ca)
		result.Reason = certs.OtherCA
	}
	if err != nil {
		result.Verdict, result.Detail = "not-proved", err.Error()
		result.Reason = certs.Reason(or(string(certs.ReasonOf(err)), string(result.Reason)))
	} else {
		result.story = storyOf(logged)
	}
	if s.output == "json" {
		if printed := s.json(result); printed != nil {
			return printed
		}
	} else if err != nil {
		s.out.Line("NOT PROVED: the certificate is not shown to be in the log %s: %s", verifier.Name(), err)
	} else {
		s.tell(result, len(trusted) > 0)
	}
	if err != nil {
		return exitStatus(api.ExitFailed)
	}
	return nil
}

func storyOf(l certs.Logged) *story {
	c := l.Certificate
	return &story{Index: l.Index, Size: l.Size, Event: l.Event, Type: l.Type, Time: l.Time, Serial: c.Serial, Actor: l.ActorID, Name: l.ActorName,
		Source: l.Source, Request: l.RequestID, Host: l.Host, HostID: l.HostID, Principals: l.Principals,
		Key: ssh.FingerprintSHA256(c.Key), CA: ssh.FingerprintSHA256(c.SignatureKey),
		ValidAfter: time.Unix(int64(c.ValidAfter), 0).UTC(), ValidBefore: time.Unix(int64(c.ValidBefore), 0).UTC(),
		PolicyVersion: l.PolicyVersion, PolicyHash: l.PolicyHash, TermsHash: l.TermsHash, Decisions: l.Decisions,
		Emergency: l.Emergency, Drill: l.Drill}
}

// tell prints the story.
func (s *sally) tell(c checked, caTrusted bool) {
	const layout = "2006-01-02 15:04:05 MST"
	t := c.story
	what, who := "certificate", "got by"
	if t.Request == "" {
		what, who = "host certificate", "made by"
	}
	ended := ""
	if now := s.Clock.Now(); !now.Before(t.ValidBefore) {
		ended = ", which is over"
	}
	allowed := []string{}
	switch {
	case t.Drill:
		allowed = append(allowed, "a drill for emergencies, before any approval")
	case t.Emergency:
		allowed = append(allowed, "an emergency, before any approval")
	case t.Request != "" && len(t.Decisions) == 0:
		allowed = append(allowed, "the rule itself, with nobody asked")
	}
	for _, d := range t.Decisions {
		allowed = append(allowed, "decision "+d)
	}
	policy := ""
	if t.PolicyHash != "" {
		policy = "version " + t.PolicyVersion + ", " + t.PolicyHash
	}
	ca := t.CA
	if !caTrusted {
		ca += " (not compared: --ca)"
	}
	s.out.Line("PROVED: %s %d is entry %d of the log %s", what, t.Serial, t.Index, c.Log)
	s.fields(
		who, strings.TrimSpace(t.Name+" ("+t.Actor+")"), "at", t.Time.Format(layout), "from", t.Source,
		"host", t.Host+" ("+t.HostID+")", "opens", strings.Join(t.Principals, ", "),
		"from the time", t.ValidAfter.Format(layout), "until", t.ValidBefore.Format(layout)+ended,
		"request", t.Request, "allowed by", strings.Join(allowed, "\n"),
		"terms", t.TermsHash, "policy", policy,
		"key", t.Key, "signed by", ca, "event", t.Event, "receipt", "under a log of "+strconv.FormatInt(t.Size, 10),
	)
}

// readCAs reads public keys, one to a line; lines that begin with # are comments.
func readCAs(file string) ([]ssh.PublicKey, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%s", err)
	}
	var found []ssh.PublicKey
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		var key ssh.PublicKey
		err := errors.New("it has one word")
		if len(fields) > 1 {
			key, err = certs.ParseKey(fields[0] + " " + fields[1])
		}
		if err != nil {
			return nil, usage("%s has a line that is no public key: %s", file, err)
		}
		found = append(found, key)
	}
	if len(found) == 0 {
		return nil, usage("%s has no public key", file)
	}
	return found, nil
}
