package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// callTimeout is how long one call may take, retries not counted.
	callTimeout = 30 * time.Second
	// maxAnswer bounds what a client reads of an answer, in bytes.
	maxAnswer = 8 << 20
	// getAttempts is how often a GET is tried in all.
	getAttempts = 4
)

// ErrPlainHTTP is returned by [NewClient] for an http URL that is not on this
// machine: a bearer token sent there could be read by anybody on the way.
var ErrPlainHTTP = errors.New("the broker's URL must begin with https:// unless it is on this machine")

// ErrNotABroker is wrapped by errors about answers that no broker gives.
var ErrNotABroker = errors.New("what answered is not a Sallyport broker")

// TokenSource gives bearer tokens. It is asked before every call, so it can
// renew them; it must be safe for concurrent use if the client is used so.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// StaticToken is a TokenSource that always gives the same token.
type StaticToken string

// Token implements TokenSource.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// ClientConfig is what a client needs.
type ClientConfig struct {
	// URL is where the broker is: https, or http on this machine.
	URL string
	// Token authenticates the calls. Optional: without it only what is public
	// can be called.
	Token TokenSource
	// UserAgent is sent with every call; "sallyport-api" if empty.
	UserAgent string
	// Transport carries the calls. Optional: http.DefaultTransport if nil.
	Transport http.RoundTripper
}

// Client calls a broker. It is safe for concurrent use.
//
// A refusal comes back as a *[Problem]. GETs are tried again, with growing
// pauses, when the broker refuses the connection or answers 502, 503 or 504;
// nothing else ever is, because it might then happen twice.
type Client struct {
	base  string
	token TokenSource
	agent string
	http  *http.Client
	pause func(ctx context.Context, d time.Duration) error
}

// NewClient returns a client of the broker at cfg.URL. It makes no call.
func NewClient(cfg ClientConfig) (*Client, error) {
	base, err := CheckURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "sallyport-api"
	}
	return &Client{
		base: base, token: cfg.Token, agent: cfg.UserAgent, pause: sleep,
		http: &http.Client{
			Transport: cfg.Transport,
			// The API never redirects. Following one would repeat a POST as a
			// GET, and might lead away from the broker.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// CheckURL returns a broker's URL in the form in which proofs of possession
// name it (no slash at the end), or says what is wrong with it.
func CheckURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("the broker's URL %q cannot be read", text)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the broker's URL %q must look like https://sallyport.example.com", u.Redacted())
	}
	if u.Scheme == "http" && !onThisMachine(u.Hostname()) {
		return "", ErrPlainHTTP
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// URL is where the broker is, without a slash at the end.
func (c *Client) URL() string { return c.base }

// call is one call to make.
type call struct {
	method string
	path   []string // segments, escaped here
	query  url.Values
	in     any           // sent as JSON, if not nil
	longer time.Duration // on top of callTimeout
}

// do makes the call and reads a JSON answer into out, if out is not nil.
func (c *Client) do(ctx context.Context, what call, out any) error {
	body, kind, err := c.send(ctx, what, "application/json")
	if err != nil || out == nil {
		return err
	}
	if kind != "application/json" {
		return fmt.Errorf("%w: %s sent %q", ErrNotABroker, c.base, kind)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%w: read the answer of %s: %w", ErrNotABroker, c.base, err)
	}
	return nil
}

// text makes the call and returns an answer that is not JSON.
func (c *Client) text(ctx context.Context, what call) ([]byte, error) {
	body, _, err := c.send(ctx, what, "text/plain")
	return body, err
}

// send makes the call, again if it may, and returns the answer's body and type.
func (c *Client) send(ctx context.Context, what call, accept string) (body []byte, kind string, err error) {
	var sent []byte
	if what.in != nil {
		if sent, err = json.Marshal(what.in); err != nil {
			return nil, "", fmt.Errorf("encode the call: %w", err)
		}
	}
	pause := 200 * time.Millisecond
	for attempt := 1; ; attempt++ {
		body, kind, err = c.once(ctx, what, sent, accept)
		if err == nil || what.method != http.MethodGet || attempt == getAttempts || !Passing(err) {
			return body, kind, err
		}
		// Half of the pause is random, so that clients of a broker that comes
		// back do not all come at once.
		if c.pause(ctx, pause/2+rand.N(pause/2)) != nil {
			return nil, "", err
		}
		pause *= 2
	}
}

// Passing reports whether an error may well be gone after a while: the broker
// refuses connections, or says that it or something it needs is down.
func Passing(err error) bool {
	if p, ok := errors.AsType[*Problem](err); ok {
		switch p.Status {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) once(ctx context.Context, what call, sent []byte, accept string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout+what.longer)
	defer cancel()
	resp, err := c.answer(ctx, what, sent, accept)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, "", fmt.Errorf("read the broker's answer: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, "", fmt.Errorf("the broker's answer is longer than %d bytes", maxAnswer)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode/100 != 2 {
		return nil, "", problem(resp, kind, body)
	}
	return body, kind, nil
}

// answer makes the call and returns what comes back, whose body is the caller's to close.
func (c *Client) answer(ctx context.Context, what call, sent []byte, accept string) (*http.Response, error) {
	target := c.base
	for _, segment := range what.path {
		// An empty or dotted name would turn the call into one about
		// something else, such as all hosts instead of one.
		if segment == "" || segment == "." || segment == ".." {
			return nil, fmt.Errorf("%q is no name", segment)
		}
		target += "/" + url.PathEscape(segment)
	}
	if len(what.query) > 0 {
		target += "?" + what.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, what.method, target, bytes.NewReader(sent))
	if err != nil {
		return nil, fmt.Errorf("make the call: %w", err)
	}
	if sent != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", accept+", application/problem+json")
	req.Header.Set("User-Agent", c.agent)
	if c.token != nil {
		token, err := c.token.Token(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the broker: %w", err)
	}
	return resp, nil
}

// problem reads an answer that is not a success. Proxies on the way do not
// speak RFC 9457, so there is one for whatever else they say.
func problem(resp *http.Response, kind string, body []byte) error {
	var p Problem
	if kind == "application/problem+json" && json.Unmarshal(body, &p) == nil {
		p.Status = resp.StatusCode
		return &p
	}
	p = Problem{
		Status: resp.StatusCode,
		Title:  http.StatusText(resp.StatusCode),
		Detail: fmt.Sprintf("%s answered %s", resp.Request.URL.Host, resp.Status),
	}
	if resp.StatusCode/100 == 3 || resp.StatusCode == http.StatusNotFound {
		p.Hint = "is this the URL of a Sallyport broker?"
	}
	return &p
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
