package main

import (
	"strings"
	"testing"
)

// P11: whatever is secret among the settings does not get into the log, in no form.
func TestP11_SettingsAreDisclosedWithoutSecrets(t *testing.T) {
	t.Parallel()
	set := settings{}
	for _, o := range options {
		set[o.name] = o.standard
	}
	set["oidc-client-secret"] = "hunter2"
	set["oidc-issuer"] = "https://me:hunter2@id.example.com"
	for _, url := range []string{
		"postgres://sallyport:hunter2@db.example.com/sallyport?sslmode=verify-full",
		"host=db.example.com user=sallyport password=hunter2 dbname=sallyport sslmode=verify-full",
		"postgres://sallyport:hunter2@db.example.com:port",
	} {
		set["database-url"] = url
		shown := set.disclosed()
		if len(shown) != len(options) {
			t.Errorf("%d of %d settings are shown", len(shown), len(options))
		}
		for name, value := range shown {
			if strings.Contains(value, "hunter2") {
				t.Errorf("%s is shown as %s", name, value)
			}
		}
	}
	if set["oidc-client-secret"] != "hunter2" {
		t.Error("the settings themselves were changed")
	}
}

func TestDatabaseAddressSaysHowItIsProtected(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{"disable": "perhaps without TLS", "prefer": "perhaps without TLS", "require": "with TLS, unverified",
		"verify-full": "with TLS, verified"} {
		got := databaseAddress("postgres://sallyport@db.example.com/log?sslmode=" + mode)
		if got != "log at db.example.com:5432 as sallyport, "+want {
			t.Errorf("%s: %s", mode, got)
		}
	}
}
