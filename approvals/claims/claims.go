// Package claims reads what a workload's token says and compares it with what the
// policy trusts. It is pure: no network, no clock of its own, and nothing here checks
// a signature.
//
// A claim that is missing, of another type than its issuer gives it, or not listed
// denies. Nothing is compared by pattern, and nothing is taken from a token that could
// be read in two ways: a name that stands twice in an object makes the whole unreadable.
package claims

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on a payload.
const (
	MaxBytes   = 16 << 10
	maxDepth   = 8
	maxSubject = 1024 // bytes
	maxID      = 256
)

// Claims are the payload of a token.
type Claims struct {
	Issuer, Subject string
	ID              string // jti; empty: none
	Audience        []string
	IssuedAt        time.Time // zero: none, like the next two
	NotBefore       time.Time
	Expires         time.Time

	all map[string]any // strings, json.Numbers, bools, nils, lists and objects
}

// ErrForm is wrapped by errors about payloads that cannot be read.
var ErrForm = errors.New("the token's claims cannot be read")

// Parse reads a payload (RFC 7519 section 4): one JSON object in valid UTF-8 that
// names nothing twice.
func Parse(payload []byte) (Claims, error) {
	all, err := Object(payload)
	if err != nil {
		return Claims{}, err
	}
	c := Claims{all: all}
	for _, text := range []struct {
		name string
		to   *string
		need bool
		most int
	}{{"iss", &c.Issuer, true, maxSubject}, {"sub", &c.Subject, true, maxSubject}, {"jti", &c.ID, false, maxID}} {
		value, there := all[text.name]
		said, is := value.(string)
		if there && (!is || said == "") || !there && text.need || len(said) > text.most {
			return Claims{}, fmt.Errorf("%w: %s is missing, or no text of at most %d bytes", ErrForm, text.name, text.most)
		}
		*text.to = said
	}
	switch aud := all["aud"].(type) {
	case string:
		c.Audience = []string{aud}
	case []any:
		for _, a := range aud {
			said, is := a.(string)
			if !is {
				return Claims{}, fmt.Errorf("%w: aud is not text", ErrForm)
			}
			c.Audience = append(c.Audience, said)
		}
	default:
		return Claims{}, fmt.Errorf("%w: aud is missing, or no text", ErrForm)
	}
	for _, date := range []struct {
		name string
		to   *time.Time
	}{{"iat", &c.IssuedAt}, {"nbf", &c.NotBefore}, {"exp", &c.Expires}} {
		value, there := all[date.name]
		if !there {
			continue
		}
		if *date.to, err = numericDate(value); err != nil {
			return Claims{}, fmt.Errorf("%w: %s: %w", ErrForm, date.name, err)
		}
	}
	return c, nil
}

// numericDate reads seconds since 1970, with or without a fraction, which is left out.
func numericDate(value any) (time.Time, error) {
	n, is := value.(json.Number)
	if !is {
		return time.Time{}, errors.New("it is no number")
	}
	seconds, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || seconds <= 0 || seconds > 253402300799 { // the year 9999
		return time.Time{}, errors.New("it is no time")
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), nil
}

// Object reads one JSON object strictly: at most MaxBytes of UTF-8, nothing behind it,
// no name twice in an object however deep, and no text with control characters or
// with what stands for bytes that are no text.
func Object(text []byte) (map[string]any, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrForm, MaxBytes)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrForm)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	value, err := read(dec, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	object, is := value.(map[string]any)
	if !is {
		return nil, fmt.Errorf("%w: not an object", ErrForm)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the object", ErrForm)
	}
	return object, nil
}

// read reads the next value.
func read(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, errors.New("not JSON") // the library's error may quote it
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, errors.New("not JSON")
			}
			name, _ := key.(string)
			if _, twice := object[name]; twice {
				return nil, errors.New("a name stands twice")
			}
			if err := plain(name); err != nil {
				return nil, err
			}
			if object[name], err = read(dec, depth+1); err != nil {
				return nil, err
			}
		}
		if _, err := dec.Token(); err != nil {
			return nil, errors.New("not JSON")
		}
		return object, nil
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := read(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		if _, err := dec.Token(); err != nil {
			return nil, errors.New("not JSON")
		}
		return list, nil
	}
	if text, is := token.(string); is {
		return text, plain(text)
	}
	return token, nil
}

func plain(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }) {
		return errors.New("a text has control characters")
	}
	return nil
}

// at is the claim at a path of names, and whether there is one. null is none: some
// issuers have it for what does not apply.
func (c Claims) at(path ...string) (any, bool) {
	var value any = c.all
	for _, name := range path {
		object, is := value.(map[string]any)
		if !is {
			return nil, false
		}
		value = object[name]
	}
	return value, value != nil
}

// texts are a claim's values as text: its own, or those of a list. Numbers are as the
// token has them. ok is false for what has none.
func texts(value any) (list []string, ok bool) {
	switch v := value.(type) {
	case string:
		return []string{v}, v != ""
	case json.Number:
		return []string{v.String()}, true
	case bool:
		return []string{strconv.FormatBool(v)}, true
	case []any:
		for _, each := range v {
			if _, nested := each.([]any); nested {
				return nil, false
			}
			one, ok := texts(each)
			if !ok {
				return nil, false
			}
			list = append(list, one...)
		}
		return list, len(list) > 0
	}
	return nil, false
}
