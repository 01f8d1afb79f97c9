package pages

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/internal/ids"
	"sallyport/web"
)

// logPage is the log, newest first.
type logPage struct {
	Filter      logFilter
	Items       []api.Event
	First, Next string
	Newer       string
	Since       *time.Time // of the last event that was looked at, if the search stopped early
	Upward      bool       // from an older event on

	Pruned *api.Pruned // where older events are, if there were any

	Timeline         *timeline // instead of the table, if the log is about one thing
	Table            bool      // a table is wanted all the same
	AsStory, AsTable string    // addresses of the two
}

// logFilter is the filter as the person wrote it.
type logFilter struct {
	Type, Request, Person, Host string
	From, To                    string // UTC
	Text                        string
	Zone                        string // whose clock tells a timeline's days
}

// subject is what the log is about, if it is one thing: request, host or person.
func (f logFilter) subject() string {
	switch {
	case f.Request != "":
		return "request"
	case f.Host != "":
		return "host"
	case f.Person != "":
		return "person"
	}
	return ""
}

// Narrowed reports whether more is filtered than what a timeline is about.
func (f logFilter) Narrowed() bool {
	switch f.subject() {
	case "request":
		f.Request = ""
	case "host":
		f.Host = ""
	case "person":
		f.Person = ""
	}
	return f.Any()
}

// Any reports whether anything is filtered.
func (f logFilter) Any() bool {
	f.Zone = ""
	return f != logFilter{}
}

// Kinds are the choices of the filter by type: prefixes of the catalogue's types.
func (f logFilter) Kinds() [][2]string {
	kinds := [][2]string{
		{"", "Everything"}, {"person.", "Sign-ins"}, {"request.", "Requests and decisions"}, {"grant.", "Grants"},
		{"delegation.", "Delegations"},
		{"certificate.", "Certificates"}, {"host.", "Hosts"}, {"deployment.", "Deployments"}, {"policy.", "Policy"}, {"token.", "Tokens"},
		{"access.", "Refused access"}, {"disclosed.", "What was read"}, {"broker.", "Broker"},
	}
	if !slices.ContainsFunc(kinds, func(k [2]string) bool { return k[0] == f.Type }) {
		kinds = append(kinds, [2]string{f.Type, f.Type}) // one exact type, from a link
	}
	return kinds
}

// pageSize is how many events one page of the log has.
const pageSize = 50

func (p *Pages) log(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	field := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	page := logPage{Filter: logFilter{
		Type: field("type"), Request: field("request"), Person: field("person"), Host: field("host"),
		From: field("from"), To: field("to"), Text: field("text"), Zone: field("zone"),
	}, Table: q.Get("view") == "table"}
	if ids.Valid(ids.Request, page.Filter.Text) { // pasted where one looks for anything
		page.Filter.Request, page.Filter.Text = page.Filter.Text, ""
	}
	f := audit.Filter{Type: page.Filter.Type, RequestID: page.Filter.Request, PersonID: page.Filter.Person,
		HostID: page.Filter.Host, Text: page.Filter.Text, Limit: pageSize}
	var err error
	if f.From, err = filterTime(page.Filter.From); err != nil {
		return err
	}
	if f.To, err = filterTime(page.Filter.To); err != nil {
		return err
	}
	for name, cursor := range map[string]*int64{"before": &f.Before, "after": &f.After} {
		if at := q.Get(name); at != "" {
			if *cursor, err = strconv.ParseInt(at, 10, 64); err != nil || *cursor < 1 {
				return audit.ErrFilter
			}
		}
	}
	if f.HostID != "" {
		// People know hosts by name. The log keeps the ids of hosts that are gone.
		if h, err := p.cfg.Broker.Host(r.Context(), c, f.HostID); err == nil {
			f.HostID = h.ID
		}
	}
	found, err := p.cfg.Log.Search(r.Context(), f)
	if err != nil {
		return err
	}
	if err := p.cfg.Approvals.DiscloseSearch(r.Context(), c, f); err != nil {
		return err
	}
	for _, entry := range found.Entries {
		page.Items = append(page.Items, entry.API(false))
	}
	if page.Upward = f.After > 0; !found.Thorough {
		stopped := found.Next
		if page.Upward {
			stopped = found.Newer
		}
		last, err := p.cfg.Log.Entry(r.Context(), stopped)
		if err != nil {
			return err
		}
		page.Since = &last.Time
	}
	page.Pruned = found.Pruned.API()
	page.First, page.Next, page.Newer = around(r.URL, found)
	if page.Timeline, err = p.timeline(r, c, page, f); err != nil {
		return err
	}
	page.AsStory, page.AsTable = withView(r.URL, ""), withView(r.URL, "table")
	web.Render(w, r, http.StatusOK, "log", page)
	return nil
}

