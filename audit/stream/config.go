package stream

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"

	"sallyport/internal/clock"
	"sallyport/internal/standardwebhooks"
)

// Limits on a file of streams.
const (
	maxStreams = 16
	maxBytes   = 64 << 10
)

// Settings are a file that says where the log goes. It looks like this:
//
//	streams:
//	  - name: archive
//	    file: {path: /var/log/sallyport/ocsf.ndjson}
//	  - name: siem
//	    webhook: {url: https://siem.example.com/in, secret_file: /etc/sallyport/siem-secret}
//	  - name: splunk
//	    splunk: {url: https://splunk.example.com:8088, token_file: /etc/sallyport/hec-token, index: access}
//
// It names secrets and holds none. Unknown keys are refused.
type Settings struct {
	Streams []settings `yaml:"streams"`
}

type settings struct {
	Name    string           `yaml:"name"`
	File    *fileSettings    `yaml:"file"`
	Webhook *webhookSettings `yaml:"webhook"`
	Splunk  *splunkSettings  `yaml:"splunk"`
}

type fileSettings struct {
	Path string `yaml:"path"`
}

type webhookSettings struct {
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secret_file"`
	CAFile     string `yaml:"ca_file"` // PEM; empty: the system's
}

type splunkSettings struct {
	URL       string `yaml:"url"`
	TokenFile string `yaml:"token_file"`
	Index     string `yaml:"index"`
	CAFile    string `yaml:"ca_file"`
}

// Outlet is a stream with its secrets read.
type Outlet struct {
	name string
	to   sink
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Parse reads a file of streams and the secrets that it names. Errors do not repeat
// secrets.
func Parse(text []byte, c clock.Clock) ([]Outlet, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("more than %d bytes", maxBytes)
	}
	var s Settings
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.Strict()); err != nil {
		return nil, err
	}
	if len(s.Streams) == 0 || len(s.Streams) > maxStreams {
		return nil, fmt.Errorf("it names %d streams: 1 to %d can be", len(s.Streams), maxStreams)
	}
	seen := map[string]bool{}
	var out []Outlet
	for _, one := range s.Streams {
		if !validName.MatchString(one.Name) || seen[one.Name] {
			return nil, fmt.Errorf("%q is no name of a stream, or there twice: small letters, digits and -, at most 32", one.Name)
		}
		seen[one.Name] = true
		to, err := one.open(c)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", one.Name, err)
		}
		out = append(out, Outlet{one.Name, to})
	}
	return out, nil
}

func (s settings) open(c clock.Clock) (sink, error) {
	switch {
	case s.File != nil && s.Webhook == nil && s.Splunk == nil:
		if !filepath.IsAbs(s.File.Path) {
			return nil, errors.New("file: path must begin at the root")
		}
		if info, err := os.Stat(filepath.Dir(s.File.Path)); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("file: the folder of %s is not there", s.File.Path)
		}
		return file{s.File.Path}, nil
	case s.Webhook != nil && s.File == nil && s.Splunk == nil:
		client, address, err := dial(s.Webhook.URL, s.Webhook.CAFile)
		if err != nil {
			return nil, err
		}
		text, err := secret(s.Webhook.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("secret_file: %w", err)
		}
		key, err := standardwebhooks.Key(text)
		if err != nil {
			return nil, fmt.Errorf("secret_file: %w", err)
		}
		return webhook{address, key, client, c}, nil
	case s.Splunk != nil && s.File == nil && s.Webhook == nil:
		client, address, err := dial(s.Splunk.URL, s.Splunk.CAFile)
		if err != nil {
			return nil, err
		}
		token, err := secret(s.Splunk.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, errors.New("token_file: the token has characters that no token has")
		}
		return splunk{strings.TrimRight(address, "/") + "/services/collector/event", token, s.Splunk.Index, client}, nil
	}
	return nil, errors.New("it must be one of file, webhook and splunk")
}

// dial checks an address, and makes a client that goes nowhere else. http is for the
// machine itself only.
func dial(address, caFile string) (*http.Client, string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return nil, "", errors.New("url must be https://host[:port][/path], with nothing secret in it")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, "", errors.New("url must be https: the log has personal data")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 32 << 10
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, "", fmt.Errorf("ca_file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, "", errors.New("ca_file: no certificate in it")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, address, nil
}

// secret reads a file that not everybody may read.
func secret(path string) (string, error) {
	if path == "" {
		return "", errors.New("it is not set")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s can be used by everybody here (mode %s): chmod o= %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return "", fmt.Errorf("%s is empty", path)
	}
	return string(text), nil
}
