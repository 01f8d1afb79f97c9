package cli

import (
	"net/url"
	"time"

	"sallyport/api"
)

// link prints an address that opens the page for a request, filled in. It survives
// the sign-in, and asks for nothing by itself: whoever opens it sends it.
func (s *sally) link(where place, a ask) error {
	broker, err := s.broker()
	if err != nil {
		return err
	}
	in, err := a.input(where)
	if err != nil {
		return err
	}
	address := broker + "/requests/new?" + prefilled(in).Encode()
	if s.output == "json" {
		return s.json(map[string]string{"url": address})
	}
	s.out.Line("%s", address)
	return nil
}

// prefilled are the fields of the page for a request.
func prefilled(in api.RequestInput) url.Values {
	q := url.Values{"login": {in.Login}}
	if in.Host != "" {
		q.Set("host", in.Host)
	} else {
		q.Set("selector", api.SelectorText(in.Selector))
	}
	for name, value := range map[string]string{"duration": in.Duration, "reason": in.Reason, "ticket": in.Ticket} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if in.NotBefore != nil {
		q.Set("not_before", in.NotBefore.UTC().Format(time.RFC3339))
	}
	return q
}
