package gates_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/approvals/policy"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

var hosts = []plan.Host{{ID: "host-000000000001", Name: "localhost"}, {ID: "host-000000000002", Name: "127.0.0.1"}}

// serve answers on loopback, with a certificate that the prober trusts.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, *gates.Prober) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, gates.NewProber(gates.Config{Roots: roots})
}

var loopback = []string{"127.0.0.0/8", "::1/128"}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprint(w, "version 7 is well")
		case "/away":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/long":
			w.Write([]byte(strings.Repeat("x", 1<<20) + "well"))
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	perHost := strings.Replace(s.URL, "127.0.0.1", "{host}", 1)
	for name, c := range map[string]struct {
		gate plan.Gate
		want machine.Verdict
	}{
		"well":                                   {plan.Gate{URL: s.URL + "/ok", Status: 200, Contains: "well"}, machine.Pass},
		"unwell":                                 {plan.Gate{URL: s.URL + "/down", Status: 200}, machine.NoPass},
		"another text":                           {plan.Gate{URL: s.URL + "/ok", Status: 200, Contains: "version 8"}, machine.NoPass},
		"a status of its own":                    {plan.Gate{URL: s.URL + "/down", Status: 503}, machine.Pass},
		"beyond the limit":                       {plan.Gate{URL: s.URL + "/long", Status: 200, Contains: "well"}, machine.NoPass},
		"a redirect":                             {plan.Gate{URL: s.URL + "/away", Status: 200}, machine.NoPass},
		"each host, one has another certificate": {plan.Gate{URL: perHost + "/ok", Status: 200}, machine.NoPass},
		"nobody there":                           {plan.Gate{URL: "https://127.0.0.1:1/", Status: 200}, machine.NoPass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.gate.Kind, c.gate.Reach = policy.HTTPGate, loopback
			if got, why := p.Measure(t.Context(), c.gate, gates.About{Hosts: hosts}); got != c.want || why == "" {
				t.Errorf("%s (%s), not %s", got, why, c.want)
			}
		})
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	t.Cleanup(plain.Close)
	each := plan.Gate{Kind: policy.HTTPGate, URL: strings.Replace(plain.URL, "127.0.0.1", "{host}", 1), Status: 200, Reach: loopback}
	if got, why := p.Measure(t.Context(), each, gates.About{Hosts: hosts}); got != machine.Pass {
		t.Errorf("each host: %s (%s)", got, why)
	}
}

