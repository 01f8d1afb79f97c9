// Package deploy is the loop of `sally deploy run`: it takes a deployment from where it
// stands to its end, one batch after the other, and runs the job's own command for each.
//
// Who decides is the broker, by the policy: which hosts, when, what a failure means. The
// loop opens what may be opened, reports what became of it, and waits. What it promises:
//
//   - whatever ends it, nothing stays open: the batch is closed by a report, by an abort,
//     or, if nothing can be said to the broker any more, by the end of the lease;
//   - a command does not go on when its batch is closed, its lease lost, or the run over;
//   - Ctrl-C and a command that fails abort the deployment, unless the policy has begun to
//     do something else about the failure, such as a rollback, which is then carried out;
//   - what only takes longer than the job waits is left as it is: the next job goes on.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

// Broker is what the loop needs of the broker. Every call can be made again. A refusal is
// an *api.Problem.
type Broker interface {
	// Open opens the deployment, or joins it, which gives a new epoch if nobody has the lease.
	Open(ctx context.Context) (api.Deployment, error)
	Progress(ctx context.Context, id string) (api.Deployment, error)
	Batch(ctx context.Context, d api.Deployment, batch int, wait time.Duration) (api.Deployment, error)
	Report(ctx context.Context, d api.Deployment, batch int, results map[string]string, done bool) (api.Deployment, error)
	Finish(ctx context.Context, d api.Deployment) (api.Deployment, error)
	Abort(ctx context.Context, d api.Deployment, reason string) (api.Deployment, error)
}

// Watcher hears what happens, in order.
type Watcher interface {
	// Opened: the deployment is, or was joined.
	Opened(d api.Deployment)
	// Waits: for what, until there is something else to hear. It comes again when that changes.
	Waits(d api.Deployment, why string)
	// RollsBack: it has been begun to put back what was there before, once.
	RollsBack(d api.Deployment)
	// Begins: the command is about to run for the batch.
	Begins(d api.Deployment, b api.DeploymentBatch, hosts []api.DeploymentHost)
	// Reported: the broker knows what became of hosts.
	Reported(b api.DeploymentBatch, results map[string]string)
}

// Command runs the job's command for one batch.
type Command interface {
	// Run returns when the command has ended, which it makes it do when the context ends:
	// nil if it succeeded.
	Run(ctx context.Context, d api.Deployment, b api.DeploymentBatch, hosts []api.DeploymentHost) error
	// Results are what the command has said of hosts so far: ok, failed or skipped, by name.
	Results() map[string]string
}

// Config is what the loop needs. All of it must be set.
type Config struct {
	Broker  Broker
	Command Command
	Watcher Watcher
	Clock   clock.Clock
	After   func(time.Duration) <-chan time.Time
	// Patience is how long the job waits while nothing is open.
	Patience time.Duration
}

// How the loop passes time.
const (
	// poll is how long one call waits for a batch.
	poll = 30 * time.Second
	// breath is the pause between calls that come back at once.
	breath = 5 * time.Second
	// beat is how often a lease is renewed while the command runs: a sixth of the
	// shortest that a policy can have.
	beat = 10 * time.Second
	// lastWord is how long the end of a deployment may take to be told.
	lastWord = 20 * time.Second
)

// Refusals, which are how a deployment ends if not well.
var (
	ErrCommand = refusal.New(refusal.Unavailable, "deploy-command-failed",
		"the command failed", "see what it says above; nothing is open any more")
	ErrEnded = refusal.New(refusal.Conflict, "deployment-ended",
		"the deployment did not complete", "see: sally deploy status")
	ErrHeld = refusal.New(refusal.Conflict, "deployment-held",
		"the deployment is held", "somebody who controls it aborts it or rolls it back")
	ErrLost = refusal.New(refusal.Conflict, "deployment-lease-lost",
		"another run has the deployment's lease, or this run is over; what was open is closed",
		"start the job again: it takes the deployment up where it stands")
)

// Waiting says that the deployment goes on later than this job waits.
type Waiting struct {
	ID, For string
}

func (w *Waiting) Error() string { return w.ID + " waits: " + w.For }

// Run takes the deployment to its end. It returns how that stands, as far as it is known,
// with the error, which is a *Waiting if only time is missing.
func Run(ctx context.Context, cfg Config) (api.Deployment, error) {
	l := &loop{Config: cfg}
	l.rest()
	err := l.run(ctx)
	if err == nil || l.d.ID == "" || over(l.d) {
		return l.d, err
	}
	// A call that was cut off by Ctrl-C says less than that.
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if _, waits := errors.AsType[*Waiting](err); waits || errors.Is(err, ErrLost) || errors.Is(err, ErrHeld) {
		return l.d, err
	}
	return l.d, errors.Join(err, l.abort(ctx, err))
}

type loop struct {
	Config
	d      api.Deployment
	until  time.Time // end of patience
	failed error     // what the command did that was not asked of it
	back   bool      // the rollback has been told
	ended  bool      // the abort has been told
}

// rest begins a time of waiting.
func (l *loop) rest() { l.until = l.Clock.Now().Add(l.Patience) }

