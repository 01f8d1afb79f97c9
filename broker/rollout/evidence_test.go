package rollout_test

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/evidence"
	"sallyport/evidence/pack"
	"sallyport/internal/audittest"
)

// admitted is a job whose admission is in the log, as package agents writes it.
func (s *scene) admitted(entry string) rollout.Run {
	s.t.Helper()
	run := s.run(entry)
	_, err := s.log.Record(s.t.Context(), event.New(s.clock.Now(), run.Actor(), run.Source, event.Subject{}, event.AgentAdmitted{RunID: run.ID, Entry: entry,
		EntryHash: run.TokenHash, Provider: "github", Issuer: run.Issuer, Subject: run.Subject, Claims: run.Claims, TokenID: run.ID, TokenHash: run.TokenHash,
		SignedBy: "k", Binding: "proof", Key: ssh.FingerprintSHA256(run.Key), ExpiresAt: run.Expires}).Under(run.Policy))
	must(s.t, err)
	return run
}

func (s *scene) deployAs(run rollout.Run, service, digest string) *job {
	s.t.Helper()
	d, err := s.tryOpen(run, service, digest)
	must(s.t, err)
	return &job{p: s.process, run: run, id: d.ID, epoch: d.Epoch}
}

// pack has an auditor take a pack of everything, which must verify, and returns its
// exceptions and tables.
func (s *scene) pack() (pack.Verdict, map[string][]map[string]string) {
	t := s.t
	t.Helper()
	s.clock.Advance(48 * time.Hour)
	service, err := evidence.New(evidence.Config{Pool: s.pool, Log: s.log, Approvals: s.approvals, Clock: s.clock, Dir: t.TempDir(), Version: "test"})
	must(t, err)
	audittest.Run(t, service.Run)
	p, err := service.Make(t.Context(), s.auditor, "test", api.PackInput{From: "2026-03-01", To: "2026-12-31", Seed: "1"})
	must(t, err)
	s.eventually(func() bool {
		p, err = service.Pack(t.Context(), s.auditor, "test", p.ID)
		must(t, err)
		if p.State == "failed" {
			t.Fatalf("the pack failed: %+v", p)
		}
		return p.State == "ready"
	})
	content, err := service.Download(t.Context(), s.auditor, "test", p.ID)
	must(t, err)
	defer content.Close()
	var b bytes.Buffer
	must(t, content.WriteTo(t.Context(), &b))
	trust, err := cosignature.ParsePolicy([]byte(s.log.VerifierKey()))
	must(t, err)
	v, err := pack.Verify(t.Context(), bytes.NewReader(b.Bytes()), int64(b.Len()), pack.Options{Trust: trust})
	must(t, err)
	for _, c := range v.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	return v, tables(t, b.Bytes())
}

// tables are the archive's CSV files, by name, with their columns by name.
func tables(t testing.TB, archive []byte) map[string][]map[string]string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	must(t, err)
	out := map[string][]map[string]string{}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".csv") {
			continue
		}
		r, err := f.Open()
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		all, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		must(t, err)
		for _, cells := range all[1:] {
			row := map[string]string{}
			for i, name := range all[0] {
				row[name] = cells[i]
			}
			out[f.Name] = append(out[f.Name], row)
		}
	}
	return out
}

