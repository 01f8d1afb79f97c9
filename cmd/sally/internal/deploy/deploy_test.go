package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/cmd/sally/internal/brokertest"
	"sallyport/cmd/sally/internal/deploy"
	"sallyport/internal/clock"
)

const artifact = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// bench is a loop with everything around it: a broker, a clock that moves when somebody
// waits, and a command that does what the test says.
type bench struct {
	*brokertest.Rollout
	deploy.Config
	clock *clock.Manual
	run   int

	// fault, if set, may fail a call instead of making it.
	fault func(call string) error
	// passes is called whenever time does, with the rollout locked.
	passes func()
	// does is the command.
	does func(ctx context.Context, batch int) error

	mu      sync.Mutex
	results map[string]string
	ran     []string // the batches and hosts for which the command ran
	running bool
	stopped bool // it was told to end
	waited  []string
}

func newBench() *bench {
	b := &bench{Rollout: brokertest.NewRollout(), clock: clock.NewManual(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)), run: 1,
		does: func(context.Context, int) error { return nil }, passes: func() {}, fault: func(string) error { return nil }}
	b.Config = deploy.Config{Broker: calls{b}, Command: command{b}, Watcher: watcher{b}, Clock: b.clock, Patience: time.Hour,
		After: func(d time.Duration) <-chan time.Time {
			b.clock.Advance(d)
			b.Lock()
			b.passes()
			b.Unlock()
			c := make(chan time.Time, 1)
			c <- b.clock.Now()
			return c
		}}
	return b
}

// runs reports whether the command does.
func (b *bench) runs() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

func (b *bench) deploy(ctx context.Context) (api.Deployment, error) { return deploy.Run(ctx, b.Config) }

// calls are the broker's, without the network.
type calls struct{ b *bench }

func (c calls) do(what string, f func() (api.Deployment, error)) (api.Deployment, error) {
	c.b.Lock()
	defer c.b.Unlock()
	if err := c.b.fault(what); err != nil {
		return api.Deployment{}, err
	}
	return f()
}

func (c calls) Open(context.Context) (api.Deployment, error) {
	return c.do("open", func() (api.Deployment, error) {
		return c.b.Rollout.Open(api.DeploymentInput{Service: "web", Environment: "prod", Digest: artifact}, c.b.run)
	})
}

func (c calls) Progress(context.Context, string) (api.Deployment, error) {
	return c.do("progress", func() (api.Deployment, error) { return c.b.Rollout.Progress(), nil })
}

func (c calls) Batch(_ context.Context, d api.Deployment, n int, _ time.Duration) (api.Deployment, error) {
	return c.do("batch", func() (api.Deployment, error) { return c.b.Rollout.Batch(c.b.run, n, d.Epoch) })
}

func (c calls) Report(_ context.Context, d api.Deployment, n int, results map[string]string, done bool) (api.Deployment, error) {
	return c.do("report", func() (api.Deployment, error) {
		return c.b.Rollout.Report(c.b.run, n, api.ReportInput{Epoch: d.Epoch, Results: results, Done: done})
	})
}

func (c calls) Finish(_ context.Context, d api.Deployment) (api.Deployment, error) {
	return c.do("finish", func() (api.Deployment, error) {
		return c.b.Rollout.End(c.b.run, "finish", api.EndInput{Epoch: d.Epoch})
	})
}

func (c calls) Abort(ctx context.Context, d api.Deployment, reason string) (api.Deployment, error) {
	if ctx.Err() != nil {
		return d, ctx.Err()
	}
	return c.do("abort", func() (api.Deployment, error) {
		return c.b.Rollout.End(c.b.run, "abort", api.EndInput{Epoch: d.Epoch, Reason: reason})
	})
}

type command struct{ b *bench }

func (c command) Run(ctx context.Context, _ api.Deployment, batch api.DeploymentBatch, hosts []api.DeploymentHost) error {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	c.b.mu.Lock()
	c.b.ran, c.b.results, c.b.running = append(c.b.ran, fmt.Sprintf("%d %s", batch.Number, strings.Join(names, " "))), map[string]string{}, true
	c.b.mu.Unlock()
	err := c.b.does(ctx, batch.Number)
	c.b.mu.Lock()
	c.b.running, c.b.stopped = false, ctx.Err() != nil
	c.b.mu.Unlock()
	return err
}

