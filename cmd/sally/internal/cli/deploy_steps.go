package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobkey"
	"sallyport/cmd/sally/internal/deploy/jobssh"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/home"
	"sallyport/cmd/sally/internal/sshrun"
)

// The steps of a deployment, as commands of their own. The job's key is kept in the
// runtime folder from one to the next, and removed with the deployment's end.

// step is a deployment that was opened here.
type step struct {
	s      *sally
	key    *jobkey.Key
	kept   jobkey.Kept
	client *api.Client
}

// step finds the deployment; without an id the only one that was opened here.
func (s *sally) step(id string) (*step, error) {
	key, kept, err := s.jobKeys().Find(id)
	if err != nil {
		return nil, err
	}
	client, err := s.jobClient(kept.Broker, key)
	return &step{s, key, kept, client}, err
}

// after prints how the deployment stands after a step, and forgets its key if it is over.
func (t *step) after(d api.Deployment) error {
	if deploymentOver(d) {
		if err := t.s.jobKeys().Forget(d.ID); err != nil {
			return err
		}
	}
	return t.s.printDeployment(d)
}

// deploymentFlag is --deployment of the steps.
func (s *sally) deploymentFlag(c *cobra.Command, id *string) {
	c.Flags().StringVar(id, "deployment", "", "which, if several were opened here")
	c.RegisterFlagCompletionFunc("deployment", s.completeDeployments)
}

func (s *sally) deployOpenCommand() *cobra.Command {
	var o opening
	c := &cobra.Command{
		Use:   "open --service NAME --environment NAME (--artifact FILE | --digest DIGEST)",
		Short: "Open a deployment, or join the one of the same artifact that is under way",
		Long: `Opens a deployment, or joins the one of the same artifact that is under way, as the
job whose token it shows. The job's key is made for this and kept in the runtime
folder until the deployment ends; the steps that follow use it.`,
		Example: `  sally deploy open --service redis --environment prod --artifact redis.tar
  sally deploy open --service redis --environment prod --digest "$DIGEST" --hosts redis-1,redis-2 --token-file token.jwt`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			keys := s.jobKeys()
			if err := keys.Sweep(); err != nil {
				return err
			}
			j, err := s.job(o)
			if err != nil {
				return err
			}
			if err := j.resume(c.Context()); err != nil {
				return err
			}
			d, err := j.Open(c.Context())
			if err != nil {
				return err
			}
			if err := keys.Keep(j.key, jobkey.Kept{Broker: j.url, Deployment: d.ID, Epoch: d.Epoch,
				Opened: s.Clock.Now(), TokenHash: j.tokenHash()}); err != nil {
				return err
			}
			return s.printDeployment(d)
		},
	}
	o.flags(c)
	return c
}

func (s *sally) deployBatchCommand() *cobra.Command {
	var (
		id   string
		wait time.Duration
	)
	c := &cobra.Command{
		Use:   "batch [NUMBER]",
		Short: "Open a batch, the next if none is named, when it may be opened",
		Long: `Opens a batch, and waits until that may be: for people, for batches before it, for
the end of a freeze. Exit code 4 says that it takes longer than --wait.`,
		Example: `  sally deploy batch
  sally deploy batch 2 --wait 20m`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			number := 0
			if len(args) == 1 {
				var err error
				if number, err = strconv.Atoi(args[0]); err != nil || number < 1 {
					return usage("%q is no number of a batch", args[0]).hinting("see: sally deploy status")
				}
			}
			t, err := s.step(id)
			if err != nil {
				return err
			}
			return t.batch(c.Context(), number, wait)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.deploymentFlag(c, &id)
	c.Flags().DurationVar(&wait, "wait", time.Hour, "how long to wait for it")
	c.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions)
	return c
}

func (t *step) batch(ctx context.Context, number int, wait time.Duration) error {
	if number == 0 {
		d, err := t.client.DeploymentProgress(ctx, t.kept.Deployment)
		if err != nil {
			return err
		}
		if number = d.Next; number == 0 {
			return usage("%s has no batch left to open: it is %s", d.ID, d.State)
		}
	}
	w := &deployWatcher{s: t.s}
	defer w.stop()
	end := t.s.Clock.Now().Add(wait)
	for {
		left := end.Sub(t.s.Clock.Now())
		d, err := t.client.OpenBatch(ctx, t.kept.Deployment, number, api.BatchInput{Epoch: t.kept.Epoch}, max(min(left, poll), 0))
		if err == nil {
			w.stop()
			t.kept.Batch = number
			if err := t.s.jobKeys().Note(t.kept); err != nil {
				return err
			}
			return t.s.printDeployment(d)
		}
		p := refused(err)
		if _, waits := waitCodes[p.Code]; !waits && !api.Passing(err) {
			return err
		}
		if left <= 0 {
			return &waitingError{fmt.Sprintf("batch %d of %s waits: %s", number, t.kept.Deployment, p.Detail), or(p.Hint, "see: sally deploy status")}
		}
		w.Waits(api.Deployment{}, p.Detail)
		select {
		case <-ctx.Done():
			return &interrupted{t.kept.Deployment + " goes on waiting; end it with: sally deploy abort"}
		case <-time.After(min(breath, left)):
		}
	}
}

// waitCodes are the blockers that go away.
var waitCodes = map[string]struct{}{
	"deployment-awaiting-approval": {}, "deployment-frozen": {}, "deployment-held": {}, "batch-before": {},
}

