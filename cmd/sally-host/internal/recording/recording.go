// Package recording records sessions on a host.
//
// The daemon records, as root, and not the person's own process: sshd starts `sally-host
// record` in place of the shell, which hands what it got from sshd (a terminal, or three
// streams) to the daemon over a socket, gets others for it, and starts the shell with
// these ([Run]). From then on all that the person sees and types passes through the daemon
// ([Channel]), which writes down each piece before it passes it on. There is no process of
// the person's that records, and no file that they could touch: what cannot be written
// down does not pass, and when the daemon ends, so does the terminal.
//
// Recordings are encrypted as they are written (package audit/recording). The host has no
// key that opens them.
package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"sallyport/api/hostapi"
	cast "sallyport/audit/recording"
	"sallyport/cmd/sally-host/internal/place"
)

// MaxWaiting is how many bytes of recordings a host keeps that the broker has not taken
// yet. Then nothing more can be recorded.
const MaxWaiting = 1 << 30

// partSize is when a part is encrypted and written, at the latest.
const partSize = 32 << 10

// room is left for the end of a recording below its limit.
const room = 16 << 10

var (
	// ErrFull says that too much waits for the broker.
	ErrFull = errors.New("too many recordings wait for the broker")
	// ErrLong says that a recording has come to its limit.
	ErrLong = fmt.Errorf("the recording has come to its limit of %d MiB", cast.MaxSize>>20)
)

// Store is the folder of recordings, which is root's alone. One process has it.
type Store struct {
	dir string
	mu  sync.Mutex
	// used is how many bytes there are of recordings; guarded by mu.
	used int64
}

// Entry is what is known of a recording.
type Entry struct {
	hostapi.SessionRecorded
	Over bool `json:"over"` // and so are its bytes and hash
	Told bool `json:"told"` // the report is in the spool
}

// Open opens the folder. Recordings that were being made when the daemon before this one
// ended are closed where they were cut off.
func Open(dir string, now time.Time) (*Store, error) {
	s := &Store{dir: dir}
	all, wrong := s.All() // what cannot be read is told by whoever brings recordings
	for _, e := range all {
		if !e.Over {
			var err error
			if e, err = s.cut(e, now); err != nil {
				return nil, fmt.Errorf("closing recording %s: %w", filepath.Base(s.name(e)), err)
			}
		}
		s.used += e.Bytes
	}
	if wrong != nil {
		return s, nil
	}
	return s, s.sweep(all)
}

// sweep takes away files of recordings that were never begun.
func (s *Store) sweep(all []Entry) error {
	files, err := filepath.Glob(s.dir + "/*.rec")
	for _, name := range files {
		if !slices.ContainsFunc(all, func(e Entry) bool { return s.content(e) == name }) {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// cut closes a recording that nobody writes any more.
func (s *Store) cut(e Entry, now time.Time) (Entry, error) {
	f, err := os.OpenFile(s.content(e), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return e, err
	}
	defer f.Close()
	e.Bytes, err = cast.Whole(f)
	if err != nil {
		return e, err
	}
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return e, err
	}
	if _, err := io.CopyN(sum, f, e.Bytes); err != nil {
		return e, err
	}
	if err := errors.Join(f.Truncate(e.Bytes), f.Sync()); err != nil {
		return e, err
	}
	e.SHA256, e.EndedAt, e.Over = hex.EncodeToString(sum.Sum(nil)), now.UTC(), true
	e.Cut = "the daemon of the host ended"
	return e, s.Put(e)
}

var entryName = regexp.MustCompile(`^[0-9a-f]{32}-[1-9][0-9]{0,3}\.json$`)

// MaxNumber is how many recordings a session can have.
const MaxNumber = 9999

func (s *Store) name(e Entry) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%d", e.Session, e.Number))
}
func (s *Store) content(e Entry) string { return s.name(e) + ".rec" }

// All are the recordings that there are, oldest first; and what cannot be read, as errors.
func (s *Store) All() ([]Entry, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("looking for recordings: %w", err)
	}
	var all []Entry
	var wrong error
	for _, f := range files {
		if !entryName.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the broker has it
		}
		var e Entry
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err == nil && filepath.Base(s.name(e))+".json" != f.Name() {
			err = errors.New("it is about another recording")
		}
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %w", f.Name(), err))
			continue
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return a.StartedAt.Compare(b.StartedAt) })
	return all, wrong
}

