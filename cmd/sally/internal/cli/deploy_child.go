package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobssh"
	"sallyport/cmd/sally/internal/deploy/jobtoken"
	"sallyport/cmd/sally/internal/sshrun"
)

// childGrace is how long a command may take to end when it is told to. CI systems give
// a cancelled job about ten seconds in all.
const childGrace = 5 * time.Second

// child is the command that deploys. It implements deploy.Command.
type child struct {
	s       *sally
	job     *job
	program string // sally
	path    string
	args    []string

	mu   sync.Mutex
	door *jobssh.Door      // while it runs
	said map[string]string // of the batch that ended last
}

func (s *sally) deployCommandLine(args []string) (*child, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, usage("%s cannot be run: %s", args[0], errors.Unwrap(err))
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find sally's own program: %w", err)
	}
	return &child{s: s, program: program, path: path, args: args}, nil
}

// Run implements deploy.Command.
func (c *child) Run(ctx context.Context, d api.Deployment, b api.DeploymentBatch, hosts []api.DeploymentHost) (err error) {
	var list []jobssh.Host
	for _, h := range hosts {
		list = append(list, jobssh.Host{ID: h.ID, Name: h.Name})
	}
	door, err := jobssh.Open(jobssh.Config{
		Runtime: c.s.deployFolder(), Program: c.program, Key: c.job.key.Signer(), Clock: c.s.Clock,
		Mint: func(ctx context.Context, host string) (api.Certificate, error) {
			a, err := c.job.client.CertifyAgent(ctx, d.ID, api.AgentCertificateInput{Epoch: d.Epoch, Batch: b.Number, Host: host})
			return a.Certificate, err
		},
	}, list)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.door, c.said = door, nil
	c.mu.Unlock()
	defer func() {
		said := c.Results()
		c.mu.Lock()
		c.door, c.said = nil, said
		c.mu.Unlock()
		err = errors.Join(err, door.Close())
	}()
	cmd := exec.CommandContext(ctx, c.path, c.args[1:]...)
	cmd.Args[0] = c.args[0]
	cmd.Stdout, cmd.Stderr = c.s.Out, c.s.Err
	if c.s.output == "json" {
		cmd.Stdout = c.s.Err
	}
	cmd.Env = c.environment(d, b, hosts, door.Files())
	// A group of its own, so that all of it ends when it must, and Ctrl-C in the terminal is
	// for sally alone.
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return endGroup(cmd.Process) }
	cmd.WaitDelay = childGrace
	err = cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		killGroup(cmd.Process)
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%s: %s", c.args[0], failed.ProcessState)
	}
	return err
}

// environment is the command's. What could be used to call the broker as the job, or as a
// person, is left out.
func (c *child) environment(d api.Deployment, b api.DeploymentBatch, hosts []api.DeploymentHost, f jobssh.Files) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == jobtoken.Variable || name == "SALLYPORT_TOKEN" || name == "SSH_AUTH_SOCK" || name == "ANSIBLE_SSH_ARGS"
	})
	installed := d.Digest
	if b.Rollback {
		installed = d.Previous
	}
	flag := func(yes bool) string {
		if yes {
			return "1"
		}
		return ""
	}
	for _, v := range [][2]string{
		{"SALLYPORT_URL", c.job.url},
		{"SALLYPORT_DEPLOYMENT", d.ID}, {"SALLYPORT_SERVICE", d.Service}, {"SALLYPORT_ENVIRONMENT", d.Environment},
		{"SALLYPORT_DIGEST", installed}, {"SALLYPORT_BATCH", fmt.Sprint(b.Number)},
		{"SALLYPORT_CANARY", flag(b.Canary)}, {"SALLYPORT_ROLLBACK", flag(b.Rollback)},
		{"SALLYPORT_HOSTS", strings.Join(hostNames(hosts), " ")}, {"SALLYPORT_HOSTS_FILE", f.Hosts},
		{"SALLYPORT_SSH_CONFIG", f.SSHConfig}, {"SALLYPORT_KNOWN_HOSTS", f.KnownHosts}, {"SALLYPORT_RESULTS", f.Results},
		{"SALLYPORT_SOCKET", f.Socket}, {"SSH_AUTH_SOCK", f.Socket}, {"ANSIBLE_SSH_ARGS", "-F " + sshrun.ShellWord(f.SSHConfig)},
	} {
		env = append(env, v[0]+"="+v[1])
	}
	return env
}

// Results implements deploy.Command. A line that is not as it should be is no success.
func (c *child) Results() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.door == nil {
		return c.said
	}
	results := map[string]string{}
	text, err := os.ReadFile(c.door.Files().Results)
	if err != nil {
		return results
	}
	// A line without its end is still being written.
	lines := strings.Split(string(text), "\n")
	for _, line := range lines[:len(lines)-1] {
		words := strings.Fields(line)
		if len(words) == 0 || results[words[0]] == "failed" {
			continue
		}
		result := "failed"
		if len(words) == 2 && (words[1] == "ok" || words[1] == "skipped") {
			result = words[1]
		}
		results[words[0]] = result
	}
	return results
}
