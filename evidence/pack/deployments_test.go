package pack_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/audit/event"
	"sallyport/evidence/pack"
	"sallyport/internal/history"
)

// deployed is a world in which a service was deployed, and the next artifact failed.
func deployed(t testing.TB) *world {
	t.Helper()
	return deployedUnder(t, history.DeployDocument)
}

func deployedUnder(t testing.TB, document string) *world {
	t.Helper()
	w := &world{History: history.New(t, document), auditor: "Ada Auditor"}
	w.liam, w.sam = w.Person("Liam", "leads"), w.Person("Sam", "security")
	run := w.Admit("github-redis")
	hosts := [][]string{{"r-1"}, {"r-2", "r-3", "r-4"}}
	d := w.Deploy(run, "redis-prod", history.Digest(1), "", nil, hosts...).Approve(w.liam, w.sam)
	for n := 1; n <= 2; n++ {
		d.Roll(n)
		d.Judge(n, w.liam)
	}
	d.Complete()
	w.Now = w.Now.Add(48 * time.Hour)
	run = w.Admit("github-redis")
	d = w.Deploy(run, "redis-prod", history.Digest(2), history.Digest(1), nil, hosts...).Approve(w.liam, w.sam)
	d.Override(w.sam, w.Now.Add(time.Hour))
	d.Roll(1)
	d.Batch(1, "failed")
	d.PutBack()
	return w
}

// A pack says of each deployment who, what, with whose approval, after which tests and
// on which hosts, and that there was one open batch for every certificate.
func TestDeploymentsInPacks(t *testing.T) {
	t.Parallel()
	w := deployed(t)
	o := w.ask(event.PackRequested{From: history.Start, To: w.Now, Controls: []string{"CC8.1"}, Seed: "1"})
	archive := w.write(o)
	if v := w.mustVerify(archive); len(v.Exceptions) > 0 {
		t.Errorf("exceptions %v", v.Exceptions)
	}
	if again := w.write(o); !bytes.Equal(again, archive) {
		t.Error("made again, it is another pack")
	}
	deployments, hosts := rows(t, archive, "populations/deployments.csv"), rows(t, archive, "populations/deployment_hosts.csv")
	if len(deployments) != 2 || len(hosts) != 6 || len(rows(t, archive, "populations/agent_certificates.csv")) != 6 {
		t.Fatalf("%d deployments, %d hosts", len(deployments), len(hosts))
	}
	if d := deployments[0]; d["event"] != "deployment.opened" || d["result"] != "complete" || !strings.Contains(d["approved_by"], w.liam.ID) || d["emergency"] != "no" {
		t.Errorf("the first: %v", d)
	}
	if d := deployments[1]; d["result"] != "rolled_back" || !strings.Contains(d["overrides"], w.sam.ID) {
		t.Errorf("the second: %v", d)
	}
	chosen := 0
	for _, s := range rows(t, archive, "samples.csv") {
		if s["list"] == "deployments" {
			chosen++
			file(t, archive, "proofs/"+s["index"]+".tlog-proof")
		}
	}
	if chosen != 2 {
		t.Errorf("%d deployments were chosen", chosen)
	}
	for _, row := range rows(t, archive, "reconciliation.csv") {
		if row["list"] == "deployment_hosts" && (row["event"] != "(under way)" || row["rows_in_list"] != "6") {
			t.Errorf("reconciliation: %v", row)
		}
	}
	// Nobody edits a row.
	forged := change(t, archive, "populations/deployment_hosts.csv", func(b []byte) []byte { return bytes.Replace(b, []byte("sealed"), []byte("opened"), 1) })
	if v := w.verify(forged); v.OK || !strings.Contains(failed(v), "populations/deployment_hosts.csv") {
		t.Errorf("a forged row: %s", failed(v))
	}
	// A period before has no rows, and says so.
	empty := w.write(w.ask(event.PackRequested{From: history.Start.Add(-time.Hour), To: history.Start, Controls: []string{}, Seed: "1"}))
	w.mustVerify(empty)
	if n := len(rows(t, empty, "populations/deployments.csv")); n != 0 || !strings.Contains(file(t, empty, "reconciliation.csv"), "no deployment was under way") {
		t.Errorf("%d deployments before the first", n)
	}
}

// The ID tokens by which the provider signed what people said to deployments are in the
// pack, and whoever verifies it needs nothing else; nobody can exchange them there.
func TestSignedDeploymentDecisionsInPacks(t *testing.T) {
	t.Parallel()
	w := deployedUnder(t, history.SignedDeployDocument)
	archive := w.write(w.order())
	if v := w.mustVerify(archive); len(v.Exceptions) > 0 {
		t.Errorf("exceptions %v", v.Exceptions)
	}
	const tokens = "evidence/id-tokens.jsonl"
	if n := strings.Count(file(t, archive, tokens), "\n"); n != 7 {
		t.Errorf("%d ID tokens", n)
	}
	signed := 0
	for _, row := range rows(t, archive, "populations/deployment_events.csv") {
		if row["event"] == "deployment.decided" && row["id_token_hash"] != "" && row["keys_hash"] != "" && row["assurance"] == "provider" {
			signed++
		}
	}
	if signed != 7 {
		t.Errorf("%d decisions are listed with their proof", signed)
	}
	lines := strings.SplitAfter(file(t, archive, tokens), "\n")
	for name, tt := range map[string]struct {
		edit          func([]byte) []byte
		check, detail string
	}{
		"an ID token less": {line(0, func(string) string { return "" }), "exceptions.csv", ""},
		"no ID token":      {func([]byte) []byte { return nil }, "exceptions.csv", ""},
		"ID tokens exchanged": {func(b []byte) []byte {
			_, first, _ := strings.Cut(lines[0], `"id_token"`)
			_, second, _ := strings.Cut(lines[1], `"id_token"`)
			return []byte(strings.NewReplacer(first, second, second, first).Replace(string(b)))
		}, "evidence", ""},
	} {
		forged := change(t, archive, tokens, tt.edit)
		if bytes.Equal(forged, archive) {
			t.Errorf("%s: nothing is forged", name)
		}
		w.refused(resign(t, forged, w.Signer), pack.Options{}, tt.check, tt.detail)
	}
	// What was not kept is an exception, and the pack is true.
	w.ForgetTokens()
	archive = w.write(w.order())
	if v := w.mustVerify(archive); fmt.Sprint(v.Exceptions) != "map[batch-opened-early:2 deployment-without-approval:3 evidence-missing:7]" {
		t.Errorf("exceptions %v", v.Exceptions)
	}
	if d := rows(t, archive, "populations/deployments.csv")[0]; !strings.Contains(d["approved_by"], "provider, not proved") {
		t.Errorf("it was approved by %s", d["approved_by"])
	}
}

// What is wrong is on the page and in the list, and the pack is true all the same.
func TestDeploymentExceptionsInPacks(t *testing.T) {
	t.Parallel()
	w := deployed(t)
	d := w.Deploy(w.Admit("github-redis"), "redis-prod", history.Digest(3), "", nil, []string{"r-1"})
	d.Issue(d.Template(1, d.Hosts[0][0]))
	w.Now = w.Now.Add(time.Hour)
	w.Broker(event.KeysLoaded{})
	archive := w.write(w.order())
	v := w.mustVerify(archive)
	if fmt.Sprint(v.Exceptions) != "map[agent-certificate-without-batch:1]" || !strings.Contains(file(t, archive, "README.html"), "agent-certificate-without-batch") {
		t.Errorf("exceptions %v", v.Exceptions)
	}
}
