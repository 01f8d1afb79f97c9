package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"sallyport/audit/event"
	"sallyport/evidence/reconcile"
	"sallyport/internal/history"
)

const recordedRule = `  - name: recorded
    who: [engineers]
    where: "*"
    logins: [web]
    duration: {default: 30m, max: 2h}
    record: true
    approvals:
      - slots: [{groups: [leads], count: 1}]
`

// recorded is a session that has to be recorded, of which a host tells.
type recorded struct {
	*scene
	*history.Request
}

func (r recorded) tell(data event.Data) {
	r.Add(event.New(r.Now, event.Actor{Kind: event.Host, ID: r.Host}, "192.0.2.8", event.Subject{RequestID: r.ID, PersonID: r.erin.ID, HostID: r.Host}, data))
}

func (r recorded) start(id string) {
	r.Session(r.Host, fmt.Sprintf(`"session_id":"%s","serial":"%d","key_id":"%s:%s","login":"web"`, id, r.Serial, r.ID, r.erin.ID))
}

func (r recorded) end(id, reason string) {
	r.tell(event.SessionEnded{SessionID: id, Serial: r.Serial, Login: "web", EndedAt: r.Now, Reason: reason})
}

func (r recorded) film(id string) {
	r.tell(event.SessionRecorded{SessionID: id, Recording: 1, Serial: r.Serial, Login: "web"})
}

func (r recorded) alarm(id, code string) {
	r.tell(event.SessionAlarm{SessionID: id, Serial: r.Serial, Login: "web", Code: code, Reason: "not all of it has come"})
}

func (r recorded) later() {
	r.Now = r.Now.Add(2 * time.Hour)
	r.Broker(event.BrokerStarted{})
}

const one, two = "ses-000000000001", "ses-000000000002"

// Whoever leaves a recording out of the log, or out of what the broker has, is asked.
func TestWhatWasNotRecordedIsAsked(t *testing.T) {
	t.Parallel()
	missing := []string{reconcile.SessionUnrecorded}
	for what, c := range map[string]struct {
		happens func(r recorded)
		want    []string
	}{
		"recorded":                       {func(r recorded) { r.start(one); r.film(one); r.end(one, "closed"); r.later() }, nil},
		"recorded, told after the end":   {func(r recorded) { r.start(one); r.end(one, "closed"); r.film(one); r.later() }, nil},
		"nothing":                        {func(r recorded) { r.start(one); r.end(one, "closed"); r.later() }, missing},
		"nothing, and its start is lost": {func(r recorded) { r.end(one, "reboot"); r.later() }, missing},
		"told too late":                  {func(r recorded) { r.start(one); r.end(one, "closed"); r.later(); r.film(one) }, missing},
		"another session's": {func(r recorded) {
			r.start(one)
			r.start(two)
			r.film(two)
			r.end(one, "closed")
			r.end(two, "closed")
			r.later()
		}, missing},
		"it has just ended":   {func(r recorded) { r.start(one); r.end(one, "closed") }, nil},
		"it goes on":          {func(r recorded) { r.start(one); r.later() }, nil},
		"the hook refused it": {func(r recorded) { r.start(one); r.end(one, "refused"); r.later() }, nil},
		"its bytes did not come": {func(r recorded) {
			r.start(one)
			r.film(one)
			r.end(one, "closed")
			r.alarm(one, "recording-missing")
			r.later()
		}, missing},
		"nothing, as the broker says": {func(r recorded) { r.start(one); r.end(one, "closed"); r.alarm(one, "recording-missing"); r.later() }, missing},
		"other bytes": {func(r recorded) {
			r.start(one)
			r.film(one)
			r.alarm(one, "recording-differs")
			r.end(one, "closed")
			r.later()
		}, missing},
		"other bytes of one long over": {func(r recorded) {
			r.start(one)
			r.film(one)
			r.end(one, "closed")
			r.later()
			r.alarm(one, "recording-differs")
		}, missing},
		"another alarm": {func(r recorded) {
			r.start(one)
			r.film(one)
			r.alarm(one, "processes-survived")
			r.end(one, "closed")
			r.later()
		}, nil},
		"ends that come again": {func(r recorded) {
			r.start(one)
			r.start(one)
			r.film(one)
			r.end(one, "closed")
			r.end(one, "refused")
			r.end(one, "closed")
			r.later()
		}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.Propose(s.olga, history.Document+recordedRule).Approve(s.omar)
			c.happens(recorded{s, s.Access(s.erin, s.liam, "recorded", "web-1")})
			s.want(c.want...)
		})
	}
}

// A certificate that leaves out that its sessions are recorded is not what was approved.
func TestACertificateDoesNotLeaveTheRecordingOut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.Propose(s.olga, history.Document+recordedRule).Approve(s.omar)
	r := s.Ask(s.erin, s.Terms(s.erin, "recorded", "web-1"))
	r.Decide(s.liam, "approve")
	r.Start()
	r.Terms.Rule.Record = false // of which the certificate is made
	r.Certificate()
	r.End("finished")
	s.want(reconcile.CertOutsideGrant)
}
