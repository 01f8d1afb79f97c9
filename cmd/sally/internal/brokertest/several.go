package brokertest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sallyport/api"
)

// selected are the hosts that are asked for.
func selected(in api.RequestInput) (out []api.Host) {
	for _, h := range hosts {
		fits := in.Host == h.Name || in.Host == h.ID
		if in.Host == "" {
			fits = h.Rules[0].Login == in.Login
			for label, value := range in.Selector {
				fits = fits && h.Labels[label] == value
			}
		}
		if fits {
			out = append(out, h)
		}
	}
	return out
}

func requestHosts(list []api.Host) (out []api.RequestHost) {
	for _, h := range list {
		out = append(out, api.RequestHost{ID: h.ID, Name: h.Name})
	}
	return out
}

// wanted is the host of the request that a certificate is asked for.
func wanted(w http.ResponseWriter, q *api.Request, nameOrID string) *api.Host {
	if nameOrID == "" && len(q.Hosts) < 2 {
		return host(q.HostID)
	}
	for _, h := range q.Hosts {
		if h.ID == nameOrID {
			return host(h.ID)
		}
	}
	refuse(w, 403, "other-host", fmt.Sprintf("the grant is not for %q", nameOrID), "")
	return nil
}

// listHosts narrows the list as far as tests need it: label=value,….
func listHosts(r *http.Request) api.Page[api.Host] {
	page := api.Page[api.Host]{Items: []api.Host{}}
	states := r.FormValue("state")
	for _, h := range hosts {
		fits := states == "" || slices.Contains(strings.Split(states, ","), string(h.State))
		for part := range strings.SplitSeq(r.FormValue("selector"), ",") {
			label, value, ok := strings.Cut(part, "=")
			fits = fits && (!ok || h.Labels[label] == value)
		}
		if fits {
			page.Items = append(page.Items, h)
		}
	}
	return page
}
