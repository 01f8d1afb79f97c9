package rest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/broker"
	"sallyport/broker/agents"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/recordings"
	"sallyport/broker/revocations"
	"sallyport/broker/rollout"
	"sallyport/evidence"
)

// newDescribed is an API that can only describe itself: its rooms are empty.
func newDescribed(t *testing.T) *API {
	t.Helper()
	a, err := New(Config{URL: "https://sallyport.example.com", Version: "v1.2.3", Approvals: &approvals.Service{},
		Broker: &broker.Broker{}, Hosts: &hosts.Registry{}, Agents: &agents.Service{}, Log: &audit.Log{}, Evidence: &evidence.Service{},
		Fleet: &fleet.Service{}, Revocations: &revocations.List{}, Deployments: &rollout.Service{}, Recordings: &recordings.Store{}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type document31 struct {
	OpenAPI string
	Info    struct{ Title, Version string }
	Servers []struct{ URL string }
	Paths   map[string]map[string]struct {
		OperationID string
		Summary     string
		Security    []map[string][]string
		Parameters  []struct {
			Name, In string
			Required bool
		}
		Responses map[string]struct{ Content map[string]any }
	}
	Components struct {
		Schemas         map[string]map[string]any
		SecuritySchemes map[string]struct{ Type, Scheme, In, Name string }
	}
}

func TestOpenAPIDescribesEveryCall(t *testing.T) {
	t.Parallel()
	a := newDescribed(t)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var doc document31
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%d: %v", w.Code, err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" || doc.Info.Version != "v1.2.3" {
		t.Errorf("version %q, info %+v", doc.OpenAPI, doc.Info)
	}
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "https://sallyport.example.com/api/v1" {
		t.Errorf("servers %+v", doc.Servers)
	}
	if s := doc.Components.SecuritySchemes; s["bearer"].Scheme != "bearer" || s["cookie"].Name != "__Host-sallyport" {
		t.Errorf("security schemes %+v", s)
	}
	described := map[string]bool{}
	ids := map[string]bool{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			name := strings.ToUpper(method) + " " + path
			described[name] = true
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
				t.Errorf("%s: operationId %q, summary %q", name, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			want := 2
			switch {
			case strings.HasPrefix(path, "/host/"), slices.ContainsFunc(op.Security, func(s map[string][]string) bool { return s["agent"] != nil }):
				want = 1 // the host's signature, or the agent's
			case path == "/deployments/explain":
				want = 3
			}
			if len(op.Security) != want {
				t.Errorf("%s: security %v", name, op.Security)
			}
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok {
				t.Errorf("%s: errors are not problems", name)
			}
			in := map[string]bool{}
			for _, p := range op.Parameters {
				in[p.Name] = p.In == "path" && p.Required
			}
			for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				if !in[m[1]] {
					t.Errorf("%s: parameter %s is not described", name, m[1])
				}
			}
		}
	}
	routes := 0
	for _, router := range []chi.Routes{a.router, a.hostRoutes} {
		err := chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			if route != "/openapi.json" && !described[method+" "+route] {
				t.Errorf("%s %s is not described", method, route)
			}
			routes++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if routes != len(described)+1 {
		t.Errorf("%d routes, %d described", routes, len(described))
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/components/schemas/([^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("schema %s is missing", m[1])
		}
	}
}

func TestOpenAPIHasTheCoreOfTheContract(t *testing.T) {
	t.Parallel()
	a := newDescribed(t)
	paths := a.huma.OpenAPI().Paths
	for _, c := range []string{
		"GET /me", "GET /hosts", "POST /hosts", "GET /hosts/{host}", "PUT /hosts/{host}", "DELETE /hosts/{host}",
		"POST /hosts/{host}/certificate", "POST /requests", "GET /requests", "GET /requests/{id}",
		"POST /requests/{id}/decisions", "POST /requests/{id}/cancel", "POST /requests/{id}/finish",
		"POST /requests/{id}/certificates", "GET /audit/events", "GET /audit/events/{index}", "GET /audit/events/{index}/receipt",
		"POST /audit/packs", "GET /audit/packs", "GET /audit/packs/{id}", "GET /audit/packs/{id}/download",
	} {
		method, path, _ := strings.Cut(c, " ")
		found := false
		if p := paths[path]; p != nil {
			for _, op := range operations(p) {
				found = found || op.Method == method
			}
		}
		if !found {
			t.Errorf("%s is missing", c)
		}
	}
}

func TestOpenAPISaysHow64BitIntegersAreWritten(t *testing.T) {
	t.Parallel()
	schemas := newDescribed(t).huma.OpenAPI().Components.Schemas.Map()
	for schema, fields := range map[string][]string{
		"Event": {"index"}, "Certificate": {"serial", "log_index"}, "CertificateInfo": {"serial"},
		"HostCertificate": {"serial"}, "PolicyRef": {"version"},
	} {
		for _, f := range fields {
			if p := schemas[schema].Properties[f]; p == nil || p.Type != "string" || p.Pattern == "" {
				t.Errorf("%s.%s: %+v, want a string of digits", schema, f, p)
			}
		}
	}
	if p := schemas["Event"].Properties["leaf"]; p.Type != "string" || p.ContentEncoding != "base64" {
		t.Errorf("Event.leaf: %+v", p)
	}
}

func TestNewRefusesMissingParts(t *testing.T) {
	t.Parallel()
	whole := Config{URL: "http://x", Approvals: &approvals.Service{}, Broker: &broker.Broker{},
		Hosts: &hosts.Registry{}, Agents: &agents.Service{}, Log: &audit.Log{}, Evidence: &evidence.Service{}, Fleet: &fleet.Service{},
		Revocations: &revocations.List{}, Deployments: &rollout.Service{}}
	for name, without := range map[string]func(*Config){
		"URL": func(c *Config) { c.URL = "" }, "approvals": func(c *Config) { c.Approvals = nil },
		"broker": func(c *Config) { c.Broker = nil }, "hosts": func(c *Config) { c.Hosts = nil },
		"log": func(c *Config) { c.Log = nil }, "evidence": func(c *Config) { c.Evidence = nil }, "deployments": func(c *Config) { c.Deployments = nil },
	} {
		cfg := whole
		without(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s it starts", name)
		}
	}
}
