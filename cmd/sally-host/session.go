package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/cmd/sally-host/internal/spool"
)

var sessionCommand = command{
	name:    "session",
	summary: "write down a connection that opens or closes, for PAM",
	help: `Usage: sally-host session

For PAM to call, not for people. /etc/pam.d/sshd has, before other session lines:

  session required pam_exec.so quiet stdout /usr/lib/sallyport/sally-host session

It writes the connection down before its shell begins, uses up certificates that are
for one session, and refuses what the door would refuse. The daemon tells the broker,
and ends the session when it is over.
`,
	run: func(args []string) int {
		if len(args) > 0 {
			return misused("session takes no arguments: it goes by what PAM says (see pam_exec(8))")
		}
		return runSession(os.Stdout)
	},
}

// runSession writes for the person to out. Anything but exitDone refuses the session.
func runSession(out io.Writer) int {
	say := func(line string) int {
		fmt.Fprintln(out, "Sallyport: "+journal.Clean(line))
		journal.Here.Notice(line)
		return exitFailed
	}
	h := session.Hook{Place: place.Here, Now: time.Now, Env: os.Getenv, Monitor: os.Getppid(), Log: journal.Here.Notice}
	switch h.Env("PAM_TYPE") {
	case "open_session":
	case "close_session":
		if err := h.Close(); err != nil {
			journal.Here.Notice("the end of a session could not be noted: " + err.Error())
		}
		return exitDone
	default:
		return say("sally-host session is for PAM to call; see sally-host session --help")
	}
	s, err := place.Here.Read()
	if errors.Is(err, place.ErrNotEnrolled) {
		journal.Here.Notice("a session was not written down: this host is not enrolled")
		return exitDone
	}
	if err != nil {
		return say("no session begins: " + err.Error())
	}
	h.Spool, err = openSpool(s)
	if err != nil {
		return say("no session begins: " + err.Error())
	}
	if err := h.Open(); err != nil {
		fmt.Fprintln(out, "Sallyport: this session does not begin: "+journal.Clean(err.Error()))
		return exitFailed
	}
	return exitDone
}

// openSpool opens this host's spool.
func openSpool(s place.Settings) (*spool.Spool, error) {
	key, err := s.Key(place.Here)
	if err != nil {
		return nil, err
	}
	boot, err := place.Here.BootID()
	if err != nil {
		return nil, err
	}
	return spool.Open(place.Here.Spool(), key, boot, time.Now), nil
}