func (c command) Results() map[string]string {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return maps.Clone(c.b.results)
}

// says is what the command says of a host.
func (b *bench) says(host, result string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[host] = result
}

type watcher struct{ b *bench }

func (watcher) Opened(api.Deployment)                                            {}
func (watcher) Begins(api.Deployment, api.DeploymentBatch, []api.DeploymentHost) {}
func (w watcher) RollsBack(d api.Deployment)                                     { w.b.waited = append(w.b.waited, "rolls back: "+d.Why) }
func (watcher) Reported(api.DeploymentBatch, map[string]string)                  {}
func (w watcher) Waits(_ api.Deployment, why string)                             { w.b.waited = append(w.b.waited, why) }
func until(ctx context.Context, _ int) error                                     { <-ctx.Done(); return ctx.Err() }

// check compares the calls that were let in, and that no command is left.
func (b *bench) check(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(b.Calls, want) {
		t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(b.Calls, "\n"), strings.Join(want, "\n"))
	}
	if b.running {
		t.Error("the command still runs")
	}
	for _, batch := range b.Batches {
		if batch.State == "open" {
			t.Errorf("batch %d is still open", batch.Number)
		}
	}
}

func TestBatchAfterBatchToTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench()
	d, err := b.deploy(t.Context())
	if err != nil || d.State != "complete" {
		t.Fatal(d.State, err)
	}
	b.check(t, "open", "batch 1", "report 1 web-1=ok", "batch 2", "report 2 web-2=ok web-3=ok", "finish")
	if want := []string{"1 web-1", "2 web-2 web-3"}; !slices.Equal(b.ran, want) {
		t.Errorf("the command ran for %q", b.ran)
	}
}