// What deployments write into the log, as they really go, reconciles: with a run that
// takes over, approvals before and between, an override in a freeze, a batch that is
// lost and opened again, a stop, and a rollback.
func TestDeploymentsInEvidencePacks(t *testing.T) {
	t.Parallel()
	s := newScene(t)

	// Ten hosts, in a freeze that people override; the second batch by another run.
	s.clock.Advance(5*time.Hour + 30*time.Minute) // Monday 18:30 in Berlin
	j := s.deployAs(s.admitted("github-api"), "api", one)
	until := s.clock.Now().Add(time.Hour)
	for _, who := range []identity.Caller{s.lead, s.security} {
		_, err := s.Decide(t.Context(), who, j.id, api.DeploymentDecisionInput{About: "override", Verdict: api.Approve, Comment: "customers wait", Until: &until})
		must(t, err)
	}
	j.deployBatch(1)
	s.until(j.id, 1, "passed")
	s.clock.Advance(10 * time.Minute)
	other := s.deployAs(s.admitted("github-api"), "api", one)
	d, err := other.batch(2)
	must(t, err)
	_, err = other.report(2, map[string]string{d.Batches[1].Hosts[0].Name: "ok"})
	must(t, err)
	s.clock.Advance(11 * time.Minute)
	s.until(j.id, 2, "inconclusive") // it was not heard of in time
	s.clock.Advance(3 * time.Hour)
	third := s.deployAs(s.admitted("github-api"), "api", one)
	third.deployBatch(2)
	s.until(j.id, 2, "passed")
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "stop", Reason: "let us look"})
	must(t, err)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "resume", Reason: "it is well"})
	must(t, err)
	third.again()
	third.deployBatch(3)
	s.until(j.id, 0, "complete")

	// Two databases, which people approve before and after.
	db := s.deployAs(s.admitted("github-db"), "db", one)
	for _, who := range []identity.Caller{s.lead, s.security} {
		_, err := s.Decide(t.Context(), who, db.id, api.DeploymentDecisionInput{About: "start", Verdict: api.Approve})
		must(t, err)
	}
	db.deployBatch(1)
	s.until(db.id, 1, "gating")
	_, err = s.Decide(t.Context(), s.lead, db.id, api.DeploymentDecisionInput{About: "gate", Batch: 1, Gate: "people", Verdict: api.Approve})
	must(t, err)
	s.until(db.id, 0, "complete")

	// The edge, whose second artifact fails its gate.
	run := s.admitted("github-edge")
	first := s.deployAs(run, "edge", one)
	first.deployBatch(1)
	s.until(first.id, 1, "passed")
	first.again()
	first.deployBatch(2)
	s.until(first.id, 0, "complete")
	bad := s.deployAs(run, "edge", two)
	canary := bad.state().Batches[0].Hosts[0]
	bad.deployBatch(1)
	s.house.shown.set(canary.ID, gates.Posture{State: gates.Sealed, Ports: []int{443, 6379}})
	s.until(bad.id, 0, "rolling_back")
	bad.again()
	must(t, second(bad.batch(3)))
	must(t, second(bad.cert(3, canary.Name)))
	must(t, second(bad.report(3, map[string]string{canary.Name: "ok"})))
	s.until(bad.id, 0, "rolled_back")
	s.check()

	v, tables := s.pack()
	for _, x := range tables["exceptions.csv"] {
		t.Errorf("%s at %s: %s", x["code"], x["index"], x["detail"])
	}
	if len(v.Exceptions) > 0 {
		t.Errorf("exceptions: %v", v.Exceptions)
	}
	rows := map[string]map[string]string{}
	for _, row := range tables["populations/deployments.csv"] {
		rows[row["deployment_id"]] = row
	}
	if len(rows) != 4 {
		t.Fatalf("%d deployments: %v", len(rows), slices.Collect(maps.Keys(rows)))
	}
	for _, want := range []struct{ id, field, text string }{
		{j.id, "result", "complete"}, {j.id, "emergency", "yes"}, {j.id, "overrides", s.security.ID}, {j.id, "further_runs", other.run.ID},
		{j.id, "further_runs", third.run.ID}, {j.id, "held", "lease-lost"}, {j.id, "held", "stopped"}, {j.id, "hosts_opened", "10"},
		{j.id, "tests", "reported: pass"}, {j.id, "repository", "example/api"}, {j.id, "approvals_needed", "nobody"},
		{db.id, "approved_by", s.lead.ID}, {db.id, "approved_by", s.security.ID}, {db.id, "approvals_of_gates", s.lead.ID}, {db.id, "emergency", "no"},
		{bad.id, "result", "rolled_back"}, {bad.id, "rollback", one}, {bad.id, "digest_at_end", one}, {bad.id, "tests", "sealed: fail"},
	} {
		if !strings.Contains(rows[want.id][want.field], want.text) {
			t.Errorf("%s of %s is %q, without %q", want.field, rows[want.id]["service"], rows[want.id][want.field], want.text)
		}
	}
	hosts, issued := tables["populations/deployment_hosts.csv"], 0
	for _, h := range hosts {
		issued += len(strings.FieldsFunc(h["certificates"], func(c rune) bool { return c < '0' }))
		if h["state"] != "sealed" || h["verified_at"] == "" {
			t.Errorf("a host: %v", h)
		}
	}
	// Those of the API are databases, too; of the second edge deployment one host was opened, and put back.
	if n := s.count(`SELECT count(*) FROM deployment_certificates`); len(hosts) != 10+12+3+2 || issued != n {
		t.Errorf("%d hosts with %d of %d certificates", len(hosts), issued, n)
	}
}
