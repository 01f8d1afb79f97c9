package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/home"
	"sallyport/cmd/sally/internal/sshrun"
)

func (s *sally) certCommand() *cobra.Command {
	var (
		a         ask
		out, host string
	)
	c := &cobra.Command{
		Use:   "cert LOGIN@HOST|REQUEST",
		Short: "Write a certificate, its key and an ssh configuration to files",
		Long: `Get a certificate as "sally ssh" does, and write it to a folder with its key, the
host's known_hosts line and an ssh_config, for programs that run ssh by themselves.

The files stop working when the certificate ends; get the next one with the same
command, as long as the grant runs.`,
		Example: `  sally cert dba@db-1
  ssh -F dba@db-1/ssh_config db-1
  sally cert req-4f8k2m9qhx1z --out /run/user/1000/db-1
  sally cert req-4f8k2m9qhx1z --host db-2`,
		Args:              one("LOGIN@HOST or REQUEST"),
		ValidArgsFunction: s.completePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			return s.cert(c.Context(), args[0], host, a, out)
		},
	}
	a.askFlags(c, "t")
	c.Flags().StringVar(&host, "host", "", "with REQUEST: which of its hosts, by name or id, if it is for several")
	c.RegisterFlagCompletionFunc("host", s.completeHostsOf)
	c.Flags().StringVar(&out, "out", "", "folder to write to (default: ./LOGIN@HOST)")
	c.MarkFlagDirname("out")
	return c
}

// written is what `sally cert --output json` prints.
type written struct {
	Folder      string          `json:"folder"`
	Identity    string          `json:"identity"` // the public key, if the agent has the private one
	SSHConfig   string          `json:"ssh_config"`
	Command     string          `json:"command"`
	Certificate api.Certificate `json:"certificate"`
}

func (s *sally) cert(ctx context.Context, what, wanted string, a ask, out string) error {
	if _, named, ok := strings.Cut(what, "@"); ok && wanted != "" {
		return usage("--host goes with a request; %s names the host", what)
	} else if ok {
		wanted = named
	}
	if err := s.signedIn(ctx); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	if err := s.keys().Sweep(ctx); err != nil {
		return err
	}
	r, key, err := s.grantFor(ctx, client, what, a)
	if err != nil {
		return err
	}
	host, err := hostOf(r, wanted)
	if err != nil {
		return err
	}
	certificate, files, err := s.certify(ctx, client, r, host.ID, key)
	if err != nil {
		return err
	}
	out = or(out, r.Login+"@"+host.Name)
	w, err := writeFiles(out, host.Name, certificate, files, key.InAgent)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return s.json(w)
	}
	s.out.Line("%s  certificate %d for %s, good until %s", out, certificate.Serial, certificate.Principal,
		s.moment(&certificate.ValidBefore))
	s.out.Line("log in with:  %s", w.Command)
	if key.InAgent {
		s.err.Line("the private key is in your ssh-agent; the files work only with it")
	}
	return nil
}

// grantFor finds the grant by its request, or like sally ssh by login@host.
func (s *sally) grantFor(ctx context.Context, client *api.Client, what string, a ask) (api.Request, *grantkey.Key, error) {
	if strings.Contains(what, "@") {
		where, err := parseTarget(what)
		if err != nil {
			return api.Request{}, nil, err
		}
		return s.usable(ctx, client, where, a, true)
	}
	if err := checkRequest(what); err != nil {
		return api.Request{}, nil, err
	}
	r, err := client.Request(ctx, what)
	if err != nil {
		return r, nil, err
	}
	me, err := client.Me(ctx)
	if err != nil {
		return r, nil, err
	}
	if me.Person.ID != r.Requester.ID {
		return r, nil, errNotYours.With("%s is a request of %s", r.ID, name(r.Requester))
	}
	if r, err = s.await(ctx, client, r, a.noWait); err != nil {
		return r, nil, err
	}
	key, err := s.keyOf(ctx, client, r, true)
	return r, key, err
}

// writeFiles copies what ssh needs into a folder that works wherever ssh is run.
func writeFiles(out, host string, c api.Certificate, from grantkey.Files, inAgent bool) (written, error) {
	folder, err := filepath.Abs(out)
	if err != nil {
		return written{}, fmt.Errorf("find the folder: %w", err)
	}
	to := grantkey.Files{
		Identity:    filepath.Join(folder, filepath.Base(from.Identity)),
		Certificate: filepath.Join(folder, "id-cert.pub"),
		KnownHosts:  filepath.Join(folder, "known_hosts"),
	}
	for _, f := range [][2]string{{from.Identity, to.Identity}, {from.Certificate, to.Certificate}, {from.KnownHosts, to.KnownHosts}} {
		content, err := os.ReadFile(f[0])
		if err != nil {
			return written{}, fmt.Errorf("copy a file: %w", err)
		}
		if err := home.Write(f[1], content); err != nil {
			return written{}, err
		}
	}
	config := filepath.Join(folder, "ssh_config")
	if err := home.Write(config, []byte(sshrun.Config(host, c.Connect, to, inAgent))); err != nil {
		return written{}, err
	}
	return written{
		Folder: folder, Identity: to.Identity, SSHConfig: config, Certificate: c,
		// As the person named the folder: that is what they can read and paste.
		Command: "ssh -F " + sshrun.ShellWord(filepath.Join(out, "ssh_config")) + " " + host,
	}, nil
}
