package signin

import (
	"context"
	"crypto/subtle"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

//go:embed answered.html
var answeredHTML string

var answeredPage = template.Must(template.New("answered").Parse(answeredHTML))

// answer is what the broker's redirect brought.
type answer struct {
	code string
	err  error
}

// Loopback signs in with a browser on this computer: it listens on a port of
// 127.0.0.1 that nobody else has, lets open show the broker's page, and waits
// for the redirect to bring the code (RFC 8252, section 7.3). anew: the person is
// to authenticate also if the browser is signed in.
func (s *Server) Loopback(ctx context.Context, anew bool, open func(page string)) (*oauth2.Token, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	answers := make(chan answer, 1)
	mux := http.NewServeMux()
	mux.Handle("GET /callback", callback(state, s.meta.Issuer, answers))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	defer func() {
		// Shutdown, not Close: the person is to see the page.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		server.Shutdown(ctx)
	}()

	conf := s.config("http://" + listener.Addr().String() + "/callback")
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	if anew {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login")) // OpenID Connect Core, section 3.1.2.1
	}
	open(conf.AuthCodeURL(state, options...))
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the browser: %w", context.Cause(ctx))
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		token, err := conf.Exchange(s.with(ctx), a.code, oauth2.VerifierOption(verifier))
		return token, readable("swap the code for tokens", err)
	}
}

// callback takes the first redirect that carries our state. Whatever else comes
// is answered and forgotten, so that another page in the same browser can
// neither slip us a code of its own nor end the sign-in.
func callback(state, issuer string, answers chan<- answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(state)) != 1 {
			page(w, http.StatusBadRequest, "This is not the sign-in that sally waits for.")
			return
		}
		var a answer
		switch iss := query.Get("iss"); {
		// RFC 9207: an answer of another server must not be taken for ours.
		case iss != "" && iss != issuer:
			a.err = refusedWith("", "the answer came from "+iss)
		case query.Get("error") != "":
			a.err = refusedWith(query.Get("error"), query.Get("error_description"))
		case query.Get("code") == "":
			a.err = refusedWith("", "the browser brought no code")
		default:
			a.code = query.Get("code")
		}
		if a.err != nil {
			page(w, http.StatusForbidden, "You are not signed in. The terminal says why.")
		} else {
			page(w, http.StatusOK, "sally goes on in the terminal.")
		}
		select {
		case answers <- a:
		default: // a reload of the page
		}
	}
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	// The process ends soon after: a connection kept for more would delay that.
	w.Header().Set("Connection", "close")
	w.WriteHeader(status)
	answeredPage.Execute(w, struct {
		Done bool
		Text string
	}{status == http.StatusOK, text})
}
