package browser_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"sallyport/internal/browser"
)

func TestTwoBrowsersAreTwoPeople(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /signin", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "who", Value: r.FormValue("name")})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if c, err := r.Cookie("who"); err == nil {
			who = c.Value
		}
		fmt.Fprintf(w, `<!doctype html><p id="%[1]s">%[1]s</p><form method="post" action="/signin"><input name="name"><button>Sign in</button></form>`, who)
	})
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)

	engineer, approver := browser.New(t), browser.New(t)
	err := chromedp.Do(engineer, chromedp.Navigate(site.URL),
		chromedp.SendKeys(chromedp.CSS("input"), "erin"), chromedp.Click(chromedp.CSS("button")),
		chromedp.WaitVisible(chromedp.CSS("#erin")))
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(approver, chromedp.Navigate(site.URL)); err != nil {
		t.Fatal(err)
	}
	who, err := chromedp.Run(engineer, chromedp.Text(chromedp.CSS("p")))
	if err != nil {
		t.Fatal(err)
	}
	other, err := chromedp.Run(approver, chromedp.Text(chromedp.CSS("p")))
	if err != nil {
		t.Fatal(err)
	}
	if who != "erin" || other != "nobody" {
		t.Errorf("the browsers are %q and %q", who, other)
	}
	file := filepath.Join(t.TempDir(), "pictures", "page.png")
	browser.Screenshot(engineer, t, file)
	if png, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("the screenshot is no picture: %v", err)
	}
}
