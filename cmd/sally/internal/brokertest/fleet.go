package brokertest

import (
	"encoding/json"
	"net/http"
	"time"

	"sallyport/api"
)

// fleet answers calls about hosts that enrol, with what stands here.
func fleet(handle func(string, func(http.ResponseWriter, *http.Request, string))) {
	at := time.Now().Add(-time.Minute).UTC()
	operators := func(pattern string, f func(w http.ResponseWriter, r *http.Request)) {
		handle(pattern, func(w http.ResponseWriter, r *http.Request, who string) {
			if governor(w, who) {
				f(w, r)
			}
		})
	}
	token := api.JoinToken{ID: "join-000000000001", Name: "db-9", State: "waiting", MadeBy: people["operator"], MadeAt: at, ExpiresAt: at.Add(time.Hour)}
	operators("POST /hosts/join-tokens", func(w http.ResponseWriter, r *http.Request) {
		var in api.JoinTokenInput
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			return
		}
		made := token
		made.Name, made.Address, made.Labels, made.Logins, made.Token = in.Name, in.Address, in.Labels, in.Logins, "sjt_secret"
		answer(w, 201, made)
	})
	operators("GET /hosts/join-tokens", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, api.Page[api.JoinToken]{Items: []api.JoinToken{token}})
	})
	operators("DELETE /hosts/join-tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != token.ID {
			refuse(w, 404, "unknown-join-token", "there is no such join token", "list those that there are: sally hosts join list")
			return
		}
		w.WriteHeader(204)
	})
	pending := api.PendingHost{ID: "enr-000000000001", Fingerprint: "SHA256:abc", Name: "db-\x1b[31m8", Address: "10.0.0.8:22", Source: "192.0.2.8", AskedAt: at}
	operators("GET /hosts/pending", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, api.Page[api.PendingHost]{Items: []api.PendingHost{pending}})
	})
	operators("POST /hosts/pending/{id}/approve", func(w http.ResponseWriter, r *http.Request) {
		var in api.PendingDecision
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			return
		}
		if in.Fingerprint != pending.Fingerprint {
			refuse(w, 409, "fingerprint-differs", "the host that waits has another key", "compare with what the host itself says")
			return
		}
		answer(w, 201, api.Host{ID: "host-000000000008", Name: in.Name, State: api.HostUnknown, Labels: in.Labels, Logins: in.Logins,
			StateWhy: []string{"it has not reported its posture yet"}})
	})
	operators("POST /hosts/pending/{id}/refuse", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	operators("POST /hosts/labels", func(w http.ResponseWriter, r *http.Request) {
		var in api.LabelsInput
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			return
		}
		answer(w, 200, api.Page[api.Host]{Items: []api.Host{{Name: "web-1", Labels: in.Set}}})
	})
	for path, state := range map[string]api.HostState{"quarantine": api.HostQuarantined, "release": api.HostSealed} {
		operators("POST /hosts/{host}/"+path, func(w http.ResponseWriter, r *http.Request) {
			answer(w, 200, api.Host{Name: r.PathValue("host"), State: state})
		})
	}
	operators("GET /hosts/{host}/posture", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, api.HostPosture{State: api.HostDrifted, StateWhy: []string{"check keys fails: /root/.ssh/authorized_keys"}, TakenAt: &at, SeenAt: &at,
			Enrolled: &api.Enrolled{At: at, LetInBy: people["operator"], OS: "Debian 12"},
			Checks: []api.HostCheck{{ID: "clock", Result: "pass"},
				{ID: "keys", Result: "fail", Findings: []string{"/root/.ssh/authorized_keys"}, Remedy: "remove the file"}},
			Probe: &api.HostProbe{At: at, Result: "pass", Login: "dba"}})
	})
	handle("GET /hosts/{host}/sessions", func(w http.ResponseWriter, r *http.Request, _ string) {
		list := []api.Session{{ID: "ses-000000000002", Login: "root", Client: "203.0.113.9", StartedAt: &at, Alarm: "no-certificate"}}
		if r.FormValue("live") == "" {
			end := at.Add(time.Second)
			list = append(list, api.Session{ID: "ses-000000000001", Login: "dba", Person: people["engineer"], Client: "192.0.2.9",
				Request: "req-000000000001", StartedAt: &at, EndedAt: &end, EndReason: "finished"})
		}
		answer(w, 200, api.Page[api.Session]{Items: list})
	})
}
