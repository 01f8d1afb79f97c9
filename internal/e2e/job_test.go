package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
)

// job is one that makes its calls by itself, with a key that the test has.
type job struct {
	*agenttest.Job
	t       testing.TB
	h       *house
	private ed25519.PrivateKey
	token   string // until it is taken
	id      string
	epoch   uint64
}

// deploy opens a deployment of the service in prod, as a new job.
func (h *house) deploy(t testing.TB, issuer *agenttest.Issuer, service, digest string) *job {
	t.Helper()
	j := &job{Job: agenttest.NewJob(t, h.URL, clock.System), t: t, h: h}
	var err error
	if _, j.private, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if j.Key, err = ssh.NewSignerFromKey(j.private); err != nil {
		t.Fatal(err)
	}
	j.token = j.Token(t, issuer)
	var d api.Deployment
	j.send("POST", "", api.DeploymentInput{Service: service, Environment: "prod", Digest: digest}, &d, http.StatusOK)
	j.id, j.epoch = d.ID, d.Epoch
	return j
}

// send makes a signed call, whose answer must have the status.
func (j *job) send(method, path string, in, out any, want int) {
	j.t.Helper()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			j.t.Fatal(err)
		}
	}
	path = "/api/v1/deployments" + path
	call := j.Call(j.t, method, path, body)
	if j.token != "" {
		call = j.First(j.t, method, path, body, j.token)
	}
	req, err := http.NewRequestWithContext(j.t.Context(), method, j.h.URL+path, bytes.NewReader(body))
	if err != nil {
		j.t.Fatal(err)
	}
	req.Header = agenttest.Headers(call, j.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := plain.Do(req)
	if err != nil {
		j.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		j.t.Fatalf("%s %s: %d, want %d, %v\n%s", method, path, resp.StatusCode, want, err, text)
	}
	if j.token = ""; out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			j.t.Fatal(err)
		}
	}
}

// batch opens a batch, and returns its hosts.
func (j *job) batch(n int) (hosts []string) {
	j.t.Helper()
	var d api.Deployment
	j.send("POST", fmt.Sprintf("/%s/batches/%d?wait=60s", j.id, n), api.BatchInput{Epoch: j.epoch}, &d, http.StatusOK)
	for _, h := range d.Batches[n-1].Hosts {
		hosts = append(hosts, h.Name)
	}
	return hosts
}

// certify gets a certificate for a host of the batch.
func (j *job) certify(n int, host string) (line string, signer ssh.Signer) {
	j.t.Helper()
	var cert api.AgentCertificate
	j.send("POST", "/"+j.id+"/certificates", api.AgentCertificateInput{Epoch: j.epoch, Batch: n, Host: host}, &cert, http.StatusOK)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cert.Certificate.Certificate))
	if err != nil {
		j.t.Fatal(err)
	}
	if signer, err = ssh.NewCertSigner(public.(*ssh.Certificate), j.Key); err != nil {
		j.t.Fatal(err)
	}
	return cert.Certificate.Certificate, signer
}

// openssh runs ssh, scp or sftp as the job, with a certificate of its own for the host,
// which they know as host.
func (j *job) openssh(n int, host string, program string, args ...string) (said string, err error) {
	j.t.Helper()
	dir := j.t.TempDir()
	line, _ := j.certify(n, host)
	key, err := ssh.MarshalPrivateKey(j.private, "")
	if err != nil {
		j.t.Fatal(err)
	}
	ip, port, err := net.SplitHostPort(j.h.hosts[host].Addr())
	if err != nil {
		j.t.Fatal(err)
	}
	config := fmt.Sprintf("Host host\n  HostName %s\n  Port %s\n  User deploy\n  IdentityFile %s/key\n  CertificateFile %s/key-cert.pub\n"+
		"  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n", ip, port, dir, dir)
	for name, text := range map[string]string{"key": string(pem.EncodeToMemory(key)), "key-cert.pub": line + "\n", "config": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			j.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append([]string{"-F", filepath.Join(dir, "config")}, args...)...).CombinedOutput()
	return string(out), err
}

// refused expects that a certificate is refused with the code.
func (j *job) refused(deployment string, n int, host string, status int, code string) {
	j.t.Helper()
	var p api.Problem
	j.send("POST", "/"+deployment+"/certificates", api.AgentCertificateInput{Epoch: j.epoch, Batch: n, Host: host}, &p, status)
	if p.Code != code {
		j.t.Errorf("a certificate for %s in batch %d is refused as %s, want %s", host, n, p.Code, code)
	}
}

// report says what became of hosts.
func (j *job) report(n int, result string, hosts ...string) {
	j.t.Helper()
	results := map[string]string{}
	for _, host := range hosts {
		results[host] = result
	}
	j.send("POST", fmt.Sprintf("/%s/batches/%d/report", j.id, n), api.ReportInput{Epoch: j.epoch, Results: results}, nil, http.StatusOK)
}

// until waits until the deployment is as it should be.
func (j *job) until(what string, is func(api.Deployment) bool) (d api.Deployment) {
	j.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		j.send("GET", "/"+j.id+"/progress", nil, &d, http.StatusOK)
		if is(d) {
			return d
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(d, "", " ")
			j.t.Fatalf("waited in vain for %s\n%s\n%s", what, text, j.h.facts(j.t))
		}
	}
}

// facts are how the hosts are, for who reads why a test failed.
func (h *house) facts(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	c := h.signIn(operator)
	for _, name := range slices.Sorted(maps.Keys(h.hosts)) {
		var posture api.HostPosture
		c.call(http.MethodGet, "/hosts/"+name+"/posture", nil, &posture, http.StatusOK)
		fmt.Fprintf(&b, "%s is %s: %q\n", name, posture.State, posture.StateWhy)
	}
	return b.String()
}
