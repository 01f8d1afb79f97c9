// Package dex runs Dex, a real OIDC provider, for the demo and the tests: on a
// loopback port, with a few sample people, forgetting everything when it stops.
package dex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sallyport/internal/child"
	"sallyport/internal/loopback"
)

// The client that Dex knows: the broker.
const (
	ClientID     = "sallyport"
	ClientSecret = "only-for-the-demo-and-the-tests"
)

// Password opens every sample person's account.
const Password = "sallyport"

// Person is someone who can sign in.
type Person struct {
	ID       string // Dex makes the subject of it
	Email    string // what the person types to sign in
	Username string
	Name     string
	Groups   []string
}

// People are the sample people: one for each part in the story that the demo tells.
var People = []Person{
	{ID: "01-engineer", Email: "engineer@example.com", Username: "engineer", Name: "Erin Engineer", Groups: []string{"engineers"}},
	{ID: "02-approver", Email: "approver@example.com", Username: "approver", Name: "Arne Approver", Groups: []string{"approvers"}},
	{ID: "03-security", Email: "security@example.com", Username: "security", Name: "Selma Security", Groups: []string{"security"}},
	{ID: "04-auditor", Email: "auditor@example.com", Username: "auditor", Name: "Audrey Auditor", Groups: []string{"auditors"}},
	{ID: "05-operator", Email: "operator@example.com", Username: "operator", Name: "Otto Operator", Groups: []string{"operators"}},
}

// Config says how to start Dex.
type Config struct {
	// Listen is the address to serve on, host:port. Empty, or with port 0, means
	// a free port of 127.0.0.1. A name (localhost) stays in the issuer's URL.
	Listen string
	// RedirectURIs are where the broker may have people sent back to. Required.
	RedirectURIs []string
	// People who can sign in, with Password; nil means the sample People.
	People []Person
	// Log receives Dex's messages; nil drops them, but for the last lines, which
	// are told when Dex does not come up.
	Log io.Writer
}

// Provider is a running Dex.
type Provider struct {
	issuer  string
	process *child.Process
}

// Start builds Dex if need be, starts it and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Provider, error) {
	if len(cfg.RedirectURIs) == 0 {
		return nil, errors.New("dex: no redirect URI")
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("dex: address to listen on: %w", err)
	}
	program, err := Binary(ctx)
	if err != nil {
		return nil, err
	}
	if port != "0" {
		return launch(ctx, program, cfg, net.JoinHostPort(host, port))
	}
	// Another process may take a free port before Dex does; then we try the next.
	var last error
	for range 5 {
		addr, err := loopback.Address(host)
		if err != nil {
			return nil, err
		}
		p, err := launch(ctx, program, cfg, addr)
		if err == nil || ctx.Err() != nil {
			return p, err
		}
		last = err
	}
	return nil, last
}

func launch(ctx context.Context, program string, cfg Config, addr string) (*Provider, error) {
	config, err := configuration(cfg, addr)
	if err != nil {
		return nil, err
	}
	var said tail
	cmd := exec.Command(program, "serve", "/dev/stdin")
	cmd.Stdin = bytes.NewReader(config)
	cmd.Stdout = &said
	if cfg.Log != nil {
		cmd.Stdout = io.MultiWriter(&said, cfg.Log)
	}
	cmd.Stderr = cmd.Stdout
	cmd.Dir = "/"
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("starting dex: %w", err)
	}
	p := &Provider{issuer: "http://" + addr + "/dex", process: process}
	if err := p.waitReady(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("dex did not come up: %w\n%s", err, said.String())
	}
	return p, nil
}

// configuration is Dex's config file. Dex reads YAML, and JSON is YAML.
func configuration(cfg Config, addr string) ([]byte, error) {
	people := cfg.People
	if people == nil {
		people = People
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.DefaultCost) // Dex refuses a lower cost
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	passwords := []object{}
	for _, p := range people {
		passwords = append(passwords, object{
			"userID": p.ID, "email": p.Email, "username": p.Username, "name": p.Name,
			"preferredUsername": p.Username, "groups": p.Groups, "hash": string(hash),
		})
	}
	return json.Marshal(object{
		"issuer":           "http://" + addr + "/dex",
		"storage":          object{"type": "memory"},
		"web":              object{"http": addr},
		"frontend":         object{"issuer": "the Sallyport demo"},
		"oauth2":           object{"skipApprovalScreen": true},
		"expiry":           object{"idTokens": "10m", "authRequests": "30m"},
		"logger":           object{"level": "warn"},
		"enablePasswordDB": true,
		"staticPasswords":  passwords,
		"staticClients": []object{{
			"id": ClientID, "secret": ClientSecret, "name": "Sallyport", "redirectURIs": cfg.RedirectURIs,
		}},
	})
}

func (p *Provider) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.issuer+"/.well-known/openid-configuration", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			var discovery struct {
				Issuer string `json:"issuer"`
			}
			err = json.NewDecoder(resp.Body).Decode(&discovery)
			resp.Body.Close()
			if err == nil && discovery.Issuer == p.issuer {
				return nil
			}
		}
		select {
		case <-p.process.Done():
			return errors.New("it exited at once")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Issuer is the provider's issuer URL.
func (p *Provider) Issuer() string { return p.issuer }

// Done is closed when Dex has ended, for whatever reason.
func (p *Provider) Done() <-chan struct{} { return p.process.Done() }

// Stop ends Dex at once; its people's sign-ins there are forgotten.
func (p *Provider) Stop() { p.process.Stop(syscall.SIGKILL, time.Second) }

// tail keeps the last few kilobytes written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
