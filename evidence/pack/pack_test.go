package pack_test

import (
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/event"
)

// ordinary is a quarter in which nothing is wrong.
func (w *world) ordinary() {
	w.By(w.erin, event.Subject{}, event.PersonSignedIn{Via: "web", Issuer: "https://id.test", Subject: "sub-Erin", Groups: []string{"engineers"}, AuthTime: w.Now})
	w.Access(w.erin, w.liam, "databases", "db-1")
	r := w.Ask(w.erin, w.Terms(w.erin, "signed", "db-2"))
	r.Decide(w.liam, api.Approve)
	r.Decide(w.sam, api.Approve)
	r.Start()
	for range 3 {
		r.Certificate()
	}
	r.End("time")
	denied := w.Ask(w.erin, w.Terms(w.erin, "databases", "db-1"))
	denied.Decide(w.liam, api.Deny)
	w.By(w.liam, event.Subject{RequestID: denied.ID}, event.RequestClosed{State: "denied"})
	e := w.Emergency(w.erin, "databases", "db-1")
	e.Review(w.sam)
	e.End("time")
	w.Propose(w.olga, documentTwo).Approve(w.omar)
	w.Access(w.erin, w.liam, "databases", "db-3")
	w.By(w.olga, event.Subject{PersonID: w.erin.ID}, event.PersonRemoved{Name: "Erin", Reason: "left"})
	w.Now = w.Now.Add(time.Hour)
	w.Broker(event.KeysLoaded{})
}

func TestAnOrdinaryQuarterVerifies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	v := w.mustVerify(archive)
	if len(v.Exceptions) > 0 {
		t.Errorf("exceptions: %v\n%s", v.Exceptions, file(t, archive, "exceptions.csv"))
	}
	for _, m := range unpack(t, archive) {
		t.Log(m.name, len(m.text))
	}
	for _, c := range v.Checks {
		t.Log(c.Name, c.Detail)
	}
}
