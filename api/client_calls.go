package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// v1 is a call below /api/v1.
func v1(method string, path ...string) call {
	return call{method: method, path: append([]string{"api", "v1"}, path...)}
}

func (w call) with(in any) call { w.in = in; return w }

func (w call) where(query url.Values) call { w.query = query; return w }

// fetch makes a call whose answer is JSON of a T.
func fetch[T any](ctx context.Context, c *Client, what call) (T, error) {
	var out T
	err := c.do(ctx, what, &out)
	return out, err
}

// Me is who the caller is, with their grants.
func (c *Client) Me(ctx context.Context) (Me, error) {
	return fetch[Me](ctx, c, v1(http.MethodGet, "me"))
}

// HostFilter narrows Hosts. Zero fields do not filter.
type HostFilter struct {
	Selector string // Kubernetes label-selector syntax
	Search   string // part of the name
	States   []HostState
	Cursor   string
	Limit    int
}

// Hosts lists hosts that the caller may see, by name.
func (c *Client) Hosts(ctx context.Context, f HostFilter) (Page[Host], error) {
	return fetch[Page[Host]](ctx, c, v1(http.MethodGet, "hosts").where(query(
		"selector", f.Selector, "search", f.Search, "state", joined(f.States), "cursor", f.Cursor, "limit", number(f.Limit))))
}

// Host is one host, by name or id, with the rules that would apply to the caller.
func (c *Client) Host(ctx context.Context, name string) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodGet, "hosts", name))
}

// AddHost registers a host. Operators only, as are the next three.
func (c *Client) AddHost(ctx context.Context, in HostInput) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodPost, "hosts").with(in))
}

// ChangeHost replaces a host's description.
func (c *Client) ChangeHost(ctx context.Context, name string, in HostInput) (Host, error) {
	return fetch[Host](ctx, c, v1(http.MethodPut, "hosts", name).with(in))
}

// RemoveHost takes a host out of the registry.
func (c *Client) RemoveHost(ctx context.Context, name string) error {
	return c.do(ctx, v1(http.MethodDelete, "hosts", name), nil)
}

// CertifyHost issues the certificate that the host shows to ssh clients.
func (c *Client) CertifyHost(ctx context.Context, name string) (HostCertificate, error) {
	return fetch[HostCertificate](ctx, c, v1(http.MethodPost, "hosts", name, "certificate"))
}

// Preview says what would happen to the request and who could approve it.
func (c *Client) Preview(ctx context.Context, in RequestInput) (Preview, error) {
	return fetch[Preview](ctx, c, v1(http.MethodPost, "requests").with(in).where(query("dry_run", "true")))
}

// Ask makes a request.
func (c *Client) Ask(ctx context.Context, in RequestInput) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests").with(in))
}

// Request is one request with all that became of it.
func (c *Client) Request(ctx context.Context, id string) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodGet, "requests", id))
}

// MaxWait is the longest that the broker lets a call of Wait hang.
const MaxWait = 60 * time.Second

// Wait returns the request as soon as its state is another than the given one,
// or as it is after the time, which is at most MaxWait.
func (c *Client) Wait(ctx context.Context, id string, state State, wait time.Duration) (Request, error) {
	what := v1(http.MethodGet, "requests", id).where(query("wait", wait.String(), "state", string(state)))
	what.longer = wait
	return fetch[Request](ctx, c, what)
}

// WaitDecided is Wait that also returns when the request has another number of
// decisions than known.
func (c *Client) WaitDecided(ctx context.Context, id string, state State, known int, wait time.Duration) (Request, error) {
	what := v1(http.MethodGet, "requests", id).where(query("wait", wait.String(), "state", string(state),
		"decisions", strconv.Itoa(known)))
	what.longer = wait
	return fetch[Request](ctx, c, what)
}

