package grant

import (
	"fmt"
	"strings"
	"time"
)

// Times are the lengths of time in terms.
type Times struct{ Duration, StartWithin, Certificate, MaxAge time.Duration }

func (t Terms) Times() (Times, error) {
	var out Times
	var err error
	if out.Duration, err = time.ParseDuration(t.Duration); err != nil || out.Duration <= 0 {
		return out, fmt.Errorf("duration %q is not a positive time", t.Duration)
	}
	if out.Certificate, err = time.ParseDuration(t.Rule.CertificateLifetime); err != nil || out.Certificate <= 0 {
		return out, fmt.Errorf("certificate lifetime %q is not a positive time", t.Rule.CertificateLifetime)
	}
	if t.Rule.MaxAge != "" {
		if out.MaxAge, err = time.ParseDuration(t.Rule.MaxAge); err != nil || out.MaxAge <= 0 {
			return out, fmt.Errorf("max age %q is not a positive time", t.Rule.MaxAge)
		}
	}
	if t.Rule.StartWithin == "" {
		return out, nil
	}
	if out.StartWithin, err = time.ParseDuration(t.Rule.StartWithin); err != nil || out.StartWithin <= 0 {
		return out, fmt.Errorf("start within %q is not a positive time", t.Rule.StartWithin)
	}
	return out, nil
}

// Window is the life of a grant.
type Window struct {
	Start, End time.Time
	UseBy      time.Time // without a first use it ends here; zero: at end
}

// Window is the grant's life if its approval was complete at the time: its clock
// starts then, or at NotBefore if that is later (P3).
func (t Terms) Window(approved time.Time) (Window, error) {
	d, err := t.Times()
	if err != nil {
		return Window{}, err
	}
	w := Window{Start: approved}
	if t.NotBefore != nil && t.NotBefore.After(approved) {
		w.Start = *t.NotBefore
	}
	w.End = w.Start.Add(d.Duration)
	if d.StartWithin > 0 && d.StartWithin < d.Duration {
		w.UseBy = w.Start.Add(d.StartWithin)
	}
	return w, nil
}

// Short writes a duration as people do: 30m, not 30m0s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
