package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	sendTimeout = 15 * time.Second // of one attempt
	maxAnswer   = 4 << 10          // bytes of a receiver's answer that are read
)

// newHTTPClient posts to configured addresses only: it follows no redirects, so
// that a receiver cannot send us on to an address inside.
func newHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 32 << 10
	transport.MaxIdleConnsPerHost = 2
	return &http.Client{
		Transport:     transport,
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post sends the body. reason, if not nil, says what of a refusing answer may be
// repeated. Errors do not name the address.
func post(ctx context.Context, client *http.Client, address string, header http.Header, body []byte, reason func([]byte) string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return permanent{errors.New("the configured address cannot be used")}
	}
	r.Header = header
	r.Header.Set("User-Agent", "Sallyport")
	answer, err := client.Do(r)
	if err != nil {
		var withAddress *url.Error
		if errors.As(err, &withAddress) {
			err = withAddress.Err
		}
		return fmt.Errorf("posting: %w", err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // only decoration
	if answer.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("the receiver answered %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	if reason != nil {
		if why := reason(text); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
	}
	switch answer.StatusCode {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return err
	}
	if answer.StatusCode/100 == 5 {
		return err
	}
	return permanent{err} // a redirect, or our fault: it will not get better by itself
}
