package web

import (
	"bytes"
	"context"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"
)

// Chrome is what every page shows around its contents.
type Chrome struct {
	// Name and Email of the person who is signed in; no name: nobody is.
	Name, Email string
	// Operator and Auditor are the person's roles.
	Operator, Auditor bool
	// Waiting counts the requests that wait for the person's decision. It is
	// called only when a whole page is rendered. Optional.
	Waiting func() int
	// Proposals counts the proposals of a policy that wait for the person's decision,
	// like Waiting. Optional.
	Proposals func() int
	// Deployments reports whether there are any that the person may see, like Waiting.
	// Optional.
	Deployments func() bool
	// Now is what "5 minutes ago" is relative to.
	Now time.Time
}

type chromeKey struct{}

// WithChrome returns a context whose pages are rendered with c around them.
func WithChrome(ctx context.Context, c Chrome) context.Context {
	return context.WithValue(ctx, chromeKey{}, c)
}

// view is what templates see as $.
type view struct {
	Chrome
	Path string // of the page, for the navigation
	Data any
}

// WaitingCount is for the navigation's badge.
func (v view) WaitingCount() int { return counted(v.Waiting) }

// ProposalCount is described at WaitingCount.
func (v view) ProposalCount() int { return counted(v.Proposals) }

// SeesDeployments is described at WaitingCount.
func (v view) SeesDeployments() bool { return v.Deployments != nil && v.Deployments() }

func counted(count func() int) int {
	if count == nil {
		return 0
	}
	return count()
}

// templates by page. Each is the layout, the shared parts and the page itself,
// parsed once.
var templates = parse()

func parse() map[string]*template.Template {
	base := template.Must(template.New("layout").Funcs(functions).
		ParseFS(files, "templates/layout.html", "templates/parts.html"))
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic("web: " + err.Error()) // the pattern is a constant
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		page := strings.TrimSuffix(path.Base(name), ".html")
		if page == "layout" || page == "parts" {
			continue
		}
		pages[page] = template.Must(template.Must(base.Clone()).ParseFS(files, name))
	}
	return pages
}

// Render answers with templates/<page>.html inside the layout, with data as
// .Data, and with the headers of Secure. The page is rendered before the first
// byte is written: a fault gives a plain 500, never half a page.
func Render(w http.ResponseWriter, r *http.Request, status int, page string, data any) {
	execute(w, r, status, page, "layout", data)
}

// RenderPart answers with one named part of a page, without the layout: the
// script puts it in place of an older one.
func RenderPart(w http.ResponseWriter, r *http.Request, status int, page, part string, data any) {
	execute(w, r, status, page, part, data)
}

func execute(w http.ResponseWriter, r *http.Request, status int, page, part string, data any) {
	chrome, _ := r.Context().Value(chromeKey{}).(Chrome)
	var b bytes.Buffer
	t, ok := templates[page]
	if !ok {
		fail(w, r, "no such page", "page", page)
		return
	}
	if err := t.ExecuteTemplate(&b, part, view{Chrome: chrome, Path: r.URL.Path, Data: data}); err != nil {
		fail(w, r, "rendering failed", "page", page, "error", err)
		return
	}
	Secure(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

func fail(w http.ResponseWriter, r *http.Request, msg string, args ...any) {
	slog.ErrorContext(r.Context(), msg, args...)
	http.Error(w, "internal error", http.StatusInternalServerError)
}

// Forward sends the browser on to url by a page instead of a redirect. After a
// form was posted, browsers hold every redirect that follows against the page's
// form-action; a page in between ends that chain, so that the policy can stay
// form-action 'self' although sign-in and sign-out lead to the provider and
// `sally login` to its own loopback address. The caller vouches for url.
func Forward(w http.ResponseWriter, r *http.Request, url string) {
	w.Header().Set("Refresh", "0; url="+url)
	Render(w, r, http.StatusOK, "forward", template.URL(url))
}

// Policy is the Content-Security-Policy of every page.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// Secure sets the headers of a page that shows what is not everybody's.
func Secure(h http.Header) {
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}
