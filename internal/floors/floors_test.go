// Package floors holds no code: its test keeps the house's floor plan. An import
// goes down, never up or sideways, so that no room knows who calls it, and each
// program links only what it is for.
package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "sallyport"

// floors are the packages from the roof to the ground. A package may import those
// on lines below its own. Every package must be here: where a new one belongs is
// a decision, not an accident.
var floors = []string{
	"cmd/sallyportd",
	// What only the tests and the demo need, out of reach of all below.
	"internal/e2e internal/floors internal/docs",
	"internal/demo",
	"cmd/sally-host/internal/brokertest",
	"internal/pgtest internal/audittest internal/certtest internal/history internal/agenttest",
	"internal/postgres internal/dex internal/sshd internal/browser internal/oidctest internal/mailtest",
	"internal/child internal/loopback",
	// People's and hosts' programs.
	"cmd/sally cmd/sally-host",
	"cmd/sally/internal/cli",
	"cmd/sally/internal/deploy/jobssh",
	"cmd/sally/internal/deploy cmd/sally/internal/deploy/jobkey cmd/sally/internal/deploy/jobtoken",
	"cmd/sally/internal/show cmd/sally/internal/replay cmd/sally/internal/signin cmd/sally/internal/sshrun cmd/sally/internal/brokertest",
	"cmd/sally/internal/grantkey",
	"cmd/sally/internal/home",
	"cmd/sally-host/internal/enrol",
	"cmd/sally-host/internal/daemon cmd/sally-host/internal/posture",
	"cmd/sally-host/internal/session cmd/sally-host/internal/recording",
	"cmd/sally-host/internal/door cmd/sally-host/internal/spool",
	"cmd/sally-host/internal/place cmd/sally-host/internal/journal",
	// The broker.
	"server",
	"server/rest server/pages",
	"server/signin",
	"server/problem",
	"evidence",
	"evidence/pack",
	"evidence/reconcile evidence/controls",
	"evidence/populations",
	"broker/rollout",
	"broker/rollout/gates",
	"broker/rollout/machine",
	"broker/rollout/plan",
	"broker/fleet",
	"broker",
	"broker/agents",
	"broker/agents/jwks",
	"broker/hosts broker/sessions broker/recordings broker/revocations broker/posture",
	"broker/keys",
	"broker/certs",
	"approvals",
	"approvals/notify",
	"approvals/identity approvals/grant",
	"approvals/evidence",
	"approvals/policy",
	"approvals/claims",
	"audit/witness audit/stream",
	"audit",
	"audit/receipt audit/retention",
	"audit/checkpoint audit/vouch audit/cosignature",
	"audit/event audit/recording",
	"web migrations",
	"api api/hostapi",
	"internal/throttle internal/remember internal/together internal/standardwebhooks internal/keyset",
	"internal/refusal internal/clock internal/ids internal/names",
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	floor := map[string]int{}
	for i, line := range floors {
		for _, name := range strings.Fields(line) {
			floor[name] = len(floors) - i
		}
	}
	for _, p := range list(t, "./...") {
		name := local(p.ImportPath)
		mine, known := floor[name]
		if !known {
			t.Errorf("%s is on no floor: put it on one, in this file", name)
			continue
		}
		for _, imported := range p.Imports {
			if other := local(imported); other != "" && floor[other] >= mine {
				t.Errorf("%s imports %s, which is not below it", name, other)
			}
		}
	}
}

func TestTheDemoIsOnlyForTheDemoCommand(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			if local(imported) == "internal/demo" && local(p.ImportPath) != "cmd/sallyportd" {
				t.Errorf("%s imports the demo", p.ImportPath)
			}
		}
	}
}

// The wire types are for other programs, too; a test kit or the broker's own
// packages have no business there.
func TestTheAPIIsALeaf(t *testing.T) {
	t.Parallel()
	for _, leaf := range []string{"api", "api/hostapi"} {
		for _, p := range list(t, "-deps", "./"+leaf) {
			if name := local(p.ImportPath); name != "" && name != leaf {
				t.Errorf("%s links %s", leaf, name)
			}
		}
	}
}

// Who talks to the database; everybody else asks them.
var database = []string{"audit", "audit/stream", "approvals", "approvals/notify", "approvals/identity", "broker", "broker/agents", "broker/hosts", "broker/sessions", "broker/recordings", "broker/revocations", "broker/posture", "broker/fleet", "broker/rollout", "evidence", "migrations",
	"server", "server/signin", "cmd/sallyportd", "internal/demo", "internal/postgres", "internal/pgtest", "internal/audittest", "internal/e2e"}

func TestOnlyTheRoomsHaveSQL(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			speaks := slices.Contains([]string{"github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgxpool", "database/sql"}, imported)
			if speaks && !slices.Contains(database, local(p.ImportPath)) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

// broker is what makes up a broker: no other program carries it.
var broker = []string{"github.com/jackc", "github.com/riverqueue", "github.com/danielgtaylor/huma", "github.com/go-chi",
	"github.com/alexedwards/scs", module + "/server", module + "/broker", module + "/approvals", module + "/audit",
	module + "/migrations", module + "/web"}

func TestWhatProgramsLink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		never  []string
		reason string
	}{
		{"./cmd/sally", slices.DeleteFunc(slices.Clone(broker), func(path string) bool {
			// An auditor's sally verifies with the broker's own rules, which are pure.
			return slices.Contains([]string{module + "/broker", module + "/approvals", module + "/audit"}, path)
		}), "is for people's computers"},
		{"./cmd/sally-host", append(slices.DeleteFunc(slices.Clone(broker), func(path string) bool {
			return slices.Contains([]string{module + "/broker", module + "/audit"}, path) // see TestWhatAHostLinks
		}), "html/template", "github.com/spf13", "charm.land", "k8s.io", "google.golang.org", "cloud.google.com"), "is started at every login"},
		// Rules that a verifier repeats offline, in the broker's own code.
		{"./approvals/policy", []string{"github.com/jackc"}, "is pure"},
		{"./broker/certs", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./approvals/claims", []string{"github.com/jackc"}, "is pure"},
		{"./internal/keyset", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./audit/event", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./audit/receipt", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./audit/checkpoint", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./audit/vouch", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./audit/retention", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./approvals/evidence", []string{"net/http", "github.com/jackc"}, "is pure"},
		{"./approvals/grant", []string{"github.com/jackc"}, "is pure"},
		{"./broker/rollout/plan", []string{"github.com/jackc"}, "is pure"},
		{"./broker/rollout/machine", []string{"github.com/jackc"}, "is pure"},
		{"./evidence/pack", []string{"github.com/jackc", module + "/web"}, "is pure"},
	} {
		for _, p := range list(t, "-deps", c.what) {
			if under(p.ImportPath, c.never...) {
				t.Errorf("%s %s and must not link %s", c.what, c.reason, p.ImportPath)
			}
		}
	}
}

// listed is what these tests use of `go list -json`.
type listed struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// local is a package's folder in this repository, or "" for others' packages.
func local(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return rest
}

func under(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}
