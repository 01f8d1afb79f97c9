package signin

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/internal/throttle"
	"sallyport/server/problem"
	"sallyport/web"
)

// The pages on which a person lets a sally act for them. Nothing is given out
// without a button pressed there, so that no other page can do it by leading a
// browser here.

var (
	// ErrAuthorizeClient says that an authorization request is not sally's. It is
	// shown to the person and never sent on: where to is what is in doubt.
	ErrAuthorizeClient = refusal.New(refusal.Invalid, "bad-authorization",
		"this is not a sign-in of sally on this computer", "close this page, and run: sally login")
	// ErrManyCodes says that a person tried too many device codes.
	ErrManyCodes = refusal.New(refusal.TooMany, "too-many-codes",
		"too many codes were tried", "wait some minutes, then start again: sally login --device")
)

// challengePattern is a SHA-256 in base64url (RFC 7636 section 4.2).
var challengePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// maxState bounds what sally may want to have given back to it.
const maxState = 512

// authorization is an authorization request (RFC 6749 section 4.1.1).
type authorization struct {
	redirect  *url.URL
	state     string
	challenge string
}

// parseAuthorization checks a request of sally:
//
//  1. Client and redirect URI must be sally's, else ErrAuthorizeClient.
//  2. The response type must be code, the challenge S256. If not, code is what
//     sally is told (RFC 6749 section 4.1.2.1).
func parseAuthorization(v url.Values) (a authorization, code string, err error) {
	if once(v) != nil || v.Get("client_id") != clientID {
		return a, "", ErrAuthorizeClient
	}
	if a.redirect, err = loopback(v.Get("redirect_uri")); err != nil {
		return a, "", err
	}
	a.state, a.challenge = v.Get("state"), v.Get("code_challenge")
	switch {
	case len(a.state) > maxState:
		a.state = ""
		code = "invalid_request"
	case v.Get("response_type") != "code":
		code = "unsupported_response_type"
	case v.Get("code_challenge_method") != "S256" || !challengePattern.MatchString(a.challenge):
		code = "invalid_request"
	}
	return a, code, nil
}

// loopback accepts http://127.0.0.1:PORT/callback and nothing else (RFC 8252
// section 7.3): what listens there runs on the person's own computer. Names such
// as localhost may lead elsewhere.
func loopback(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, ErrAuthorizeClient
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || raw != fmt.Sprintf("http://127.0.0.1:%d/callback", port) {
		return nil, ErrAuthorizeClient
	}
	return u, nil
}

// fields are what the page sends back when the button is pressed.
func (a authorization) fields() map[string]string {
	return map[string]string{
		"client_id": clientID, "redirect_uri": a.redirect.String(), "response_type": "code",
		"state": a.state, "code_challenge": a.challenge, "code_challenge_method": "S256",
	}
}

// answer sends the browser back to sally, with the issuer (RFC 9207).
func (s *Service) answer(w http.ResponseWriter, r *http.Request, a authorization, name, value string) {
	q := url.Values{name: {value}, "iss": {s.cfg.URL}}
	if a.state != "" {
		q.Set("state", a.state)
	}
	a.redirect.RawQuery = q.Encode()
	if r.Method == http.MethodPost {
		web.Forward(w, r, a.redirect.String())
		return
	}
	http.Redirect(w, r, a.redirect.String(), http.StatusFound)
}

// authorizePage asks a person whether sally on their computer may act for them.
func (s *Service) authorizePage(w http.ResponseWriter, r *http.Request) {
	a, code, err := parseAuthorization(r.URL.Query())
	if err != nil {
		s.refuse(w, r, identity.ViaCLI, err)
		return
	}
	if code != "" {
		s.answer(w, r, a, "error", code)
		return
	}
	in, ok := browser(r.Context())
	// sally's sign-in ends when this one does. One that is about to end is renewed
	// first, at the provider, so that nobody has to do it again in a few minutes.
	if !ok || s.cfg.Clock.Now().Sub(in.Created) > in.Expires.Sub(in.Created)/2 || s.anew(r, in) {
		toSignIn(w, r)
		return
	}
	web.Render(w, r, http.StatusOK, "authorize", struct {
		Client, Person string
		Fields         map[string]string
	}{clientID, in.Person.DisplayName(), a.fields()})
}