func TestHostsAreReportedWhileTheCommandRuns(t *testing.T) {
	t.Parallel()
	b := newBench()
	reported := make(chan struct{})
	b.passes = func() {
		if slices.Contains(b.Calls, "report 2 web-2=ok") {
			select {
			case <-reported:
			default:
				close(reported)
			}
		}
	}
	b.does = func(_ context.Context, batch int) error {
		if batch == 2 {
			b.says("web-2", "ok")
			<-reported
		}
		return nil
	}
	if _, err := b.deploy(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.check(t, "open", "batch 1", "report 1 web-1=ok", "batch 2", "report 2 web-2=ok", "report 2 web-3=ok", "finish")
}

func TestCommandThatFailsEndsTheDeployment(t *testing.T) {
	t.Parallel()
	failure := errors.New("exit status 7")
	for name, c := range map[string]struct {
		arrange func(b *bench)
		state   string
		is      error
		calls   []string
	}{
		"by the policy's abort": {func(b *bench) {}, "aborted", deploy.ErrEnded,
			[]string{"open", "batch 1", "report 1 web-1=failed"}},
		"by the policy's rollback, which is carried out": {func(b *bench) { b.OnFailure = "rollback" }, "rolled_back", deploy.ErrEnded,
			[]string{"open", "batch 1", "report 1 web-1=failed", "batch 3", "report 3 web-1=ok"}},
		"held, and left so": {func(b *bench) { b.OnFailure = "hold" }, "held", deploy.ErrHeld,
			[]string{"open", "batch 1", "report 1 web-1=failed"}},
		"within the budget, by the job": {func(b *bench) { b.Rollout.Budget = 5; b.Gate = "wait" }, "aborted", deploy.ErrCommand,
			[]string{"open", "batch 1", "report 1 web-1=failed", "abort: the command failed in batch 1: exit status 7"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			c.arrange(b)
			b.does = func(_ context.Context, batch int) error {
				if batch == 1 {
					return failure
				}
				return nil
			}
			d, err := b.deploy(t.Context())
			if d.State != c.state || !errors.Is(err, c.is) || !errors.Is(err, failure) {
				t.Fatalf("%s: %v", d.State, err)
			}
			b.check(t, c.calls...)
		})
	}
}

// A command that says of every host what became of it has done its work: the policy's
// budget decides.
func TestNamedFailuresAreTheBudgets(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.does = func(_ context.Context, batch int) error {
		b.Lock()
		b.Rollout.Budget = 1
		b.Unlock()
		if batch == 2 {
			b.says("web-2", "failed")
			b.says("web-3", "ok")
			return errors.New("exit status 2")
		}
		return nil
	}
	d, err := b.deploy(t.Context())
	if err != nil || d.State != "complete" {
		t.Fatal(d.State, err)
	}
	if !slices.Contains(b.ran, "2 web-2 web-3") || b.Spent != 1 {
		t.Error(b.ran, b.Spent)
	}
}

func TestInterruptAborts(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(b *bench, interrupt func()){
		"while the command runs": func(b *bench, interrupt func()) {
			b.does = func(ctx context.Context, n int) error {
				interrupt()
				return until(ctx, n)
			}
		},
		"while it waits": func(b *bench, interrupt func()) {
			b.Gate = "wait"
			b.passes = interrupt
		},
		"and the broker does not answer at once": func(b *bench, interrupt func()) {
			b.does = func(ctx context.Context, n int) error {
				interrupt()
				return until(ctx, n)
			}
			down := 2
			b.fault = func(call string) error {
				if down--; call == "abort" && down >= 0 {
					return &api.Problem{Status: 503, Detail: "the broker is being restarted"}
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			ctx, interrupt := context.WithCancel(t.Context())
			arrange(b, interrupt)
			d, err := b.deploy(ctx)
			if !errors.Is(err, context.Canceled) || d.State != "aborted" || b.Calls[len(b.Calls)-1] != "abort: the job was interrupted" {
				t.Fatal(d.State, err, b.Calls)
			}
			b.check(t, b.Calls...)
		})
	}
}

// Whose lease is lost says nothing more, and what it runs is ended.
func TestLeaseLostEndsTheCommand(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(b *bench){
		"to another run": func(b *bench) { b.Steal() },
		"with the run":   func(b *bench) { b.Close("the run was revoked"); b.run = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			b.does = func(ctx context.Context, n int) error {
				b.Lock()
				lose(b)
				b.Unlock()
				return until(ctx, n)
			}
			b.fault = func(call string) error {
				if b.run == 0 {
					return &api.Problem{Status: 401, Code: "agent-run-over", Detail: "the run is over"}
				}
				return nil
			}
			_, err := b.deploy(t.Context())
			if !errors.Is(err, deploy.ErrLost) || !b.stopped {
				t.Fatal(err, b.stopped)
			}
			b.check(t, "open", "batch 1")
		})
	}
}

// Who stops a batch from outside ends the command; the loop goes on when it may.
func TestStoppedBatchEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench()
	stopped := false
	b.does = func(ctx context.Context, n int) error {
		if stopped {
			return nil
		}
		b.Lock()
		stopped = true
		b.Blocker = api.Blocker{Code: "deployment-held", Why: "Olga stopped it"}
		b.Close("the deployment was stopped")
		b.Unlock()
		return until(ctx, n)
	}
	waits := 0
	b.passes = func() {
		if b.Blocker.Code != "" && !b.runs() {
			if waits++; waits == 5 {
				b.Blocker = api.Blocker{} // resumed
			}
		}
	}
	d, err := b.deploy(t.Context())
	if err != nil || d.State != "complete" {
		t.Fatal(d.State, err)
	}
	b.check(t, "open", "batch 1", "batch 1", "report 1 web-1=ok", "batch 2", "report 2 web-2=ok web-3=ok", "finish")
	if !slices.Contains(b.waited, "Olga stopped it") {
		t.Error(b.waited)
	}
}

func TestBlockersAreWaitedFor(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"deployment-awaiting-approval", "deployment-frozen", "deployment-held"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			b.Blocker = api.Blocker{Code: code, Why: "people think"}
			waits := 0
			b.passes = func() {
				if waits++; waits == 10 {
					b.Blocker = api.Blocker{}
				}
			}
			if d, err := b.deploy(t.Context()); err != nil || d.State != "complete" {
				t.Fatal(d.State, err)
			}
			if !slices.Contains(b.waited, "people think") {
				t.Error(b.waited)
			}
		})
	}
}

