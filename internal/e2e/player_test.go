package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"sallyport/audit/recording"
)

// watch notes what a browser complains of, and all that it sends.
type watch struct {
	mu         sync.Mutex
	complaints []string
	sent       []string
}

func (p *person) watch() *watch {
	p.t.Helper()
	w := &watch{}
	err := chromedp.Listen(p.ctx, func(ev any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch ev := ev.(type) {
		case *log.EventEntryAdded:
			w.complaints = append(w.complaints, ev.Entry.Text)
		case *runtime.EventExceptionThrown:
			w.complaints = append(w.complaints, ev.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			w.complaints = append(w.complaints, fmt.Sprintf("the console said something: %s", ev.Type))
		case *network.EventRequestWillBeSent:
			body, _ := json.Marshal(ev.Request)
			w.sent = append(w.sent, string(body))
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return w
}

func (w *watch) said() (complaints, sent []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.complaints...), append([]string(nil), w.sent...)
}

// unlock opens a recording's page and chooses an identity file.
func (p *person) unlock(path, file string) {
	p.t.Helper()
	p.open(path)
	p.see("#player [data-step=key]")
	p.choose(file)
}

func (p *person) choose(file string) {
	p.t.Helper()
	do(p, "choosing "+file, chromedp.SetUploadFiles(chromedp.CSS("#key-file"), []string{file}, chromedp.NodeReady))
}

func (p *person) press(key string) {
	p.t.Helper()
	do(p, "pressing a key", chromedp.KeyEvent(key))
}

// toTheEnd goes to a recording's end, as the seek bar does.
func (p *person) toTheEnd() {
	p.t.Helper()
	p.see("#player [data-step=play]")
	p.value(`(() => { const s = document.getElementById("seek"); s.value = s.max; s.dispatchEvent(new Event("input")); return "" })()`)
}

func (p *person) value(script string) string {
	p.t.Helper()
	return do(p, "looking", chromedp.Evaluate[string](script))
}

// An auditor finds what was recorded, and plays it in the page with their own key, which
// does not leave the browser.
func TestAnAuditorPlaysARecordingInThePage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, phonePolicy)
	s := newStudio(t, h)
	s.records(1, screenOf(100, 26), filmed()...)
	s.records(2, recording.Header{Command: "cat secrets"}, recording.Event{Code: recording.Input, Data: "typed in\n"}, recording.Bytes(time.Second, recording.Output, []byte{0xff, 0}),
		shows(2*time.Second, "out\n"))
	audrey := h.at(auditor)
	w := audrey.watch()

	audrey.open("/hosts/db-1")
	audrey.click(`a[href="/recordings/` + s.session + `"]`)
	audrey.read("main", "a command without a terminal")
	audrey.click(`a.row[href="/recordings/` + s.session + `/1"]`)
	audrey.see("#player [data-step=key]")
	audrey.picture("recording")
	_, before := w.said()
	audrey.choose(s.file)
	audrey.read("#player-status", "Its SHA-256 is that in the log")
	audrey.read("#screen", "dba@db-1:~$")
	audrey.press(" ") // the button has the focus: as a click
	audrey.see(`#toggle[aria-label="Play"]`)
	audrey.toTheEnd()
	audrey.read("#screen", "(3 rows)")
	audrey.read("#clock", "0:11 / 0:11")
	if got := audrey.value(`[...document.querySelectorAll("#screen span")].find(s => s.textContent === "dba@db-1")?.style.color`); got != "rgb(181, 224, 144)" {
		t.Errorf("the prompt's colour is %q", got)
	}
	audrey.picture("recording-played")

	// Keys seek, and what was shown before is shown again, and no more.
	audrey.value(`document.activeElement.blur() ?? ""`)
	audrey.press("\u0302") // arrow left
	audrey.press("\u0302")
	audrey.read("#clock", "0:01 / 0:11")
	if got := audrey.value(`document.getElementById("screen").innerText`); strings.Contains(got, "(3 rows)") || !strings.Contains(got, "psql") {
		t.Errorf("after going back it shows\n%s", got)
	}
	audrey.press("\u0303")
	audrey.read("#clock", "0:06 / 0:11")
	audrey.click("#idle") // pauses as they were
	audrey.read("#clock", "/ 1:10")
	audrey.click("#larger")
	audrey.press(" ")

	// The key went nowhere, and one thing was fetched.
	complaints, sent := w.said()
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
	for _, r := range sent {
		if strings.Contains(strings.ToUpper(r), "AGE-SECRET-KEY") || strings.Contains(strings.ToUpper(r), s.key.String()[20:]) {
			t.Errorf("the key was sent: %s", r)
		}
	}
	if sent = sent[len(before):]; len(sent) != 1 || !strings.Contains(sent[0], "/api/v1/audit/recordings/"+s.session+"/1") {
		t.Errorf("with the key chosen, the browser sent %q", sent)
	}
	if got := audrey.value(`JSON.stringify([localStorage.length, sessionStorage.length, document.getElementById("key-text").value, document.getElementById("key-file").value])`); got != `[0,0,"",""]` {
		t.Errorf("something of the key stays: %s", got)
	}
	// That the page's policy holds at all:
	audrey.value(`document.body.setAttribute("style", "color: red") ?? ""`)
	if complaints, _ := w.said(); len(complaints) == 0 {
		t.Error("nobody complains of an inline style")
	}
	var n int
	h.must(h.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit.entries WHERE type = 'disclosed.recording'`).Scan(&n))
	if n != 1 {
		t.Errorf("the log tells of %d recordings that were fetched", n)
	}

	// What has no terminal shows what it read, too; the key is pasted.
	audrey.open("/recordings/" + s.session + "/2")
	audrey.see("#player [data-step=key]")
	audrey.click("#player summary")
	audrey.fill("#key-text", s.key.String())
	audrey.click("#key-use")
	audrey.toTheEnd()
	audrey.read("#screen", "$ cat secrets\ntyped in\n \n[wrote 2 bytes that are no text]\nout")

	// On a phone.
	do(audrey, "becoming a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile))
	for _, path := range []string{"/recordings/" + s.session, "/recordings/" + s.session + "/1"} {
		audrey.open(path)
		audrey.fits(path)
	}
	audrey.picture("phone-recording")
	audrey.choose(s.file)
	audrey.toTheEnd()
	audrey.read("#screen", "(3 rows)")
	audrey.fits("the player")
	audrey.picture("phone-recording-played")
}

// fits complains of what is wrong with the page for somebody on a phone or without a mouse.
func (p *person) fits(what string) {
	p.t.Helper()
	var wrong []string
	if err := json.Unmarshal([]byte(p.value(found)), &wrong); err != nil {
		p.t.Fatal(err)
	}
	for _, w := range wrong {
		p.t.Errorf("%s: %s", what, w)
	}
}

// filmed is what somebody does at a terminal, with a long pause.
func filmed() []recording.Event {
	prompt := "\x1b[1;92mdba@db-1\x1b[0m:\x1b[1;34m~\x1b[0m$ "
	return []recording.Event{
		shows(0, prompt), shows(500*time.Millisecond, "psql orders\r\n"), shows(time.Second, "psql (16.4)\r\nType \"help\" for help.\r\n\r\norders=# "),
		shows(62*time.Second, "select pid, state, query from pg_stat_activity;\r\n"),
		shows(64*time.Second, "  \x1b[1mpid\x1b[0m  │ \x1b[1mstate\x1b[0m  │ \x1b[1mquery\x1b[0m\r\n──────┼────────┼───────────────────────────\r\n"),
		shows(66*time.Second, " 4711 │ active │ ALTER TABLE orders ADD …\r\n"), shows(68*time.Second, " 4712 │ \x1b[31midle\x1b[0m   │ grüße, 世界\r\n 4713 │ \x1b[7midle\x1b[0m   │ \x1b[48;5;24m commit \x1b[0m\r\n"),
		shows(70*time.Second, "(3 rows)\r\n\r\norders=# "),
	}
}

// Who has another key, or what somebody changed, sees nothing.
func TestThePagePlaysOnlyWhatTheLogKnowsToWhoHasTheKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, phonePolicy)
	s := newStudio(t, h)
	for n := 1; n <= 3; n++ {
		s.records(n, screenOf(80, 24), shows(0, fmt.Sprintf("what was shown in %d", n)))
	}
	s.brings(4, screenOf(80, 24), shows(0, "it goes on"))
	// A superuser changes one, and of another the hash in the broker's books as well.
	admin, err := pgx.Connect(t.Context(), h.db.AdminURL)
	h.must(err)
	defer admin.Close(context.Background())
	for _, change := range []string{
		`SET session_replication_role = replica`,
		`UPDATE recording_pieces SET data = set_byte(data, length(data) - 1, get_byte(data, length(data) - 1) # 1) WHERE number IN (2, 3)`,
		`UPDATE session_recordings AS r SET digest = encode(sha256(p.data), 'hex') FROM recording_pieces AS p WHERE p.number = 3 AND r.number = 3`,
	} {
		if tag, err := admin.Exec(t.Context(), change); err != nil || tag.Update() && tag.RowsAffected() == 0 {
			t.Fatalf("%s, %v", tag, err)
		}
	}
	at := "/recordings/" + s.session
	audrey := h.at(auditor)
	w := audrey.watch()

	_, other := s.identity("other.txt")
	audrey.unlock(at+"/1", other)
	audrey.read("#player-status.bad", "This key does not open it")
	for text, want := range map[string]string{
		"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p": "This is a public key", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl": "is encrypted itself",
		"hunter2": "This is no identity of age", "# nothing": "There is no identity in it", "AGE-SECRET-KEY-1QQQ": "it has a slip in it",
	} {
		file := filepath.Join(t.TempDir(), "wrong.txt")
		h.must(os.WriteFile(file, []byte(text), 0o600))
		audrey.choose(file)
		audrey.read("#player-status.bad", want)
	}
	audrey.choose(s.file) // it was fetched already
	audrey.read("#screen", "what was shown in 1")

	audrey.unlock(at+"/2", s.file)
	audrey.read("#player-status.bad", "What came is not what the log says")
	if got := audrey.value(`document.getElementById("screen").textContent`); got != "" {
		t.Errorf("what was changed is shown: %q", got)
	}
	audrey.open(at + "/3")
	audrey.read(".alert", "The log says something else")
	if got := audrey.value(`String(document.getElementById("player"))`); got != "null" {
		t.Error("what the log contradicts can be played")
	}
	audrey.unlock(at+"/4", s.file)
	audrey.read("#player-status.bad", "Nothing proves what this is")
	audrey.click("#unproved")
	audrey.choose(s.file)
	audrey.read("#screen", "it goes on")
	audrey.read("#player-status", "Nothing proves what this is")
	if complaints, _ := w.said(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
	var n int
	h.must(h.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit.entries WHERE type = 'disclosed.recording'`).Scan(&n))
	if n != 3 {
		t.Errorf("the log tells of %d recordings that were fetched", n)
	}

	for _, who := range []string{engineer, operator} {
		p := h.at(who)
		p.open("/hosts/db-1")
		if got := p.value(`document.body.innerHTML`); strings.Contains(got, "/recordings/") {
			t.Errorf("%s sees that there are recordings", who)
		}
		p.open(at + "/1")
		p.read("main", "403")
		if got := p.value(`String(document.getElementById("player"))`); got != "null" {
			t.Errorf("%s has a player", who)
		}
	}
}

// Who is audited writes what would make the auditor's browser do something.
func TestThePageShowsOnlyWhatDraws(t *testing.T) {
	t.Parallel()
	h := newHouse(t, phonePolicy)
	s := newStudio(t, h)
	hostile := screenOf(100_000, -7)
	hostile.Title, hostile.Command = "you are root", "<img src=x onerror=alert(1)>\x1b]52;c;cm0=\x07"
	s.records(1, hostile,
		shows(0, "\x1b]52;c;cm0gLXJmIC8=\x07\x1b]0;pwned\x07\x1b]2;pwned\x1b\\\x1b]8;;https://evil.example/\x1b\\click\x1b]8;;\x1b\\\r\n"),
		shows(0, "<img src=x onerror=\"document.title='pwned'\"><script>alert(1)</script>\r\n"),
		shows(0, "\x1b]4;1;#000000\x07\x1b]10;#000\x07\x1b]11;#000\x07\x1b]1337;File=inline=1:AAAA\x07\x1bPq#0;2;0;0;0#0~~\x1b\\\x1b_Gf=24;AAAA\x1b\\"),
		shows(0, "\x1b[6n\x1b[c\x1b[>c\x1b[21t\x1b[8;9999;9999t\x1b[?1000h\x1b[?2004h\x05\x1bc"),
		shows(0, "\x1b[999999999bx\x1b[2147483647S\x1b[2147483647L\x1b[2147483647I\x1b[2147483647@\x1b[H\x1b[2J"),
		recording.Event{Code: recording.Resize, Data: "99999x99999"}, recording.Event{Code: recording.Resize, Data: "80x24"}, recording.Event{Code: recording.Resize, Data: "-1x0; rm"},
		recording.Event{Code: recording.Input, Data: "typed at a terminal"}, recording.Event{Code: "<b>", Data: "what is this"},
		shows(0, "e"+strings.Repeat("\u0301", 3000)+"\r\n"),
		shows(0, "\x1b[?1049hon another screen\x1b[?1049l<b>bold</b> of \x1b[8munseen\x1b[0m words \U0001F600\u202e."))
	audrey := h.at(auditor)
	w := audrey.watch()
	audrey.open("/recordings/" + s.session + "/1")
	audrey.see("#player [data-step=key]")
	title := audrey.value(`document.title`)
	audrey.value(`window.did = []; navigator.clipboard.writeText = t => did.push("clipboard " + t); document.addEventListener("copy", () => did.push("copy")); window.open = u => did.push("open " + u); window.alert = t => did.push("alert " + t); ""`)
	audrey.choose(s.file)
	audrey.toTheEnd()
	audrey.read("#screen", "<b>bold</b> of        words")
	if got := audrey.value(`document.title`); got != title {
		t.Errorf("the title is %q", got)
	}
	if got := audrey.value(`JSON.stringify([did, [...document.querySelectorAll("#screen *")].map(e => e.tagName).filter(n => n !== "DIV" && n !== "SPAN"), document.querySelectorAll("#screen > div").length])`); got != `[[],[],24]` {
		t.Errorf("it did %s", got)
	}
	if got := audrey.value(`document.getElementById("screen").innerText`); strings.Contains(got, "on another") || strings.Contains(got, "unseen") || strings.Contains(got, "typed at") {
		t.Errorf("it shows %q", got)
	}
	complaints, sent := w.said()
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
	for _, r := range sent {
		if strings.Contains(r, "evil.example") {
			t.Errorf("it called %s", r)
		}
	}

	// The filter is that of `sally audit replay`, but for numbers.
	for in, want := range map[string]string{
		"grüße\r\n\tx\b": "grüße\r\n\tx\b", "\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[38:2:1:2:3mx": "\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[38:2:1:2:3mx",
		"\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l": "\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l", "\x1b(0qq\x1b(B": "\x1b(0qq\x1b(B",
		"a\x1b]52;c;cm0gLXJmIC8=\x07b": "ab", "a\x1b]52;c;cm0=\x1b\\b": "ab", "a\u009d52;c;cm0=\u009cb": "ab", "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\": "click",
		"a\x1bP$qm\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e": "abcde", "a\x1b[6nb\x1b[cb\x1b[>cb\x1b[=cb\x1b[5n\x1b[?6n\x1b[x": "abbbb", "\x1b[21ta\x1b[14t": "a",
		"\x1b[?2004$pa\x1b[4$p\x1b[!p\x1b[\"q\x1b[>q": "a", "a\x05b": "ab", "\x1b[?1000h\x1b[?1006;25h\x1b[?2004ha": "a", "\x1b=\x1b>\x1b[>4;2ma\x1b[?1h": "a", "\x1bca": "a",
		"a\u009b31mb\u0085": "a31mb", "a\x07\x0e\x0f\x00\x7fb": "ab", "a\x1b]0;xxxx": "a", "a\x1b[" + strings.Repeat("1;", 5000) + "mb": "ab",
		"\x1b[\x1b]52;c;x\x07a\x1b[1\x1b[31mb": "a\x1b[31mb", "\x1b\x1b]0;x\x07a": "a", "\x1b(Za\x1b%Gb\x1b#8c": "abc", "\x1bP\x1b]0;x\x07a": "a",
		"\x1b[99999999b\x1b[?2026hx\x1b[200S\x1b[201S": "\x1b[500b\x1b[?2026hx\x1b[200S\x1b[200S", "\x1b[4hx\x1b[20h\x1b[s\x1b[1s": "\x1b[4hx\x1b[s",
	} {
		text, err := json.Marshal(in)
		h.must(err)
		whole := audrey.value(`new Filter().next(` + string(text) + `)`)
		pieces := audrey.value(`(() => { const f = new Filter(); return [...` + string(text) + `].map(c => f.next(c)).join("") })()`)
		if whole != want || pieces != want {
			t.Errorf("%q becomes %q, in pieces %q; want %q", in, whole, pieces, want)
		}
	}
}
