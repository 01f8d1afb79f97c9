package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/internal/pgtest"
)

// Erin works in a terminal of a host where her rule wants a recording: the real broker,
// an enrolled host, and her own ssh. Audrey, who has the auditors' private key, sees what
// Erin saw, and the log proves that it is what the host recorded. Nobody else does: not
// an auditor without the key, and nobody with the key who is no auditor.
func TestAuditorsSeeWhatWasOnTheTerminal(t *testing.T) {
	t.Parallel()
	auditors, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	public, private := filepath.Join(dir, "auditors.txt"), filepath.Join(dir, "key.txt")
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.txt")
	for file, text := range map[string]string{public: auditors.Recipient().String(), private: auditors.String(), other: stranger.String()} {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := newHouseOn(t, strings.Replace(policy, "    automatic: true\n", "    automatic: true\n    record: true\n", 1), pgtest.New(t),
		"SALLYPORT_RECORDING_KEYS="+public)
	host := h.enrol(t, "web-1", map[string]string{"class": "web"}, "web")

	erin := newTerminalOf(t, h, engineer)
	erin.sally("login")
	work := erin.command("ssh", "web@web-1", "--", "-tt")
	work.Stdin = strings.NewReader("tty; echo the answer is $((6*7))\nexit\n")
	var told bytes.Buffer
	work.Stderr = &told
	if out, err := work.Output(); err != nil || !strings.Contains(string(out), "the answer is 42\r\n") {
		t.Fatalf("ssh ended with %v and %q\n%s\n%s", err, out, told.String(), host.Log())
	}
	session := h.sessionsOf(t, "web-1", func(list []api.Session) bool { return len(list) == 1 && list[0].EndedAt != nil })[0]
	if session.EndReason != string(hostapi.EndClosed) || session.Alarm != "" {
		t.Errorf("the session is %+v", session)
	}

	audrey := newTerminalOf(t, h, auditor)
	audrey.sally("login")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		list := audrey.sally("audit", "replay", session.ID)
		if strings.Contains(list, string(api.RecordingWhole)) && strings.Contains(list, "web@web-1") && strings.Contains(list, "Erin Engineer") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the recording does not come:\n%s\n%s", list, host.Log())
		}
	}
	play := func(e *terminal, key string) (seen, said string, err error) {
		cmd := e.command("audit", "replay", session.ID, "--identity", key, "--vkey", filepath.Join(h.keys, "log.vkey"), "--idle", "1ms")
		var out, also bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &also
		err = cmd.Run()
		return out.String(), also.String(), err
	}
	seen, said, err := play(audrey, private)
	if err != nil || !strings.Contains(said, "PROVED: this is what web-1 recorded, by entry ") || strings.Contains(said, "CUT OFF") ||
		!strings.Contains(seen, "/dev/pts/") || !strings.Contains(seen, "the answer is 42\r\n") {
		t.Errorf("with the key: %v\n%s\n%q", err, said, seen)
	}
	if seen, said, err := play(audrey, other); err == nil || seen != "" || !strings.Contains(said, "for other keys") {
		t.Errorf("with another key: %v\n%s\n%q", err, said, seen)
	}
	for _, who := range []string{engineer, operator} {
		e := newTerminalOf(t, h, who)
		e.sally("login")
		if seen, said, err := play(e, private); err == nil || seen != "" || !strings.Contains(said, "auditors") {
			t.Errorf("%s, who is no auditor: %v\n%s\n%q", who, err, said, seen)
		}
	}
	var taken api.Page[api.Event]
	h.signIn(auditor).call(http.MethodGet, "/audit/events?type=disclosed.recording", nil, &taken, http.StatusOK)
	if len(taken.Items) != 2 || taken.Items[0].Actor.Name != "Audrey Auditor" || taken.Items[0].Host != session.HostID {
		t.Errorf("the log says that it was taken by %+v", taken.Items)
	}
	var open int
	if err := h.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM recording_pieces WHERE position('answer' in data) > 0`).Scan(&open); err != nil || open != 0 {
		t.Errorf("%d pieces say what was on the terminal, %v", open, err)
	}
}

// newTerminalOf is a terminal whose browser signs somebody in.
func newTerminalOf(t testing.TB, h *house, email string) *terminal {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := newTerminal(t, h)
	e.env = append(e.env, "BROWSER="+self, "SALLYPORT_E2E_BROWSER="+email)
	return e
}
