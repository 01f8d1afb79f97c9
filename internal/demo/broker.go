package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/broker/keys"
	"sallyport/internal/child"
	"sallyport/internal/dex"
	"sallyport/internal/postgres"
	"sallyport/migrations"
)

// The database and the broker's login to it.
const (
	databaseName = "sallyport"
	databaseUser = "sallyport"
)

func (h *house) url() string { return "http://localhost:" + strconv.Itoa(h.ports.broker) }

func (h *house) databaseURL() string { return h.database.URL(databaseName, databaseUser) }

// startDatabase starts PostgreSQL and does what an administrator does once.
func (h *house) startDatabase(ctx context.Context) (err error) {
	log, err := h.log("postgres")
	if err != nil {
		return err
	}
	dir := h.databaseFolder()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if h.database, err = postgres.Start(ctx, postgres.Config{Dir: dir, Log: log}); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, h.database.URL("postgres", postgres.Superuser))
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+databaseName); err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	if err := migrations.Up(ctx, h.database.URL(databaseName, postgres.Superuser), nil); err != nil {
		return err
	}
	if _, err := admin.Exec(ctx, "CREATE ROLE "+databaseUser+" LOGIN IN ROLE sallyport_app"); err != nil {
		return fmt.Errorf("making the broker's login: %w", err)
	}
	return nil
}

// databaseFolder is where the database is: in the demo's folder, or, where
// PostgreSQL's own account cannot get there (a clone below /root, say), in one
// that is named after it.
func (h *house) databaseFolder() string {
	for dir := h.cfg.Dir; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o001 == 0 {
			sum := sha256.Sum256([]byte(h.cfg.Dir))
			return "/var/tmp/sallyport-demo-" + hex.EncodeToString(sum[:6])
		}
		if dir == filepath.Dir(dir) {
			return h.file("postgres")
		}
	}
}

func (h *house) startProvider(ctx context.Context) error {
	log, err := h.log("dex")
	if err != nil {
		return err
	}
	h.provider, err = dex.Start(ctx, dex.Config{
		Listen:       "localhost:" + strconv.Itoa(h.ports.dex),
		RedirectURIs: []string{h.url() + "/signin/callback"},
		Log:          log,
	})
	return err
}

// startBroker makes keys and policy, runs `serve` of this same program and waits
// until it is ready.
func (h *house) startBroker(ctx context.Context) error {
	if err := keys.Init(keys.InitOptions{Dir: h.file("keys"), Origin: "sallyport.demo/log"}); err != nil {
		return err
	}
	jobs, err := newJobs(h.url())
	if err != nil {
		return err
	}
	text, err := jobs.policyOf(policyText)
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.file("policy.yaml"), text, 0o644); err != nil {
		return err
	}
	if err := jobs.serve(h.life, h.file("job-token")); err != nil {
		return err
	}
	if err := os.Mkdir(h.file("state"), 0o700); err != nil {
		return err
	}
	log, err := h.log("sallyportd")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve")
	cmd.Env = append(environmentOfOthers(),
		"SALLYPORT_LISTEN=127.0.0.1:"+strconv.Itoa(h.ports.broker),
		"SALLYPORT_URL="+h.url(),
		"SALLYPORT_DATABASE_URL="+h.databaseURL(),
		"SALLYPORT_KEYS_DIR="+h.file("keys"),
		"SALLYPORT_POLICY="+h.file("policy.yaml"),
		"SALLYPORT_STATE_DIR="+h.file("state"),
		"SALLYPORT_OIDC_ISSUER="+h.provider.Issuer(),
		"SALLYPORT_OIDC_CLIENT_ID="+dex.ClientID,
		"SALLYPORT_OIDC_CLIENT_SECRET="+dex.ClientSecret,
	)
	cmd.Stdout, cmd.Stderr = log, log
	if h.broker, err = child.Start(cmd, syscall.SIGTERM); err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	if err := h.awaitBroker(ctx); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the broker did not come up: %w\n%s", err, said)
	}
	return nil
}

// environmentOfOthers is this process's environment without what is meant for
// another broker.
func environmentOfOthers() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SALLYPORT_") {
			env = append(env, e)
		}
	}
	return env
}

func (h *house) awaitBroker(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url()+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			select {
			case <-h.broker.Done(): // somebody else answers there
			default:
				if resp.StatusCode == http.StatusOK {
					return nil
				}
			}
			err = fmt.Errorf("it says it is not ready: %s", resp.Status)
		}
		select {
		case <-h.broker.Done():
			return errors.New("it ended at once")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
