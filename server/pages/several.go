package pages

import (
	"strings"

	"sallyport/api"
	"sallyport/approvals"
)

// severalHosts is the target of the form that stands for its fields login and
// selector.
const severalHosts = "several"

// several reads the form's fields for several hosts.
func (a askPage) several() (map[string]string, error) {
	selector, err := api.ParseSelector(a.Selector)
	if err != nil {
		return nil, approvals.ErrBadSelector.With("%v", err)
	}
	return selector, nil
}

// Several reports whether the form is for several hosts.
func (a askPage) Several() bool { return a.Target == severalHosts }

// Others is how many hosts there are besides the first.
func (p previewView) Others() int { return max(0, len(p.Hosts)-1) }

// Several reports whether the request is for several hosts.
func (v requestView) Several() bool { return v.Others() > 0 }

// SelectorText is what the hosts were asked for by, if by labels.
func (v requestView) SelectorText() string { return api.SelectorText(v.Selector) }

// OtherNames are the names of the hosts after the first.
func (v requestView) OtherNames() string {
	var names []string
	for _, h := range v.Hosts[min(1, len(v.Hosts)):] {
		names = append(names, h.Name)
	}
	return strings.Join(names, ", ")
}

// HostOf is the name of the host that a certificate of the request is for.
func (v requestView) HostOf(c api.CertificateInfo) string {
	_, id, _ := strings.Cut(c.Principal, "@")
	for _, h := range v.Hosts {
		if h.ID == id {
			return h.Name
		}
	}
	return id
}

// hostCommand is what the requester types to log in to one of several hosts.
type hostCommand struct {
	api.RequestHost
	Command string
}

// Commands are what the requester types next, host by host.
func (v requestView) Commands() []hostCommand {
	var out []hostCommand
	for _, h := range v.Hosts {
		out = append(out, hostCommand{h, "sally ssh " + v.Login + "@" + h.Name})
	}
	return out
}
