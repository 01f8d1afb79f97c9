package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Callers who send a little at a time, or too much, are cut off, and nobody else
// notices.
func TestSlowAndHugeCallersAreCutOff(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- k.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-served })

	const form = "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		sends string
		drip  bool   // goes on with a byte now and then
		want  string // status, or empty: cut off without an answer
	}{
		"a slow header":            {"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", true, ""},
		"no header at all":         {"", false, ""},
		"a slow body":              {"POST /oauth/token HTTP/1.1\r\n" + form + "Content-Length: 5000\r\n\r\nclient_id=", true, "400"},
		"a body that never comes":  {"POST /oauth/token HTTP/1.1\r\n" + form + "Content-Length: 10\r\n\r\n", false, "400"},
		"a body that nobody reads": {"POST /api/v1/requests HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", false, "401"},
		"a header that is too big": {"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n", false, "431"},
		"an address of its own":    {"GET /" + strings.Repeat("x", maxHeader+8<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", false, "431"},
		"a body that is too big":   {"POST /oauth/token HTTP/1.1\r\n" + form + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000), false, "400"},
		"an endless chunked body":  {"POST /oauth/token HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 20), false, "400"},
	} {
		all.Go(func() {
			if got, err := talk(l.Addr().String(), c.sends, c.drip); err != nil || got != c.want {
				t.Errorf("%s: answered %q, want %q (%v)", name, got, c.want, err)
			}
		})
	}
	all.Wait()
	res, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %v, %v", res, err)
	}
}

// talk sends, maybe drips, and returns the status of the answer, or nothing if
// the connection was closed without one. That takes less than half a minute.
func talk(addr, sends string, drip bool) (status string, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		io.WriteString(conn, sends) // may be cut off in the middle: that is the point
		for drip {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "", fmt.Errorf("after half a minute it still listens: %w", err)
	}
	if fields := strings.Fields(line); len(fields) > 1 {
		return fields[1], nil
	}
	return "", nil
}
