// Package standardwebhooks signs what is posted to receivers, as
// https://www.standardwebhooks.com says, so that they check it with any library of
// theirs and drop duplicates by webhook-id.
package standardwebhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Header is that of one attempt to post the body: its id, which a retry keeps, when it
// is made, and the signature.
func Header(key []byte, id string, at time.Time, body []byte) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {stamp},
		"Webhook-Signature": {Sign(key, id, stamp, body)},
	}
}

// Sign is the symmetric signature, version 1: HMAC-SHA256 over id, timestamp (seconds)
// and body, with dots between.
func Sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Key reads a secret of the specification's form: whsec_ and 24 to 64 bytes in base64.
// The error does not repeat it.
func Key(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(secret), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`the secret must be "whsec_" and 24 to 64 random bytes in base64`)
	}
	return key, nil
}
