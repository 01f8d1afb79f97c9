package rest

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

const schemaPrefix = "#/components/schemas/"

// document is the OpenAPI document before any call is in it.
func document(cfg Config) *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Sallyport", Version: cfg.Version,
			Description: "A zero-trust access broker with just-in-time approval. Durations are Go durations (30m), " +
				"times RFC 3339 in UTC, 64-bit integers strings; lists page by cursor; every error is an RFC 9457 problem with a code and a hint.",
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Servers: []*huma.Server{{URL: strings.TrimRight(cfg.URL, "/") + Prefix}},
		Tags: []*huma.Tag{
			{Name: "people", Description: "The caller, and for operators and auditors everybody"},
			{Name: "requests", Description: "Asks, decisions, grants and certificates"},
			{Name: "delegations", Description: "Who decides for whom for a while"},
			{Name: "revocations", Description: "Ending grants, and single certificates"},
			{Name: "hosts", Description: "The registry of hosts"},
			{Name: "host", Description: "What enrolled hosts call"},
			{Name: "policy", Description: "The versions of the policy, and proposals for the next"},
			{Name: "deployments", Description: "Rollouts by deploy agents"},
			{Name: "audit", Description: "The append-only log"},
		},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT",
					Description: "An access token, as `sally login` gets one"},
				"host": {Type: "http", Scheme: "Sallyport-Host",
					Description: "A signature by the host's SSH key over the call (api/hostapi)"},
				"cookie": {Type: "apiKey", In: "cookie", Name: signin.CookieName(cfg.URL),
					Description: "The sign-in of a browser"},
				"agent": {Type: "apiKey", In: "header", Name: api.AgentSignatureHeader,
					Description: "A deploy agent's signature over the call (docs/agents.md)"},
			},
		},
	}
}

// describe finishes the document when all calls are in it: what huma cannot
// derive from the types is set right here.
func describe(doc *huma.OpenAPI) ([]byte, error) {
	schemas := doc.Components.Schemas
	create := doc.Paths["/requests"].Post
	create.Responses["201"] = jsonResponse("The request", schemas.Schema(reflect.TypeFor[api.Request](), true, ""))
	create.Responses["200"] = jsonResponse("With dry_run: what would happen", schemas.Schema(reflect.TypeFor[api.Preview](), true, ""))
	for op, done := range map[*huma.Operation]string{doc.Paths["/host/enrolments"].Post: "201", doc.Paths["/host/enrolments/{id}"].Get: "200"} {
		op.Responses[done] = jsonResponse("The enrolment", schemas.Schema(reflect.TypeFor[hostapi.Enrolment](), true, ""))
		op.Responses["202"] = jsonResponse("The host waits to be let in", schemas.Schema(reflect.TypeFor[hostapi.Pending](), true, ""))
	}
	receipt := doc.Paths["/audit/events/{index}/receipt"].Get
	receipt.Responses["200"] = &huma.Response{Description: "The receipt", Content: map[string]*huma.MediaType{
		"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}}

	failed := &huma.Response{Description: "A problem", Content: map[string]*huma.MediaType{
		problem.ContentType: {
			Schema:  schemas.Schema(reflect.TypeFor[api.Problem](), true, ""),
			Example: exampleProblem(),
		}}}
	for _, path := range doc.Paths {
		for _, op := range operations(path) {
			op.Responses["default"] = failed
		}
	}
	delete(schemas.Map(), "ErrorModel")
	delete(schemas.Map(), "ErrorDetail")
	for name, s := range schemas.Map() {
		stringIntegers(schemas.TypeFromRef(schemaPrefix+name), s)
	}
	return json.MarshalIndent(doc, "", " ")
}

func jsonResponse(description string, s *huma.Schema) *huma.Response {
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: s}}}
}

func exampleProblem() *api.Problem {
	p := problem.From(approvals.ErrOwnRequest)
	p.Instance = "urn:sallyport:call-4f8k2m9qhx1z"
	return p
}

func operations(p *huma.PathItem) []*huma.Operation {
	var ops []*huma.Operation
	for _, op := range []*huma.Operation{p.Get, p.Post, p.Put, p.Delete} {
		if op != nil {
			ops = append(ops, op)
		}
	}
	return ops
}

// stringIntegers describes fields with `json:",string"` as what they are on the
// wire: decimal digits in a string, so that no client loses digits of 64 bits.
func stringIntegers(t reflect.Type, s *huma.Schema) {
	if t == nil || t.Kind() != reflect.Struct {
		return
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := s.Properties[name]
		if p == nil || !strings.Contains(options, "string") {
			continue
		}
		p.Type, p.Format, p.Minimum, p.Pattern = huma.TypeString, "", nil, "^-?[0-9]+$"
	}
}
