package door

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/journal"
)

// Explain tells an engineer what Ask finds, and what to do about it. login is empty for
// the one that the certificate names. It reports whether the certificate opens the login.
func (d Door) Explain(w io.Writer, wire []byte, login string, now time.Time) bool {
	proved, _ := certs.CheckReceipt(wire, d.Trust.Log)
	says, _ := certs.ParseCertificate(wire)
	switch c := proved.Certificate; {
	case c != nil && proved.Login != "":
		fmt.Fprintf(w, "certificate  %d, for %s@%s (%s)\n", c.Serial, proved.Login, proved.Host, proved.HostID)
		fmt.Fprintf(w, "%-12s %s (%s), %s\n", proved.ActorKind, proved.ActorName, proved.ActorID, For(proved))
		if proved.Deployment != "" {
			fmt.Fprintf(w, "runs         %s, in %d sessions at most, until %s\n", proved.Command, proved.Uses, stamp(proved.BatchEnds))
		}
		fmt.Fprintf(w, "in the log   entry %d of %s, at %s\n", proved.Index, d.Trust.Log.Name(), stamp(proved.Time))
	case says != nil:
		fmt.Fprintf(w, "certificate  %d, key id %s, principals %q: by its own word, which nothing proves\n", says.Serial, journal.Quote(says.KeyId), cut(says.ValidPrincipals))
	}
	if login == "" {
		login = proved.Login
	}
	if login == "" && says != nil && len(says.ValidPrincipals) == 1 {
		login, _, _ = strings.Cut(says.ValidPrincipals[0], "@")
	}
	if says != nil {
		fmt.Fprintf(w, "valid        %s to %s\n", unixTime(says.ValidAfter), unixTime(says.ValidBefore))
	}
	fmt.Fprintf(w, "this host    %s; its clock %s\n", d.Trust.HostID, stamp(now))
	if d.Revocations.MadeAt.IsZero() {
		fmt.Fprintf(w, "the broker   never heard\n")
	} else {
		fmt.Fprintf(w, "the broker   last heard %s, list %d of revocations\n", stamp(d.Revocations.MadeAt), d.Revocations.Number)
	}
	l, err := d.Ask(wire, login, now)
	if err == nil {
		fmt.Fprintf(w, "answer       it opens %s: %s\n", journal.Quote(login), Line(l))
		return true
	}
	fmt.Fprintf(w, "answer       it does not open %s (%s): %s\n", journal.Quote(login), ReasonOf(err), journal.Clean(err.Error()))
	if hint := hints[ReasonOf(err)]; hint != "" {
		fmt.Fprintf(w, "what to do   %s\n", hint)
	}
	return false
}

// cut is the first of many principals: they are a stranger's word.
func cut(principals []string) []string {
	out := []string{}
	for _, p := range principals[:min(4, len(principals))] {
		out = append(out, p[:min(64, len(p))])
	}
	return out
}

// ReasonOf is why a certificate was refused.
func ReasonOf(err error) certs.Reason {
	if r, ok := err.(*Refused); ok && r.Reason != "" {
		return r.Reason
	}
	return NoAnswer
}

// hints are what to do, by reason.
var hints = map[certs.Reason]string{
	certs.NotHere:       "ask for this login on this host (sally ssh LOGIN@HOST); if it says \"not valid at\", compare the clocks of this host and the broker",
	certs.OtherCA:       "it is by a CA that this host does not trust: if the broker's CA was replaced, run sally-host enroll again, which fetches the new one",
	certs.OtherLog:      "it is of another Sallyport: this host belongs to the one whose log is named above",
	certs.NoReceipt:     "no Sallyport of today issues such certificates. Somebody may have signed it with the CA's key behind the broker's back: tell the security team now",
	certs.BadCheckpoint: "the log's key did not sign what it rests on. Somebody may have forged it: tell the security team now",
	certs.NotIncluded:   "it is not in the log. Somebody may have forged it: tell the security team now",
	certs.LeafDiffers:   "the log says something else than the certificate. Somebody may have forged it: tell the security team now",
	certs.BadSignature:  "the CA did not sign it: get a new one with sally ssh",
	certs.BadForm:       "give the file NAME-cert.pub, or the certificate's base64 as sshd's %k has it",
	certs.TooLarge:      "no Sallyport issues certificates of that size",
	Closed:              "see systemctl status sally-host; if the host was removed from Sallyport, enrol it again",
	Revoked:             "ask anew: sally request; an agent: open the batch again",
	Ended:               "set the clock of this host: timedatectl status",
	Silent:              "let the daemon reach the broker (systemctl status sally-host), and compare the clocks of this host and the broker",
	NotRecorded:         "an operator names an auditors' key in the broker's settings; the host learns it when it renews, or at once by sally-host enroll",
	NoAnswer:            "see the file that is named; sally-host enroll repairs what it wrote",
}

func unixTime(seconds uint64) string {
	if seconds > math.MaxInt64 {
		return "for ever" // ssh.CertTimeInfinity, which none of ours is
	}
	return stamp(time.Unix(int64(seconds), 0))
}
