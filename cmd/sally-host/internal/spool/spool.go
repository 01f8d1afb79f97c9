// Package spool keeps what a host has to report until the broker has it: over days
// without a network, restarts and losses of power.
//
// Each report is a file of its own, written to disk before Append returns. It names
// the hash of the report before it, and the host's key signs both; a signed head says
// which number is next. So what somebody changes, takes away or puts in between is
// noticed, and told ([Tampered]), unless they hold the host's key: against root on the
// host there is only what the broker has already, and the numbers that are missing.
//
// The spool is bounded. What it no longer takes depends on what it is: postures first,
// then starts of sessions, whose sessions are then refused; ends of sessions last. When
// the disk is full there is a reserve of a few hundred reports, so that somebody can
// still come in, and be seen to come in, to make room.
package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// Limits on how many reports wait, by what comes next.
const (
	MaxReports  = 10_000 // ends of sessions and recordings, and alarms
	MaxStarts   = 8_000  // starts of sessions
	MaxPostures = 4_000  // and all else
)

// ReserveSize is how many bytes of the disk are kept for when it is full.
const ReserveSize = 1 << 20

// ErrFull says that too many reports wait for the broker.
var ErrFull = errors.New("too many reports wait for the broker (see: systemctl status sally-host)")

// Spool is a folder of reports. It may be used from many processes at once, and by many
// goroutines.
type Spool struct {
	dir  string
	key  ssh.Signer
	boot string
	now  func() time.Time
}

// Open returns the spool in the folder, which must be root's alone.
func Open(dir string, key ssh.Signer, bootID string, now func() time.Time) *Spool {
	return &Spool{dir: dir, key: key, boot: bootID, now: now}
}

// record is the text of a file.
type record struct {
	Report    hostapi.Report `json:"report"`
	Before    string         `json:"before"`    // hash of the file before it
	Signature []byte         `json:"signature"` // see sign
}

// head is what the spool has come to.
type head struct {
	Next      uint64 `json:"next"`  // number of the next report
	Acked     uint64 `json:"acked"` // the broker has all up to this
	Last      string `json:"last"`  // hash of the last report's file
	Signature []byte `json:"signature"`
}

// Append writes a report of what was seen now. It returns its number once it will last.
func (s *Spool) Append(kind hostapi.Kind, data any) (uint64, error) {
	return s.AppendFor(kind, func(uint64) (any, error) { return data, nil })
}

// AppendFor is Append for data that name their report's number.
func (s *Spool) AppendFor(kind hostapi.Kind, data func(number uint64) (any, error)) (number uint64, err error) {
	err = s.locked(func() error {
		h, err := s.sound()
		if err != nil {
			return err
		}
		if waits := h.Next - 1 - h.Acked; waits >= limit(kind) {
			return ErrFull
		}
		d, err := data(h.Next)
		if err != nil {
			return err
		}
		number = h.Next
		return s.add(&h, s.report(kind), d)
	})
	return number, err
}

func limit(kind hostapi.Kind) uint64 {
	switch kind {
	case hostapi.KindSessionEnded, hostapi.KindSessionRecorded, hostapi.KindAlarm:
		return MaxReports
	case hostapi.KindSessionStarted:
		return MaxStarts
	}
	return MaxPostures
}

// sound is the head, after what is wrong with it has been told.
func (s *Spool) sound() (head, error) {
	h, what := s.head()
	if what == "" {
		return h, nil
	}
	return h, s.add(&h, s.report(hostapi.KindAlarm), hostapi.Alarm{Code: "spool-tampered", Detail: "the spool of reports: " + what})
}

// report is a report of now.
func (s *Spool) report(kind hostapi.Kind) hostapi.Report {
	return hostapi.Report{BootID: s.boot, Time: s.now().UTC(), Kind: kind}
}

// add writes one report and the head after it. Whoever stops in between leaves a report
// that the head does not count; the next who looks finds that it follows, and counts it.
func (s *Spool) add(h *head, r hostapi.Report, data any) (err error) {
	if r.Data, err = json.Marshal(data); err != nil {
		return fmt.Errorf("writing a report: %w", err)
	}
	r.Seq = h.Next
	text, err := s.signed(&record{Report: r, Before: h.Last})
	if err != nil {
		return err
	}
	if err := s.write(s.file(h.Next), text); err != nil {
		return err
	}
	h.Next, h.Last = h.Next+1, hash(text)
	return s.putHead(*h)
}

