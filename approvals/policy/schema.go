package policy

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"

	"sallyport/internal/names"
)

// Schema is the JSON Schema (draft 7, which editors know best) of a document,
// made from the types and limits that Parse goes by. It describes form only: Parse
// also checks what a schema cannot say, such as that an extension is no longer
// than its rule allows. An editor with a YAML language server uses it where the
// document begins with
//
//	# yaml-language-server: $schema=policy.schema.json
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[document](), "")
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	s["title"] = "Sallyport policy"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic(err) // maps of strings and numbers: it cannot fail
	}
	return b.Bytes()
}

type schema = map[string]any

// forms are what the document's form tags stand for, on top of what the Go type
// says already.
var forms = map[string]schema{
	"version":     {"const": 1},
	"assurance":   {"enum": assurances},
	"at end":      {"enum": atEnds},
	"roles":       {"properties": schema{"operator": arrayOf(groupName, 1, MaxGroups), "auditor": arrayOf(groupName, 1, MaxGroups)}, "additionalProperties": false},
	"rules":       {"minItems": 1, "maxItems": MaxRules},
	"tests":       {"maxItems": MaxTests},
	"listens":     {"maxItems": MaxListens},
	"ports":       {"items": schema{"type": "string", "pattern": portForm.String()}, "maxItems": MaxPorts},
	"rule name":   {"pattern": nameForm.String()},
	"groups":      arrayOf(groupName, 1, MaxGroups),
	"any groups":  {"type": "array", "items": schema{"type": "string"}},
	"selector":    {"minLength": 1},
	"login":       {"pattern": names.LoginForm},
	"logins":      {"items": schema{"type": "string", "pattern": names.LoginForm}, "minItems": 1, "maxItems": MaxLogins},
	"duration":    {"pattern": `^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|m|s|ms))+$`, "examples": []string{"30m", "1h30m"}},
	"cidrs":       {"maxItems": MaxSourceAddresses},
	"forwarding":  arrayOf(schema{"enum": forwardings}, 0, len(forwardings)),
	"key types":   arrayOf(schema{"enum": keyTypes}, 1, len(keyTypes)),
	"stages":      {"maxItems": MaxStages},
	"slots":       {"minItems": 1, "maxItems": MaxSlots},
	"count":       {"minimum": 1, "maximum": MaxCount},
	"min length":  {"minimum": 0, "maximum": MaxMinLength},
	"acr values":  arrayOf(schema{"type": "string", "minLength": 1, "maxLength": 255}, 0, MaxACRValues),
	"zone":        {"minLength": 1},
	"times":       {"minItems": 1, "maxItems": MaxTimes},
	"days":        arrayOf(schema{"enum": days}, 1, len(days)),
	"wall clock":  {"pattern": wallForm.String()},
	"extensions":  {"minimum": 1, "maximum": MaxExtensions},
	"escalations": {"maxItems": MaxEscalations},

	"deployments":      {"maxItems": MaxDeployments},
	"trust entries":    arrayOf(schema{"type": "string", "pattern": nameForm.String()}, 1, MaxTrustEntries),
	"command":          {"minLength": 1, "maxLength": MaxCommand},
	"agent cidrs":      {"minItems": 1, "maxItems": MaxSourceAddresses},
	"uses":             {"minimum": 1, "maximum": MaxUses},
	"batches":          {"minItems": 1, "maxItems": MaxBatches},
	"on failure":       {"enum": onFailures},
	"gates":            {"maxItems": MaxGates},
	"gate times":       {"minimum": 1, "maximum": MaxGateTimes},
	"gate failures":    {"minimum": 0, "maximum": MaxGateTimes},
	"status":           {"minimum": 100, "maximum": 599},
	"comparison":       {"pattern": comparisonForm.String()},
	"gate ports":       {"items": schema{"type": "integer", "minimum": 1, "maximum": 65535}, "maxItems": MaxGatePorts},
	"freezes":          {"maxItems": MaxFreezes},
	"freeze times":     {"minItems": 1, "maxItems": MaxTimes},
	"wall time":        {"pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$`},
	"deployment tests": {"maxItems": MaxDeploymentTests},
	"hosts":            {"minimum": 1, "maximum": MaxDeployedHosts},
	"sizes":            {"items": schema{"type": "integer", "minimum": 1}},
	"labels":           {"additionalProperties": schema{"type": "string"}},
	"time":             {"format": "date-time"},
	"needs":            {"items": schema{"type": "string", "pattern": `^(stage [0-9]+: )?[0-9]+ from .+$`}},
}

var groupName = schema{"type": "string", "minLength": 1, "maxLength": 255}

func arrayOf(items schema, least, most int) schema {
	return schema{"type": "array", "items": items, "minItems": least, "maxItems": most, "uniqueItems": true}
}

// schemaOf describes a type of the document; form is the tag of the field that has it.
func schemaOf(t reflect.Type, form string) schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[automatic]() {
		return schema{"anyOf": []schema{{"type": "boolean"}, schemaOf(reflect.TypeFor[schedule](), "")}}
	}
	if t == reflect.TypeFor[share]() {
		return schema{"anyOf": []schema{{"type": "integer", "minimum": 0, "maximum": MaxDeployedHosts}, {"type": "string", "pattern": percentForm.String()}}}
	}
	s := schema{}
	switch t.Kind() {
	case reflect.Struct:
		s = object(t)
	case reflect.Map:
		s["type"] = "object"
	case reflect.Slice:
		s["type"], s["items"] = "array", schemaOf(t.Elem(), "")
	case reflect.String:
		s["type"] = "string"
	case reflect.Bool:
		s["type"] = "boolean"
	case reflect.Int:
		s["type"] = "integer"
	default:
		panic("a document has no " + t.String())
	}
	maps.Copy(s, forms[form])
	return s
}

func object(t reflect.Type) schema {
	properties, needed := schema{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		property := schemaOf(f.Type, f.Tag.Get("form"))
		property["description"] = f.Tag.Get("doc")
		properties[key] = property
		if f.Tag.Get("need") == "true" {
			needed = append(needed, key)
		}
	}
	return schema{"type": "object", "properties": properties, "required": needed, "additionalProperties": false}
}
