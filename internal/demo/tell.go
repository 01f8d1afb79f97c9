package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/term"

	"sallyport/internal/dex"
)

// writeEnv writes the file that scripts read to find the demo. It is there
// exactly while the demo is up.
func (h *house) writeEnv() error {
	var b strings.Builder
	fmt.Fprintf(&b, "SALLYPORT_URL=%s\n", h.url())
	fmt.Fprintf(&b, "SALLYPORT_DATABASE_URL=%s\n", h.databaseURL())
	fmt.Fprintf(&b, "SALLYPORT_OIDC_ISSUER=%s\n", h.provider.Issuer())
	for _, x := range h.hosts {
		name := strings.ToUpper(strings.ReplaceAll(x.name, "-", "_"))
		fmt.Fprintf(&b, "HOST_%s_ADDR=%s\n", name, x.addr)
	}
	temporary := h.file("env.new")
	if err := os.WriteFile(temporary, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, h.file("env"))
}

// text is what a person reads who has just started the demo.
var text = template.Must(template.New("").Funcs(template.FuncMap{"bold": fmt.Sprint}).Parse(`
  {{bold "Sallyport"}}  {{.URL}}          Ctrl-C stops everything

  {{bold "Who you can be"}}, with password {{.Password}}
    engineer@example.com   asks for access
    approver@example.com   says yes or no
    security@example.com   is needed too when it is about root
    operator@example.com   keeps the hosts
    auditor@example.com    reads the log

  {{bold "What to try"}}, in a second terminal in this folder

  1  Sign in as the engineer, in the browser that this opens:
       {{.Sally}} login --url {{.URL}}

  2  Ask for the database. It wants a reason, and waits:
       {{.Sally}} ssh dba@db-1

  3  Approve it: in a private window, so that you are two people, as
     approver@example.com at
       {{.URL}}/approvals
     The terminal goes on by itself: {{bold "dba@db-1:~$"}}  Leave with exit.

  4  The same certificate opens db-1 for dba, and no other door:
       {{.Sally}} cert dba@db-1 --out {{.Dir}}/dba
       ssh -F {{.Dir}}/dba/ssh_config db-1 hostname
       ssh -F {{.Dir}}/dba/ssh_config -l root db-1
       ssh -F {{.Dir}}/dba/ssh_config -o HostName={{.WebIP}} -p {{.WebPort}} -o StrictHostKeyChecking=no \
           -o UserKnownHostsFile=/dev/null -l web db-1

  5  Web servers open at once; root takes two people's yes:
       {{.Sally}} ssh web@web-1
       {{.Sally}} ssh root@web-1

  6  Deploy a file to three hosts, as the job of a pipeline that nobody signs in for: one
     host first, then the others, each sealed before the next is opened:
       {{.Sally}} deploy run --url {{.URL}} --service shop --environment demo --artifact README.md \
           --token-file {{.Dir}}/job-token -- \
           sh -c 'for h in $SALLYPORT_HOSTS; do ssh -F "$SALLYPORT_SSH_CONFIG" $h <README.md; done'
     How the hosts are, meanwhile and then, as operator@example.com:
       {{.URL}}/hosts

  7  Everything that happened, as auditor@example.com in another private window:
       {{.URL}}/log

  Logs of all parts, the policy, and addresses for scripts (env) are in {{.Dir}}/
`))

func (h *house) tell() {
	bold := func(s string) string { return s }
	if f, ok := h.cfg.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bold = func(s string) string { return "\x1b[1m" + s + "\x1b[0m" }
	}
	err := template.Must(text.Clone()).Funcs(template.FuncMap{"bold": bold}).Execute(h.cfg.Out, struct {
		URL, Password, Sally, Dir, WebIP string
		WebPort                          int
	}{h.url(), dex.Password, sally(), short(h.cfg.Dir), web1IP, h.ports.web1})
	if err != nil {
		fmt.Fprintln(h.cfg.Out, err)
	}
}

// sally is how to call the sally that was built beside this program.
func sally() string {
	self, err := os.Executable()
	if err != nil {
		return "sally"
	}
	path := filepath.Join(filepath.Dir(self), "sally")
	if _, err := os.Stat(path); err != nil {
		return "sally"
	}
	return short(path)
}

// short is a path as seen from the working folder, if that is shorter.
func short(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}
