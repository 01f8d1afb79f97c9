package pack_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/audit/event"
	"sallyport/internal/history"
)

// deployed is a world in which a service was deployed, and the next artifact failed.
func deployed(t testing.TB) *world {
	t.Helper()
	w := &world{History: history.New(t, history.DeployDocument), auditor: "Ada Auditor"}
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
