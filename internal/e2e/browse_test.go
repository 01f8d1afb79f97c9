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

// browse is what this test binary does when sally starts it as $BROWSER: it signs
// the person in by the provider's form, presses the page's button ("Yes, let it",
// "Approve"), and follows the way to the provider and back to sally, all by the
// pages' own forms and links.
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
		if on := hrefOn.FindSubmatch(body); on != nil { // to the provider once more, which signs a decision
			if resp, err = dex.SignIn(ctx, client, html.UnescapeString(string(on[1])), person, dex.Password); err != nil {
				return err
			}
			continue
		}
		action, fields, ok := form(string(body))
		if !ok || decided.MatchString(resp.Request.URL.Path) {
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
	hrefOn   = regexp.MustCompile(`href="(http://127\.0\.0\.1:\d+/dex/auth\?[^"]*)"`)
	decided  = regexp.MustCompile(`^/(?:requests/req|policy/proposals/pol)-[a-z0-9]+$`) // where a decision ends
	formTag  = regexp.MustCompile(`(?s)<form[^>]* action="(/oauth/authorize|/device|/(?:requests/req|policy/proposals/pol)-[a-z0-9]+/(?:approve|deny|review))">(.*?)</form>`)
	textTag  = regexp.MustCompile(`(?s)<textarea[^>]*\bname="([^"]*)"[^>]*>(.*?)</textarea>`)
	inputTag = regexp.MustCompile(`<(?:input|button)[^>]*\bname="([^"]*)"[^>]*\bvalue="([^"]*)"`)
)

// form finds the page's form that is for us, filled in as it came; of its
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
	for _, in := range textTag.FindAllStringSubmatch(m[2], -1) {
		fields.Set(html.UnescapeString(in[1]), html.UnescapeString(in[2]))
	}
	return m[1], fields, true
}
