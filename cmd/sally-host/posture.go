package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/posture"
)

var postureCommand = command{
	name:    "posture",
	summary: "look whether there is a way in beside the door",
	help: `Usage: sally-host posture [--json]

As root. It looks at the same things as the daemon, which reports them: sshd's effective
settings for every login, keys, passwords, who is root and may use sudo, what listens,
what could open the host later, and who is on it now. It changes nothing. How far the
clock is off only the daemon knows.

Exit code 0 if all is as it should be, 3 if something is not, 1 if something could not
be found out.

Examples:
  sally-host posture
  sally-host posture --json | jq '.checks[] | select(.result != "pass")'
`,
	run: func(args []string) int {
		asJSON := len(args) == 1 && args[0] == "--json"
		if len(args) > 0 && !asJSON {
			return misused("posture takes --json or nothing")
		}
		s, err := place.Here.Read()
		if err != nil {
			return failed(err)
		}
		_, list, err := place.Here.ReadRevocations(s.LogKey)
		if err != nil {
			return failed(err)
		}
		p := posture.Host{Place: place.Here, Settings: s, List: list, Now: time.Now, Run: posture.Run}.Look(context.Background())
		if asJSON {
			out := json.NewEncoder(os.Stdout)
			out.SetIndent("", "  ")
			if err := out.Encode(p); err != nil {
				return failed(err)
			}
		} else {
			printPosture(os.Stdout, p)
		}
		return postureCode(p)
	},
}

func printPosture(w io.Writer, p hostapi.Posture) {
	for _, c := range p.Checks {
		fmt.Fprintf(w, "%-8s %s\n", c.Result, c.ID)
		for _, f := range c.Findings {
			fmt.Fprintf(w, "         %s\n", journal.Clean(f))
		}
		if c.Remedy != "" {
			fmt.Fprintf(w, "         what to do: %s\n", c.Remedy)
		}
	}
}

func postureCode(p hostapi.Posture) int {
	code := exitDone
	for _, c := range p.Checks {
		switch {
		case c.Result == hostapi.Fail:
			return exitDenied
		case c.Result == hostapi.Unknown && c.ID != "clock":
			code = exitFailed
		}
	}
	return code
}