// authorize is the button of authorizePage.
func (s *Service) authorize(w http.ResponseWriter, r *http.Request) {
	in, ok := browser(r.Context())
	if !ok {
		problem.Write(w, r, problem.ErrSignInNeeded)
		return
	}
	if err := r.ParseForm(); err != nil {
		problem.Write(w, r, ErrAuthorizeClient)
		return
	}
	a, code, err := parseAuthorization(r.PostForm)
	if err != nil {
		s.refuse(w, r, identity.ViaCLI, err)
		return
	}
	if code != "" {
		s.answer(w, r, a, "error", code)
		return
	}
	secret, err := s.cfg.People.Authorize(r.Context(), in, a.redirect.String(), a.challenge)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	s.answer(w, r, a, "code", secret)
}

// devicePageData is what the page "device" shows.
type devicePageData struct {
	UserCode, Message string
	Confirm           bool
}

// devicePage asks for the code that a device shows. A code in the address is
// filled in, and must be confirmed like any other.
func (s *Service) devicePage(w http.ResponseWriter, r *http.Request) {
	if in, ok := browser(r.Context()); !ok || s.anew(r, in) {
		toSignIn(w, r)
		return
	}
	code := r.URL.Query().Get("user_code")
	if len(code) > 16 {
		code = ""
	}
	web.Render(w, r, http.StatusOK, "device", devicePageData{UserCode: code})
}

// device takes the code, asks whether it is the person's own device, and then
// (confirm is yes or no) decides.
func (s *Service) device(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	in, ok := browser(ctx)
	if !ok {
		problem.Write(w, r, problem.ErrSignInNeeded)
		return
	}
	// Counted before the code is looked at, so that many at once are not more.
	if !s.codes.Allow(in.Person.ID) {
		s.refuse(w, r, identity.ViaDevice, ErrManyCodes)
		return
	}
	d, err := s.cfg.People.FindDevice(ctx, r.PostFormValue("user_code"))
	if err == nil {
		switch r.PostFormValue("confirm") {
		case "yes":
			if err = s.cfg.People.DecideDevice(ctx, in, d.UserCode, true); err == nil {
				web.Render(w, r, http.StatusOK, "device_done", nil)
				return
			}
		case "no":
			if err = s.cfg.People.DecideDevice(ctx, in, d.UserCode, false); err == nil {
				http.Redirect(w, r, "/", http.StatusSeeOther)
				return
			}
		default:
			web.Render(w, r, http.StatusOK, "device", devicePageData{UserCode: d.UserCode, Message: elsewhere(d.Source, source(r)), Confirm: true})
			return
		}
	}
	why := refusal.As(err)
	if why == nil {
		problem.Write(w, r, err)
		return
	}
	s.record(r, identity.ViaDevice, err)
	web.Render(w, r, http.StatusNotFound, "device", devicePageData{Message: why.Detail + "; " + why.Hint})
}

// elsewhere warns of a device in another network: somebody may have sent the code.
func elsewhere(device, here string) string {
	if throttle.Network(device) == throttle.Network(here) {
		return ""
	}
	if _, err := netip.ParseAddr(device); err != nil {
		device = "an unknown address"
	}
	return fmt.Sprintf("That machine calls from %s, you from %s. If somebody sent you this code, say no.", device, here)
}

// justNow is how long a browser's sign-in counts as made for what it leads to.
const justNow = time.Minute

// anew reports whether sally wants the person to authenticate again, as prompt=login
// says (OpenID Connect Core 1.0 section 3.1.2.1), and they have not just done so.
func (s *Service) anew(r *http.Request, in identity.SignedIn) bool {
	return r.URL.Query().Get("prompt") == "login" && s.cfg.Clock.Now().Sub(in.Created) > justNow
}

// toSignIn leads a browser through the sign-in and back here.
func toSignIn(w http.ResponseWriter, r *http.Request) {
	to := url.Values{"next": {r.URL.RequestURI()}}
	if r.URL.Query().Get("prompt") == "login" {
		to.Set("prompt", "login")
	}
	http.Redirect(w, r, "/signin?"+to.Encode(), http.StatusFound)
}
