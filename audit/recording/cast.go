package recording

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// Header is the first line of an asciicast
// (docs.asciinema.org/manual/asciicast/v2), with a member of our own.
type Header struct {
	Version   int               `json:"version"` // 2
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp"` // when it began, in Unix seconds
	Command   string            `json:"command,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Sallyport About             `json:"sallyport"`
}

// About says which session of which host this is.
type About struct {
	Host     string `json:"host"` // id
	Name     string `json:"name"` // of the host
	Login    string `json:"login"`
	Session  string `json:"session"` // the host's own name for it
	Number   int    `json:"number"`  // of the recording in the session, from 1
	Serial   uint64 `json:"serial,string"`
	Request  string `json:"request,omitempty"`
	Terminal bool   `json:"terminal"` // false: a command without one; then input is recorded, too
}

// Codes of events. Players pass over codes that they do not know.
const (
	Output = "o"
	Input  = "i" // of what has no terminal: a terminal's is seen as far as it is echoed
	Resize = "r" // "80x24"
	Marker = "m"
	// OutputBytes and InputBytes are what is no text, of what has no terminal, in base64.
	OutputBytes = "ob"
	InputBytes  = "ib"
)

// Event is one line after the header: something that happened so long after the start.
type Event struct {
	At   time.Duration
	Code string
	Data string
}

// MarshalJSON writes it as [seconds, code, data].
func (e Event) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "[%.6f,%q,%s]", e.At.Seconds(), e.Code, data), nil
}

// UnmarshalJSON reads it.
func (e *Event) UnmarshalJSON(text []byte) error {
	var fields []json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	if len(fields) != 3 {
		return errors.New("an event has three fields")
	}
	var at float64
	if err := errors.Join(json.Unmarshal(fields[0], &at), json.Unmarshal(fields[1], &e.Code), json.Unmarshal(fields[2], &e.Data)); err != nil {
		return err
	}
	const longest = 30 * 24 * 3600
	if !(at >= 0 && at <= longest) {
		return errors.New("an event is at no time of the session")
	}
	e.At = time.Duration(at * float64(time.Second))
	return nil
}

// Bytes is the event of bytes that a program without a terminal read or wrote: exactly
// these, whatever they are.
func Bytes(at time.Duration, code string, data []byte) Event {
	if utf8.Valid(data) && !bytes.ContainsFunc(data, func(r rune) bool { return r < '\a' }) {
		return Event{at, code, string(data)}
	}
	return Event{at, code + "b", base64.StdEncoding.EncodeToString(data)}
}

// Text makes events of a terminal's output: what is no UTF-8 becomes U+FFFD, as
// asciinema has it, but a character that comes in two pieces is one.
type Text struct{ rest []byte }

// Add returns the text of more output that is whole.
func (t *Text) Add(data []byte) string {
	data = append(t.rest, data...)
	end := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if c := data[len(data)-back]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(data[len(data)-back:]) {
				end = len(data) - back
			}
			break
		}
	}
	text := string([]rune(string(data[:end])))
	t.rest = append([]byte(nil), data[end:]...)
	return text
}

// maxLine bounds a line of an asciicast: 4096 bytes of output, each escaped.
const maxLine = MaxPlain

// Cast reads an asciicast, line by line.
type Cast struct {
	Header Header
	lines  *bufio.Scanner
}

// ReadCast reads the header.
func ReadCast(r io.Reader) (*Cast, error) {
	c := &Cast{lines: bufio.NewScanner(r)}
	c.lines.Buffer(nil, maxLine)
	if !c.lines.Scan() {
		return nil, cmpErr(c.lines.Err(), io.ErrUnexpectedEOF)
	}
	if err := json.Unmarshal(c.lines.Bytes(), &c.Header); err != nil || c.Header.Version != 2 {
		return nil, errors.New("this is no asciicast of version 2")
	}
	return c, nil
}

// Next returns the next event, or io.EOF after the last.
func (c *Cast) Next() (e Event, err error) {
	for c.lines.Scan() {
		if len(c.lines.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(c.lines.Bytes(), &e); err != nil {
			return e, fmt.Errorf("an event of the recording cannot be read: %w", err)
		}
		return e, nil
	}
	return e, cmpErr(c.lines.Err(), io.EOF)
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