func (s *Spool) signed(r *record) ([]byte, error) {
	var err error
	if r.Signature, err = s.sign("record", struct {
		Report hostapi.Report
		Before string
	}{r.Report, r.Before}); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

func (s *Spool) putHead(h head) error {
	h.Signature = nil
	signature, err := s.sign("head", h)
	if err != nil {
		return err
	}
	h.Signature = signature
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return s.write(s.headFile(), text)
}

// Pending returns the reports that wait, up to most of them, in order of their numbers.
func (s *Spool) Pending(most int) (list []hostapi.Report, err error) {
	err = s.Each(func(r hostapi.Report) bool {
		list = append(list, r)
		return len(list) < most
	})
	return list, err
}

// Each calls f for the reports that wait, in order of their numbers, until it returns
// false. What is not as it was written is left out, and told by an alarm that follows.
func (s *Spool) Each(f func(hostapi.Report) bool) error {
	return s.locked(func() error {
		h, err := s.sound()
		if err != nil {
			return err
		}
		before, more := "", true
		for n := h.Acked + 1; n < h.Next && more; n++ {
			r, sum, err := s.read(n)
			what := ""
			switch {
			case errors.Is(err, fs.ErrNotExist):
				what = "is gone"
			case err != nil:
				what = "is not what this host wrote"
			case before != "" && r.Before != before:
				what = "does not follow the one before it"
			}
			if before = sum; err != nil {
				before = "" // what follows it is judged by itself
			} else {
				more = f(r.Report)
			}
			if what == "" || !s.first(n) {
				continue
			}
			if err := s.add(&h, s.report(hostapi.KindAlarm), hostapi.Alarm{Code: "spool-tampered", Detail: fmt.Sprintf("report %d of the spool %s", n, what)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Waiting is how many reports wait, without reading them; and since when.
func (s *Spool) Waiting() (n int, oldest time.Time, err error) {
	err = s.locked(func() error {
		h, _ := s.head()
		n = int(h.Next - 1 - h.Acked)
		if info, err := os.Stat(s.file(h.Acked + 1)); err == nil {
			oldest = info.ModTime()
		}
		return nil
	})
	return n, oldest, err
}

// Forget takes away what the broker has: all up to the number.
func (s *Spool) Forget(upTo uint64) error {
	return s.locked(func() error {
		h, err := s.sound()
		if err != nil {
			return err
		}
		before := h.Acked
		if upTo = min(upTo, h.Next-1); upTo <= before {
			return nil
		}
		h.Acked = upTo
		if err := s.putHead(h); err != nil {
			return err
		}
		return s.remove(before+1, upTo)
	})
}

// Renumber gives numbers after last to all that wait, because the broker has others
// under theirs, as after a machine was put back to an older state. Postures, whose
// numbers are signed in them, are left out. It leaves an alarm that says so.
func (s *Spool) Renumber(last uint64) error {
	return s.locked(func() error {
		old, _ := s.head()
		h := head{Acked: max(last, old.Next-1)}
		h.Next = h.Acked + 1
		var keep []hostapi.Report
		for n := old.Acked + 1; n < old.Next; n++ {
			if r, _, err := s.read(n); err == nil && r.Report.Kind != hostapi.KindPosture {
				keep = append(keep, r.Report)
			}
		}
		if err := s.add(&h, s.report(hostapi.KindAlarm), hostapi.Alarm{Code: "reports-renumbered", Detail: fmt.Sprintf(
			"the broker has other reports of this host under the numbers of its own: the host was put back to an older state, or there are two of it; %d that waited have new numbers", len(keep))}); err != nil {
			return err
		}
		for _, r := range keep {
			if err := s.add(&h, r, r.Data); err != nil {
				return err
			}
		}
		return s.remove(old.Acked+1, old.Next-1)
	})
}

// remove takes away files that the head does not count any more.
func (s *Spool) remove(from, to uint64) error {
	for n := from; n <= to; n++ {
		_ = os.Remove(s.toldFile(n)) // there seldom is one
		if err := os.Remove(s.file(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return place.SyncDir(s.dir)
}

// read returns one report and the hash of its file, if the host's key signed it.
func (s *Spool) read(number uint64) (record, string, error) {
	var r record
	text, err := os.ReadFile(s.file(number))
	if err != nil {
		return r, "", err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, "", err
	}
	if r.Report.Seq != number {
		return r, "", errors.New("it is another report")
	}
	return r, hash(text), s.verify("record", struct {
		Report hostapi.Report
		Before string
	}{r.Report, r.Before}, r.Signature)
}

func (s *Spool) file(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d.json", number))
}
func (s *Spool) headFile() string { return filepath.Join(s.dir, "head.json") }

// locked runs f while no other process has the spool.
func (s *Spool) locked(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	defer lock.Close()
	for {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	return f()
}

func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// numberOf is the number in a file's name.
func numberOf(name string) (uint64, bool) {
	if filepath.Ext(name) != ".json" || len(name) != 25 {
		return 0, false
	}
	n, err := strconv.ParseUint(name[:20], 10, 64)
	return n, err == nil && n > 0
}