// RequestFilter narrows Requests. Zero fields do not filter.
type RequestFilter struct {
	Scope  string // "mine", "waiting" (for the caller's decision), "reviews" (for the caller's review)
	States []State
	Host   string // name or id
	Cursor string
	Limit  int

	Emergency bool   // emergencies only
	Review    string // emergencies that nobody has reviewed: "waiting" or "overdue"
}

// Requests lists requests that the caller may see, newest first.
func (c *Client) Requests(ctx context.Context, f RequestFilter) (Page[Request], error) {
	return fetch[Page[Request]](ctx, c, v1(http.MethodGet, "requests").where(query(
		"scope", f.Scope, "state", joined(f.States), "host", f.Host,
		"cursor", f.Cursor, "limit", number(f.Limit), "emergency", yes(f.Emergency), "review", f.Review)))
}

// Review signs off an emergency.
func (c *Client) Review(ctx context.Context, id string, in ReviewInput) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests", id, "review").with(in))
}

// Decide approves or denies a request.
func (c *Client) Decide(ctx context.Context, id string, in DecisionInput) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests", id, "decisions").with(in))
}

// Cancel withdraws the caller's own undecided request.
func (c *Client) Cancel(ctx context.Context, id string) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests", id, "cancel"))
}

// Finish ends the caller's own grant early.
func (c *Client) Finish(ctx context.Context, id string) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests", id, "finish"))
}

// Certify issues a certificate under the caller's grant.
func (c *Client) Certify(ctx context.Context, id string, in CertificateInput) (Certificate, error) {
	return fetch[Certificate](ctx, c, v1(http.MethodPost, "requests", id, "certificates").with(in))
}

// EventFilter narrows Events. Zero fields do not filter.
type EventFilter struct {
	Type    string
	Request string // id
	Person  string // id
	Host    string // id
	From    time.Time
	To      time.Time
	Text    string // words, the last of which may go on
	Before  string // cursor: next of a page
	After   string // cursor: previous of a page; not with Before
	Limit   int
}

// Events lists the log, newest first; a page may be short and still have a next.
// Auditors only, as are the next two.
func (c *Client) Events(ctx context.Context, f EventFilter) (EventPage, error) {
	return fetch[EventPage](ctx, c, v1(http.MethodGet, "audit", "events").where(query(
		"type", f.Type, "request", f.Request, "person", f.Person, "host", f.Host,
		"from", moment(f.From), "to", moment(f.To), "text", f.Text, "before", f.Before, "after", f.After, "limit", number(f.Limit))))
}

// Event is one event with its leaf.
func (c *Client) Event(ctx context.Context, index int64) (Event, error) {
	return fetch[Event](ctx, c, v1(http.MethodGet, "audit", "events", strconv.FormatInt(index, 10)))
}

// Receipt is the proof that an event is in the log (c2sp.org/tlog-proof).
func (c *Client) Receipt(ctx context.Context, index int64) ([]byte, error) {
	return c.text(ctx, v1(http.MethodGet, "audit", "events", strconv.FormatInt(index, 10), "receipt"))
}

// Checkpoint is the log's newest signed tree head. Public, as are the next two.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	return c.text(ctx, call{method: http.MethodGet, path: []string{"log", "checkpoint"}})
}

// LogKey is the key that verifies the log's checkpoints, in note format.
func (c *Client) LogKey(ctx context.Context) (string, error) {
	text, err := c.text(ctx, call{method: http.MethodGet, path: []string{"log", "vkey"}})
	return strings.TrimSpace(string(text)), err
}

// UserCA is the public key that hosts must trust, a line for sshd's
// TrustedUserCAKeys.
func (c *Client) UserCA(ctx context.Context) (string, error) {
	text, err := c.text(ctx, call{method: http.MethodGet, path: []string{"ssh", "ca.pub"}})
	return strings.TrimSpace(string(text)), err
}

// query makes a query of names and values, leaving out what is empty.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// joined is a list as it stands in a query.
func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, t := range list {
		texts[i] = string(t)
	}
	return strings.Join(texts, ",")
}

func yes(b bool) string {
	if !b {
		return ""
	}
	return "true"
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
