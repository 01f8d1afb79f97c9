package e2e

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	trust "sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
	"sallyport/internal/sshd"
)

// shop is a service on enrolled hosts, which a pipeline of GitHub's deploys: each host
// serves HTTP by the program that was deployed to it.
type shop struct {
	*house
	issuer *agenttest.Issuer
	otto   *client           // an operator
	names  []string          // of hosts
	serves map[string]string // address of the service, by host
}

//go:embed testdata/shop/install.sh
var installShop string

// shopPolicy lets jobs deploy the shop, and a person enter whom another lets.
const shopPolicy = policy + `
  - name: shop
    who: [engineers]
    where: class=shop
    logins: [admin]
    duration: {default: 15m, max: 1h}
    approvals: [{slots: [{groups: [approvers]}]}]
listen:
  - {where: "*", ports: [%s]}
agents:
%s
deployments:
  - name: shop
    service: shop
    environment: prod
    agents: [ci]
    where: class=shop
    login: deploy
    command: /usr/local/bin/deploy {digest}
    rollback_command: /usr/local/bin/deploy {digest}
    certificate: {lifetime: 5m, source_address: [127.0.0.0/8], uses: %d}
    plan: %s
    gates:
      - {name: healthy, http: {url: "%s/{host}/healthz", status: 200, reach: [127.0.0.0/8]}, every: 5s}
`

// newShop starts so many hosts, which are deployed to by the plan; certificates open so
// many connections.
func newShop(t *testing.T, hosts int, plan string, uses int) *shop {
	t.Helper()
	s := &shop{issuer: agenttest.New(t, trust.GitHub, clock.System), serves: map[string]string{}}
	front := httptest.NewServer(http.HandlerFunc(s.front))
	t.Cleanup(front.Close)
	roots := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(roots, s.issuer.Certificate(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.house = newHouse(t, fmt.Sprintf(shopPolicy, machinePorts(t), s.issuer.Entry("ci"), uses, plan, front.URL), "SSL_CERT_FILE="+roots)
	s.otto = s.signIn(operator)
	artifact, _ := s.build(t, "first", http.StatusOK)
	first, err := os.ReadFile(artifact)
	if err != nil {
		t.Fatal(err)
	}
	for n := range hosts {
		name := fmt.Sprintf("shop-%02d", n+1)
		s.names, s.serves[name] = append(s.names, name), freeAddress(t)
	}
	var all sync.WaitGroup
	for _, name := range s.names {
		all.Go(func() {
			host := s.enrol(t, name, map[string]string{"class": "shop"}, "deploy", "admin")
			install := host.Command(t.Context(), "sh", "-c", installShop, "install", s.serves[name])
			install.Stdin = bytes.NewReader(first)
			if out, err := install.CombinedOutput(); err != nil {
				t.Errorf("installing the shop: %v\n%s", err, out)
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
	return s
}

// open opens a deployment as a new job.
func (s *shop) open(t testing.TB, digest string) *job {
	t.Helper()
	return s.deploy(t, s.issuer, "shop", digest)
}

// front is what the shop's hosts are behind: /<host>/… is asked of the host.
func (s *shop) front(w http.ResponseWriter, r *http.Request) {
	host, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL = &url.URL{Scheme: "http", Host: s.serves[host], Path: "/" + path}
	}}).ServeHTTP(w, r)
}

// build makes an artifact, whose health is the status.
func (s *shop) build(t *testing.T, version string, health int) (file, digest string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "shop")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", fmt.Sprintf("-s -w -X main.version=%s -X main.health=%d", version, health),
		"-o", file, "./testdata/shop")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the artifact: %v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return file, "sha256:" + hex.EncodeToString(sum[:])
}

// runs expects that every host serves the version.
func (s *shop) runs(t *testing.T, version string) {
	t.Helper()
	for _, name := range s.names {
		resp, err := plain.Get("http://" + s.serves[name] + "/version")
		if err != nil {
			t.Errorf("%s does not answer: %v", name, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(text) != version {
			t.Errorf("%s runs version %q, %v; want %s", name, text, err, version)
		}
	}
}

// pipeline runs `sally deploy run` as a job of GitHub's does, with the shop's script, and
// returns its exit code and what it said.
func (s *shop) pipeline(t *testing.T, artifact string, env ...string) (code int, said string) {
	t.Helper()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer runner-secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"value": s.issuer.Token(t, s.issuer.Claims(r.FormValue("audience")))})
	}))
	defer tokens.Close()
	script, err := filepath.Abs("testdata/shop/deploy.sh")
	if err != nil {
		t.Fatal(err)
	}
	at := newTerminal(t, s.house)
	cmd := exec.CommandContext(t.Context(), programs.sally, "deploy", "run", "--service", "shop", "--environment", "prod",
		"--artifact", artifact, "--wait", "5m", "--", "sh", script)
	cmd.Dir, cmd.WaitDelay = at.home, time.Minute
	cmd.Env = append(slices.DeleteFunc(at.env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }),
		"PATH="+programs.dir+":"+os.Getenv("PATH"), "ARTIFACT="+artifact, "GITHUB_ACTIONS=true",
		"ACTIONS_ID_TOKEN_REQUEST_URL="+tokens.URL+"/?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=runner-secret")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// newest is the deployment that was opened last.
func (s *shop) newest(t *testing.T) api.Deployment {
	t.Helper()
	var page api.Page[api.Deployment]
	s.otto.call(http.MethodGet, "/deployments?limit=1", nil, &page, http.StatusOK)
	if len(page.Items) != 1 {
		t.Fatal("there is no deployment")
	}
	return page.Items[0]
}

// is waits until the host is in the state.
func (s *shop) is(t *testing.T, name string, want api.HostState) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var p api.HostPosture
		s.otto.call(http.MethodGet, "/hosts/"+name+"/posture", nil, &p, http.StatusOK)
		if p.State == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s: %q", name, p.State, want, p.StateWhy)
		}
	}
}

// dial lets the key in as the login, if sshd does.
func dial(host *sshd.Host, login string, key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", host.Addr(), &ssh.ClientConfig{User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second})
}

// machinePorts are the ports on which this machine, which plays all hosts, has something
// listening that is not theirs.
func machinePorts(t testing.TB) string {
	t.Helper()
	seen, list := map[string]bool{}, []string{}
	for file, network := range map[string]string{"tcp": "tcp", "tcp6": "tcp", "udp": "udp", "udp6": "udp"} {
		text, err := os.ReadFile("/proc/net/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != map[string]string{"tcp": "0A", "udp": "07"}[network] {
				continue
			}
			address, hex, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(hex, 16, 16)
			if loopback := strings.HasSuffix(address, "7F") || strings.HasSuffix(address, "01000000"); err != nil || loopback && n > 1024 {
				continue
			}
			if port := network + "/" + strconv.FormatUint(n, 10); !seen[port] {
				seen[port] = true
				list = append(list, strconv.Quote(port))
			}
		}
	}
	return strings.Join(list, ", ")
}
