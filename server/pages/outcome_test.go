package pages

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
)

// Outcome is that of the certificates' own entries in the lists of requests.
func (h rooms) Outcome(_ context.Context, intent audit.Entry) (*api.Outcome, error) {
	e, err := intent.Event()
	if err != nil {
		return nil, err
	}
	data, ok := e.Data.(event.CertificateIssued)
	if !ok {
		return nil, nil
	}
	for _, r := range h.asked {
		for _, c := range r.Certificates {
			if c.Serial == data.Serial && c.Result == api.Signed {
				return &api.Outcome{Result: c.Result, Index: 77}, nil
			}
		}
	}
	return &api.Outcome{Result: api.NoResult, Index: -1}, nil
}

// Whether a certificate was signed is on its request's page and on the page of the
// event that it was meant to be.
func TestPagesSayWhatCameOfACertificate(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	r := h.first(api.Active, "engineer")
	page := v.get("engineer", "/requests/"+r.ID).Body.String()
	if !strings.Contains(page, "<td>signed</td>") || !strings.Contains(page, "<td>none in the log</td>") {
		t.Error("the request's page does not say what came of its certificates")
	}
	var seen []string
	for i := range 200 {
		w := v.get("auditor", fmt.Sprintf("/log/events/%d", i))
		body := w.Body.String()
		if w.Code != 200 {
			break
		}
		if !strings.Contains(body, "certificate.issued") {
			if strings.Contains(body, "<dt>Result</dt>") {
				t.Errorf("event %d has a result", i)
			}
			continue
		}
		switch {
		case strings.Contains(body, "<dt>Result</dt><dd>signed<span class=\"fine\"><a href=\"/log/events/77\">event 77</a>"):
			seen = append(seen, "signed")
		case strings.Contains(body, "<dt>Result</dt><dd>none in the log: the broker stopped before it could tell"):
			seen = append(seen, "none")
		}
	}
	if len(seen) != 2 || seen[0] == seen[1] {
		t.Errorf("the events' pages say %v", seen)
	}
}
