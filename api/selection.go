package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RequestHost is one of the hosts of a request.
type RequestHost struct {
	ID           string `json:"id"`
	Name         string `json:"name" doc:"When it was asked for"`
	Certificates int    `json:"certificates,omitempty" doc:"How many were issued for it; only where one request is asked for"`
	Why          string `json:"why,omitempty" doc:"Why no certificate is issued for it any more, though the grant runs; only where one request is asked for"`
}

// HostNames are the names of the hosts in a few words: db-1, db-2 and 3 more.
func HostNames(hosts []RequestHost) string {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.Name
	}
	return Several(names)
}

// Several names the first few of a list: "a", "a and b", "a, b and c", and of
// more than three "a, b and 2 more".
func Several(names []string) string {
	if n := len(names); n > 3 {
		return fmt.Sprintf("%s, %s and %d more", names[0], names[1], n-2)
	} else if n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// Where is what the request is for in a few words: dba@db-1, db-2 and 3 more.
func (r Request) Where() string {
	if len(r.Hosts) < 2 {
		return r.Login + "@" + r.Host
	}
	return r.Login + "@" + HostNames(r.Hosts)
}

// Others is how many hosts the request is for besides the first.
func (r Request) Others() int { return max(0, len(r.Hosts)-1) }

// On reports whether the request is for the host of that name, or id.
func (r Request) On(nameOrID string) bool {
	return r.Host == nameOrID || r.HostID == nameOrID ||
		slices.ContainsFunc(r.Hosts, func(h RequestHost) bool { return h.Name == nameOrID || h.ID == nameOrID })
}

// SelectorText writes a selection of hosts as people do: class=database,env=prod,
// by label.
func SelectorText(selector map[string]string) string {
	parts := make([]string, 0, len(selector))
	for _, label := range slices.Sorted(maps.Keys(selector)) {
		parts = append(parts, label+"="+selector[label])
	}
	return strings.Join(parts, ",")
}

// ParseSelector reads what SelectorText writes, in any order and with spaces
// around its parts. The broker says which labels and values there can be.
func ParseSelector(text string) (map[string]string, error) {
	selector := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		label, value, ok := strings.Cut(part, "=")
		label, value = strings.TrimSpace(label), strings.TrimSpace(value)
		if !ok || label == "" || strings.ContainsAny(label+value, "=!<>() ") {
			return nil, fmt.Errorf("%q is not LABEL=VALUE", part)
		}
		if _, twice := selector[label]; twice {
			return nil, fmt.Errorf("%q stands there twice", label)
		}
		selector[label] = value
	}
	return selector, nil
}
