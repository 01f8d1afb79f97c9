package grant

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"sallyport/api"
	"sallyport/internal/ids"
)

// MaxHosts is how many hosts one request is for.
const MaxHosts = 50

// maxSelector is how many labels select them.
const maxSelector = 16

// Hosts are all hosts that the terms are about, by name; at least one.
func (t Terms) Hosts() []TermsHost { return append([]TermsHost{t.Host}, t.MoreHosts...) }

// checkHosts says why the hosts are not what an ask makes of any set of hosts:
// each once, by name, no more than there may be, and several only by labels.
func (t Terms) checkHosts() error {
	if err := CheckSelector(t.Selector); len(t.Selector) > 0 && err != nil {
		return err
	}
	if len(t.MoreHosts) == 0 {
		return nil
	}
	hosts, seen := t.Hosts(), map[string]bool{}
	if len(t.Selector) == 0 || len(hosts) > MaxHosts {
		return fmt.Errorf("%d hosts cannot have been asked for like that", len(hosts))
	}
	for i, h := range hosts {
		if !ids.Valid(ids.Host, h.ID) || seen[h.ID] || i > 0 && h.Name <= hosts[i-1].Name {
			return errors.New("the hosts are not each there once, by name")
		}
		seen[h.ID] = true
	}
	return nil
}

// HostIDs and hostNames are for events: of all hosts, if there are several.
func (t Terms) HostIDs() []string { return t.ofSeveral(func(h TermsHost) string { return h.ID }) }

func (t Terms) HostNames() []string { return t.ofSeveral(func(h TermsHost) string { return h.Name }) }

func (t Terms) ofSeveral(what func(TermsHost) string) (out []string) {
	if len(t.MoreHosts) == 0 {
		return nil
	}
	for _, h := range t.Hosts() {
		out = append(out, what(h))
	}
	return out
}

// MoreHostIDs is the column of the hosts after the first.
func (t Terms) MoreHostIDs() []string {
	if len(t.MoreHosts) == 0 {
		return []string{}
	}
	return t.HostIDs()[1:]
}

// within reports whether the terms are for no other hosts than these.
func (t Terms) within(hosts []TermsHost) bool {
	return !slices.ContainsFunc(t.Hosts(), func(h TermsHost) bool {
		return !slices.ContainsFunc(hosts, func(o TermsHost) bool { return o.ID == h.ID })
	})
}

// Asked is what the terms' hosts were asked for by.
func (t Terms) Asked() string {
	if len(t.Selector) > 0 {
		return api.SelectorText(t.Selector)
	}
	return t.Host.Name
}

// CheckSelector refuses what cannot be labels of hosts.
func CheckSelector(selector map[string]string) error {
	if len(selector) == 0 || len(selector) > maxSelector {
		return ErrBadSelector
	}
	for label, value := range selector {
		if len(validation.IsQualifiedName(label)) > 0 {
			return ErrBadSelector.With("%q is not the name of a label", label)
		}
		if len(validation.IsValidLabelValue(value)) > 0 {
			return ErrBadSelector.With("%q is not the value of a label", value)
		}
	}
	return nil
}
