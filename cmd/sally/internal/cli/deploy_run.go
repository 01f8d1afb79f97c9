package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy"
	"sallyport/cmd/sally/internal/deploy/jobssh"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) deployRunCommand() *cobra.Command {
	var (
		o    opening
		wait time.Duration
	)
	c := &cobra.Command{
		Use:   "run --service NAME --environment NAME (--artifact FILE | --digest DIGEST) -- COMMAND…",
		Short: "Deploy batch by batch with a command of your own",
		Long: `Opens a deployment, or joins the one of the same artifact that is under way, and
runs the command for each batch when it may be opened. Between batches it waits, and
shows for what. Nothing is open before the command begins or after it has ended.

The command finds in its environment:

  SALLYPORT_HOSTS          names of the batch's hosts, with spaces between
  SALLYPORT_HOSTS_FILE     the same, one on each line
  SALLYPORT_SSH_CONFIG     ssh -F "$SALLYPORT_SSH_CONFIG" HOST runs what the policy has
                           for the host; there is no other way in
  SALLYPORT_KNOWN_HOSTS    the host CA's key, for these hosts
  SALLYPORT_BATCH          number of the batch; SALLYPORT_CANARY=1 for the canary
  SALLYPORT_ROLLBACK       1 if the batch puts back what was there before
  SALLYPORT_DIGEST         the artifact that is to be on the hosts afterwards
  SALLYPORT_RESULTS        file for lines like "web-1 ok" or "web-2 failed", as
                           "sally deploy report web-1=ok" writes them
  SALLYPORT_DEPLOYMENT, SALLYPORT_SERVICE, SALLYPORT_ENVIRONMENT
  SSH_AUTH_SOCK, ANSIBLE_SSH_ARGS and SALLYPORT_SOCKET make ssh, and Ansible, use all this

Hosts that the command does not name are ok if it exits with 0, and have failed
otherwise. If it names every host, the policy's failure budget decides what follows; if
it just fails, the deployment ends: by the policy's rollback, or else aborted. So does
it on Ctrl-C. Exit code 4 says that what it waits for takes longer than --wait: run the
same again later, and it goes on.`,
		Example: `  sally deploy run --service redis --environment prod --artifact redis.tar -- ./deploy.sh
  sally deploy run --service web --environment prod --digest "$DIGEST" -- \
    sh -c 'for h in $SALLYPORT_HOSTS; do ssh -F "$SALLYPORT_SSH_CONFIG" $h && sally deploy report $h=ok; done'
  sally deploy run --service web --environment prod --artifact web.tar --wait 20m -- \
    sh -c 'ansible-playbook site.yml --limit "@$SALLYPORT_HOSTS_FILE"'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || c.ArgsLenAtDash() != 0 {
				return usage("the command to deploy with is missing").hinting("it follows two dashes: %s … -- ./deploy.sh", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if wait < 0 {
				return usage("--wait is at least 0s")
			}
			return s.deployRun(c.Context(), o, wait, args)
		},
	}
	o.flags(c)
	c.Flags().DurationVar(&wait, "wait", time.Hour, "how long to wait for people, soaks and gates while nothing is open")
	c.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions)
	return c
}

func (s *sally) deployRun(ctx context.Context, o opening, wait time.Duration, args []string) error {
	command, err := s.deployCommandLine(args)
	if err != nil {
		return err
	}
	if err := jobssh.Sweep(s.deployFolder()); err != nil {
		return err
	}
	j, err := s.job(o)
	if err != nil {
		return err
	}
	command.job = j
	w := &deployWatcher{s: s}
	d, err := deploy.Run(ctx, deploy.Config{Broker: j, Command: command, Watcher: w, Clock: s.Clock, After: time.After, Patience: wait})
	w.stop()
	if s.output == "json" && d.ID != "" {
		err = errors.Join(err, s.json(d))
	}
	if waiting, ok := errors.AsType[*deploy.Waiting](err); ok {
		return &waitingError{waiting.Error(), "run the same again later: it goes on where it stands"}
	}
	if ctx.Err() != nil && d.ID != "" {
		return &interrupted{fmt.Sprintf("%s is %s", d.ID, ending(d))}
	}
	if err == nil && s.output != "json" {
		s.out.Line("%s  %s  %s in %s is %s", d.ID, deploymentState(d.State), d.Service, d.Environment, d.Digest)
	}
	return err
}

// ending is how a deployment stands that was aborted just now: its hosts are sealed first.
func ending(d api.Deployment) string {
	if d.State != "aborted" {
		return "being aborted; what was open is closed"
	}
	return d.State
}

// deployWatcher shows what happens.
type deployWatcher struct {
	s        *sally
	progress *show.Progress
	last     string
}

func (w *deployWatcher) stop() {
	if w.progress != nil {
		w.progress.Stop()
		w.progress = nil
	}
}

func (w *deployWatcher) line(format string, args ...any) {
	w.stop()
	w.last = ""
	w.s.err.Line(format, args...)
}

// Opened implements deploy.Watcher, as all that follow.
func (w *deployWatcher) Opened(d api.Deployment) {
	hosts := 0
	for _, b := range d.Batches {
		hosts += len(b.Hosts)
	}
	w.line("%s: %s in %s, %s in %s", d.ID, d.Service, d.Environment, count(hosts, "host"), batches(len(d.Batches)))
}

// Waits shows for what, with the time at which a wait ends at the latest.
func (w *deployWatcher) Waits(d api.Deployment, why string) {
	text := "waiting: " + why
	for _, b := range d.Blockers {
		if b.Until != nil {
			// No "in 5 min": elsewhere than on a terminal that would be a line each time.
			text += ", until " + w.s.err.When(*b.Until)
			break
		}
	}
	switch {
	case w.progress == nil && text != w.last:
		w.progress = w.s.err.Progress(w.s.columns(), text)
	case w.progress != nil:
		w.progress.Say(text)
	}
	w.last = text
}

// RollsBack says that, to what, and why.
func (w *deployWatcher) RollsBack(d api.Deployment) {
	why := ""
	if d.Why != "" {
		why = ": " + d.Why
	}
	w.line("%s to %s%s", show.Cell{Text: "rolling back", Style: stateStyle(d.State)}, shortDigest(d.Previous), why)
}

// Begins says which hosts are open.
func (w *deployWatcher) Begins(d api.Deployment, b api.DeploymentBatch, hosts []api.DeploymentHost) {
	w.line("%s: %s", batchName(b), strings.Join(hostNames(hosts), " "))
}

// Reported says what became of hosts.
func (w *deployWatcher) Reported(b api.DeploymentBatch, results map[string]string) {
	by := map[string][]string{}
	for _, h := range b.Hosts { // in their order
		if r := results[h.Name]; r != "" {
			by[r] = append(by[r], h.Name)
		}
	}
	for _, r := range []string{"ok", "skipped", "failed"} {
		if len(by[r]) > 0 {
			w.line("%s: %s: %s", batchName(b), show.Cell{Text: r, Style: resultStyle(r)}, strings.Join(by[r], " "))
		}
	}
}

func batchName(b api.DeploymentBatch) string {
	switch {
	case b.Rollback:
		return "rollback"
	case b.Canary:
		return fmt.Sprintf("batch %d (canary)", b.Number)
	}
	return fmt.Sprintf("batch %d", b.Number)
}

func hostNames(hosts []api.DeploymentHost) (names []string) {
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return names
}

func batches(n int) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}