func (l *loop) run(ctx context.Context) error {
	if err := l.open(ctx); err != nil {
		return err
	}
	l.Watcher.Opened(l.d)
	for {
		if l.d.State == "rolling_back" && !l.back {
			l.back = true
			l.Watcher.RollsBack(l.d)
		}
		switch {
		case over(l.d):
			return l.end()
		case l.d.State == "verifying":
			// Nothing is left to do but to be told of the end.
			if d, err := l.Broker.Finish(ctx, l.d); err == nil {
				l.d = keepEpoch(d, l.d)
			}
			if over(l.d) {
				continue
			}
			if err := l.look(ctx); err != nil {
				return err
			}
		case held(l.d) != nil:
			return ErrHeld.With("the deployment is held: %s", held(l.d).Why).Because(l.failed)
		case l.d.Next == 0 || l.failed != nil && l.d.State != "rolling_back":
			if err := l.look(ctx); err != nil {
				return err
			}
		default:
			if err := l.batch(ctx, l.d.Next); err != nil {
				return err
			}
		}
	}
}

// end is what the job says when the deployment is over.
func (l *loop) end() error {
	if l.d.State == "complete" {
		return nil
	}
	why := fmt.Sprintf("the deployment is %s", l.d.State)
	if l.d.Why != "" {
		why += ": " + l.d.Why
	}
	return ErrEnded.With("%s", why).Hinting("see: sally deploy status %s", l.d.ID).Because(l.failed)
}

// open opens or joins the deployment, as soon as nobody else is in the way.
func (l *loop) open(ctx context.Context) error {
	for {
		d, err := l.Broker.Open(ctx)
		if err == nil {
			l.d = d
			return nil
		}
		if !blocker(err) && !later(err) {
			return err
		}
		if err := l.wait(ctx, said(err), nil); err != nil {
			return err
		}
	}
}

// look waits for a while, and looks how the deployment stands then.
func (l *loop) look(ctx context.Context) error {
	why, until := standing(l.d)
	if err := l.wait(ctx, why, until); err != nil {
		return err
	}
	return l.see(ctx)
}

// see looks how the deployment stands.
func (l *loop) see(ctx context.Context) error {
	d, err := l.Broker.Progress(ctx, l.d.ID)
	switch {
	case err == nil:
		l.d = keepEpoch(d, l.d)
		return nil
	case later(err):
		return nil
	case unauthenticated(err):
		return l.anew(ctx, err)
	}
	return err
}

// anew joins the deployment once more, if that can be done: the run was over, or its
// lease, while nothing was open.
func (l *loop) anew(ctx context.Context, why error) error {
	err := l.open(ctx)
	if unauthenticated(err) {
		return &Waiting{l.d.ID, said(why)}
	}
	return err
}

// keepEpoch is how a deployment stands, with the epoch that this run has. The one that
// it stands in may be another run's, in whose name nothing is to be said.
func keepEpoch(d, mine api.Deployment) api.Deployment {
	d.Epoch = mine.Epoch
	return d
}

// wait says what is waited for, and pauses; not beyond the job's patience, of which
// nothing is left to wait for what is known to come later.
func (l *loop) wait(ctx context.Context, why string, until *time.Time) error {
	l.Watcher.Waits(l.d, why)
	if now := l.Clock.Now(); !now.Before(l.until) || until != nil && until.After(l.until) {
		return &Waiting{l.d.ID, why}
	}
	return l.pause(ctx, breath)
}

func (l *loop) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.After(d):
		return nil
	}
}

// batch waits until the batch may be opened, and deploys it.
func (l *loop) batch(ctx context.Context, n int) error {
	asked := l.Clock.Now()
	d, err := l.Broker.Batch(ctx, l.d, n, poll)
	if err == nil {
		l.d = d
		return l.deploy(ctx, n)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case code(err) == "lease-stale" || unauthenticated(err):
		// Nothing of ours is open. If nobody else has it, it is ours again.
		return l.anew(ctx, err)
	case code(err) == "batch-opened-too-often", !blocker(err) && !later(err):
		return err
	}
	if err := l.see(ctx); err != nil || over(l.d) || l.d.State == "verifying" || l.d.Next != n { // as when a rollback has begun
		return err
	}
	why, until := standing(l.d)
	if why == "" {
		why = said(err)
	}
	if l.Clock.Now().Sub(asked) >= breath {
		asked = time.Time{} // the call has waited
	}
	l.Watcher.Waits(l.d, why)
	switch now := l.Clock.Now(); {
	case !now.Before(l.until), until != nil && until.After(l.until):
		return &Waiting{l.d.ID, why}
	case asked.IsZero():
		return nil
	}
	return l.pause(ctx, breath)
}

