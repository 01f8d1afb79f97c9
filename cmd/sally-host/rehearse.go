package main

import (
	"os"
	"time"

	"sallyport/cmd/sally-host/internal/door"
	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
)

var rehearseCommand = command{
	name:    "rehearse",
	summary: "answer the sshd of a rehearsal, which enroll starts",
	help: `Usage: sally-host rehearse LOGIN CERTIFICATE

The same as principals, for keys that enroll makes up and throws away. At other times it
refuses everything.
`,
	run: func(args []string) int {
		if len(args) != 2 {
			return misused("rehearse takes a login and a certificate")
		}
		if !door.Principals(place.Rehearsal, os.Stdout, func(line string) { journal.Here.Notice("rehearsal: " + line) }, door.Question{Login: args[0], Certificate: args[1]}, time.Now) {
			return exitFailed
		}
		return exitDone
	},
}
