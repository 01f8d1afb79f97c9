package api

import "net/http"

// The exit codes of sally, which scripts rely on.
const (
	ExitDone    = 0
	ExitFailed  = 1
	ExitUsage   = 2 // wrong usage, also as the broker sees it
	ExitDenied  = 3 // policy, or a person, says no
	ExitWaiting = 4 // still waiting, and told not to
)

// ExitCode is the exit code of a program that fails because of the problem.
func (p *Problem) ExitCode() int {
	switch p.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return ExitUsage
	case http.StatusForbidden:
		return ExitDenied
	}
	return ExitFailed
}
