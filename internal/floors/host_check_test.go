package floors

import (
	"slices"
	"strings"
	"testing"
)

// A host's check of a certificate (certs.Admit) is what sally-host links to answer
// sshd at every login: these packages and the standard library, without its HTTP.
func TestWhatAHostsCheckLinks(t *testing.T) {
	t.Parallel()
	own := []string{"broker/certs", "audit/receipt", "audit/checkpoint", "internal/ids", "internal/names", "internal/refusal"}
	others := []string{"golang.org/x/crypto", "golang.org/x/mod/sumdb", "github.com/hiddeco/sshsig", "github.com/transparency-dev/formats/proof"}
	for _, p := range list(t, "-deps", "./broker/certs") {
		if name := local(p.ImportPath); name != "" && !slices.Contains(own, name) {
			t.Errorf("a host's check links %s", name)
			continue
		} else if name != "" {
			continue
		}
		first, _, _ := strings.Cut(p.ImportPath, "/")
		if strings.Contains(first, ".") && !under(p.ImportPath, others...) || under(p.ImportPath, "net/http", "database/sql", "html/template") {
			t.Errorf("a host's check links %s", p.ImportPath)
		}
	}
}

// sally-host is more than that: it calls the broker, too. Of the broker's own code it
// has the rules that are pure, and no database, server of pages, or cloud.
func TestWhatAHostLinks(t *testing.T) {
	t.Parallel()
	own := []string{"cmd/sally-host", "api/hostapi", "broker/certs", "audit/receipt", "audit/checkpoint", "audit/vouch", "audit/event", "audit/recording", "internal/ids", "internal/names", "internal/refusal"}
	others := []string{"golang.org/x/crypto", "golang.org/x/mod/sumdb", "golang.org/x/sys", "filippo.io/age", "filippo.io/hpke", "github.com/hiddeco/sshsig", "github.com/transparency-dev/formats/proof", "github.com/google/uuid"}
	for _, p := range list(t, "-deps", "./cmd/sally-host") {
		if name := local(p.ImportPath); name != "" && !under(name, own...) {
			t.Errorf("sally-host links %s", name)
			continue
		} else if name != "" {
			continue
		}
		first, _, _ := strings.Cut(p.ImportPath, "/")
		if strings.Contains(first, ".") && !under(p.ImportPath, others...) || p.ImportPath == "database/sql" {
			t.Errorf("sally-host links %s", p.ImportPath)
		}
	}
}