// deploy runs the command for the batch that is open, and reports what became of it.
func (l *loop) deploy(ctx context.Context, n int) error {
	defer l.rest()
	b := find(l.d, n)
	if b == nil {
		return fmt.Errorf("the broker opened batch %d and does not show it", n)
	}
	var hosts []api.DeploymentHost
	for _, h := range b.Hosts {
		if h.Result == "" || h.Result == "missing" {
			hosts = append(hosts, h)
		}
	}
	l.Watcher.Begins(l.d, *b, hosts)
	command, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func(d api.Deployment, b api.DeploymentBatch) { ended <- l.Command.Run(command, d, b, hosts) }(l.d, *b)
	t := &told{loop: l, batch: n, hosts: hosts, results: map[string]string{}}
	for {
		select {
		case err := <-ended:
			return t.finally(ctx, err)
		case <-ctx.Done():
			// The broker first: what is open closes while the command is still being stopped.
			err := l.abort(ctx, ctx.Err())
			<-ended
			return errors.Join(ctx.Err(), err)
		case <-l.After(beat):
		}
		if err := t.tell(ctx, l.Command.Results()); err != nil && ctx.Err() == nil && !later(err) {
			stop()
			<-ended
			if closed(err) { // by somebody else, or by its time
				return l.see(ctx)
			}
			return l.gone(err)
		}
	}
}

// gone is what the job says when it has no say any more.
func (l *loop) gone(err error) error {
	if code(err) == "lease-stale" || unauthenticated(err) {
		return ErrLost.With("%s", said(err))
	}
	return err
}

// told is what the broker has been told about a batch.
type told struct {
	*loop
	batch   int
	hosts   []api.DeploymentHost
	results map[string]string
}

// tell reports what is new, or that the job is still there.
func (t *told) tell(ctx context.Context, results map[string]string) error {
	if len(t.results) == len(t.hosts) {
		return nil // the batch closes by itself, while the command cleans up
	}
	news := map[string]string{}
	for _, h := range t.hosts {
		if r := results[h.Name]; r != "" && t.results[h.Name] == "" {
			news[h.Name] = r
		}
	}
	d, err := t.Broker.Report(ctx, t.d, t.batch, news, false)
	if err != nil {
		return err
	}
	t.d = keepEpoch(d, t.d)
	for name, r := range news {
		t.results[name] = r
	}
	if b := find(d, t.batch); b != nil && len(news) > 0 {
		t.Watcher.Reported(*b, news)
	}
	if b := find(d, t.batch); len(t.results) < len(t.hosts) && (b == nil || b.State != "open") {
		return errClosed
	}
	return nil
}

// errClosed: the batch was closed while hosts were left.
var errClosed = errors.New("the batch was closed")

// finally reports all hosts once the command has ended. What it said of a host counts;
// of all others its exit does.
func (t *told) finally(ctx context.Context, failure error) error {
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), t.abort(ctx, ctx.Err()))
	}
	results := map[string]string{}
	said := t.Command.Results()
	silent := false
	for _, h := range t.hosts {
		r := said[h.Name]
		if r == "" {
			if r = "ok"; failure != nil {
				r, silent = "failed", true
			}
		}
		results[h.Name] = r
	}
	if silent {
		t.failed = ErrCommand.With("the command failed in batch %d", t.batch).Because(failure)
	}
	for {
		err := t.tell(ctx, results)
		switch {
		case err == nil:
			return t.judge(ctx)
		case closed(err):
			return t.see(ctx)
		case !later(err):
			return t.gone(err)
		}
		// The lease's end is the end of this, too.
		if err := t.pause(ctx, breath); err != nil {
			return err
		}
	}
}

// judge says what follows a command that failed. If the policy does something about it,
// that is carried out; what it would let pass ends here.
func (t *told) judge(ctx context.Context) error {
	b := find(t.d, t.batch)
	if t.failed == nil || b != nil && b.Rollback || t.d.Spent > t.d.Budget {
		return nil
	}
	return t.failed
}

// abort ends the deployment, once, whatever has ended the job's own context.
func (l *loop) abort(ctx context.Context, why error) error {
	if l.ended {
		return nil
	}
	l.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	reason := why.Error()
	if errors.Is(why, context.Canceled) {
		reason = "the job was interrupted"
	}
	if len(reason) > 500 {
		reason = reason[:500]
	}
	for try := 0; ; try++ {
		d, err := l.Broker.Abort(ctx, l.d, reason)
		switch {
		case err == nil:
			l.d = d
			return nil
		case code(err) == "deployment-over":
			return nil
		case try == 3 || !later(err) || ctx.Err() != nil:
			return fmt.Errorf("the deployment could not be aborted; what is open closes with the lease: %w", err)
		}
		if err := l.pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// over reports whether nothing can follow.
func over(d api.Deployment) bool {
	return slices.Contains([]string{"complete", "aborted", "rolled_back", "rollback_failed"}, d.State)
}

// held is what keeps the deployment until somebody ends it, which no waiting helps; or nil.
func held(d api.Deployment) *api.Blocker {
	for i, b := range d.Blockers {
		if b.Code == "batch-failed" && d.State == "held" {
			return &d.Blockers[i]
		}
	}
	return nil
}

func find(d api.Deployment, n int) *api.DeploymentBatch {
	for i := range d.Batches {
		if d.Batches[i].Number == n {
			return &d.Batches[i]
		}
	}
	return nil
}
