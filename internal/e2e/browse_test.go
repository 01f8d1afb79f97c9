package e2e

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"sallyport/internal/dex"
)

// browse is what this test binary does when `sally login` starts it as $BROWSER:
// it signs the person in by the provider's form, presses "Yes, let it", and
// follows the way back to sally, all by the pages' own forms and links.
func browse(person, page string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := letSallyIn(ctx, person, page); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		return 1
	}
	return 0
}

func letSallyIn(ctx context.Context, person, start string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	client := &http.Client{Jar: jar}
	resp, err := dex.SignIn(ctx, client, start, person, dex.Password)
	if err != nil {
		return err
	}
	// One form after the other, until a page has none for us: consent, or the
	// device's code and its confirmation.
	for range 4 {
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s\n%s", resp.Request.URL, resp.Status, body)
		}
		if back := hrefBack.FindSubmatch(body); back != nil {
			resp, err := client.Get(html.UnescapeString(string(back[1])))
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}
		action, fields, ok := form(string(body))
		if !ok {
			return nil
		}
		to, err := resp.Request.URL.Parse(action)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(fields.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "http://"+to.Host)
		if resp, err = client.Do(req); err != nil {
			return err
		}
	}
	return fmt.Errorf("the forms do not end")
}

var (
	hrefBack = regexp.MustCompile(`href="(http://127\.0\.0\.1:\d+/callback\?[^"]*)"`)
	formTag  = regexp.MustCompile(`(?s)<form method="post" action="(/oauth/authorize|/device)">(.*?)</form>`)
	inputTag = regexp.MustCompile(`<(?:input|button)[^>]*\bname="([^"]*)"[^>]*\bvalue="([^"]*)"`)
)

// form finds the consent or device form of a page, filled in as it came; of its
// buttons the first is pressed.
func form(page string) (action string, fields url.Values, ok bool) {
	m := formTag.FindStringSubmatch(page)
	if m == nil {
		return "", nil, false
	}
	fields = url.Values{}
	for _, in := range inputTag.FindAllStringSubmatch(m[2], -1) {
		if name := html.UnescapeString(in[1]); !fields.Has(name) {
			fields.Set(name, html.UnescapeString(in[2]))
		}
	}
	return m[1], fields, true
}
