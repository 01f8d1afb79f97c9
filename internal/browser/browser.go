// Package browser gives tests a real browser: headless Chromium, a fresh one for
// each test, driven by chromedp. Where there is no Chromium, tests fail.
package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// errNotInstalled says that no Chromium was found.
var errNotInstalled = errors.New("no chromium on PATH; install it: apt-get install chromium")

// timeout is how long a test may use its browser.
const timeout = 3 * time.Minute

// New starts a browser and returns the context that chromedp.Run drives it with.
// It is a person of their own: it shares no cookies with other browsers. The
// browser and its profile are gone after the test.
func New(t testing.TB) context.Context {
	t.Helper()
	program, err := find()
	if err != nil {
		t.Fatal(err)
	}
	// The profile is a temporary folder that chromedp removes; the sandbox is off
	// for root, who cannot have one. The rest keeps Chromium from calling home.
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.WindowSize(1280, 900), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, stop := context.WithTimeout(context.Background(), timeout)
	ctx, closeAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, closeBrowser := chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("closing the browser: %v", err)
		}
		closeBrowser()
		closeAllocator()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	return ctx
}

// Screenshot writes a picture (PNG) of the whole page to the file, whose folder
// it makes if need be.
func Screenshot(ctx context.Context, t testing.TB, file string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatalf("taking a screenshot: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		t.Fatal(err)
	}
}

func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNotInstalled
}
