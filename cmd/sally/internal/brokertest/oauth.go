package brokertest

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// family is one sign-in: all tokens that came of it.
type family struct {
	person string
	newest string // refresh token
	anew   bool   // the person authenticated for it
	ended  bool
}

// EndSignIns ends every sign-in, as an administrator would.
func (b *Broker) EndSignIns() {
	b.Lock()
	defer b.Unlock()
	for _, f := range b.refresh {
		f.ended = true
	}
}

func (b *Broker) oauth(mux *http.ServeMux) {
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, map[string]string{
			"issuer": b.URL, "authorization_endpoint": b.URL + "/oauth/authorize",
			"token_endpoint":                b.URL + "/oauth/token",
			"device_authorization_endpoint": b.URL + "/oauth/device_authorization",
			"revocation_endpoint":           b.URL + "/oauth/revoke",
		})
	})
	mux.HandleFunc("GET /oauth/authorize", b.authorize)
	mux.HandleFunc("POST /oauth/token", b.token)
	mux.HandleFunc("POST /oauth/device_authorization", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, map[string]any{"device_code": "device-secret", "user_code": "BCDF-GHJK",
			"verification_uri": b.URL + "/device", "verification_uri_complete": b.URL + "/device?user_code=BCDF-GHJK",
			"expires_in": 600, "interval": 1})
	})
	mux.HandleFunc("POST /oauth/revoke", func(w http.ResponseWriter, r *http.Request) {
		b.Lock()
		defer b.Unlock()
		if f := b.refresh[r.FormValue("token")]; f != nil {
			f.ended = true
			b.Revoked++
		}
	})
}

// authorize lets the engineer in without asking, and sends the browser back.
func (b *Broker) authorize(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	q := r.URL.Query()
	if q.Get("client_id") != "sally" || q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" {
		http.Error(w, "bad request", 400)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {b.URL}}
	if b.AuthorizeError != "" {
		back.Set("error", b.AuthorizeError)
	} else {
		code := rand.Text()
		b.codes[code] = q.Get("code_challenge")
		b.anew = q.Get("prompt") == "login"
		back.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (b *Broker) token(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	refused := func(code string) { answer(w, 400, map[string]string{"error": code}) }
	if r.FormValue("client_id") != "sally" {
		refused("invalid_client")
		return
	}
	switch r.FormValue("grant_type") {
	case "authorization_code":
		challenge, ok := b.codes[r.FormValue("code")]
		delete(b.codes, r.FormValue("code"))
		if !ok || oauth2.S256ChallengeFromVerifier(r.FormValue("code_verifier")) != challenge {
			refused("invalid_grant")
			return
		}
		b.grant(w, &family{person: "engineer", anew: b.anew})
	case "refresh_token":
		f := b.refresh[r.FormValue("refresh_token")]
		switch {
		case f == nil || f.ended:
			refused("invalid_grant")
		case f.newest != r.FormValue("refresh_token"):
			b.Reuses++
			f.ended = true
			refused("invalid_grant")
		default:
			b.Refreshes++
			b.grant(w, f)
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		if r.FormValue("device_code") != "device-secret" {
			refused("invalid_grant")
			return
		}
		if len(b.DevicePolls) > 0 {
			next := b.DevicePolls[0]
			b.DevicePolls = b.DevicePolls[1:]
			refused(next)
			return
		}
		b.grant(w, &family{person: "engineer"})
	default:
		refused("unsupported_grant_type")
	}
}

// grant answers with new tokens of the family.
func (b *Broker) grant(w http.ResponseWriter, f *family) {
	access := rand.Text()
	f.newest = rand.Text()
	b.families[access], b.refresh[f.newest] = f, f
	answer(w, 200, map[string]any{"access_token": access, "token_type": "Bearer",
		"expires_in": int(b.AccessLife / time.Second), "refresh_token": f.newest})
}
