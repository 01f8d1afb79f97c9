package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/internal/mailtest"
	"sallyport/internal/postgres"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyportd": main})
}

// TestScripts runs the sessions in testdata, each with a PostgreSQL cluster that
// nobody has migrated if its name starts with "database".
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			if strings.Contains(env.WorkDir, "notify") {
				receivers(env)
			}
			if !strings.Contains(env.WorkDir, "database") {
				return nil
			}
			cluster, err := postgres.Start(context.Background(), postgres.Config{})
			if err != nil {
				return err
			}
			env.Defer(cluster.Stop)
			env.Setenv("ADMIN", cluster.URL("postgres", postgres.Superuser))
			env.Setenv("APP", cluster.URL("postgres", "broker"))
			for _, name := range []string{"LISTEN", "WATCH"} { // the broker's, the witness's
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, l.Addr().String())
				defer l.Close()
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"sql": sql, "healthy": healthy, "certificate": certificate,
			"expand": expand, "aged": aged},
	})
}

// receivers starts a mail server at $MAIL and a receiver of webhooks at $HOOK,
// which takes what is posted to /yes.
func receivers(env *testscript.Env) {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/yes" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	env.Defer(hook.Close)
	env.Setenv("HOOK", hook.URL)
	env.Setenv("MAIL", mailtest.New(env.T().(testing.TB), mailtest.Config{}).Addr)
}

// expand FILE puts the values of environment variables into a file.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// sql URL STATEMENT runs a statement in the database.
func sql(ts *testscript.TestScript, neg bool, args []string) {
	conn, err := pgx.Connect(context.Background(), args[0])
	ts.Check(err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), args[1])
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// healthy URL waits until the broker answers there with 200.
func healthy(ts *testscript.TestScript, _ bool, args []string) {
	var last error
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		res, err := client.Get(args[0])
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(res.Status)
		}
		last = err
	}
	ts.Fatalf("%s: %v", args[0], last)
}

// certificate CERT KEY makes a self-signed certificate for https.
func certificate(ts *testscript.TestScript, _ bool, args []string) {
	public, private, err := ed25519.GenerateKey(nil)
	ts.Check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(nil, template, template, public, private)
	ts.Check(err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

// TestHelpDocumentsEveryOption reads what `sallyportd serve --help` says.
func TestHelpDocumentsEveryOption(t *testing.T) {
	t.Parallel()
	usage := serveCommand().UsageString()
	for _, o := range options {
		if !strings.Contains(usage, "--"+o.name+" ") || !strings.Contains(usage, "[$"+variable(o.name)+"]") {
			t.Errorf("--help lacks %s or its variable", o.name)
		}
		if o.standard != "" && !strings.Contains(usage, `(default "`+o.standard+`")`) {
			t.Errorf("--help lacks the default of %s", o.name)
		}
	}
	if os.Getenv("SALLYPORT_OIDC_CLIENT_SECRET") != "" {
		t.Fatal("the test needs an environment without SALLYPORT_*")
	}
}

// TestOperatingDocumentsEveryOption reads the table for people who run a broker.
func TestOperatingDocumentsEveryOption(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{} // by option
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, name := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
			rows[name[1]] = cells[2]
		}
	}
	for _, o := range options {
		cell, ok := rows[o.name]
		if delete(rows, o.name); !ok || o.standard != "" && !strings.Contains(cell, "`"+o.standard+"`") {
			t.Errorf("docs/operating.md has --%s with default %q, want %q", o.name, cell, o.standard)
		}
	}
	if delete(rows, "config"); len(rows) > 0 {
		t.Errorf("docs/operating.md has options that there are not: %v", rows)
	}
}
