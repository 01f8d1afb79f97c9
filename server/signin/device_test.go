package signin_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func (k *kit) startDevice() (device struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int    `json:"expires_in"`
	Interval   int    `json:"interval"`
}) {
	k.t.Helper()
	a := k.browser().post("/oauth/device_authorization", url.Values{"client_id": {"sally"}})
	must(k.t, json.Unmarshal([]byte(a.body), &device))
	if a.StatusCode != http.StatusOK || device.ExpiresIn != 600 || device.Interval != 5 || device.URI != k.URL+"/device" {
		k.t.Fatalf("%s: %s", a.Status, a.body)
	}
	return device
}

func (k *kit) pollDevice(code string) (tokens, answer) {
	k.t.Helper()
	k.clock.Advance(20 * time.Second)
	return k.token(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}})
}

func TestDeviceFlow(t *testing.T) {
	k := newKit(t)
	d := k.startDevice()
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "authorization_pending" {
		t.Errorf("undecided: %+v", got)
	}
	if got, a := k.token(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.DeviceCode}}); got.Error != "slow_down" || a.StatusCode != 400 {
		t.Errorf("at once again: %s %+v", a.Status, got)
	}
	b := k.browser()
	// The address that the device shows leads through the sign-in to the filled-in page, and no further.
	page := b.get(d.Complete)
	if page.StatusCode != http.StatusOK || !strings.Contains(page.body, d.UserCode) || strings.Contains(page.body, `name="confirm"`) {
		t.Fatalf("%s at %s: %s", page.Status, page.Request.URL, page.body)
	}
	page = b.post("/device", url.Values{"user_code": {strings.ToLower(d.UserCode)}})
	if !strings.Contains(page.body, `name="confirm" value="yes"`) || page.fields().Get("user_code") != d.UserCode {
		t.Fatalf("%s: %s", page.Status, page.body)
	}
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "authorization_pending" {
		t.Errorf("entered but not confirmed: %+v", got)
	}
	yes := page.fields()
	yes.Set("confirm", "yes")
	if a := b.post("/device", yes); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "signed in") {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	got, a := k.pollDevice(d.DeviceCode)
	if a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	sally := k.browser()
	sally.token = got.Access
	if c, ok := sally.whoami(); !ok || c.Subject != "erin" || c.Via != "cli" {
		t.Errorf("the device is %+v", c)
	}
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "invalid_grant" {
		t.Errorf("redeemed twice: %+v", got)
	}
	// No.
	d = k.startDevice()
	b.post("/device", url.Values{"user_code": {d.UserCode}, "confirm": {"no"}})
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "access_denied" {
		t.Errorf("denied: %+v", got)
	}
	d = k.startDevice()
	k.clock.Advance(10 * time.Minute)
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "expired_token" {
		t.Errorf("expired: %+v", got)
	}
}

func TestUserCodesCannotBeGuessed(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	d := k.startDevice()
	for i := range 20 {
		if a := b.post("/device", url.Values{"user_code": {"BBBB-BBBB"}, "confirm": {"yes"}}); a.StatusCode != http.StatusNotFound {
			t.Fatalf("guess %d: %s", i, a.Status)
		}
	}
	// Even the right one is not looked at any more, in no browser of the person.
	for _, b := range []*browser{b, k.browser()} {
		b.signIn()
		if a := b.post("/device", url.Values{"user_code": {d.UserCode}, "confirm": {"yes"}}); a.StatusCode != http.StatusTooManyRequests {
			t.Errorf("after 20 guesses: %s", a.Status)
		}
	}
	if got, _ := k.pollDevice(d.DeviceCode); got.Error != "authorization_pending" {
		t.Errorf("the device: %+v", got)
	}
	if ev := k.events("person.sign_in_failed"); len(ev) == 0 || !strings.Contains(strings.Join(ev, ""), "unknown-user-code") {
		t.Errorf("events: %s", ev)
	}
	if a := k.browser().post("/device", url.Values{"user_code": {d.UserCode}}); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a sign-in: %s", a.Status)
	}
}
