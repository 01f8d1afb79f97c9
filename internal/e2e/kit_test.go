// Package e2e tests Sallyport as its users meet it: the real programs as
// processes of their own, a real PostgreSQL, Dex, sshd, ssh and Chromium.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/audittest"
	"sallyport/internal/child"
	"sallyport/internal/dex"
	"sallyport/internal/loopback"
	"sallyport/internal/pgtest"
	"sallyport/internal/sshd"
)

// programs are the three binaries, built once for the whole run.
var programs struct {
	dir               string
	sallyportd, sally string
}

func TestMain(m *testing.M) {
	if person := os.Getenv("SALLYPORT_E2E_BROWSER"); person != "" {
		os.Exit(browse(person, os.Args[len(os.Args)-1]))
	}
	if os.Getenv("SALLYPORT_E2E_CROWD") != "" {
		os.Exit(simulate(os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sallyport-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs.dir, programs.sallyportd, programs.sally = dir, filepath.Join(dir, "sallyportd"), filepath.Join(dir, "sally")
	build := exec.Command("go", "build", "-race", "-o", dir+"/", "sallyport/cmd/sallyportd", "sallyport/cmd/sally")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the programs:", err)
		return 1
	}
	return pgtest.Main(m)
}

// Five people with one password; see package dex.
const (
	engineer = "engineer@example.com"
	approver = "approver@example.com"
	security = "security@example.com"
	auditor  = "auditor@example.com"
	operator = "operator@example.com"
)

// house is a running Sallyport: database, provider, one or more brokers.
type house struct {
	t        testing.TB
	db       *pgtest.DB
	provider *dex.Provider
	dir      string // of what follows, and of each broker's state
	keys     string
	URL      string     // of the first broker
	policy   string     // file
	env      []string   // of the brokers, besides
	mu       sync.Mutex // guards hosts while they are added
	hosts    map[string]*sshd.Host
	first    *child.Process // the first broker
	said     lockedBuffer   // by all brokers
}

// newHouse starts everything but hosts; the brokers have more in their environment.
func newHouse(t testing.TB, policy string, env ...string) *house {
	t.Helper()
	return newHouseOn(t, policy, pgtest.New(t), env...)
}

// newHouseOn is newHouse on a database of the test's own.
func newHouseOn(t testing.TB, policy string, db *pgtest.DB, env ...string) *house {
	t.Helper()
	h := &house{t: t, db: db, env: env, dir: t.TempDir(), hosts: map[string]*sshd.Host{}}
	h.keys, h.policy = filepath.Join(h.dir, "keys"), filepath.Join(h.dir, "policy.yaml")
	if err := os.WriteFile(h.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run(programs.sallyportd, "ca", "init", "--dir", h.keys, "--origin", "e2e.example.com/log")
	addr := freeAddress(t)
	h.URL = "http://" + addr
	audittest.Complete(t, db.Pool)
	var err error
	h.provider, err = dex.Start(t.Context(), dex.Config{RedirectURIs: []string{h.URL + "/signin/callback"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.provider.Stop)
	h.first = h.serve(addr)
	return h
}

// serve starts a broker on the address, with the state that one there left
// behind, and waits until it is ready.
func (h *house) serve(addr string) *child.Process {
	h.t.Helper()
	cmd := exec.Command(programs.sallyportd, "serve")
	cmd.Env = append(os.Environ(),
		"SALLYPORT_LISTEN="+addr, "SALLYPORT_URL="+h.URL, "SALLYPORT_DATABASE_URL="+h.db.URL,
		"SALLYPORT_KEYS_DIR="+h.keys, "SALLYPORT_POLICY="+h.policy, "SALLYPORT_STATE_DIR="+filepath.Join(h.dir, "state "+addr),
		"SALLYPORT_OIDC_ISSUER="+h.provider.Issuer(), "SALLYPORT_OIDC_CLIENT_ID="+dex.ClientID,
		"SALLYPORT_OIDC_CLIENT_SECRET="+dex.ClientSecret)
	cmd.Env = append(cmd.Env, h.env...)
	out, in := io.Pipe()
	cmd.Stdout = in
	var said lockedBuffer
	cmd.Stderr = io.MultiWriter(&said, &h.said)
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		h.t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "ready") {
				close(ready)
			}
		}
	}()
	h.t.Cleanup(func() {
		p.Stop(syscall.SIGTERM, 30*time.Second)
		if log := said.String(); h.t.Failed() || strings.Contains(log, "DATA RACE") {
			h.t.Errorf("broker %s said:\n%s", addr, log)
		}
	})
	select {
	case <-ready:
	case <-p.Done():
		h.t.Fatalf("the broker ended: %v", p.Err())
	case <-time.After(60 * time.Second):
		h.t.Fatal("the broker was not ready within a minute")
	}
	return p
}

// addHost registers a host through the API as an operator and starts its sshd.
func (h *house) addHost(name string, labels map[string]string, logins ...string) *sshd.Host {
	h.t.Helper()
	ctx := h.t.Context()
	c := h.signIn(operator)
	key, err := sshd.NewHostKey()
	if err != nil {
		h.t.Fatal(err)
	}
	addr := freeAddress(h.t)
	var host api.Host
	c.call(http.MethodPost, "/hosts", api.HostInput{
		Name: name, Address: addr, Labels: labels, Logins: logins, HostKey: key.Public,
	}, &host, http.StatusCreated)
	var cert api.HostCertificate
	c.call(http.MethodPost, "/hosts/"+host.ID+"/certificate", nil, &cert, http.StatusCreated)
	principals := map[string][]string{}
	for _, login := range logins {
		principals[login] = []string{login + "@" + host.ID}
	}
	running, err := sshd.Start(ctx, sshd.Config{
		Name: name, Listen: addr, HostKey: key, HostCertificate: cert.Certificate,
		UserCA: c.text("/ssh/ca.pub"), Logins: logins, Principals: principals,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(running.Stop)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hosts[name] = running
	return running
}

// hostID is the id of a host, which certificates name it by.
func (h *house) hostID(t testing.TB, name string) string {
	t.Helper()
	var id string
	if err := h.db.Pool.QueryRow(t.Context(), `SELECT id FROM hosts WHERE name = $1`, name).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// client is somebody signed in to the web pages.
type client struct {
	t    testing.TB
	url  string
	http *http.Client
}

// signIn signs a person in at the real provider, by its form.
func (h *house) signIn(email string) *client {
	h.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	c := &client{t: h.t, url: h.URL, http: &http.Client{Jar: jar, Timeout: time.Minute}}
	page, err := dex.SignIn(h.t.Context(), c.http, h.URL+"/signin", email, dex.Password)
	if err != nil {
		h.t.Fatalf("signing in as %s: %v", email, err)
	}
	defer page.Body.Close()
	if page.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(page.Body)
		h.t.Fatalf("signing in as %s ended at %s with %s\n%s", email, page.Request.URL, page.Status, body)
	}
	return c
}

// call makes an API call that must end with the status, and reads the answer
// into out.
func (c *client) call(method, path string, in, out any, status int) {
	c.t.Helper()
	got, answer, err := c.send(method, path, in)
	if err != nil {
		c.t.Fatal(err)
	}
	if got != status {
		c.t.Fatalf("%s %s: %d, want %d\n%s", method, path, got, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			c.t.Fatalf("%s %s: %v\n%s", method, path, err, answer)
		}
	}
}

// try is call for what may fail: a refusal comes back as an *api.Problem.
func (c *client) try(method, path string, in, out any) error {
	status, answer, err := c.send(method, path, in)
	if err != nil {
		return err
	}
	if status >= 400 {
		p := new(api.Problem)
		if err := json.Unmarshal(answer, p); err != nil {
			return fmt.Errorf("%d without a problem: %s", status, answer)
		}
		return p
	}
	return json.Unmarshal(answer, out)
}

func (c *client) send(method, path string, in any) (status int, answer []byte, err error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.url+"/api/v1"+path, &body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// plain is nobody's browser.
var plain = &http.Client{Timeout: time.Minute}

// text fetches something outside of the API.
func (c *client) text(path string) string {
	c.t.Helper()
	resp, err := c.http.Get(c.url + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("GET %s: %s, %v\n%s", path, resp.Status, err, b)
	}
	return string(b)
}

func (h *house) run(program string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out)
}

func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := loopback.Address("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// lockedBuffer collects what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
