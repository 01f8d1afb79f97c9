package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"sallyport/approvals/claims"
	"sallyport/internal/keyset"
)

// Limits on the agents of a document.
const (
	MaxAgents            = 500
	MaxClaimValues       = 200 // in one list
	MaxClaimValue        = 512 // bytes
	MaxGenericClaims     = 20
	DefaultAgentLifetime = time.Hour
	MaxAgentLifetime     = 6 * time.Hour
	MinAgentLifetime     = time.Minute
	DefaultTokenLife     = time.Hour
	MaxTokenLife         = 24 * time.Hour
	MinTokenLife         = time.Minute
	MaxAgentTests        = 100
)

// AgentProvider is a kind of issuer, and Demand a claim that a token must have; see
// package claims, which compares.
type (
	AgentProvider = claims.Provider
	Demand        = claims.Demand
)

// The kinds of issuers.
const (
	GitHub     = claims.GitHub
	GitLab     = claims.GitLab
	Buildkite  = claims.Buildkite
	CircleCI   = claims.CircleCI
	Kubernetes = claims.Kubernetes
	SPIFFE     = claims.SPIFFE
	Generic    = claims.Generic
)

// Binding is how a token is bound to the key of the job that shows it.
type Binding string

const (
	// BindAudience: the issuer itself signs the key's hash, in the audience.
	BindAudience Binding = "audience"
	// BindProof: the key signs the token's hash, and the first key counts.
	BindProof Binding = "proof"
)

// Agent is a trust entry: which tokens of which issuer make a job a deploy agent. It
// trusts what it lists, exactly; what a token does not say, or says otherwise, denies.
type Agent struct {
	Name, Description string
	Provider          AgentProvider
	Issuer            string
	Audience          string // empty: the broker's URL
	Binding           Binding
	Lifetime          time.Duration // of a run
	MaxTokenLife      time.Duration // from iat to exp
	Addresses         []netip.Prefix
	Keys              *keyset.Set // nil: the issuer is asked
	KeysText          string      // as the document has them
	Claims            []Demand    // in the order of the format
}

// Wants is what the entry wants tokens to say.
func (a *Agent) Wants() claims.Entry { return claims.Entry{Provider: a.Provider, Demands: a.Claims} }

// Agent is the entry of that name, or nil.
func (p *Policy) Agent(name string) *Agent {
	if i := slices.IndexFunc(p.Agents, func(a Agent) bool { return a.Name == name }); i >= 0 {
		return &p.Agents[i]
	}
	return nil
}

