package cosignature

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Policy is whom a verifier believes: the log's key, and how many of which
// witnesses must have seen its head. It comes from the auditor, never from a pack.
//
// It is read from lines (c2sp.org/tlog-policy), of which # begins a comment:
//
//	log <vkey> [<url>]
//	witness <name> <vkey> [<url>]
//	group <name> <count>|any|all <name>...
//	quorum <name>|none
//
// A line that is only a log's key, as /log/vkey has it, is a policy too: that log,
// without witnesses.
type Policy struct {
	keys    map[string]string // of logs, by name
	members map[string]member
	names   []string // of witnesses, in the order of the lines
	quorum  string   // a member's name, or "none"
}

// member is a witness, or a group of members of which some must agree.
type member struct {
	witness *Verifier
	url     string // where it is asked; empty: nowhere
	need    int
	of      []string
}

// ParsePolicy reads a policy.
func ParsePolicy(text []byte) (*Policy, error) {
	t := &Policy{keys: map[string]string{}, members: map[string]member{}}
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := t.line(fields); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		}
	}
	switch {
	case len(t.keys) == 0:
		return nil, errors.New("it names no log: log <vkey>")
	case t.quorum == "" && len(t.members) > 0:
		return nil, errors.New("it names witnesses and no quorum: quorum <name>, or quorum none")
	case t.quorum == "":
		t.quorum = "none"
	}
	return t, nil
}

func (t *Policy) line(fields []string) error {
	switch keyword, n := fields[0], len(fields); {
	case keyword == "log" && (n == 2 || n == 3):
		return t.log(fields[1])
	case n == 1 && strings.Count(keyword, "+") >= 2:
		return t.log(keyword)
	case keyword == "witness" && (n == 3 || n == 4):
		key, err := NewVerifier(fields[2])
		if err != nil {
			return err
		}
		t.names = append(t.names, fields[1])
		m := member{witness: &key}
		if n == 4 {
			m.url = fields[3]
		}
		return t.add(fields[1], m)
	case keyword == "group" && n >= 4:
		m := member{of: fields[3:]}
		switch count, err := strconv.Atoi(fields[2]); {
		case fields[2] == "any":
			m.need = 1
		case fields[2] == "all":
			m.need = len(m.of)
		case err != nil || count < 1 || count > len(m.of):
			return fmt.Errorf("%q is not any, all or a number of the group's members", fields[2])
		default:
			m.need = count
		}
		seen := map[string]bool{}
		for _, name := range m.of {
			if _, known := t.members[name]; !known || seen[name] {
				return fmt.Errorf("the group's member %q is unknown, or in it twice", name)
			}
			seen[name] = true
		}
		return t.add(fields[1], m)
	case keyword == "quorum" && n == 2:
		if _, known := t.members[fields[1]]; !known && fields[1] != "none" || t.quorum != "" {
			return fmt.Errorf("the quorum %q is unknown, or a second one", fields[1])
		}
		t.quorum = fields[1]
		return nil
	}
	return fmt.Errorf("it is not understood: %q", strings.Join(fields, " "))
}

func (t *Policy) log(vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return errors.New("that is no log's key, as /log/vkey has it")
	}
	if _, twice := t.keys[v.Name()]; twice {
		return fmt.Errorf("two keys for the log %s", v.Name())
	}
	t.keys[v.Name()] = vkey
	return nil
}

func (t *Policy) add(name string, m member) error {
	if _, twice := t.members[name]; twice || name == "none" {
		return fmt.Errorf("the name %q is taken", name)
	}
	for other, o := range t.members {
		if m.witness != nil && o.witness != nil && m.witness.key.Equal(o.witness.key) {
			return fmt.Errorf("the witnesses %q and %q have one key", other, name)
		}
	}
	t.members[name] = m
	return nil
}

// Key is the key of the log with the origin; "" if it is not trusted.
func (t *Policy) Key(origin string) string { return t.keys[origin] }

// Witnesses are the names of the witnesses that have cosigned the checkpoint, and
// whether they are as many as the quorum wants.
func (t *Policy) Witnesses(checkpoint []byte) (names []string, enough bool) {
	agreed := map[string]bool{}
	for _, name := range t.names {
		// A note without one of our signatures is an error of its own.
		n, err := note.Open(checkpoint, note.VerifierList(*t.members[name].witness))
		if agreed[name] = err == nil && len(n.Sigs) > 0; agreed[name] {
			names = append(names, name)
		}
	}
	return names, t.quorum == "none" || t.agrees(t.quorum, agreed)
}

func (t *Policy) agrees(name string, agreed map[string]bool) bool {
	m := t.members[name]
	if m.witness != nil {
		return agreed[name]
	}
	n := 0
	for _, other := range m.of {
		if t.agrees(other, agreed) {
			n++
		}
	}
	return n >= m.need
}

// Witness is one that the policy names.
type Witness struct {
	Name string
	Key  Verifier
	URL  string // where it is asked; empty: nowhere
}

// All are the witnesses that the policy names, in its order.
func (t *Policy) All() []Witness {
	list := make([]Witness, len(t.names))
	for i, name := range t.names {
		m := t.members[name]
		list[i] = Witness{name, *m.witness, m.url}
	}
	return list
}

// Wanted says what the quorum is, for people.
func (t *Policy) Wanted() string {
	if t.quorum == "none" {
		return "none"
	}
	if m := t.members[t.quorum]; m.witness == nil {
		return fmt.Sprintf("%d of %s", m.need, strings.Join(m.of, ", "))
	}
	return t.quorum
}
