package rest

import (
	"slices"
	"testing"
)

// A request says its hosts always, and neither way to name them is needed by
// itself; a certificate needs no host where there is one only.
func TestOpenAPIOfSeveralHosts(t *testing.T) {
	t.Parallel()
	schemas := newDescribed(t).huma.OpenAPI().Components.Schemas.Map()
	for _, c := range []struct {
		schema, field, kind string
		required            bool
	}{
		{"RequestInput", "host", "string", false}, {"RequestInput", "selector", "object", false}, {"RequestInput", "login", "string", true},
		{"Request", "host", "string", true}, {"Request", "hosts", "array", true}, {"Request", "selector", "object", false},
		{"CertificateInput", "host", "string", false}, {"RequestHost", "id", "string", true}, {"RequestHost", "name", "string", true},
	} {
		s := schemas[c.schema]
		p := s.Properties[c.field]
		if p == nil || p.Type != c.kind || p.Description == "" && c.kind != "string" || slices.Contains(s.Required, c.field) != c.required {
			t.Errorf("%s.%s: %+v, required %t", c.schema, c.field, p, slices.Contains(s.Required, c.field))
		}
	}
}