func (s *sally) deployCertCommand() *cobra.Command {
	var (
		id, out string
		batch   int
	)
	c := &cobra.Command{
		Use:   "cert HOST",
		Short: "Write a certificate and an ssh configuration for a host of the open batch",
		Long: `Gets a certificate for a host of the open batch, and writes it to a folder with the
host's known_hosts line and an ssh_config. It lives for minutes, and is good for as
many logins as the policy says: get it right before it is used. The private key stays
in the runtime folder.`,
		Example: `  sally deploy cert redis-1
  ssh -F redis-1/ssh_config redis-1`,
		Args:              one("HOST"),
		ValidArgsFunction: s.completeOpenHosts,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := s.step(id)
			if err != nil {
				return err
			}
			return t.cert(c.Context(), args[0], batch, or(out, args[0]))
		},
	}
	s.deploymentFlag(c, &id)
	c.Flags().IntVar(&batch, "batch", 0, "of which batch (default: the one that was opened last)")
	c.Flags().StringVar(&out, "out", "", "folder to write to (default: ./HOST)")
	c.MarkFlagDirname("out")
	c.RegisterFlagCompletionFunc("batch", cobra.NoFileCompletions)
	return c
}

func (t *step) cert(ctx context.Context, host string, batch int, out string) error {
	if batch == 0 {
		batch = t.kept.Batch
	}
	if batch == 0 {
		return usage("no batch was opened here").hinting("open it: sally deploy batch")
	}
	c, err := t.client.CertifyAgent(ctx, t.kept.Deployment, api.AgentCertificateInput{Epoch: t.kept.Epoch, Batch: batch, Host: host})
	if err != nil {
		return err
	}
	if err := sshrun.Check(c.Certificate, string(ssh.MarshalAuthorizedKey(t.key.Signer().PublicKey())), c.Connect.Login, c.Connect.HostKeyAlias); err != nil {
		return err
	}
	folder, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	files := grantkey.Files{Identity: t.s.jobKeys().Identity(t.kept.Deployment),
		Certificate: filepath.Join(folder, "id-cert.pub"), KnownHosts: filepath.Join(folder, "known_hosts")}
	config := filepath.Join(folder, "ssh_config")
	if err := errors.Join(
		home.Write(files.Certificate, []byte(strings.TrimSpace(c.Certificate.Certificate)+"\n")),
		home.Write(files.KnownHosts, []byte(strings.Join(c.KnownHosts, "\n")+"\n")),
		home.Write(config, []byte(sshrun.Config(host, c.Connect, files, false)))); err != nil {
		return err
	}
	w := written{Folder: folder, Identity: files.Identity, SSHConfig: config, Certificate: c.Certificate,
		Command: "ssh -F " + sshrun.ShellWord(filepath.Join(out, "ssh_config")) + " " + host}
	if t.s.output == "json" {
		return t.s.json(w)
	}
	t.s.out.Line("%s  certificate %d for %s, good until %s", out, c.Serial, c.Principal, t.s.moment(&c.ValidBefore))
	t.s.out.Line("log in with:  %s", w.Command)
	return nil
}

func (s *sally) deployReportCommand() *cobra.Command {
	var (
		id   string
		done bool
	)
	c := &cobra.Command{
		Use:   "report [HOST=ok|failed|skipped]…",
		Short: "Say what became of hosts of the open batch",
		Long: `Says what became of hosts of the open batch, and renews the lease: without any, that
the job is still there. The batch closes when every host is reported, or with --done.
Within "sally deploy run" it is that which reports, and this command tells it.`,
		Example: `  sally deploy report redis-1=ok redis-2=failed
  sally deploy report --done`,
		RunE: func(c *cobra.Command, args []string) error {
			results := map[string]string{}
			for _, a := range args {
				host, result, ok := strings.Cut(a, "=")
				if !ok || host == "" || strings.ContainsAny(host, " \t\n") || result != "ok" && result != "failed" && result != "skipped" {
					return usage("%q is not HOST=ok, HOST=failed or HOST=skipped", a)
				}
				if _, twice := results[host]; twice {
					return usage("%s stands twice in the report", host)
				}
				results[host] = result
			}
			if file := s.Getenv("SALLYPORT_RESULTS"); file != "" && id == "" {
				if done {
					return usage("--done is not needed here: the batch closes when the command has ended")
				}
				return addResults(file, results)
			}
			t, err := s.step(id)
			if err != nil {
				return err
			}
			if t.kept.Batch == 0 {
				return usage("no batch was opened here").hinting("open it: sally deploy batch")
			}
			d, err := t.client.ReportBatch(c.Context(), t.kept.Deployment, t.kept.Batch,
				api.ReportInput{Epoch: t.kept.Epoch, Results: results, Done: done})
			if err != nil {
				return err
			}
			return t.after(d)
		},
		ValidArgsFunction: s.completeOpenHosts,
	}
	s.deploymentFlag(c, &id)
	c.Flags().BoolVar(&done, "done", false, "close the batch, whatever is missing")
	return c
}

// addResults tells the `sally deploy run` around this command. Several may at once.
func addResults(file string, results map[string]string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("the batch is not open any more: %w", err)
	}
	var lines strings.Builder
	for host, result := range results {
		lines.WriteString(host + " " + result + "\n")
	}
	_, err = f.WriteString(lines.String()) // one write, so that lines do not mix
	return errors.Join(err, f.Close())
}

// deployCertifyCommand is for the ssh_config that `run` writes.
func (s *sally) deployCertifyCommand() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:     "certify HOST --socket SOCKET",
		Short:   "Have a certificate for a host when ssh asks for it (the ssh_config of a batch runs this)",
		Example: "  sally deploy certify redis-1 --socket \"$SALLYPORT_SOCKET\"",
		Hidden:  true,
		Args:    one("HOST"),
		RunE: func(_ *cobra.Command, args []string) error {
			return jobssh.Certify(socket, args[0])
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "of the batch's agent")
	c.MarkFlagRequired("socket")
	return c
}
