package hostapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	maxAnswer   = 8 << 20 // bytes
	callTimeout = 30 * time.Second
)

// Client makes a host's calls. Nothing is tried again: that is for the daemon, which
// knows what can wait. It is safe for concurrent use.
type Client struct {
	URL  string     // of the broker, without a slash at the end
	ID   string     // of the host, or of its enrolment; empty before that
	Key  ssh.Signer // the host key
	HTTP *http.Client
	Now  func() time.Time
}

// Enrol introduces the host. Either an enrolment or what it waits for is returned.
func (c *Client) Enrol(ctx context.Context, in EnrolmentInput) (*Enrolment, *Pending, error) {
	if err := SignEnrolment(&in, c.URL, c.Key, c.Now()); err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, nil, err
	}
	return c.enrolment(ctx, http.MethodPost, EnrolmentsPath, body)
}

// Enrolment asks what became of the enrolment whose id is the client's: it was let in,
// or it waits still, or there is a problem.
func (c *Client) Enrolment(ctx context.Context) (*Enrolment, *Pending, error) {
	return c.enrolment(ctx, http.MethodGet, EnrolmentsPath+"/"+c.ID, nil)
}

func (c *Client) enrolment(ctx context.Context, method, target string, body []byte) (*Enrolment, *Pending, error) {
	status, answer, err := c.call(ctx, method, target, body, 0)
	if err != nil {
		return nil, nil, err
	}
	if status == http.StatusAccepted {
		var p Pending
		return nil, &p, read(answer, &p)
	}
	var e Enrolment
	return &e, nil, read(answer, &e)
}

// Renew returns the host's enrolment as it is now, with a new host certificate.
func (c *Client) Renew(ctx context.Context) (Enrolment, error) {
	var e Enrolment
	_, answer, err := c.call(ctx, http.MethodPost, CertificatesPath, []byte("{}"), 0)
	if err != nil {
		return e, err
	}
	return e, read(answer, &e)
}

// Report sends reports, in order.
func (c *Client) Report(ctx context.Context, reports []Report) (Accepted, error) {
	var a Accepted
	body, err := json.Marshal(Reports{reports})
	if err != nil {
		return a, err
	}
	_, answer, err := c.call(ctx, http.MethodPost, ReportsPath, body, 0)
	if err != nil {
		return a, err
	}
	return a, read(answer, &a)
}

// Revocations returns the note with what came after the list that the host has, as
// soon as there is something, or when the wait is over. Whether it is signed is the
// caller's to check: vouch.Open(RevocationsKind, note, logKey).
func (c *Client) Revocations(ctx context.Context, after uint64, wait time.Duration) (note []byte, err error) {
	target := RevocationsPath + "?after=" + strconv.FormatUint(after, 10) + "&wait=" + wait.String()
	_, note, err = c.call(ctx, http.MethodGet, target, nil, wait)
	return note, err
}

// call signs and makes a call, and returns the answer of one that succeeded. Before the
// host has an id there is nothing to sign as.
func (c *Client) call(ctx context.Context, method, target string, body []byte, longer time.Duration) (int, []byte, error) {
	return c.callAs(ctx, method, target, "application/json", body, longer)
}

// callAs is call with a body of that type.
func (c *Client) callAs(ctx context.Context, method, target, kind string, body []byte, longer time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout+longer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make the call: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if c.ID != "" {
		if err := Sign(req, c.ID, c.Key, body, c.Now(), rand.Reader); err != nil {
			return 0, nil, err
		}
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("call the broker: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read the broker's answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("the broker's answer is longer than %d bytes", maxAnswer)
	}
	if resp.StatusCode/100 == 2 {
		return resp.StatusCode, answer, nil
	}
	p := &Problem{}
	answered, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if answered != "application/problem+json" || json.Unmarshal(answer, p) != nil {
		p = &Problem{Detail: fmt.Sprintf("%s answered %s", req.URL.Host, resp.Status)}
	}
	p.Status = resp.StatusCode
	return 0, nil, p
}

func read(answer []byte, into any) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("what answered is not a Sallyport broker: %w", err)
	}
	return nil
}
