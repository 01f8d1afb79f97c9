package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/api/hostapi"
	cast "sallyport/audit/recording"
)

var now = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// folder is a store, and an auditor.
type folder struct {
	*Store
	t       *testing.T
	auditor *age.X25519Identity
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	f := &folder{t: t, auditor: id, Store: &Store{dir: t.TempDir()}}
	f.open()
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens the folder anew, as the next daemon does.
func (f *folder) open() {
	f.t.Helper()
	s, err := Open(f.dir, now)
	must(f.t, err)
	f.Store = s
}

func (f *folder) about(number int) hostapi.SessionRecorded {
	return hostapi.SessionRecorded{Session: strings.Repeat("ab", 16), Number: number, Login: "dba", Recipients: []string{f.auditor.Recipient().String()}, StartedAt: now}
}

func (f *folder) create(number int) *Writer {
	f.t.Helper()
	w, err := f.Create(f.about(number), cast.Header{Version: 2})
	must(f.t, err)
	return w
}

func (f *folder) only() Entry {
	f.t.Helper()
	all, err := f.All()
	must(f.t, err)
	if len(all) != 1 {
		f.t.Fatalf("%d recordings", len(all))
	}
	return all[0]
}

// reads checks that what is known of a recording is so, and returns what it says.
func (f *folder) reads(e Entry) string {
	f.t.Helper()
	text, err := f.Read(e, 0, cast.MaxSize)
	must(f.t, err)
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != e.SHA256 || int64(len(text)) != e.Bytes {
		f.t.Errorf("the file has %d bytes, and is told to have %d", len(text), e.Bytes)
	}
	var out bytes.Buffer
	must(f.t, cast.Decrypt(&out, bytes.NewReader(text), f.auditor))
	return out.String()
}

func TestWhatIsWrittenIsTold(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	w := f.create(1)
	must(t, w.Add(cast.Event{At: time.Second, Code: cast.Output, Data: "x"}))
	e, err := w.Close(now, nil)
	must(t, err)
	if got := f.reads(e); !strings.HasSuffix(got, "\n[1.000000,\"o\",\"x\"]\n") || e.Cut != "" || !f.only().Over || f.only().Told {
		t.Errorf("%q, %+v", got, e)
	}
	if err := w.Add(cast.Event{}); err == nil {
		t.Error("it goes on after its end")
	}
	if _, err := f.Create(f.about(1), cast.Header{}); err == nil {
		t.Error("another one takes its place")
	}
	must(t, f.Remove(e))
	if left, _ := os.ReadDir(f.dir); len(left) != 0 || f.used != 0 {
		t.Errorf("%d files are left, %d bytes", len(left), f.used)
	}
}

// The daemon was killed within a write: what was whole is told.
func TestWhatWasCutOffIsClosedThere(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	w := f.create(1)
	must(t, w.Add(cast.Event{Code: cast.Output, Data: "whole"}))
	must(t, w.Flush())
	size := w.Size()
	file, err := os.OpenFile(f.content(w.entry), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = file.WriteString("\x00\x00\x01\x00torn")
	must(t, errors.Join(err, file.Close()))
	must(t, os.WriteFile(f.dir+"/"+strings.Repeat("cd", 16)+"-1.rec", []byte("never begun"), 0o600))
	f.open()
	e := f.only()
	if got := f.reads(e); !strings.Contains(got, "whole") || !e.Over || e.Told || e.Bytes != size || e.Cut == "" {
		t.Errorf("%q, %+v", got, e)
	}
	if left, _ := os.ReadDir(f.dir); len(left) != 2 {
		t.Errorf("%d files", len(left))
	}
	// And so is one of which nothing is left.
	must(t, f.Remove(e))
	w = f.create(2)
	must(t, os.Remove(f.content(w.entry)))
	f.open()
	if e := f.only(); !e.Over || e.Bytes != 0 || e.Cut == "" {
		t.Errorf("%+v", e)
	}
}

func TestRecordingsHaveLimits(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	w := f.create(1)
	piece := cast.Event{Code: cast.Output, Data: strings.Repeat("x", pieceSize)}
	var err error
	for err == nil {
		err = w.Add(piece)
	}
	e, cerr := w.Close(now, err)
	if !errors.Is(err, ErrLong) || cerr != nil || e.Bytes > cast.MaxSize || e.Bytes < cast.MaxSize/2 || !strings.Contains(e.Cut, "limit") {
		t.Errorf("%v, %v, %+v", err, cerr, e)
	}
	w = f.create(2)
	f.used = MaxWaiting
	must(t, w.Add(piece))
	if err := w.Flush(); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if _, err := f.Create(f.about(3), cast.Header{}); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(f.dir); len(left) != 4 {
		t.Errorf("%d files", len(left))
	}
}

func TestNobodyToRecordForIsRefused(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	for _, keys := range [][]string{nil, {"age1xyz"}, {""}} {
		about := f.about(1)
		about.Recipients = keys
		if _, err := f.Create(about, cast.Header{}); err == nil {
			t.Errorf("%q: it records", keys)
		}
	}
}

// Somebody changed what is known of a recording: the daemon starts, and says so.
func TestTamperedEntriesAreTold(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	w := f.create(1)
	name := f.name(w.entry) + ".json"
	text, err := os.ReadFile(name)
	must(t, err)
	for _, changed := range [][]byte{[]byte("{"), bytes.Replace(text, []byte("abab"), []byte("cdcd"), 1)} {
		must(t, os.WriteFile(name, changed, 0o600))
		f.open()
		if all, err := f.All(); err == nil || len(all) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
		if _, err := os.Stat(f.content(w.entry)); err != nil {
			t.Error("the bytes were taken away")
		}
	}
}
