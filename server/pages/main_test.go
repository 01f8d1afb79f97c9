package pages

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/broker"
	"sallyport/internal/clock"
	"sallyport/server/signin"
	"sallyport/web"
)

// The rooms fit the pages' doors.
var (
	_ Approvals = (*approvals.Service)(nil)
	_ Broker    = (*broker.Broker)(nil)
	_ Log       = (*audit.Log)(nil)
)

var previewAt = flag.String("preview", "", "serve the pages with made-up data at this address instead of testing, for whoever works on how they look")

func TestMain(m *testing.M) {
	flag.Parse()
	if *previewAt == "" {
		os.Exit(m.Run())
	}
	h := newHouse(clock.System).furnish()
	h.happened()
	h.roll()
	h.lend("security", nil)
	h.lend("natarajan", func(d *api.Delegation) {
		d.State, d.MadeBy, d.From = "planned", h.person("operator"), d.Until.Add(-time.Hour)
	})
	h.lend("engineer", func(d *api.Delegation) { d.State = "over" })
	h.delegate(&h.asked[1], "engineer")
	fmt.Println("http://" + *previewAt + "/as/engineer, approver, security, auditor, operator or nobody")
	fmt.Println(http.ListenAndServe(*previewAt, doors(h)))
}

// doors are the pages over the house, for whoever the cookie "as" names.
func doors(h *house) http.Handler {
	p, err := New(Config{Approvals: h, Decisions: provider{h}, Broker: rooms{h}, Fleet: rooms{h}, Registry: rooms{h}, Deployments: yard{h}, Log: h, Evidence: drawer{h}, Recordings: archive{h}, Clock: h.clock, URL: "https://sallyport.example.com"})
	if err != nil {
		panic(err)
	}
	return route(p, h)
}

// route serves the pages as the server does, with a simpler sign-in.
func route(p *Pages, h *house) http.Handler {
	r := chi.NewRouter()
	r.Use(http.NewCrossOriginProtection().Handler, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if as, err := r.Cookie("as"); err == nil {
				if c, ok := h.people[as.Value]; ok {
					r = r.WithContext(signin.With(r.Context(), c))
				}
			}
			next.ServeHTTP(w, r)
		})
	}, p.Chrome)
	r.Get("/as/{who}", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "as", Value: chi.URLParam(r, "who"), Path: "/"})
		http.Redirect(w, r, "/"+r.URL.Query().Get("to"), http.StatusSeeOther)
	})
	r.Handle(web.StaticPath+"*", web.Static())
	p.Routes(r)
	return r
}
