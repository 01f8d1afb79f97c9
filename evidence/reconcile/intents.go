package reconcile

import (
	"time"

	"sallyport/evidence/populations"
)

// intents are certificates, of people and of hosts, that were to be signed and of
// whose signature nothing has been heard yet, by the ids of their events. A broker
// that writes no results is not held to them: they count from the first result in
// the log on.
type intents struct {
	open    map[string]*populations.Event
	order   []string // as they came; the front may be answered already
	results bool
}

func newIntents() intents { return intents{open: map[string]*populations.Event{}} }

func (i *intents) add(e *populations.Event) {
	i.open[e.ID] = brief(e)
	i.order = append(i.order, e.ID)
}

// result is what became of an intent, which the data's field of that name names.
// That there is one is enough here: what it says is in the list of certificates.
func (i *intents) result(e *populations.Event) {
	delete(i.open, e.Text("intent"))
	i.results = true
}

// overdueIntents reports those of which something should have been heard by now.
func (g *Engine) overdueIntents(now time.Time) {
	i := &g.intents
	for len(i.order) > 0 {
		e, open := i.open[i.order[0]]
		if open && !now.After(e.Time.Add(resultGrace)) {
			return
		}
		i.order = i.order[1:]
		if open {
			delete(i.open, e.ID)
			if i.results {
				g.report(IntentWithoutResult, e, -1, "nothing in the log says whether the certificate was signed")
			}
		}
	}
}
