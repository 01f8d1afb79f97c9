package demo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/api"
)

// jobIssuer plays the pipeline that gives a token to each of its jobs. The policy has its
// key, as it has that of a pipeline which the broker cannot reach.
const jobIssuer = "https://pipeline.example.com"

// jobsPolicy is what the policy has of deployments, for an issuer's keys and what listens
// on this machine, which is all hosts'.
const jobsPolicy = `
agents:
  - name: pipeline
    description: The demo's own. Each reading of job-token is the token of a new job.
    issuer: %[1]s
    keys: '%[2]s'
    generic:
      sub: ["job:deploy-shop"]
      ref: [refs/heads/main]

deployments:
  - name: shop
    service: shop
    environment: demo
    agents: [pipeline]
    where: class=shop
    login: deploy
    command: /usr/local/bin/deploy {digest}
    rollback_command: /usr/local/bin/deploy {digest}
    certificate: {lifetime: 5m, source_address: [127.0.0.0/8]}
    plan:
      canary: {hosts: 1, soak: 10s}
      batches: [{hosts: 2}]
      on_failure: rollback
    gates:
      - {name: reported, reported: {ok: 100%%}}
%[3]s`

// deployCommand is what the policy lets jobs run on the shop's hosts.
const deployCommand = `cat >/usr/local/bin/deploy <<'END'
#!/bin/sh
# A deployment of the demo: keeps what comes by its digest, and says so.
set -eu
[ -e "/srv/shop/$1" ] || cat >"/srv/shop/$1"
echo "$1" >/srv/shop/current
echo "$(hostname) has $1"
END
chmod 755 /usr/local/bin/deploy && mkdir -p /srv/shop && chown deploy /srv/shop`

// jobs gives out jobs' tokens.
type jobs struct {
	broker string
	key    ed25519.PrivateKey
}

func newJobs(broker string) (*jobs, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return &jobs{broker, key}, err
}

// keySet is the issuer's JWK set (RFC 8037).
func (j *jobs) keySet() (string, error) {
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "OKP", "crv": "Ed25519", "kid": "demo", "alg": "EdDSA", "use": "sig",
		"x": base64.RawURLEncoding.EncodeToString(j.key.Public().(ed25519.PublicKey))}}})
	return string(set), err
}

// token is a new job's.
func (j *jobs) token(now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"iss": jobIssuer, "aud": j.broker, "sub": "job:deploy-shop", "ref": "refs/heads/main",
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
	t.Header["kid"] = "demo"
	return t.SignedString(j.key)
}

// serve has whoever reads the file get the token of a new job, until ctx ends.
func (j *jobs) serve(ctx context.Context, file string) error {
	if err := syscall.Mkfifo(file, 0o644); err != nil {
		return fmt.Errorf("making %s: %w", file, err)
	}
	context.AfterFunc(ctx, func() { os.Remove(file) })
	go func() {
		for ctx.Err() == nil {
			f, err := os.OpenFile(file, os.O_WRONLY, 0) // when somebody reads
			if err != nil {
				return
			}
			if token, err := j.token(time.Now()); err == nil {
				_, _ = f.WriteString(token + "\n")
			}
			f.Close()
			// Who reads on would get the next one, too.
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return nil
}

// policyOf is the demo's whole policy.
func (j *jobs) policyOf(text []byte) ([]byte, error) {
	keys, err := j.keySet()
	return append(text[:len(text):len(text)], fmt.Sprintf(jobsPolicy, jobIssuer, keys, machinePorts())...), err
}

// enroll has a host of the shop speak for itself, and be deployed to.
func (h *house) enroll(ctx context.Context, client *api.Client, x *host) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(self), "sally-host"))
	if err != nil {
		return fmt.Errorf("sally-host has to be beside %s: %w", self, err)
	}
	log, err := h.log(x.name + "-sally-host")
	if err != nil {
		return err
	}
	token, err := client.MakeJoinToken(ctx, api.JoinTokenInput{Name: x.name})
	if err != nil {
		return fmt.Errorf("letting %s enrol: %w", x.name, err)
	}
	if err := x.sshd.Enroll(ctx, program, h.url(), token.Token, log); err != nil {
		return fmt.Errorf("%s: %w", x.name, err)
	}
	if out, err := x.sshd.Command(ctx, "sh", "-c", deployCommand).CombinedOutput(); err != nil {
		return fmt.Errorf("setting %s up: %w\n%s", x.name, err, out)
	}
	return nil
}

// machinePorts lets those be on which something of this machine listens for others.
func machinePorts() string {
	seen, list := map[string]bool{}, []string{}
	for _, table := range []struct{ file, network, listens string }{{"tcp", "tcp", "0A"}, {"tcp6", "tcp", "0A"}, {"udp", "udp", "07"}, {"udp6", "udp", "07"}} {
		text, err := os.ReadFile("/proc/net/" + table.file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != table.listens {
				continue
			}
			address, hex, _ := strings.Cut(f[1], ":")
			if strings.HasSuffix(address, "7F") || strings.HasSuffix(address, "01000000") {
				continue // loopback
			}
			n, err := strconv.ParseUint(hex, 16, 16)
			if port := fmt.Sprintf("%q", table.network+"/"+strconv.FormatUint(n, 10)); err == nil && n > 0 && !seen[port] {
				seen[port] = true
				list = append(list, port)
			}
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "\nlisten:\n  - {where: \"*\", ports: [" + strings.Join(list, ", ") + "]}\n"
}
