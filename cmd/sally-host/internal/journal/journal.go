// Package journal writes lines for whoever looks after the host, where sshd writes its
// own: to the system's log, as authentication messages (syslog(3), LOG_AUTHPRIV).
// sshd discards what the program that it asks writes to its standard error.
package journal

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MaxLine is the most bytes of one line.
const MaxLine = 1024

// patience is how long a line may take: a journal that hangs must not hang the login.
const patience = 100 * time.Millisecond

// Socket is where the system's log listens, journald or another.
const Socket = "/dev/log"

// Journal writes lines to the log that listens at a socket. That a line cannot be
// written changes no answer: it is dropped.
type Journal struct {
	Socket string
	Now    func() time.Time
}

// Here is this host's journal.
var Here = Journal{Socket, time.Now}

// authpriv and notice are of RFC 3164, section 4.1.1.
const authpriv, notice = 10 << 3, 5

// Notice writes one line. What a stranger chose stands in it with quotation marks and
// without characters that could make another line of it.
func (j Journal) Notice(line string) {
	c, err := net.DialTimeout("unixgram", j.Socket, patience)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // the kernel's own clock
	_, _ = fmt.Fprintf(c, "<%d>%s sally-host[%d]: %s", authpriv|notice, j.Now().Format(time.Stamp), os.Getpid(), Clean(line))
}

// Clean makes one line of a text.
func Clean(line string) string {
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, line)
	if len(line) > MaxLine {
		line = strings.ToValidUTF8(line[:MaxLine-3], "") + "..."
	}
	return line
}

// Quote is a text that a stranger chose, in quotation marks if it has anything in it
// that a name has not.
func Quote(s string) string {
	if len(s) > 128 {
		s = s[:128] + "..."
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@:", r))
	}) {
		return s
	}
	return strconv.QuoteToASCII(s)
}
