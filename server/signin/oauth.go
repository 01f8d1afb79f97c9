package signin

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"time"

	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
)

// The OAuth endpoints that sally calls. Their errors have the form of RFC 6749
// section 5.2, which its libraries read.

const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
)

var (
	errOAuthRequest = refusal.New(refusal.Invalid, "invalid-request",
		"the request is not one of OAuth 2.0", "use sally, or a library for OAuth")
	errOAuthClient = refusal.New(refusal.Unauthenticated, "invalid-client",
		"the only client is sally", "send client_id=sally")
	errGrantType = refusal.New(refusal.Invalid, "unsupported-grant-type",
		"there is no such grant_type", "the metadata at /.well-known/oauth-authorization-server lists them")
)

// oauthErrors are the codes of RFC 6749 section 5.2 and RFC 8628 section 3.5 for our refusals.
var oauthErrors = map[string]string{
	errOAuthRequest.Code:                  "invalid_request",
	errOAuthClient.Code:                   "invalid_client",
	errGrantType.Code:                     "unsupported_grant_type",
	identity.ErrInvalidGrant.Code:         "invalid_grant",
	identity.ErrTokenReused.Code:          "invalid_grant",
	identity.ErrCodeReused.Code:           "invalid_grant",
	identity.ErrWrongVerifier.Code:        "invalid_grant",
	identity.ErrWrongRedirect.Code:        "invalid_grant",
	identity.ErrAuthorizationPending.Code: "authorization_pending",
	identity.ErrSlowDown.Code:             "slow_down",
	identity.ErrDeviceDenied.Code:         "access_denied",
	identity.ErrDeviceExpired.Code:        "expired_token",
}

// oauthProblem answers with err in the form of RFC 6749.
func oauthProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.Note(r.Context(), err)
	code, ok := oauthErrors[p.Code]
	status := http.StatusBadRequest
	switch {
	case code == "invalid_client":
		status = http.StatusUnauthorized
	case p.Status == http.StatusServiceUnavailable:
		code, status = "temporarily_unavailable", p.Status
	case !ok:
		code, status = "server_error", p.Status
	}
	description := p.Detail
	if p.Hint != "" {
		description += "; " + p.Hint
	}
	answerJSON(w, status, map[string]string{"error": code, "error_description": description})
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// form reads the parameters of a call by sally. None may be there twice (RFC 6749 section 3.2).
func form(r *http.Request) (url.Values, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, errOAuthRequest.With("the body must be application/x-www-form-urlencoded")
	}
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, errOAuthRequest.With("the body is too large")
		}
		return nil, errOAuthRequest.With("the body cannot be read")
	}
	if err := once(r.PostForm); err != nil {
		return nil, err
	}
	if r.PostForm.Get("client_id") != clientID {
		return nil, errOAuthClient
	}
	return r.PostForm, nil
}

func once(v url.Values) error {
	for name, values := range v {
		if len(values) > 1 {
			return errOAuthRequest.With("a parameter is there twice").On(name)
		}
	}
	return nil
}

// token gives out tokens (RFC 6749 sections 4.1.3 and 6, RFC 8628 section 3.4).
func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	f, err := form(r)
	if err != nil {
		oauthProblem(w, r, err)
		return
	}
	var t identity.Tokens
	via := identity.ViaCLI
	switch f.Get("grant_type") {
	case grantCode:
		t, err = s.cfg.People.RedeemCode(r.Context(), f.Get("code"), f.Get("code_verifier"), f.Get("redirect_uri"), source(r))
	case grantRefresh:
		t, err = s.cfg.People.Refresh(r.Context(), f.Get("refresh_token"), source(r))
	case grantDevice:
		via = identity.ViaDevice
		t, err = s.cfg.People.RedeemDevice(r.Context(), f.Get("device_code"), source(r))
	default:
		err = errGrantType
	}
	if err != nil {
		if errors.Is(err, identity.ErrInvalidGrant) { // the other refusals that matter are recorded where they are found
			s.record(r, via, err)
		}
		oauthProblem(w, r, err)
		return
	}
	access, lifetime, err := s.tokens.sign(t.SignedIn)
	if err != nil {
		oauthProblem(w, r, err)
		return
	}
	answerJSON(w, http.StatusOK, struct {
		Access    string `json:"access_token"`
		Type      string `json:"token_type"`
		ExpiresIn int    `json:"expires_in"` // seconds
		Refresh   string `json:"refresh_token"`
	}{access, "Bearer", int(lifetime / time.Second), t.Refresh})
}

// deviceAuthorization starts a sign-in without a browser (RFC 8628 section 3.1).
func (s *Service) deviceAuthorization(w http.ResponseWriter, r *http.Request) {
	if _, err := form(r); err != nil {
		oauthProblem(w, r, err)
		return
	}
	if err := s.cfg.People.Sweep(r.Context()); err != nil {
		oauthProblem(w, r, err)
		return
	}
	d, err := s.cfg.People.BeginDevice(r.Context(), source(r))
	if err != nil {
		oauthProblem(w, r, err)
		return
	}
	answerJSON(w, http.StatusOK, struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		URI        string `json:"verification_uri"`
		Complete   string `json:"verification_uri_complete"`
		ExpiresIn  int    `json:"expires_in"` // seconds
		Interval   int    `json:"interval"`   // seconds
	}{d.DeviceCode, d.UserCode, s.cfg.URL + "/device", s.cfg.URL + "/device?user_code=" + d.UserCode,
		int(d.Expires.Sub(s.cfg.Clock.Now()) / time.Second), int(d.Interval / time.Second)})
}

// revoke ends the sign-in that a refresh token belongs to (RFC 7009). An unknown
// token is no error.
func (s *Service) revoke(w http.ResponseWriter, r *http.Request) {
	f, err := form(r)
	if err == nil && f.Get("token") == "" {
		err = errOAuthRequest.With("token is missing")
	}
	if err == nil {
		err = s.cfg.People.Revoke(r.Context(), f.Get("token"), source(r))
	}
	if err != nil {
		oauthProblem(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// metadata is RFC 8414.
func (s *Service) metadata(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"issuer":                                         s.cfg.URL,
		"authorization_endpoint":                         s.cfg.URL + "/oauth/authorize",
		"token_endpoint":                                 s.cfg.URL + "/oauth/token",
		"device_authorization_endpoint":                  s.cfg.URL + "/oauth/device_authorization",
		"revocation_endpoint":                            s.cfg.URL + "/oauth/revoke",
		"jwks_uri":                                       s.cfg.URL + "/oauth/jwks",
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{grantCode, grantRefresh, grantDevice},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"revocation_endpoint_auth_methods_supported":     []string{"none"},
		"authorization_response_iss_parameter_supported": true,
	})
}