// around gives the addresses of the first page, the next and the newer one; those
// that are not there are empty.
func around(u *url.URL, found audit.Found) (first, next, newer string) {
	at := func(key string, cursor int64) string {
		q := u.Query()
		q.Del("before")
		q.Del("after")
		if key != "" {
			q.Set(key, strconv.FormatInt(cursor, 10))
		}
		return u.Path + "?" + q.Encode()
	}
	if found.Next > 0 {
		next = at("before", found.Next)
	}
	if found.Newer > 0 {
		first, newer = at("", 0), at("after", found.Newer)
	}
	return first, next, newer
}

// withView is the address of the same events in another view.
func withView(u *url.URL, view string) string {
	q := u.Query()
	if q.Del("view"); view != "" {
		q.Set("view", view)
	}
	return u.Path + "?" + q.Encode()
}

// filterTime reads a time as a browser's datetime field writes it, in UTC, or as
// RFC 3339.
func filterTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, audit.ErrFilter.With("%q is not a time", text)
}

// eventPage is one event with its proof.
type eventPage struct {
	api.Event
	Fields      []field // of the event's own data
	Leaf        string  // the exact bytes
	Receipt     string
	VerifierKey string
	Prev, Next  int64        // neighbours in the log; -1 if there is none
	Outcome     *api.Outcome // of the intent to sign a certificate, if it is one
}

// field is one field of an event's own data.
type field struct{ Name, Value string }

func (p *Pages) event(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	entry, err := p.entry(r, c)
	if err != nil {
		return err
	}
	e := entry.API(false)
	receipt, err := p.cfg.Log.Receipt(r.Context(), entry.Index)
	if err != nil {
		return err
	}
	page := eventPage{Event: e, Fields: fieldsOf(e.Data), Leaf: string(entry.Leaf), Receipt: string(receipt),
		VerifierKey: p.cfg.Log.VerifierKey(), Prev: entry.Index - 1, Next: -1}
	if page.Outcome, err = p.cfg.Broker.Outcome(r.Context(), entry); err != nil {
		return err
	}
	if _, err := p.cfg.Log.Entry(r.Context(), entry.Index+1); err == nil {
		page.Next = entry.Index + 1
	}
	web.Render(w, r, http.StatusOK, "event", page)
	return nil
}

// leaf is the event's exact bytes.
func (p *Pages) leaf(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	entry, err := p.entry(r, c)
	if err != nil {
		return err
	}
	download(w, "application/json", fmt.Sprintf("event-%d.json", entry.Index), entry.Leaf)
	return nil
}

// receipt is the event's c2sp.org/tlog-proof. It is hashes: nobody reads anything by it.
func (p *Pages) receipt(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	index, err := eventIndex(r)
	if err != nil {
		return err
	}
	receipt, err := p.cfg.Log.Receipt(r.Context(), index)
	if err != nil {
		return err
	}
	download(w, "text/plain; charset=utf-8", fmt.Sprintf("event-%d.tlog-proof", index), receipt)
	return nil
}

// entry is the entry that the address names, once it is recorded that the caller
// reads it.
func (p *Pages) entry(r *http.Request, c identity.Caller) (audit.Entry, error) {
	index, err := eventIndex(r)
	if err != nil {
		return audit.Entry{}, err
	}
	entry, err := p.cfg.Log.Entry(r.Context(), index)
	if err != nil {
		return audit.Entry{}, err
	}
	return entry, p.cfg.Approvals.DiscloseEntry(r.Context(), c, entry)
}

func eventIndex(r *http.Request) (int64, error) {
	index, err := strconv.ParseInt(chi.URLParam(r, "index"), 10, 64)
	if err != nil || index < 0 {
		return 0, audit.ErrNoEntry
	}
	return index, nil
}

func download(w http.ResponseWriter, contentType, name string, body []byte) {
	web.Secure(w.Header())
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Write(body)
}

// fieldsOf lists an event's own fields by name, texts as they are and all else
// as JSON.
func fieldsOf(data map[string]any) []field {
	var fields []field
	for name, value := range data {
		text, ok := value.(string)
		if !ok {
			b, err := json.Marshal(value)
			if err != nil {
				b = fmt.Append(nil, value)
			}
			text = string(b)
		}
		fields = append(fields, field{name, text})
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}
