package broker

import (
	"context"
	"slices"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker/hosts"
)

// PersonReach lists the hosts that a person can ask for, with their logins:
// oneself ("me"), or for operators and auditors anybody, by id or address.
func (b *Broker) PersonReach(ctx context.Context, c identity.Caller, idOrEmail string, f hosts.Filter) (api.PersonReach, error) {
	reach, err := b.cfg.Approvals.PersonReach(ctx, c, idOrEmail)
	if err != nil {
		return api.PersonReach{}, err
	}
	out := api.PersonReach{Person: reach.Person, Policy: reach.Policy, Hosts: api.Page[api.ReachHost]{Items: []api.ReachHost{}}}
	var found []api.ReachHost
	page, err := b.cfg.Hosts.List(ctx, f, func(list []api.Host) ([]api.Host, error) {
		return slices.DeleteFunc(list, func(h api.Host) bool {
			if reach.Empty {
				return true
			}
			can := reach.Host(approvals.Target{ID: h.ID, Name: h.Name, Labels: h.Labels, Logins: h.Logins})
			if len(can.Logins) > 0 {
				found = append(found, can)
			}
			return len(can.Logins) == 0
		}), nil
	})
	if err != nil {
		return api.PersonReach{}, err
	}
	// The list looks further, to know whether there is a next page.
	out.Hosts.Items, out.Hosts.Next = append(out.Hosts.Items, found[:len(page.Items)]...), page.Next
	return out, nil
}
