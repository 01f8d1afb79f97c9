package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// A deploy agent is a job that proves who it is by a token of its own OIDC issuer, and
// that it is the same one by a key of its own, made for this job and never kept. Every
// call carries a signature of that key (SSHSIG, namespace [AgentNamespace]) over
// [AgentMessage]; the first one carries the token too, as Authorization: Bearer.

// AgentNamespace is the SSHSIG namespace of agents' calls.
const AgentNamespace = "sallyport-agent"

// The headers of an agent's call.
const (
	AgentKeyHeader       = "Sallyport-Agent-Key"       // public key, as in authorized_keys
	AgentTimeHeader      = "Sallyport-Agent-Time"      // when, RFC 3339 in UTC, whole seconds
	AgentNonceHeader     = "Sallyport-Agent-Nonce"     // 32 random bytes, base64url without padding, anew for each call
	AgentSignatureHeader = "Sallyport-Agent-Signature" // the SSHSIG: base64 of what is in its armor, on one line
)

// AgentMessage is what an agent signs: that this key makes this call, once, now. The
// URL is the broker's with path and query, as called; the token is empty in all calls
// but the first. Whoever has seen a call can neither repeat nor change it, nor take the
// token out of it and use it with a key of their own unnoticed.
func AgentMessage(method, url string, body []byte, token, at, nonce string) []byte {
	shown := "-"
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		shown = hex.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(body)
	return []byte(strings.Join([]string{"sallyport agent call v1", method, url, hex.EncodeToString(sum[:]), shown, at, nonce, ""}, "\n"))
}

// AgentAudience is the audience to ask a token for where a job can choose it: the one
// that the policy names (the broker's URL, if it does not), and the hash of the job's
// public key, in SSH's wire format, and of the nonce of the first call, as in its
// header. So the issuer itself signs whose token it is, and nobody else can use it.
func AgentAudience(audience string, key []byte, nonce string) string {
	sum := sha256.Sum256(append(append([]byte{}, key...), nonce...))
	return audience + "#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// AgentExplainInput asks what becomes of a token.
type AgentExplainInput struct {
	Token string `json:"token" minLength:"1" maxLength:"16384" doc:"A workload's OIDC token. It is not taken, and can be used afterwards"`
}

// AgentExplanation is what would become of a token if a job showed it now, as far as
// the token goes: the job's key is not looked at. It comes from the code that decides.
type AgentExplanation struct {
	Issuer   string            `json:"issuer" doc:"As the token says"`
	Subject  string            `json:"subject" doc:"As the token says"`
	Verified bool              `json:"verified" doc:"The issuer has signed it"`
	Admitted bool              `json:"admitted" doc:"It would be taken, if it was not before"`
	Entry    string            `json:"entry,omitempty" doc:"The entry of the policy that decides, if one fits"`
	Code     string            `json:"code,omitempty" doc:"Of the refusal"`
	Detail   string            `json:"detail,omitempty" doc:"Why it would be refused"`
	Hint     string            `json:"hint,omitempty"`
	Claims   map[string]string `json:"claims,omitempty" doc:"What the nearest entry goes by, and what ran"`
	Entries  []AgentVerdict    `json:"entries" doc:"Those for the issuer, the nearest first. Operators see all; others only those for the same repository, project, account or the like"`
	Policy   PolicyRef         `json:"policy"`
}

// AgentVerdict says of one entry whether it trusts a token.
type AgentVerdict struct {
	Entry  string       `json:"entry"`
	Number int          `json:"number" doc:"Place in the policy, from 1"`
	Fits   bool         `json:"fits"`
	Unmet  []AgentUnmet `json:"unmet" doc:"Why it does not"`
}

// AgentUnmet is a claim that an entry wants otherwise.
type AgentUnmet struct {
	Claim  string   `json:"claim" doc:"Its name in the token"`
	Got    string   `json:"got,omitempty" doc:"What the token says; empty: nothing"`
	Want   []string `json:"want,omitempty" doc:"What the entry lists; for operators only"`
	Detail string   `json:"detail"`
}
