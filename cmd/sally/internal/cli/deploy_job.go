package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobkey"
	"sallyport/cmd/sally/internal/deploy/jobtoken"
)

// opening is what `open` and `run` are told of the deployment and of the job.
type opening struct {
	in        api.DeploymentInput
	artifact  string
	tokenFile string
	audience  string
	binding   string
}

func (o *opening) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.in.Service, "service", "", "what is deployed, as the policy calls it")
	f.StringVar(&o.in.Environment, "environment", "", "where, as the policy calls it")
	f.StringVar(&o.in.Digest, "digest", "", "the artifact: sha256:…")
	f.StringVar(&o.artifact, "artifact", "", "the artifact's file, whose digest sally works out")
	f.StringSliceVar(&o.in.Narrow.Hosts, "hosts", nil, "only these of the policy's hosts, by name or id")
	f.IntVar(&o.in.Narrow.Batch, "batch-size", 0, "hosts of each batch at most")
	f.StringVar(&o.in.Narrow.Soak, "soak", "", "at least so long after each batch, such as 1h")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the job's OIDC token, or - for the standard input (default: as the pipeline gives it)")
	f.StringVar(&o.audience, "audience", "", "audience of the token (default: the broker's URL)")
	f.StringVar(&o.binding, "binding", "", "how the policy binds the token to the job's key: audience or proof (default: as is usual for the pipeline)")
	c.MarkFlagFilename("artifact")
	c.MarkFlagFilename("token-file")
	c.RegisterFlagCompletionFunc("binding", cobra.FixedCompletions([]string{"audience", "proof"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"service", "environment", "digest", "hosts", "batch-size", "soak", "audience"} {
		c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// check completes what is to be opened, or says what is wrong with it.
func (o *opening) check() error {
	switch {
	case o.in.Service == "" || o.in.Environment == "":
		return usage("what is deployed, and where, is missing").hinting("like: --service redis --environment prod")
	case (o.in.Digest == "") == (o.artifact == ""):
		return usage("give either --artifact or --digest").hinting("like: --artifact redis.tar")
	case o.binding != "" && o.binding != string(jobtoken.ByAudience) && o.binding != string(jobtoken.ByProof):
		return usage("--binding is audience or proof, not %q", o.binding)
	case o.in.Narrow.Batch < 0:
		return usage("--batch-size is at least 1")
	}
	if o.in.Narrow.Soak != "" {
		if _, err := time.ParseDuration(o.in.Narrow.Soak); err != nil {
			return usage("--soak %q is not a duration", o.in.Narrow.Soak).hinting("like: --soak 1h")
		}
	}
	if o.artifact != "" {
		var err error
		if o.in.Digest, err = digestOf(o.artifact); err != nil {
			return err
		}
	}
	if !digest.MatchString(o.in.Digest) {
		return usage("--digest %q is no digest", o.in.Digest).hinting("like: --digest sha256:9f86d0…, or --artifact FILE")
	}
	return nil
}

func digestOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", usage("%s", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read the artifact: %w", err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// job calls the broker as one job of a pipeline. It implements deploy.Broker.
type job struct {
	s        *sally
	in       api.DeploymentInput
	url      string
	source   jobtoken.Source
	audience string
	bound    bool

	key    *jobkey.Key
	client *api.Client
	token  string // until it is taken
	got    time.Time
	taken  bool
}

// job is what calls of a job need, before any is made.
func (s *sally) job(o opening) (*job, error) {
	url, err := s.broker()
	if err != nil {
		return nil, err
	}
	j := &job{s: s, in: o.in, url: url, audience: or(o.audience, url)}
	if o.tokenFile != "" {
		token, err := s.readToken(o.tokenFile)
		if err != nil {
			return nil, err
		}
		j.source = jobtoken.Given(token, o.tokenFile)
	} else if j.source, err = s.pipeline().Find(); err != nil {
		return nil, err
	}
	j.bound = or(o.binding, string(j.source.Binding)) == string(jobtoken.ByAudience)
	if j.bound && !j.source.Chosen {
		return nil, usage("the audience of a token from %s cannot be chosen, and so cannot bind the job's key", j.source.Name).
			hinting("--binding proof, and binding: proof in the policy's entry")
	}
	return j, j.renew()
}

// pipeline is the pipeline that this process may be a job of.
func (s *sally) pipeline() jobtoken.Job {
	return jobtoken.Job{Getenv: s.Getenv, HTTP: s.http,
		Run: func(ctx context.Context, program string, args ...string) ([]byte, error) {
			cmd := exec.CommandContext(ctx, program, args...)
			cmd.Stderr = s.Err
			return cmd.Output()
		},
		Exists: func(file string) bool {
			_, err := os.Stat(file)
			return err == nil
		}}
}

// renew makes a new key, for a token that is still to be got.
func (j *job) renew() error {
	key, err := jobkey.New(rand.Reader)
	if err != nil {
		return err
	}
	j.key, j.token, j.taken = key, "", false
	j.client, err = j.s.jobClient(j.url, key)
	return err
}

// jobClient signs its calls with a job's key.
func (s *sally) jobClient(url string, key *jobkey.Key) (*api.Client, error) {
	return api.NewClient(api.ClientConfig{URL: url, UserAgent: "sally/" + version(), Transport: key.Signed(s.transport(), s.Clock)})
}

// resume goes on with the key that has taken the job's token already, if one here has.
func (j *job) resume(ctx context.Context) error {
	if j.source.Chosen {
		return nil // the next token is another one
	}
	if err := j.getToken(ctx); err != nil {
		return err
	}
	key, err := j.s.jobKeys().Taken(j.url, j.tokenHash())
	if key == nil || err != nil {
		return err
	}
	j.key, j.taken = key, true
	j.client, err = j.s.jobClient(j.url, key)
	return err
}

func (j *job) tokenHash() string {
	sum := sha256.Sum256([]byte(j.token))
	return hex.EncodeToString(sum[:])
}

// tokenAge is how old a token may be to be shown for the first time: they live for five
// minutes at GitHub and Buildkite.
const tokenAge = 2 * time.Minute

// Open implements deploy.Broker. The token is shown until a call with it is answered well;
// a run that is over is followed by another, with a new key, where the pipeline gives
// tokens as often as it is asked.
func (j *job) Open(ctx context.Context) (api.Deployment, error) {
	for renewed := false; ; {
		if j.taken {
			d, err := j.client.OpenDeployment(ctx, j.in)
			if refused(err).Status != 401 || !j.source.Chosen || renewed {
				return d, err
			}
			if renewed, err = true, j.renew(); err != nil {
				return d, err
			}
		}
		if err := j.getToken(ctx); err != nil {
			return api.Deployment{}, err
		}
		d, err := j.client.OpenDeployment(jobkey.WithToken(ctx, j.token), j.in)
		switch refused(err).Code {
		// It was taken, and the answer got lost.
		case "agent-token-redeemed", "agent-key-reused":
			if !renewed {
				j.taken = true
				continue
			}
		}
		j.taken = err == nil
		return d, err
	}
}

func (j *job) getToken(ctx context.Context) (err error) {
	if now := j.s.Clock.Now(); j.token == "" || j.source.Chosen && now.Sub(j.got) > tokenAge {
		audience := j.audience
		if j.bound {
			audience = j.key.Audience(audience)
		}
		j.token, err = j.source.Get(ctx, audience)
		j.got = now
	}
	return err
}

// refused is what the broker says no by; nothing, if it does not.
func refused(err error) api.Problem {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return *p
	}
	return api.Problem{}
}

// Progress implements deploy.Broker, as all that follow.
func (j *job) Progress(ctx context.Context, id string) (api.Deployment, error) {
	return j.client.DeploymentProgress(ctx, id)
}

// Batch opens a batch.
func (j *job) Batch(ctx context.Context, d api.Deployment, batch int, wait time.Duration) (api.Deployment, error) {
	return j.client.OpenBatch(ctx, d.ID, batch, api.BatchInput{Epoch: d.Epoch}, wait)
}

// Report reports hosts.
func (j *job) Report(ctx context.Context, d api.Deployment, batch int, results map[string]string, done bool) (api.Deployment, error) {
	return j.client.ReportBatch(ctx, d.ID, batch, api.ReportInput{Epoch: d.Epoch, Results: results, Done: done})
}

// Finish says that nothing is left to do.
func (j *job) Finish(ctx context.Context, d api.Deployment) (api.Deployment, error) {
	return j.client.FinishDeployment(ctx, d.ID, api.EndInput{Epoch: d.Epoch})
}

// Abort ends the deployment.
func (j *job) Abort(ctx context.Context, d api.Deployment, reason string) (api.Deployment, error) {
	return j.client.AbortDeployment(ctx, d.ID, api.EndInput{Epoch: d.Epoch, Reason: reason})
}

// deployFolder is where jobs keep what they have open.
func (s *sally) deployFolder() string { return filepath.Join(s.home.Runtime, "deploy") }

func (s *sally) jobKeys() jobkey.Folder { return jobkey.Folder{Dir: s.deployFolder(), Clock: s.Clock} }
