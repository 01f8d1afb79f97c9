package api

import (
	"context"
	"fmt"
	"io"
	"mime"
)

// download makes a call whose answer is a file, and writes that to w as it comes. It
// is tried once, and has no other limit than ctx.
func (c *Client) download(ctx context.Context, what call, w io.Writer) (int64, error) {
	resp, err := c.answer(ctx, what, nil, "application/zip")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return 0, fmt.Errorf("read the broker's answer: %w", err)
		}
		return 0, problem(resp, kind, body)
	}
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("download: %w", err)
	}
	return n, nil
}
