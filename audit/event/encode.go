package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"
)

// MaxSize is how many bytes one encoded event may have: entry bundles prefix
// each with 16 bits of length (c2sp.org/tlog-tiles). It is far above what the
// limits on the API's fields allow together.
const MaxSize = 1<<16 - 1

// Encode returns the event's bytes, the leaf of the log. Times become UTC, and
// what is not text (invalid UTF-8, NUL) becomes U+FFFD.
func (e Event) Encode() ([]byte, error) {
	if e.Data == nil || e.ID == uuid.Nil {
		return nil, fmt.Errorf("encoding event %q: it has no id or no data", e.Type)
	}
	if name, version := e.Data.EventType(); e.Type != name || e.Version != version {
		return nil, fmt.Errorf("encoding event %q version %d: its data is of %q version %d", e.Type, e.Version, name, version)
	}
	if _, ok := registry[kindOf(e.Data)]; !ok {
		return nil, fmt.Errorf("encoding event %q version %d: it is not in the catalogue", e.Type, e.Version)
	}
	e.Time = e.Time.UTC()
	e.Data = inUTC(e.Data)

	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encoding event %s: %w", e.Type, err)
	}
	leaf := onlyText(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	if len(leaf) > MaxSize {
		return nil, fmt.Errorf("encoding event %s: it has %d bytes, more than %d", e.Type, len(leaf), MaxSize)
	}
	return leaf, nil
}

var timeType = reflect.TypeFor[time.Time]()

// inUTC returns a copy of the data whose times are in UTC: times that come from
// the database are in the machine's zone.
func inUTC(d Data) Data {
	v := reflect.New(reflect.TypeOf(d)).Elem()
	v.Set(reflect.ValueOf(d))
	for _, field := range v.Fields() {
		if field.Type() == timeType {
			field.Set(reflect.ValueOf(field.Interface().(time.Time).UTC()))
		}
	}
	return v.Interface().(Data)
}

// onlyText writes U+FFFD itself for the escapes of NUL, which PostgreSQL's jsonb
// cannot hold, and of U+FFFD, which encoding/json writes for invalid UTF-8 only:
// a caller must not be able to keep a refusal out of the log by the text it
// sends, and decoding and encoding again must give the same bytes.
func onlyText(encoded []byte) []byte {
	out := encoded[:0] // never longer
	for i := 0; i < len(encoded); i++ {
		rest := encoded[i:]
		switch {
		case rest[0] != '\\':
			out = append(out, rest[0])
		case bytes.HasPrefix(rest, []byte(`\u0000`)), bytes.HasPrefix(rest, []byte(`\ufffd`)):
			out = append(out, "\uFFFD"...)
			i += len(`\u0000`) - 1
		default: // what is escaped does not begin an escape
			out = append(out, rest[0], rest[1])
			i++
		}
	}
	return out
}
