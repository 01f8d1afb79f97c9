package policy

import (
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// Diff is the unified diff from one document to another; empty if they are the
// same. The names say what they are.
func Diff(wasName string, was []byte, nowName string, now []byte) string {
	text := string(diff.Diff(wasName, was, nowName, now))
	// Its first line repeats the names as a command would.
	_, text, _ = strings.Cut(text, "\n")
	return text
}
