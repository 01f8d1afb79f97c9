package brokertest

import (
	"fmt"
	"net/http"
	"time"

	"sallyport/api"
)

// The log of this broker has one event, which is no event, at index 24, and had one at
// 7, which was pruned.
const leaf = `{"type":"grant.ended","actor":{"name":"Erin \u001b[2J"}}`

// entries answers the calls about the log; Olga Operator is its auditor.
func (b *Broker) entries(handle func(string, func(http.ResponseWriter, *http.Request, string))) {
	one := func(f func(w http.ResponseWriter, pruned bool)) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, r *http.Request, who string) {
			switch {
			case who != "operator":
				refuse(w, 403, "auditors-only", "only auditors read the log", "ask an auditor")
			case r.PathValue("index") != "24" && r.PathValue("index") != "7":
				refuse(w, 404, "no-entry", "the log has no such entry", "see the newest: /log/checkpoint")
			default:
				f(w, r.PathValue("index") == "7")
			}
		}
	}
	handle("GET /audit/events/{index}", one(func(w http.ResponseWriter, pruned bool) {
		if pruned {
			refuse(w, 410, "pruned", "entry 7 was pruned on 2026-02-01; it is in the archive log-0-15.zip", "read it there: sally audit event 7 --pack log-0-15.zip")
			return
		}
		answer(w, 200, api.Event{Index: 24, ID: "0195f000-0000-7000-8000-000000000001", Type: "grant.ended", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
			Actor: api.EventActor{Kind: "person", Name: "Erin Engineer"}, Summary: "ended the grant early, being done", LeafHash: "26596ebf", Leaf: []byte(leaf)})
	}))
	handle("GET /audit/events/{index}/receipt", one(func(w http.ResponseWriter, pruned bool) {
		index := 24
		if pruned {
			index = 7
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "c2sp.org/tlog-proof@v1\nindex %d\n\nlog.example.com/sallyport\n25\nAAAA\n", index)
	}))
}
