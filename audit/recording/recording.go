// Package recording is the form of recorded sessions: what a host writes, the broker
// keeps without being able to read it, and an auditor plays.
//
// A recording is the line of [Magic] and then parts, one after the other: four bytes
// with the length of what follows, the highest first, and one age file
// (age-encryption.org/v1) for the auditors' keys. Their plain texts, joined, are an
// asciicast of version 2 ([Header], [Event]). A part is whole lines, of a few seconds: so
// what has been recorded can be read when the end never comes.
//
// Everybody can encrypt to the auditors. That a recording is the host's, whole and
// unchanged, says its SHA-256, over all of these bytes, in the log's event
// session.recorded, and nothing else.
package recording

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Magic begins every recording.
const Magic = "sallyport.recording/1\n"

// Limits on recordings, which whoever reads holds them to as well.
const (
	MaxSize  = 64 << 20  // bytes of a recording: the session ends before it has more
	MaxPart  = 256 << 10 // bytes of a part, encrypted
	MaxPlain = 128 << 10 // and what it says
	// MaxKeys is for how many keys a recording is made.
	MaxKeys = 16
)

// ErrForm says that something is no recording, or is cut off within a part.
var ErrForm = errors.New("this is not a recording of Sallyport, or it is cut off")

// ParseRecipients reads auditors' public keys: lines as age-keygen prints them. Empty
// lines and comments (#) are left out. One at least is needed, and at most MaxKeys.
// Private keys are refused in words that do not repeat them.
func ParseRecipients(text string) (keys []age.Recipient, lines []string, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(strings.ToUpper(line), "AGE-SECRET-KEY-"):
			return nil, nil, errors.New("it holds a private key, which belongs to the auditors alone: give their public keys (age-keygen -y)")
		}
		found, err := age.ParseRecipients(strings.NewReader(line))
		if err != nil || len(found) != 1 {
			return nil, nil, fmt.Errorf("key %d is no public key of age (age1…)", len(lines)+1)
		}
		keys, lines = append(keys, found[0]), append(lines, line)
	}
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, nil, fmt.Errorf("it has %d keys, and 1 to %d are needed", len(keys), MaxKeys)
	}
	if _, err := Part(keys, nil); err != nil { // age mixes no keys that a quantum computer breaks with others
		return nil, nil, fmt.Errorf("these keys do not go together: %w", err)
	}
	return keys, lines, nil
}

// Part encrypts whole lines of the asciicast, up to MaxPlain bytes, to be appended to a
// recording.
func Part(keys []age.Recipient, plain []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, errors.New("too much for one part of a recording")
	}
	var out bytes.Buffer
	out.Write(make([]byte, 4))
	w, err := age.Encrypt(&out, keys...)
	if err != nil {
		return nil, fmt.Errorf("encrypting a recording: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypting a recording: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypting a recording: %w", err)
	}
	part := out.Bytes()
	binary.BigEndian.PutUint32(part, uint32(len(part)-4))
	return part, nil
}

// Whole is how many bytes at the start of r are whole parts, with Magic: what is after
// them was being written when its writer stopped.
func Whole(r io.Reader) (size int64, err error) {
	err = parts(r, func(part []byte) error {
		size += int64(len(part))
		return nil
	})
	if errors.Is(err, ErrForm) {
		err = nil
	}
	return size, err
}

// parts calls f with Magic and then with each part, as they stand in the recording.
func parts(r io.Reader, f func(part []byte) error) error {
	buf := make([]byte, MaxPart+4)
	if _, err := io.ReadFull(r, buf[:len(Magic)]); err != nil || string(buf[:len(Magic)]) != Magic {
		return form(err)
	}
	if err := f(buf[:len(Magic)]); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(r, buf[:4]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return form(err)
		}
		size := binary.BigEndian.Uint32(buf)
		if size > MaxPart {
			return ErrForm
		}
		part := buf[:4+size]
		if _, err := io.ReadFull(r, part[4:]); err != nil {
			return form(err)
		}
		if err := f(part); err != nil {
			return err
		}
	}
}

func form(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrForm
	}
	return err
}

// Decrypt writes the asciicast of a recording to w, part by part. What was written is
// what the parts before an error say.
func Decrypt(w io.Writer, r io.Reader, identities ...age.Identity) error {
	first := true
	return parts(io.LimitReader(r, MaxSize+1), func(part []byte) error {
		if first {
			first = false
			return nil
		}
		plain, err := age.Decrypt(bytes.NewReader(part[4:]), identities...)
		if err != nil {
			return fmt.Errorf("decrypting the recording: %w", err)
		}
		text, err := io.ReadAll(io.LimitReader(plain, MaxPlain+1))
		if err != nil {
			return fmt.Errorf("decrypting the recording: %w", err)
		}
		if len(text) > MaxPlain {
			return ErrForm
		}
		_, err = w.Write(text)
		return err
	})
}
