package dex_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/internal/dex"
)

// TestSignIn plays the broker: an OIDC client that sends a person to Dex and
// reads the ID token that comes back.
func TestSignIn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	mux := http.NewServeMux()
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	provider, err := dex.Start(ctx, dex.Config{RedirectURIs: []string{web.URL + "/callback"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Stop)
	issuer, err := oidc.NewProvider(ctx, provider.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	client := oauth2.Config{ClientID: dex.ClientID, ClientSecret: dex.ClientSecret, Endpoint: issuer.Endpoint(),
		RedirectURL: web.URL + "/callback", Scopes: []string{"openid", "email", "profile", "groups"}}
	verifier := oauth2.GenerateVerifier()
	mux.HandleFunc("/signin", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, client.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), http.StatusFound)
	})
	type claims struct {
		Subject   string   `json:"sub"`
		Name      string   `json:"name"`
		Email     string   `json:"email"`
		Preferred string   `json:"preferred_username"`
		Groups    []string `json:"groups"`
	}
	got := make(chan claims, 1)
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		c, err := exchange[claims](r.Context(), issuer, client, r.FormValue("code"), verifier)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		got <- c
	})

	subjects := map[string]bool{}
	for _, person := range dex.People {
		page, err := dex.SignIn(ctx, newBrowser(t), web.URL+"/signin", person.Email, dex.Password)
		if err != nil {
			t.Fatalf("%s: %v", person.Email, err)
		}
		page.Body.Close()
		if page.StatusCode != http.StatusOK || page.Request.URL.Path != "/callback" {
			t.Fatalf("%s: ended at %s with %s", person.Email, page.Request.URL, page.Status)
		}
		c := <-got
		if c.Name != person.Name || c.Email != person.Email || c.Preferred != person.Username || !slices.Equal(c.Groups, person.Groups) {
			t.Errorf("%s: the ID token says %+v", person.Email, c)
		}
		subjects[c.Subject] = true
	}
	if len(subjects) != len(dex.People) {
		t.Errorf("%d people have %d subjects", len(dex.People), len(subjects))
	}
	_, err = dex.SignIn(ctx, newBrowser(t), web.URL+"/signin", dex.People[0].Email, "wrong")
	if !errors.Is(err, dex.ErrBadPassword) {
		t.Errorf("a wrong password gave %v", err)
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	t.Parallel()
	taken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(taken.Close)
	_, err := dex.Start(t.Context(), dex.Config{
		Listen: strings.TrimPrefix(taken.URL, "http://"), RedirectURIs: []string{"http://127.0.0.1/"}})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("on a taken port: %v", err)
	}
}

func exchange[T any](ctx context.Context, issuer *oidc.Provider, client oauth2.Config, code, verifier string) (claims T, err error) {
	token, err := client.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return claims, err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return claims, fmt.Errorf("no ID token")
	}
	id, err := issuer.Verifier(&oidc.Config{ClientID: client.ClientID}).Verify(ctx, raw)
	if err != nil {
		return claims, err
	}
	return claims, id.Claims(&claims)
}

func newBrowser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}
