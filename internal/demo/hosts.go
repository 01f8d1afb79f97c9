package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport/api"
	"sallyport/internal/dex"
	"sallyport/internal/sshd"
)

// host is one of the demo's hosts.
type host struct {
	name   string
	addr   string
	labels map[string]string
	logins []string
	sshd   *sshd.Host
	// enrolled: it runs sally-host.
	enrolled bool
}

// startHosts registers the hosts as the sample operator, has their keys
// certified, and starts them.
func (h *house) startHosts(ctx context.Context) error {
	client, err := h.signIn(ctx, "operator@example.com")
	if err != nil {
		return fmt.Errorf("signing in as the operator: %w", err)
	}
	userCA, err := client.UserCA(ctx)
	if err != nil {
		return fmt.Errorf("asking for the user CA: %w", err)
	}
	h.hosts = []*host{
		{name: "web-1", addr: net.JoinHostPort(web1IP, strconv.Itoa(h.ports.web1)),
			labels: map[string]string{"class": "web", "env": "demo"}, logins: []string{"web", "root"}},
		{name: "db-1", addr: net.JoinHostPort(db1IP, strconv.Itoa(h.ports.db1)),
			labels: map[string]string{"class": "database", "env": "demo"}, logins: []string{"dba", "root"}},
	}
	for i, port := range h.ports.shop {
		h.hosts = append(h.hosts, &host{name: fmt.Sprintf("shop-%d", i+1), addr: net.JoinHostPort(shopIPs[i], strconv.Itoa(port)),
			labels: map[string]string{"class": "shop", "env": "demo"}, logins: []string{"deploy", "root"}, enrolled: true})
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, x := range h.hosts {
		log, err := h.log(x.name)
		if err != nil {
			return err
		}
		group.Go(func() error {
			key, err := sshd.NewHostKey()
			if err != nil {
				return err
			}
			registered, err := client.AddHost(ctx, api.HostInput{
				Name: x.name, Address: x.addr, Labels: x.labels, Logins: x.logins, HostKey: key.Public})
			if err != nil {
				return fmt.Errorf("registering %s: %w", x.name, err)
			}
			certificate, err := client.CertifyHost(ctx, x.name)
			if err != nil {
				return fmt.Errorf("certifying %s: %w", x.name, err)
			}
			principals := map[string][]string{}
			for _, login := range x.logins {
				principals[login] = []string{login + "@" + registered.ID}
			}
			x.sshd, err = sshd.Start(ctx, sshd.Config{
				Name: x.name, Listen: x.addr, HostKey: key, HostCertificate: certificate.Certificate,
				UserCA: userCA, Principals: principals, Logins: x.logins, Log: log})
			if err != nil || !x.enrolled {
				return err
			}
			return h.enroll(ctx, client, x)
		})
	}
	return group.Wait()
}

// signIn signs a sample person in as a browser would and returns a client of the
// API that uses that sign-in.
func (h *house) signIn(ctx context.Context, email string) (*api.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	page, err := dex.SignIn(ctx, &http.Client{Jar: jar}, h.url()+"/signin", email, dex.Password)
	if err != nil {
		return nil, err
	}
	page.Body.Close()
	if page.StatusCode != http.StatusOK || !strings.HasPrefix(page.Request.URL.String(), h.url()) {
		return nil, fmt.Errorf("it ended at %s with %s", page.Request.URL.Redacted(), page.Status)
	}
	return api.NewClient(api.ClientConfig{URL: h.url(), UserAgent: "sallyport-demo", Transport: withCookies{jar}})
}

// withCookies sends a browser's cookies with every call.
type withCookies struct{ jar http.CookieJar }

func (t withCookies) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	for _, c := range t.jar.Cookies(req.URL) {
		req.AddCookie(c)
	}
	return http.DefaultTransport.RoundTrip(req)
}
