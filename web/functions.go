package web

import (
	"fmt"
	"html/template"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// functions are what templates can call. Those that return template.HTML escape
// whatever they are given.
var functions = template.FuncMap{
	"asset":    func(name string) string { return assets[name].url },
	"icon":     icon,
	"moment":   moment,
	"exact":    exact,
	"ago":      ago,
	"duration": duration,
	"count":    count,
	"badge":    badge,
	"initials": initials,
	"either":   either,
	"all":      all,
	"short":    short,
	"seconds":  seconds,
	"sentence": sentence,
	"args":     args,
	"within":   within,
	"others":   others,
	"state":    state,
	"word":     word,
}

// others is how many hosts a thing is about besides the one it names, if it says so.
func others(of any) int {
	if several, ok := of.(interface{ Others() int }); ok {
		return several.Others()
	}
	return 0
}

// icons by name, from the folder icons: 16 by 16, drawn with lines of the
// current colour.
var icons = loadIcons()

func loadIcons() map[string]template.HTML {
	all := map[string]template.HTML{}
	entries, err := files.ReadDir("icons")
	if err != nil {
		panic("web: " + err.Error()) // embedded: cannot happen after the build
	}
	for _, e := range entries {
		body, err := files.ReadFile("icons/" + e.Name())
		if err != nil {
			panic("web: " + err.Error())
		}
		all[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))] = template.HTML(strings.TrimSpace(string(body)))
	}
	return all
}

// icon draws one icon. It is decoration: a word stands beside each.
func icon(name string) (template.HTML, error) {
	svg, ok := icons[name]
	if !ok {
		return "", fmt.Errorf("there is no icon %q", name)
	}
	return svg, nil
}

// states are the words and icons of what a request, a host or a deployment can be. Each
// differs by word and shape, not by colour alone.
var states = map[string]struct{ word, icon string }{
	"requested": {"Waiting", "clock"},
	"approved":  {"Approved", "check"},
	"active":    {"Active", "active"},
	"ended":     {"Ended", "ended"},
	"denied":    {"Denied", "denied"},
	"cancelled": {"Cancelled", "cancelled"},
	"expired":   {"Expired", "expired"},
	"removed":   {"Removed", "signout"},
	"planned":   {"Planned", "arrow"},
	"running":   {"Running", "delegate"},
	"over":      {"Over", "over"},
	"sealed":    {"Sealed", "sealed"},
	"open":      {"Open", "open"},

	"drifted":     {"Drifted", "warning"},
	"silent":      {"Silent", "bell"},
	"unknown":     {"Unknown", "info"},
	"quarantined": {"Quarantined", "key"},

	"awaiting_approval": {"Awaiting approval", "people"},
	"held":              {"Held", "pause"},
	"verifying":         {"Verifying", "search"},
	"complete":          {"Complete", "flag"},
	"aborted":           {"Aborted", "stop"},
	"rolling_back":      {"Rolling back", "back"},
	"rolled_back":       {"Rolled back", "undo"},
	"rollback_failed":   {"Rollback failed", "broken"},
	"pending":           {"Pending", "dots"},
	"closing":           {"Closing", "inward"},
	"sealing":           {"Sealing", "shield"},
	"soaking":           {"Soaking", "drop"},
	"gating":            {"At its gates", "gate"},
	"passed":            {"Passed", "checks"},
	"failed":            {"Failed", "cross"},
	"inconclusive":      {"Inconclusive", "question"},
	"deployed":          {"Deployed", "deploy"},
}

// word is that of a state.
func word(of any) string {
	if s, ok := states[fmt.Sprint(of)]; ok {
		return s.word
	}
	return fmt.Sprint(of)
}

// state is its word with its icon.
func state(of any) template.HTML {
	s, ok := states[fmt.Sprint(of)]
	if !ok {
		return template.HTML(template.HTMLEscapeString(fmt.Sprint(of)))
	}
	return icons[s.icon] + template.HTML(`<span>`+s.word+`</span>`)
}

// badge shows a state. One that this version does not know is shown as it is.
func badge(state any) template.HTML {
	name := fmt.Sprint(state)
	s, ok := states[name]
	if !ok {
		return template.HTML(`<span class="badge">` + template.HTMLEscapeString(name) + `</span>`)
	}
	return template.HTML(`<span class="badge badge-`+name+`">`) + icons[s.icon] + template.HTML(s.word+`</span>`)
}

