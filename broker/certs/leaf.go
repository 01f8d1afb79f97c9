package certs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// object is a JSON object, each of whose names stands once. Names that nobody asks
// for are left alone: a newer broker may add some, and hosts are updated last.
type object map[string]json.RawMessage

func readObject(text []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	fields := object{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if _, twice := fields[name]; !ok || twice {
			return nil, fmt.Errorf("the name %v stands twice", token)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		fields[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON")
	}
	return fields, nil
}

// get reads one field into a type; one that is not there is the type's zero.
func get[T any](o object, name string, problem *error) (value T) {
	raw, ok := o[name]
	if !ok || *problem != nil {
		return value
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		*problem = fmt.Errorf("%s: %w", name, err)
	}
	return value
}

// inner reads a field that is an object; one that is not there is empty.
func (o object) inner(name string, problem *error) object {
	raw, ok := o[name]
	if !ok || *problem != nil {
		return nil
	}
	fields, err := readObject(raw)
	if err != nil {
		*problem = fmt.Errorf("%s: %w", name, err)
	}
	return fields
}

// leaf is what a check needs of the events certificate.issued,
// deployment.certificate_issued and host.certificate_issued (docs/events.md).
type leaf struct {
	kind          string
	version       int
	id            string
	time          time.Time
	actorKind     string
	actorID       string
	actorName     string
	source        string
	requestID     string
	hostID        string
	policyVersion string
	policyHash    string
	serial        string
	keyID         string
	principals    []string
	login, host   string
	key, ca       string // fingerprints
	pre           []byte
	after, before time.Time
	termsHash     string
	decisions     []string
	emergency     bool
	drill         bool
	grantEnds     time.Time
	atEnd         string
	singleUse     bool
	record        bool

	// Of an agent's.
	deployment string
	batch      int
	epoch      string
	command    string
	uses       int
	batchEnds  time.Time
	tokenHash  string
}

// readLeaf reads an event. What it says is true as far as the broker's word is;
// that it is the broker's word, only the receipt proves.
func readLeaf(text []byte) (leaf, error) {
	event, err := readObject(text)
	if err != nil {
		return leaf{}, err
	}
	actor, subject, policy, data := event.inner("actor", &err), event.inner("subject", &err), event.inner("policy", &err), event.inner("data", &err)
	l := leaf{
		kind: get[string](event, "type", &err), version: get[int](event, "version", &err),
		id: get[string](event, "id", &err), time: get[time.Time](event, "time", &err),
		actorKind: get[string](actor, "kind", &err), actorID: get[string](actor, "id", &err), actorName: get[string](actor, "name", &err),
		source:    get[string](event, "source", &err),
		requestID: get[string](subject, "request_id", &err), hostID: get[string](subject, "host_id", &err),
		policyVersion: get[string](policy, "version", &err), policyHash: get[string](policy, "hash", &err),
		serial: get[string](data, "serial", &err), keyID: get[string](data, "key_id", &err),
		principals: get[[]string](data, "principals", &err),
		login:      get[string](data, "login", &err), host: get[string](data, "host", &err),
		key: get[string](data, "key", &err), ca: get[string](data, "ca", &err), pre: get[[]byte](data, "pre_certificate", &err),
		after: get[time.Time](data, "valid_after", &err), before: get[time.Time](data, "valid_before", &err),
		termsHash: get[string](data, "terms_hash", &err), decisions: get[[]string](data, "decisions", &err),
		emergency: get[bool](data, "emergency", &err), drill: get[bool](data, "drill", &err),
		grantEnds: get[time.Time](data, "grant_ends_at", &err), atEnd: get[string](data, "at_end", &err),
		singleUse: get[bool](data, "single_use", &err), record: get[bool](data, "record", &err),
	}
	l.deployment, l.batch, l.epoch = get[string](data, "deployment_id", &err), get[int](data, "batch", &err), get[string](data, "epoch", &err)
	l.batchEnds = get[time.Time](data, "batch_ends_at", &err)
	l.command, l.uses, l.tokenHash = get[string](data, "command", &err), get[int](data, "uses", &err), get[string](data, "token_hash", &err)
	if principal := get[string](data, "principal", &err); principal != "" {
		l.principals = append(l.principals, principal)
	}
	return l, err
}

// isHash reports whether the text is a SHA-256 in lower-case hex.
func isHash(text string) bool {
	return len(text) == 64 && !slices.ContainsFunc([]byte(text), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}
