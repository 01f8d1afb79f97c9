package problem

import (
	"net/http"

	"sallyport/api"
	"sallyport/web"
)

// page shows the problem to a person.
func page(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	web.Render(w, r, p.Status, "problem", *p)
}
