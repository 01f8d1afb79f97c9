package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/chromedp"

	"sallyport/internal/browser"
	"sallyport/internal/dex"
)

// person is somebody at a browser of their own.
type person struct {
	t    testing.TB
	ctx  context.Context
	url  string
	name string
}

// at opens a browser and signs the person in, by the pages' own links and forms.
func (h *house) at(email string) *person {
	h.t.Helper()
	p := &person{t: h.t, ctx: browser.New(h.t), url: h.URL, name: email}
	p.open("/")
	p.click(`a[href^="/signin"]`)
	p.fill(`input[name="login"]`, email)
	p.fill(`input[name="password"]`, dex.Password)
	p.click(`button[type="submit"]`)
	p.see(`form[action="/signout"]`)
	return p
}

// do runs one action, within a time in which a page must have answered. Pages
// change by themselves; an element that goes while we reach for it is looked for
// again, as a person would.
func do[T any](p *person, what string, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	for {
		v, err := chromedp.Run(ctx, action)
		if err == nil {
			return v
		}
		var gone *cdproto.Error
		if !errors.As(err, &gone) || !strings.Contains(gone.Message, "node") {
			p.t.Fatalf("%s: %s: %v\non a page that says:\n%s", p.name, what, err, p.page())
		}
	}
}

// page is what the page says now, for failures.
func (p *person) page() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
	if err != nil {
		return err.Error()
	}
	return text
}

func (p *person) open(path string) {
	p.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = p.url + path
	}
	do(p, "opening "+path, chromedp.Navigate(path))
}

func (p *person) click(css string) {
	p.t.Helper()
	do(p, "clicking "+css, chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible))
}

func (p *person) fill(css, text string) {
	p.t.Helper()
	do(p, "filling "+css, chromedp.SendKeys(chromedp.CSS(css), text, chromedp.NodeVisible))
}

func (p *person) see(css string) {
	p.t.Helper()
	do(p, "looking for "+css, chromedp.WaitVisible(chromedp.CSS(css)))
}

// read waits until the element says the text.
func (p *person) read(css, text string) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		got := do(p, "reading "+css, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css)))
		if strings.Contains(strings.ToLower(got), strings.ToLower(text)) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %s never said %q, but:\n%s", p.name, css, text, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// picture keeps the page as it is now for the README, when `make pictures` asks
// for that by naming a folder.
func (p *person) picture(name string) {
	p.t.Helper()
	if dir := os.Getenv("SALLYPORT_PICTURES"); dir != "" {
		browser.Screenshot(p.ctx, p.t, filepath.Join(dir, name+".png"))
	}
}

// where is the address of the page.
func (p *person) where() string {
	p.t.Helper()
	return do(p, "reading the address", chromedp.Location())
}