// A soak of days is not the job's to wait for: it leaves the deployment as it is, and the
// next job goes on.
func TestLongSoakIsLeftToTheNextJob(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.Gate, b.SoakUntil = "wait", b.clock.Now().Add(48*time.Hour)
	d, err := b.deploy(t.Context())
	if waiting, ok := errors.AsType[*deploy.Waiting](err); !ok || waiting.ID != d.ID || d.State != "active" {
		t.Fatal(d.State, err)
	}
	if b.clock.Now().After(b.SoakUntil.Add(-47 * time.Hour)) {
		t.Error("it waited for what it knew to come later")
	}
	b.check(t, "open", "batch 1", "report 1 web-1=ok")
	// Without an end that is known, it waits as long as it was told.
	b.SoakUntil = time.Time{}
	began := b.clock.Now()
	_, err = b.deploy(t.Context())
	if _, ok := errors.AsType[*deploy.Waiting](err); !ok || b.clock.Now().Sub(began) < time.Hour {
		t.Fatal(err, b.clock.Now().Sub(began))
	}
	// The next job, of another run, when the lease of the first has passed.
	b.Gate, b.run = "", 2
	waits := 0
	b.passes = func() {
		if waits++; waits == 3 {
			b.Release()
		}
	}
	if d, err := b.deploy(t.Context()); err != nil || d.State != "complete" {
		t.Fatal(d.State, err)
	}
	if want := []string{"1 web-1", "2 web-2 web-3"}; !slices.Equal(b.ran, want) {
		t.Errorf("the command ran for %q", b.ran)
	}
}

// A lease that has passed while nothing was open is taken again.
func TestLeaseThatPassedWhileNothingWasOpen(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.does = func(_ context.Context, batch int) error {
		if batch == 1 {
			b.Lock()
			b.Gate = "wait"
			b.Unlock()
		}
		return nil
	}
	waits := 0
	b.passes = func() {
		if b.Gate == "" || b.Batches[0].State != "soaking" {
			return
		}
		if waits++; waits == 3 {
			b.Release()
			b.Gate = ""
		}
	}
	if d, err := b.deploy(t.Context()); err != nil || d.State != "complete" {
		t.Fatal(d.State, err)
	}
	b.check(t, "open", "batch 1", "report 1 web-1=ok", "open", "batch 2", "report 2 web-2=ok web-3=ok", "finish")
}

// The broker is restarted at every call in turn: nothing is done twice, nothing is lost.
func TestBrokerDownAtEveryCall(t *testing.T) {
	t.Parallel()
	for at := range 12 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			b := newBench()
			n := 0
			b.fault = func(string) error {
				if n++; n > at && n <= at+3 {
					return &api.Problem{Status: 503, Detail: "the broker is being restarted"}
				}
				return nil
			}
			if d, err := b.deploy(t.Context()); err != nil || d.State != "complete" {
				t.Fatal(d.State, err, b.Calls)
			}
			b.check(t, "open", "batch 1", "report 1 web-1=ok", "batch 2", "report 2 web-2=ok web-3=ok", "finish")
		})
	}
}

func TestRefusalsThatWaitingDoesNotHelp(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.fault = func(call string) error {
		if call == "open" {
			return &api.Problem{Status: 403, Code: "agent-not-trusted", Detail: "no entry of the policy trusts this token"}
		}
		return nil
	}
	d, err := b.deploy(t.Context())
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != 403 || d.ID != "" {
		t.Fatal(d, err)
	}
	b.check(t)
	b = newBench()
	b.fault = func(call string) error {
		if call == "batch" {
			return &api.Problem{Status: 409, Code: "batch-opened-too-often", Detail: "often enough"}
		}
		return nil
	}
	if d, err := b.deploy(t.Context()); err == nil || d.State != "aborted" {
		t.Fatal(d.State, err)
	}
}

// A rollback that begins while the next batch is waited for is carried out, and the job
// hears of it once, and of nothing that it did wrong.
func TestARollbackWhileABatchIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.OnFailure, b.Gate = "rollback", "wait"
	b.passes = func() {
		if len(b.waited) == 3 {
			b.Gate = "fail"
		}
	}
	d, err := b.deploy(t.Context())
	if d.State != "rolled_back" || !errors.Is(err, deploy.ErrEnded) || !slices.Equal(b.ran, []string{"1 web-1", "3 web-1"}) {
		t.Errorf("it is %s, %v, after %q", d.State, err, b.ran)
	}
	if got := slices.Compact(b.waited); !slices.Equal(got, []string{"batch 1 is soaking", "rolls back: the canary failed"}) {
		t.Errorf("the job heard %q", got)
	}
}