// Hash stands for all that the entry trusts: an entry of the same hash trusts the same
// tokens. Its description does not count.
func (a *Agent) Hash() string {
	text, err := json.Marshal(struct {
		Name, Provider, Issuer, Audience, Binding, Keys string
		Lifetime, MaxTokenLife                          time.Duration
		Addresses                                       []netip.Prefix
		Claims                                          []Demand
	}{a.Name, string(a.Provider), a.Issuer, a.Audience, string(a.Binding), a.KeysText, a.Lifetime, a.MaxTokenLife, a.Addresses, a.Claims})
	if err != nil {
		panic(err) // strings and numbers: it cannot fail
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// The values of keys that have a few. What is not here is what strangers can cause:
// pull requests (pull_request_target runs on the default branch), comments, and
// whatever those set off (workflow_run).
var (
	bindings         = []string{string(BindAudience), string(BindProof)}
	githubEvents     = []string{"push", "workflow_dispatch", "repository_dispatch", "schedule", "release", "deployment", "merge_group"}
	gitlabSources    = []string{"push", "web", "api", "schedule", "trigger", "pipeline", "parent_pipeline", "chat"}
	buildkiteSources = []string{"ui", "api", "webhook", "trigger_job", "schedule"}
	hostedBy         = func(who string) []string { return []string{who + "-hosted", "self-hosted"} }
)

var (
	uuidForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	idForm     = regexp.MustCompile(`^[1-9][0-9]{0,19}$`)
	spiffeForm = regexp.MustCompile(`^spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)+$`) // SPIFFE-ID, section 2
	// A value of a list is text that git, CI systems and clusters use in names.
	valueForm = regexp.MustCompile(`^[^\x00-\x20*\x7f]([^\x00-\x1f*\x7f]*[^\x00-\x20*\x7f])?$`)
	claimForm = regexp.MustCompile(`^[A-Za-z0-9_./:-]{1,128}$`)
	orgIssuer = regexp.MustCompile(`/org/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	// issuerForm is for the schema; readIssuer says more.
	issuerForm = regexp.MustCompile(`^https://[^/?#@]+[^?#@]*$`)
)

// valueForms are the forms of lists of values that are free within them.
var valueForms = map[string]*regexp.Regexp{"values": valueForm, "ids": idForm, "uuids": uuidForm, "spiffe ids": spiffeForm}

func init() { maps.Copy(forms, agentForms) }

var agentForms = map[string]schema{
	"agents":               {"maxItems": MaxAgents},
	"agent tests":          {"maxItems": MaxAgentTests},
	"token claims":         {"minProperties": 1},
	"claim names":          arrayOf(schema{"type": "string", "minLength": 1, "maxLength": MaxClaimValue}, 1, MaxClaimValues),
	"issuer":               {"pattern": issuerForm.String()},
	"audience":             {"minLength": 1, "maxLength": MaxClaimValue, "pattern": `^[^#\x00-\x20*\x7f]+$`},
	"binding":              {"enum": bindings},
	"values":               listOf(valueForm),
	"ids":                  listOf(idForm),
	"uuids":                listOf(uuidForm),
	"spiffe ids":           listOf(spiffeForm),
	"github events":        arrayOf(schema{"enum": githubEvents}, 1, MaxClaimValues),
	"gitlab sources":       arrayOf(schema{"enum": gitlabSources}, 1, MaxClaimValues),
	"buildkite sources":    arrayOf(schema{"enum": buildkiteSources}, 1, MaxClaimValues),
	"runners of github":    arrayOf(schema{"enum": hostedBy("github")}, 1, MaxClaimValues),
	"runners of gitlab":    arrayOf(schema{"enum": hostedBy("gitlab")}, 1, MaxClaimValues),
	"runners of buildkite": arrayOf(schema{"enum": hostedBy("buildkite")}, 1, MaxClaimValues),
	"claims": {"minProperties": 2, "maxProperties": MaxGenericClaims, "required": []string{"sub"},
		"propertyNames":        schema{"pattern": claimForm.String()},
		"additionalProperties": listOf(valueForm)},
}

func listOf(form *regexp.Regexp) schema {
	return arrayOf(schema{"type": "string", "maxLength": MaxClaimValue, "pattern": form.String()}, 1, MaxClaimValues)
}

// registeredClaims are checked for every token, by rules of their own.
var registeredClaims = []string{"iss", "aud", "exp", "nbf", "iat", "jti"}

// hosted are issuers whose claims have types. To take them for any other issuer would
// be a way around what those ask for.
var hosted = map[string]AgentProvider{
	"token.actions.githubusercontent.com": GitHub,
	"gitlab.com":                          GitLab,
	"agent.buildkite.com":                 Buildkite,
	"oidc.circleci.com":                   CircleCI,
}

// agents reads the trust entries.
func (p *reader) agents(list []agent) ([]Agent, error) {
	if len(list) > MaxAgents {
		return nil, p.fault("agents", "%d entries are more than %d", len(list), MaxAgents)
	}
	var out []Agent
	seen := map[string]bool{}
	for i, a := range list {
		path := fmt.Sprintf("agents[%d]", i)
		entry, err := p.agent(path, a)
		if err != nil {
			return nil, err
		}
		if seen[entry.Name] {
			return nil, p.fault(path+".name", "another entry is named %q", entry.Name)
		}
		seen[entry.Name] = true
		for _, other := range out {
			// A token's signature is checked once, before its claims say which entry it is for.
			if other.Issuer == entry.Issuer && (other.Provider != entry.Provider || other.KeysText != entry.KeysText ||
				!slices.Equal(other.Addresses, entry.Addresses)) {
				return nil, p.fault(path+".issuer", "the entry %q is for the same issuer and differs in provider, addresses or keys", other.Name)
			}
		}
		if err := p.agentTests(path, a.Tests, entry); err != nil {
			return nil, err
		}
		out = append(out, *entry)
	}
	return out, nil
}

func (p *reader) agent(path string, a agent) (*Agent, error) {
	out := &Agent{Name: a.Name, Description: a.Description, Audience: a.Audience}
	if !nameForm.MatchString(a.Name) {
		return nil, p.fault(path+".name", "an entry needs a name of at most 63 lower-case letters, digits and hyphens")
	}
	var err error
	if out.Provider, out.Claims, err = p.claims(path, a); err != nil {
		return nil, err
	}
	if out.Issuer, err = p.readIssuer(path+".issuer", a.Issuer, out.Provider); err != nil {
		return nil, err
	}
	if len(a.Audience) > MaxClaimValue || a.Audience != "" && (!valueForm.MatchString(a.Audience) || strings.ContainsAny(a.Audience, "# ")) {
		return nil, p.fault(path+".audience", "%q is not an audience such as https://sallyport.example.com, without #", a.Audience)
	}
	if out.Binding, err = p.binding(path+".binding", a.Binding, out.Provider); err != nil {
		return nil, err
	}
	if out.Lifetime, err = p.duration(path+".lifetime", a.Lifetime, DefaultAgentLifetime, MinAgentLifetime, MaxAgentLifetime); err != nil {
		return nil, err
	}
	if out.MaxTokenLife, err = p.duration(path+".max_token_life", a.MaxTokenLife, DefaultTokenLife, MinTokenLife, MaxTokenLife); err != nil {
		return nil, err
	}
	if out.Addresses, err = p.prefixes(path+".addresses", a.Addresses); err != nil {
		return nil, err
	}
	if a.Keys != "" {
		keys, err := keyset.Parse([]byte(a.Keys))
		if err != nil {
			return nil, p.fault(path+".keys", "%v", err)
		}
		out.Keys, out.KeysText = &keys, a.Keys
		if len(out.Addresses) > 0 {
			return nil, p.fault(path+".addresses", "an issuer whose keys are here is never asked for them")
		}
	}
	return out, nil
}

func (p *reader) readIssuer(path, issuer string, provider AgentProvider) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil || !issuerForm.MatchString(issuer) || u.Host == "" || u.Hostname() == "" || len(issuer) > MaxClaimValue || !valueForm.MatchString(issuer) {
		return "", p.fault(path, "%q is not an issuer: an https URL, exactly as tokens have it in iss", issuer)
	}
	if typed, ok := hosted[strings.ToLower(u.Hostname())]; ok && typed != provider {
		return "", p.fault(path, "tokens of %s have claims of their own: use %s", u.Host, typed)
	}
	if provider == CircleCI && !orgIssuer.MatchString(issuer) {
		return "", p.fault(path, "CircleCI has an issuer for each organization, such as https://oidc.circleci.com/org/<its id>")
	}
	return issuer, nil
}

func (p *reader) binding(path, s string, provider AgentProvider) (Binding, error) {
	switch {
	case s == "" && slices.Contains([]AgentProvider{GitHub, Buildkite, SPIFFE}, provider):
		return BindAudience, nil
	case s == "":
		return BindProof, nil
	case slices.Contains(bindings, s):
		return Binding(s), nil
	}
	return "", p.fault(path, "%q is not a binding; there are %s", s, strings.Join(bindings, " and "))
}

func (p *reader) prefixes(path string, list []string) ([]netip.Prefix, error) {
	if len(list) > MaxSourceAddresses {
		return nil, p.fault(path, "%d blocks are more than %d", len(list), MaxSourceAddresses)
	}
	var out []netip.Prefix
	for i, s := range list {
		prefix, err := netip.ParsePrefix(s)
		if err != nil || prefix != prefix.Masked() {
			return nil, p.fault(fmt.Sprintf("%s[%d]", path, i), "%q is not a CIDR block such as 10.0.0.0/8", s)
		}
		out = append(out, prefix)
	}
	return out, nil
}

// claims are the provider that the entry is for, and what it wants of tokens.
func (p *reader) claims(path string, a agent) (AgentProvider, []Demand, error) {
	var (
		provider AgentProvider
		demands  []Demand
	)
	for field, value := range reflect.ValueOf(a).Fields() {
		typed := field.Type.Kind() == reflect.Pointer && !value.IsNil()
		if !typed && !(field.Type.Kind() == reflect.Map && value.Len() > 0) {
			continue
		}
		name := field.Tag.Get("yaml")
		if provider != "" {
			return "", nil, p.fault(path+"."+name, "the entry is for %s already: write one entry for each", provider)
		}
		provider = AgentProvider(name)
		var err error
		if typed {
			demands, err = p.typedClaims(path+"."+name, value.Elem())
		} else {
			demands, err = p.genericClaims(path+"."+name, a.Generic)
		}
		if err != nil {
			return "", nil, err
		}
	}
	if provider == "" {
		return "", nil, p.fault(path, "the entry must say what its tokens claim: github, gitlab, buildkite, circleci, kubernetes, spiffe or generic")
	}
	return provider, demands, nil
}

// typedClaims reads the claims of a provider, as the tags say.
func (p *reader) typedClaims(path string, claims reflect.Value) ([]Demand, error) {
	var out []Demand
	for field, value := range claims.Fields() {
		key := field.Tag.Get("yaml")
		d := Demand{Key: key, Path: strings.Split(field.Tag.Get("claim"), ">"), Identity: field.Tag.Get("identity") == "true"}
		for i := range value.Len() {
			d.Values = append(d.Values, value.Index(i).String())
		}
		switch {
		case value.IsNil() && field.Tag.Get("need") == "true":
			return nil, p.fault(path, "the entry must say %s: without it, it would trust more than is meant", key)
		case value.IsNil():
			continue
		}
		if err := p.claimValues(path+"."+key, field.Tag.Get("form"), d.Values); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (p *reader) genericClaims(path string, claims map[string][]string) ([]Demand, error) {
	if len(claims) > MaxGenericClaims {
		return nil, p.fault(path, "%d claims are more than %d", len(claims), MaxGenericClaims)
	}
	// What sub looks like is the issuer's to change, and often the job's to choose.
	if claims["sub"] == nil || len(claims) < 2 {
		return nil, p.fault(path, "an entry must list sub and at least one claim more: sub alone says too little")
	}
	var out []Demand
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		at := path + "." + name
		if !claimForm.MatchString(name) || slices.Contains(registeredClaims, name) {
			return nil, p.fault(at, "%q cannot be listed", name)
		}
		if err := p.claimValues(at, "values", claims[name]); err != nil {
			return nil, err
		}
		out = append(out, Demand{Key: name, Path: []string{name}, Identity: name == "sub", Values: claims[name]})
	}
	return out, nil
}

// claimValues checks a list against its form, which the schema has too.
func (p *reader) claimValues(path, form string, list []string) error {
	if len(list) == 0 || len(list) > MaxClaimValues {
		return p.fault(path, "the list must have 1 to %d values", MaxClaimValues)
	}
	items := forms[form]["items"].(schema)
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if slices.Index(list, v) != i {
			return p.fault(at, "%q stands twice in the list", v)
		}
		if known, ok := items["enum"].([]string); ok {
			if !slices.Contains(known, v) {
				return p.fault(at, "%q cannot be listed; there are %s", v, strings.Join(known, ", "))
			}
			continue
		}
		switch {
		case strings.Contains(v, "*"):
			return p.fault(at, "%q looks like a pattern: lists are exact, there are none", v)
		case len(v) > MaxClaimValue || !valueForms[form].MatchString(v):
			return p.fault(at, "%q is not what this claim looks like", v)
		}
	}
	return nil
}