// Put writes down what is known of a recording.
func (s *Store) Put(e Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return place.Write(s.name(e)+".json", text, 0o600)
}

// Remove forgets a recording.
func (s *Store) Remove(e Entry) error {
	// The bytes first: what is known of them is enough to come back to it.
	info, err := os.Stat(s.content(e))
	if err == nil {
		err = os.Remove(s.content(e))
	}
	if err == nil {
		s.take(-info.Size())
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(s.name(e) + ".json")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return place.SyncDir(s.dir)
}

// Read reads up to so many bytes of a recording from an offset on.
func (s *Store) Read(e Entry, offset int64, most int) ([]byte, error) {
	f, err := os.Open(s.content(e))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	piece := make([]byte, most)
	n, err := f.ReadAt(piece, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return piece[:n], err
}

func (s *Store) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.used+n > MaxWaiting {
		return false
	}
	s.used += n
	return true
}

// Create begins a recording, for good. about.Recipients say for whom.
func (s *Store) Create(about hostapi.SessionRecorded, header cast.Header) (*Writer, error) {
	keys, lines, err := cast.ParseRecipients(strings.Join(about.Recipients, "\n"))
	if err != nil {
		return nil, fmt.Errorf("the auditors' keys: %w", err)
	}
	about.Recipients = lines
	w := &Writer{store: s, entry: Entry{SessionRecorded: about}, keys: keys, sum: sha256.New()}
	if w.file, err = os.OpenFile(s.content(w.entry), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	first, err := json.Marshal(header)
	if err == nil {
		err = w.append([]byte(cast.Magic))
	}
	if err == nil {
		w.plain = append(first, '\n')
		err = w.flush()
	}
	if err == nil {
		err = errors.Join(w.file.Sync(), s.Put(w.entry))
	}
	if err != nil {
		return nil, errors.Join(err, w.file.Close(), s.Remove(w.entry))
	}
	w.kept = w.entry.Bytes
	return w, nil
}

// Writer writes one recording. It is safe for concurrent use.
type Writer struct {
	store *Store
	keys  []age.Recipient

	mu    sync.Mutex
	entry Entry
	file  *os.File
	sum   hash.Hash
	kept  int64 // bytes that the disk has for good
	plain []byte
	err   error
}

// Add writes an event down. It may be lost with the machine's power until Flush; not
// with the process of whoever is recorded.
func (w *Writer) Add(e cast.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.entry.Bytes+int64(len(w.plain)+len(line)) > cast.MaxSize-room {
		w.err = ErrLong
		return w.err
	}
	w.plain = append(append(w.plain, line...), '\n')
	if len(w.plain) < partSize {
		return nil
	}
	w.err = w.flush()
	return w.err
}

// Size is how many bytes of the recording there are for good.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept
}

// Flush writes what was added to the disk.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.flush()
	}
	if w.err == nil && w.kept < w.entry.Bytes {
		if w.err = w.file.Sync(); w.err == nil {
			w.kept = w.entry.Bytes
		}
	}
	return w.err
}

// flush encrypts what was added, and writes it.
func (w *Writer) flush() error {
	if len(w.plain) == 0 {
		return nil
	}
	part, err := cast.Part(w.keys, w.plain)
	if err == nil {
		err = w.append(part)
	}
	if err != nil {
		return err
	}
	w.plain = w.plain[:0]
	return nil
}

// append writes a whole part, or nothing of it.
func (w *Writer) append(part []byte) error {
	if !w.store.take(int64(len(part))) {
		return ErrFull
	}
	if _, err := w.file.Write(part); err != nil {
		w.store.take(-int64(len(part)))
		_ = w.file.Truncate(w.entry.Bytes) // or its next reader does
		return fmt.Errorf("writing a recording: %w", err)
	}
	w.sum.Write(part)
	w.entry.Bytes += int64(len(part))
	return nil
}

// Close ends the recording, because of why if something went wrong, and returns what is
// known of it.
func (w *Writer) Close(now time.Time, why error) (Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.flush()
	}
	if why == nil {
		why = w.err
	}
	w.err = cmpErr(w.err, fs.ErrClosed)
	w.entry.SHA256, w.entry.EndedAt, w.entry.Over = hex.EncodeToString(w.sum.Sum(nil)), now.UTC(), true
	if why != nil {
		w.entry.Cut = clip(why.Error(), 200)
	}
	return w.entry, errors.Join(w.file.Sync(), w.file.Close(), w.store.Put(w.entry))
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
