package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/cmd/sally-host/internal/door"
	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
)

var principalsCommand = command{
	name:    "principals",
	summary: "answer sshd: which principal opens this login for this certificate",
	help: `Usage: sally-host principals LOGIN CERTIFICATE

For sshd, not for people: explain says the same in words. sshd_config(5) has

  AuthorizedPrincipalsCommand /usr/lib/sallyport/sally-host principals %u %k
  AuthorizedPrincipalsCommandUser _sallyport

It prints one line if the certificate, in base64, is in Sallyport's log and opens
this login on this host now; or nothing, and the reason goes to the journal:

  journalctl -t sally-host        (or grep sally-host /var/log/auth.log)

It asks nobody, changes nothing, and answers within a second or refuses.
`,
	run: func(args []string) int {
		// No flags: what stands here comes from a stranger.
		if len(args) != 2 {
			return misused("principals takes a login and a certificate (%%u %%k)")
		}
		if !door.Principals(place.Here, os.Stdout, journal.Here.Notice, door.Question{Login: args[0], Certificate: args[1]}, time.Now) {
			return exitFailed
		}
		return exitDone
	},
}

var explainCommand = command{
	name:    "explain",
	summary: "say why a certificate opens a login on this host, or why not",
	help: `Usage: sally-host explain [--login LOGIN] CERTIFICATE

CERTIFICATE is a file such as id-cert.pub, - for standard input, or the text itself.
Exit code 0 if it opens the login (its own, if none is given), else 3.

Examples:
  sally-host explain erin-cert.pub
  sally-host explain --login root erin-cert.pub
  sally-host explain "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1…"
`,
	run: func(args []string) int {
		flags := flag.NewFlagSet("explain", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		login := flags.String("login", "", "")
		if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
			return misused("explain takes one certificate; see sally-host explain --help")
		}
		wire, err := readCertificate(flags.Arg(0))
		if err != nil {
			return failed(err)
		}
		d, err := door.Open(place.Here)
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w: run it as root", err)
			}
			return failed(err)
		}
		if !d.Explain(os.Stdout, wire, *login, time.Now().Truncate(time.Second)) {
			return exitDenied
		}
		return exitDone
	},
}

// readCertificate reads a certificate in wire format from a file, from standard input
// ("-"), or from the argument itself.
func readCertificate(arg string) ([]byte, error) {
	text, err := []byte(arg), error(nil)
	switch {
	case arg == "-":
		text, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	case !strings.Contains(arg, "AAAA"): // how the base64 of every certificate begins
		text, err = os.ReadFile(arg)
	}
	if err != nil {
		return nil, err
	}
	if key, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
		return key.Marshal(), nil
	}
	return door.Decode(strings.TrimSpace(string(text)))
}
