package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/broker/hosts"
)

// target is the host of the terms that is wanted, as it was seen last. What is wrong
// with one of several says nothing of the others.
func (b *Broker) target(ctx context.Context, t approvals.Terms, wanted string) (hosts.Seen, error) {
	of, err := pick(t, wanted)
	if err != nil {
		return hosts.Seen{}, err
	}
	host, err := b.cfg.Hosts.Seen(ctx, of.ID)
	if err == nil && (host.Quarantine != nil || !slices.Contains(host.Logins, t.Login)) { // not as it was seen last, perhaps
		b.cfg.Hosts.Forget(of.ID)
		host, err = b.cfg.Hosts.Seen(ctx, of.ID)
	}
	if errors.Is(err, approvals.ErrUnknownHost) || err == nil && host.ID != of.ID {
		return hosts.Seen{}, ErrHostGone
	}
	if err != nil {
		return hosts.Seen{}, err
	}
	if !slices.Contains(host.Logins, t.Login) {
		return hosts.Seen{}, ErrLoginGone
	}
	if host.Quarantine != nil {
		return hosts.Seen{}, hosts.ErrQuarantined
	}
	return host, nil
}

// pick finds the host in the terms, by its id or by the name that it had when it
// was asked for: that is what was approved, whatever is called like that since.
// Where there is but one, nothing need be wanted.
func pick(t approvals.Terms, wanted string) (approvals.TermsHost, error) {
	hosts := t.Hosts()
	names := make([]string, len(hosts))
	for i, h := range hosts {
		if wanted == h.ID || wanted == h.Name || wanted == "" && len(hosts) == 1 {
			return h, nil
		}
		names[i] = h.Name
	}
	if wanted == "" {
		return approvals.TermsHost{}, ErrWhichHost.Hinting("say for which: %s", strings.Join(names, ", "))
	}
	return approvals.TermsHost{}, ErrOtherHost.Hinting("it is for: %s", strings.Join(names, ", "))
}

// cannotConnect says why a grant that is good yields no certificate, if so, and
// sets at each of its hosts why there is none for that.
func (b *Broker) cannotConnect(ctx context.Context, r api.Request) (string, error) {
	keys := make([]string, len(r.Hosts))
	for i, h := range r.Hosts {
		keys[i] = h.ID
	}
	logins, err := b.cfg.Hosts.Logins(ctx, keys)
	if err != nil {
		return "", err
	}
	gone := 0
	for i, h := range r.Hosts {
		if has, ok := logins[h.ID]; !ok {
			r.Hosts[i].Why = ErrHostGone.Detail
		} else if !slices.Contains(has, r.Login) {
			r.Hosts[i].Why = ErrLoginGone.Detail
		} else {
			continue
		}
		gone++
	}
	switch {
	case gone > 0 && gone == len(r.Hosts):
		return r.Hosts[0].Why, nil
	case len(r.Certificates) >= MaxCertificates:
		return ErrTooMany.Detail, nil
	}
	return "", nil
}

// countCertificates says of each host how many there are for it.
func countCertificates(r api.Request) {
	for i, h := range r.Hosts {
		principal := fmt.Sprintf("%s@%s", r.Login, h.ID)
		for _, c := range r.Certificates {
			if c.Principal == principal {
				r.Hosts[i].Certificates++
			}
		}
	}
}
