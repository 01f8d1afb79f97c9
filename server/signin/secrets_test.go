package signin_test

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

func TestP11_SecretsStayOutOfDatabaseLogsAndErrors(t *testing.T) {
	k := newKit(t, func(k *kit) { k.provider.OfferEndSession() })
	b := k.browser()
	var secrets []string
	var said bytes.Buffer // what callers are told
	b.signIn()
	code := b.code()
	redeem := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {redirect}}
	first, _ := k.token(redeem)
	second, _ := k.refresh(first.Refresh)
	d := k.startDevice()
	b.post("/device", url.Values{"user_code": {d.UserCode}, "confirm": {"yes"}})
	device, _ := k.pollDevice(d.DeviceCode)
	secrets = append(secrets, k.provider.Issued()...)
	secrets = append(secrets, b.cookie(), code, verifier, first.Access, first.Refresh, second.Access, second.Refresh,
		d.DeviceCode, d.UserCode, device.Access, device.Refresh)

	for _, again := range []func() answer{
		func() answer { _, a := k.refresh(first.Refresh); return a },
		func() answer { _, a := k.token(redeem); return a },
		func() answer { _, a := k.refresh(second.Refresh); return a },
		func() answer { _, a := k.pollDevice(d.DeviceCode); return a },
		func() answer { return k.browser().get("/whoami", "Authorization", "Bearer "+second.Access) },
		func() answer { return k.browser().get("/whoami", "Authorization", "Bearer "+second.Refresh) },
		func() answer {
			return b.get(k.URL + "/signin/callback?state=x&code=" + url.QueryEscape(k.provider.Issued()[0]))
		},
	} {
		a := again()
		if a.StatusCode < 400 {
			t.Errorf("a second use: %s", a.Status)
		}
		said.WriteString(a.body)
	}
	if n := len(k.events("token.reused")); n != 1 {
		t.Errorf("%d token.reused events", n)
	}
	dump := k.db.Dump(t) // entries, pending events and all
	if !strings.Contains(dump, "erin@example.com") || !strings.Contains(dump, "token.reused") {
		t.Fatal("the dump is not the database")
	}
	absent(t, "the database", dump, append(secrets, "oidctest-client-secret", string(k.key.Seed()))...)
	absent(t, "the log", k.output.String(), append(secrets, "oidctest-client-secret")...)
	absent(t, "an error", said.String(), append(secrets, "oidctest-client-secret")...)
}
