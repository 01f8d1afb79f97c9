package dex

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ErrBadPassword says that Dex did not accept the email and password.
var ErrBadPassword = errors.New("dex refused the email or password")

// SignIn signs a person in as a browser would: it opens startURL, follows the
// redirects to Dex's form, sends email and password, and follows the redirects
// back. It returns the page where that ends, whatever its status; the caller
// closes its body. If startURL leads nowhere near Dex, because the person is
// signed in already, that page is returned.
//
// The client must have a cookie jar; that is where the sign-in is afterwards.
func SignIn(ctx context.Context, client *http.Client, startURL, email, password string) (*http.Response, error) {
	if client.Jar == nil {
		return nil, errors.New("signing in needs a client with a cookie jar")
	}
	page, err := get(ctx, client, startURL)
	if err != nil {
		return nil, fmt.Errorf("opening the sign-in: %w", err)
	}
	// The form is at …/auth/local/login and posts to its own address.
	if !isForm(page) {
		return page, nil
	}
	page.Body.Close()
	form := url.Values{"login": {email}, "password": {password}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, page.Request.URL.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	page, err = client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("sending the sign-in form: %w", err)
	}
	if isForm(page) {
		page.Body.Close()
		return nil, ErrBadPassword
	}
	return page, nil
}

func isForm(page *http.Response) bool {
	return strings.HasSuffix(page.Request.URL.Path, "/dex/auth/local/login")
}

func get(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}