// instant accepts a time or a pointer to one; nil and zero give false.
func instant(t any) (time.Time, bool) {
	switch t := t.(type) {
	case time.Time:
		return t.UTC(), !t.IsZero()
	case *time.Time:
		if t != nil {
			return t.UTC(), !t.IsZero()
		}
	}
	return time.Time{}, false
}

// moment is an absolute time to the minute, and exact one to the second: in UTC
// as rendered, in the reader's own zone once the script has seen it.
func moment(t any) template.HTML { return absolute(t, "moment", "2 Jan 2006, 15:04") }

// exact is described at moment.
func exact(t any) template.HTML { return absolute(t, "exact", "2 Jan 2006, 15:04:05") }

func absolute(t any, show, layout string) template.HTML {
	at, ok := instant(t)
	if !ok {
		return "—"
	}
	return template.HTML(`<time datetime="` + at.Format(time.RFC3339) + `" data-show="` + show + `">` + at.Format(layout) + ` UTC</time>`)
}

// ago is a time as seen from now, with the absolute time as its title.
func ago(t any, now time.Time) template.HTML {
	at, ok := instant(t)
	if !ok {
		return "—"
	}
	return template.HTML(`<time datetime="` + at.Format(time.RFC3339) + `" data-show="ago" title="` +
		at.Format("2 Jan 2006, 15:04:05") + ` UTC">` + relative(at, now) + `</time>`)
}

// relative says how far t is from now, in words. The script says the same.
func relative(t, now time.Time) string {
	if now.IsZero() {
		return t.Format("2 Jan 2006, 15:04") + " UTC"
	}
	d := t.Sub(now)
	var far string
	switch abs := d.Abs(); {
	case abs < 45*time.Second:
		if d > 0 {
			return "in a moment"
		}
		return "just now"
	case abs < 90*time.Minute:
		far = count(max(1, int(abs.Round(time.Minute).Minutes())), "minute")
	case abs < 36*time.Hour:
		far = count(int(abs.Round(time.Hour).Hours()), "hour")
	default:
		far = count(int(abs.Round(24*time.Hour).Hours()/24), "day")
	}
	if d > 0 {
		return "in " + far
	}
	return far + " ago"
}

// duration is a Go duration, or the text of one, in words. What is none is
// shown as it is.
func duration(d any) string {
	var v time.Duration
	switch d := d.(type) {
	case time.Duration:
		v = d
	case string:
		var err error
		if v, err = time.ParseDuration(d); err != nil {
			return d
		}
	}
	var parts []string
	for _, u := range []struct {
		unit time.Duration
		word string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(v / u.unit); n > 0 {
			parts = append(parts, count(n, u.word))
			v -= time.Duration(n) * u.unit
		}
	}
	if len(parts) == 0 {
		return "0 seconds"
	}
	return strings.Join(parts, " ")
}

// seconds of a Go duration's text, for the script; 0 if it is none.
func seconds(d string) int {
	v, _ := time.ParseDuration(d)
	return int(v.Seconds())
}

// count is a number with its noun: 1 approval, 2 approvals.
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "person"):
		return fmt.Sprint(n, " ", strings.TrimSuffix(noun, "person"), "people")
	case strings.HasSuffix(noun, "ch"):
		return fmt.Sprint(n, " ", noun, "es")
	}
	return fmt.Sprint(n, " ", noun, "s")
}

// initials of a name, at most two.
func initials(name string) string {
	var out []rune
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		out = append(out, unicode.ToUpper([]rune(word)[0]))
	}
	switch len(out) {
	case 0:
		return "?"
	case 1:
		return string(out)
	}
	return string([]rune{out[0], out[len(out)-1]})
}

// either joins names: a, b or c.
func either(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// all joins names: a, b and c.
func all(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// short is the beginning of a hash, enough to tell two apart by eye.
func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12] + "…"
	}
	return hash
}

// sentence makes one of a refusal's detail or hint, which programs get in lower
// case and without a full stop.
func sentence(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return ""
	}
	s = string(unicode.ToUpper(first)) + s[size:]
	if !strings.ContainsAny(s[len(s)-1:], ".!?:") {
		s += "."
	}
	return s
}

// args makes several values one, for a part that needs more than one.
func args(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("args needs names and values in turn")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m, nil
}

// within reports whether the page is the section's or below it, for the
// navigation.
func within(page, section string) bool {
	return page == section || section != "/" && strings.HasPrefix(page, section+"/")
}