// The broker is not made to call what is inside, by whatever name: the address counts.
func TestAttackInwardURL(t *testing.T) {
	t.Parallel()
	called := 0
	s, p := serve(t, func(http.ResponseWriter, *http.Request) { called++ })
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, to := range []string{
		s.URL, "https://localhost" + port, "https://[::1]" + port, "https://[::ffff:127.0.0.1]" + port, "https://0.0.0.0" + port,
		"https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://192.168.1.1/", "https://100.64.0.1/", "https://[fe80::1]/",
		"https://[fc00::1]/", "https://[64:ff9b::7f00:1]/", "https://224.0.0.1/", "https://255.255.255.255/",
	} {
		for _, kind := range []policy.GateKind{policy.HTTPGate, policy.PrometheusGate} {
			g := plan.Gate{Kind: kind, URL: to, Status: 200, Query: "up", Is: "== 1", Reach: []string{"172.16.5.0/24"}}
			if got, why := p.Measure(t.Context(), g, gates.About{}); got != machine.Unclear || !strings.Contains(why, "may call") {
				t.Errorf("%s %s: %s (%s)", kind, to, got, why)
			}
		}
	}
	if called != 0 {
		t.Errorf("the server inside was called %d times", called)
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	var query string
	s, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prom/api/v1/query" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		query = r.FormValue("query")
		kind, result, _ := strings.Cut(query, " ")
		switch kind {
		case "error":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"status":"error","errorType":"execution","error":"query timed out"}`)
		case "garbage":
			fmt.Fprint(w, `<html>`)
		case "endless":
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[`+strings.Repeat(" ", 1<<20))
		default:
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":%s}}`, kind, result)
		}
	})
	vector := func(values ...string) string {
		var list []any
		for i, v := range values {
			list = append(list, map[string]any{"metric": map[string]string{"instance": fmt.Sprint(i)}, "value": []any{1.5, v}})
		}
		text, _ := json.Marshal(list)
		if list == nil {
			text = []byte("[]")
		}
		return "vector " + string(text)
	}
	for query, want := range map[string]machine.Verdict{
		vector("0.001"):                  machine.Pass,
		vector("0.001", "0.009"):         machine.Pass,
		vector("0.001", "0.02"):          machine.NoPass,
		vector("0.01"):                   machine.NoPass,
		vector("+Inf"):                   machine.NoPass,
		vector():                         machine.Unclear, // absent data
		vector("NaN"):                    machine.Unclear,
		vector("0.001", "NaN"):           machine.Unclear,
		vector("NaN", "1"):               machine.NoPass,
		`scalar [1.5,"0.001"]`:           machine.Pass,
		`scalar [1.5,"NaN"]`:             machine.Unclear,
		`string [1.5,"0.001"]`:           machine.Unclear,
		`matrix []`:                      machine.Unclear,
		`vector [{"value":[1.5,0.001]}]`: machine.Unclear, // a number, where a string belongs
		`vector [{"metric":{}}]`:         machine.Unclear,
		`vector {"value":[1.5,"0.001"]}`: machine.Unclear,
		"error":                          machine.Unclear,
		"garbage":                        machine.Unclear,
		"endless":                        machine.Unclear,
	} {
		g := plan.Gate{Kind: policy.PrometheusGate, URL: s.URL + "/prom/", Query: query, Is: "< 0.01", Reach: loopback}
		if got, why := p.Measure(t.Context(), g, gates.About{}); got != want || why == "" {
			t.Errorf("%s: %s (%s), not %s", query, got, why, want)
		}
	}
	g := plan.Gate{Kind: policy.PrometheusGate, URL: s.URL + "/prom", Query: `vector x{service="{service}",batch="{batch}"}`, Is: "< 1", Reach: loopback}
	p.Measure(t.Context(), g, gates.About{Service: "api", Batch: 3})
	if query != `vector x{service="api",batch="3"}` {
		t.Errorf("the query was %q", query)
	}
	g.URL = "https://127.0.0.1:1"
	if got, _ := p.Measure(t.Context(), g, gates.About{}); got != machine.Unclear {
		t.Errorf("without Prometheus: %s", got)
	}
}

func TestPosture(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	good := gates.Posture{State: gates.Sealed, At: at, Ports: []int{443}}
	change := func(f func(*gates.Posture)) map[string]gates.Posture {
		p := good
		f(&p)
		return map[string]gates.Posture{hosts[0].ID: good, hosts[1].ID: p}
	}
	for name, c := range map[string]struct {
		shown map[string]gates.Posture
		want  machine.Verdict
	}{
		"both":             {change(func(*gates.Posture) {}), machine.Pass},
		"another port":     {change(func(p *gates.Posture) { p.Ports = []int{443, 22222} }), machine.NoPass},
		"drifted":          {change(func(p *gates.Posture) { p.State = gates.Drifted }), machine.NoPass},
		"before the seal":  {change(func(p *gates.Posture) { p.At = at.Add(-time.Second) }), machine.Unclear},
		"unknown":          {change(func(p *gates.Posture) { p.State = gates.Unknown }), machine.Unclear},
		"one is not there": {map[string]gates.Posture{hosts[0].ID: good}, machine.Unclear},
		"nothing":          {nil, machine.Unclear},
	} {
		g := plan.Gate{Kind: policy.PostureGate, Ports: []int{443, 6379}}
		if got, why := gates.NewProber(gates.Config{}).Measure(t.Context(), g, gates.About{Hosts: hosts, Sealed: at, Postures: c.shown}); got != c.want || why == "" {
			t.Errorf("%s: %s (%s), not %s", name, got, why, c.want)
		}
	}
}
