package pages

import (
	"net/url"
	"strings"
	"time"

	"sallyport/approvals"
)

// startForm is when a request is to start, as the form has it: a day and a time on
// the clock of a zone. Without the script the zone is UTC, unless the person
// writes another; the script writes theirs.
type startForm struct {
	Date, Time string // 2006-01-02 and 15:04, or both empty: at the approval
	Zone       string // name in the IANA database
}

const (
	dateLayout = "2006-01-02"
	timeLayout = "15:04"
)

// startFrom reads the fields, as posted, or as prefilled by not_before in an address.
func startFrom(form url.Values) startForm {
	field := func(name string) string { return strings.TrimSpace(form.Get(name)) }
	s := startForm{Date: field("start_date"), Time: field("start_time"), Zone: field("zone")}
	if at, err := time.Parse(time.RFC3339, field("not_before")); err == nil && s.Date == "" {
		at = at.UTC()
		s = startForm{Date: at.Format(dateLayout), Time: at.Format(timeLayout)}
	}
	if s.Zone == "" {
		s.Zone = "UTC"
	}
	return s
}

// at is the start, or nil for one at the approval.
func (s startForm) at() (*time.Time, error) {
	if s.Date == "" && s.Time == "" {
		return nil, nil
	}
	if s.Date == "" || s.Time == "" {
		return nil, approvals.ErrBadStart.With("a start needs a day and a time").Hinting("fill in both, or neither to start when it is approved")
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		return nil, approvals.ErrBadStart.With("there is no such time zone").Hinting("write it like Europe/Berlin, or UTC")
	}
	at, err := time.ParseInLocation(dateLayout+" "+timeLayout, s.Date+" "+s.Time, zone)
	if err != nil {
		return nil, approvals.ErrBadStart.With("that is not a day and a time").Hinting("write them like 2026-01-31 and 22:00")
	}
	at = at.UTC()
	return &at, nil
}
