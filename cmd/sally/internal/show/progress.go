package show

import (
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// Progress says that something takes time: on a terminal as one line that turns
// and counts, elsewhere as a line for each thing there is to say.
type Progress struct {
	w       io.Writer
	paint   func(Style, string) string
	columns int
	stop    chan struct{}
	done    sync.WaitGroup

	mu   sync.Mutex
	text string
}

// every is how often the line on a terminal is drawn.
const every = 120 * time.Millisecond

// Progress starts to show the text, on a terminal of so many columns or, if
// there are none, elsewhere. Stop must be called.
func (t *Text) Progress(columns int, text string) *Progress {
	p := &Progress{w: t.w, paint: t.Paint, columns: columns, text: Clean(text)}
	if columns == 0 {
		fmt.Fprintln(p.w, p.text)
		return p
	}
	p.stop = make(chan struct{})
	p.done.Go(p.turn)
	return p
}

// Say changes the text.
func (p *Progress) Say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text = Clean(text); text == p.text {
		return
	}
	p.text = text
	if p.stop == nil {
		fmt.Fprintln(p.w, text)
	}
}

// Stop clears the line on a terminal.
func (p *Progress) Stop() {
	if p.stop != nil {
		close(p.stop)
		p.done.Wait()
		p.stop = nil
	}
}

func (p *Progress) turn() {
	const clearLine = "\r\x1b[K"
	start := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		p.mu.Lock()
		text := p.text
		p.mu.Unlock()
		frame := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")[i%10]
		elapsed := Span(time.Since(start))
		// A line that wraps could not be cleared.
		if room := p.columns - len(elapsed) - 4; utf8.RuneCountInString(text) > room {
			text = string([]rune(text)[:max(room-1, 0)]) + "…"
		}
		fmt.Fprintf(p.w, "%s%s %s %s", clearLine, p.paint(Green, string(frame)), text, p.paint(Faint, elapsed))
		select {
		case <-p.stop:
			fmt.Fprint(p.w, clearLine)
			return
		case <-tick.C:
		}
	}
}
