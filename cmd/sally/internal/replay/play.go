package replay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sallyport/audit/recording"
)

// Options say how a recording is played.
type Options struct {
	Speed float64       // 2: in half the time
	Idle  time.Duration // no pause lasts longer than that
	// Sleep waits, or says why it does not.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Play plays a recording to w, to its end or until ctx ends.
func Play(ctx context.Context, w io.Writer, cast *recording.Cast, o Options) error {
	var filter Filter
	about := cast.Header.Sallyport
	if c := cast.Header.Command; c != "" {
		if _, err := fmt.Fprintf(w, "$ %s\r\n", filter.Next(strings.ReplaceAll(c, "\n", "\r\n"))); err != nil {
			return err
		}
	}
	filter = Filter{}
	var at time.Duration
	for {
		e, err := cast.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		pause := min(time.Duration(float64(e.At-at)/o.Speed), o.Idle)
		at = max(at, e.At)
		if pause > 0 {
			if err := o.Sleep(ctx, pause); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.WriteString(w, shown(&filter, e, about.Terminal)); err != nil {
			return err
		}
	}
}

// shown is what is seen of an event.
func shown(f *Filter, e recording.Event, terminal bool) string {
	switch e.Code {
	case recording.Output:
		return f.Next(e.Data)
	case recording.Input:
		if !terminal { // nothing echoed it
			return f.Next(e.Data)
		}
	case recording.InputBytes, recording.OutputBytes:
		way := "wrote"
		if e.Code == recording.InputBytes {
			way = "read"
		}
		return fmt.Sprintf("\r\n[%s %d bytes that are no text]\r\n", way, base64.StdEncoding.DecodedLen(len(e.Data))-strings.Count(e.Data, "="))
	}
	return ""
}
