package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hiddeco/sshsig"

	"sallyport/cmd/sally-host/internal/place"
)

// head reads where the spool is, and says what is wrong with it. The head that it
// returns then starts from what is there, and puts that right once it is written.
func (s *Spool) head() (h head, what string) {
	text, err := os.ReadFile(s.headFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h = head{Next: 1}
		if _, high := s.bounds(); high > 1 { // not just the one that was being written when the first head was to be
			what = "its head is gone"
		}
	case err != nil:
		what = "its head cannot be read: " + err.Error()
	case json.Unmarshal(text, &h) != nil || s.headSigned(h) != nil || h.Next == 0 || h.Acked >= h.Next:
		what = "its head is not what this host wrote"
	}
	if what != "" {
		low, high := s.bounds()
		h = head{Next: high + 1, Acked: max(low, 1) - 1}
		if _, sum, err := s.read(high); err == nil {
			h.Last = sum
		}
	}
	// One report may have been written before its head was.
	if r, sum, err := s.read(h.Next); err == nil && r.Before == h.Last {
		h.Next, h.Last = h.Next+1, sum
	}
	return h, what
}

func (s *Spool) headSigned(h head) error {
	signature := h.Signature
	h.Signature = nil
	return s.verify("head", h, signature)
}

// first reports whether nothing was told of this report yet, and notes that it now is.
func (s *Spool) first(number uint64) bool {
	f, err := os.OpenFile(s.toldFile(number), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return !errors.Is(err, fs.ErrExist)
	}
	f.Close()
	return true
}

func (s *Spool) toldFile(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d.told", number))
}

// bounds are the lowest and the highest number of the files; 0 if there are none.
func (s *Spool) bounds() (low, high uint64) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		if n, ok := numberOf(e.Name()); ok {
			if high = max(high, n); low == 0 || n < low {
				low = n
			}
		}
	}
	return low, high
}

// namespace keeps the signatures apart from all others that the host key makes.
const namespace = "sallyport-spool"

func (s *Spool) sign(what string, v any) ([]byte, error) {
	text, err := message(what, v)
	if err != nil {
		return nil, err
	}
	signature, err := sshsig.Sign(bytes.NewReader(text), s.key, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("signing for the spool: %w", err)
	}
	return signature.Marshal(), nil
}

func (s *Spool) verify(what string, v any, blob []byte) error {
	text, err := message(what, v)
	if err != nil {
		return err
	}
	signature, err := sshsig.ParseSignature(blob)
	if err != nil {
		return err
	}
	return sshsig.Verify(bytes.NewReader(text), signature, s.key.PublicKey(), sshsig.HashSHA512, namespace)
}

func message(what string, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append([]byte("sallyport spool "+what+" v1\n"), text...), err
}

// write writes a file for good. On a full disk it gives the reserve up for it.
func (s *Spool) write(name string, text []byte) error {
	err := place.Write(name, text, 0o600)
	if noSpace(err) && s.GiveUpReserve() {
		err = place.Write(name, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing to the spool: %w", err)
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *Spool) reserve() string { return filepath.Join(s.dir, "reserve") }

// GiveUpReserve makes room on a full disk, and reports whether there was some.
func (s *Spool) GiveUpReserve() bool { return os.Remove(s.reserve()) == nil }

// Reserve takes the room that is kept for when the disk is full, or says why it cannot.
func (s *Spool) Reserve() error {
	if info, err := os.Stat(s.reserve()); err == nil && info.Size() == ReserveSize {
		return nil
	}
	// Not zeros: a file system that compresses would keep no room for them.
	block := make([]byte, ReserveSize)
	x := uint32(1)
	for i := range block {
		x = x*1664525 + 1013904223
		block[i] = byte(x >> 24)
	}
	if err := place.Write(s.reserve(), block, 0o600); err != nil {
		return fmt.Errorf("keeping room for reports: %w", err)
	}
	return nil
}
