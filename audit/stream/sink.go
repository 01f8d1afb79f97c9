package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"sallyport/internal/clock"
	"sallyport/internal/standardwebhooks"
)

// sink takes documents. When deliver returns nil they are the receiver's: whatever
// crashes, they are not sent again for want of an answer. It may be called again with
// the same ones.
type sink interface {
	deliver(ctx context.Context, lines [][]byte) error
	// where says where they go, without secrets.
	where() string
}

// errTooMuch says that the receiver wants fewer at once.
var errTooMuch = errors.New("the receiver wants smaller batches")

// callLimit bounds one delivery.
const callLimit = 30 * time.Second

// file appends lines to a file. It is opened for each batch, so that whoever rotates it
// need tell nobody.
type file struct{ path string }

func (f file) where() string { return "file " + f.path }

func (f file) deliver(_ context.Context, lines [][]byte) error {
	out, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := mend(out); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if _, err := out.Write(append(bytes.Join(lines, []byte("\n")), '\n')); err != nil {
		return errors.Join(err, mend(out)) // a full disk leaves half a line
	}
	return out.Sync()
}

// mend cuts off a last line without an end: of a process that died, or for which there
// was no room. It comes again.
func mend(f *os.File) error {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return err
	}
	const step = 64 << 10
	for end := info.Size(); end > 0; {
		from := max(0, end-step)
		part := make([]byte, end-from)
		if _, err := f.ReadAt(part, from); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			if keep := from + int64(i) + 1; keep < info.Size() {
				return f.Truncate(keep)
			}
			return nil
		}
		end = from
	}
	return f.Truncate(0)
}

// webhook posts lines as NDJSON, signed as package standardwebhooks says. The id of a
// batch is a hash of it: the same documents have the same one.
type webhook struct {
	url    string
	key    []byte
	client *http.Client
	clock  clock.Clock
}

func (w webhook) where() string { return "webhook " + host(w.url) }

func (w webhook) deliver(ctx context.Context, lines [][]byte) error {
	body := append(bytes.Join(lines, []byte("\n")), '\n')
	sum := sha256.Sum256(body)
	header := standardwebhooks.Header(w.key, "msg_"+hex.EncodeToString(sum[:16]), w.clock.Now(), body)
	header.Set("Content-Type", "application/x-ndjson")
	_, err := post(ctx, w.client, w.url, header, body)
	return err
}

// splunk posts to Splunk's HTTP Event Collector.
type splunk struct {
	url, token, index string
	client            *http.Client
}

func (s splunk) where() string { return "splunk " + host(s.url) }

func (s splunk) deliver(ctx context.Context, lines [][]byte) error {
	var body bytes.Buffer
	for _, line := range lines {
		var d struct {
			Time int64 `json:"time"`
		}
		if err := json.Unmarshal(line, &d); err != nil {
			return err
		}
		err := json.NewEncoder(&body).Encode(struct {
			Time       json.Number     `json:"time"` // seconds
			Source     string          `json:"source"`
			SourceType string          `json:"sourcetype"`
			Index      string          `json:"index,omitempty"`
			Event      json.RawMessage `json:"event"`
		}{json.Number(fmt.Sprintf("%d.%03d", d.Time/1000, d.Time%1000)), "sallyport", "sallyport:ocsf", s.index, line})
		if err != nil {
			return err
		}
	}
	answer, err := post(ctx, s.client, s.url, http.Header{"Content-Type": {"application/json"}, "Authorization": {"Splunk " + s.token}}, body.Bytes())
	if err != nil {
		return err
	}
	var said struct {
		Code *int   `json:"code"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.Code == nil || *said.Code != 0 {
		return errors.New("the collector did not answer with code 0")
	}
	return nil
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 4 << 10

func post(ctx context.Context, client *http.Client, address string, header http.Header, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the configured address cannot be used")
	}
	r.Header = header
	r.Header.Set("User-Agent", "Sallyport")
	answer, err := client.Do(r)
	if err != nil {
		var withAddress *url.Error // which may have a secret in it
		if errors.As(err, &withAddress) {
			err = withAddress.Err
		}
		return nil, fmt.Errorf("posting: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case answer.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, errTooMuch
	case answer.StatusCode/100 != 2:
		return nil, fmt.Errorf("the receiver answered %s", answer.Status)
	}
	return text, nil
}

// host is of an address what may be shown.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.Path
}
