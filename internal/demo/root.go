package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"sallyport/internal/dex"
	"sallyport/internal/sshd"
)

// leashVariable tells a demo that was started through sudo that it holds the end
// of a pipe as its standard input: when that closes, whoever started it is gone.
const leashVariable = "SALLYPORT_DEMO_LEASH"

// becomeRoot runs this command again as root, who alone can make hosts, and waits
// for it. Dex is built before that: root may have no Go. We cannot signal root's
// process, and it shall not outlive us: so it is on a leash.
func becomeRoot(ctx context.Context, cfg Config) error {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return sshd.ErrNotRoot.Because(err)
	}
	provider, err := dex.Binary(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintln(cfg.Out, "The demo's hosts have accounts of their own, which takes root: sudo may ask for your password.")
	args := []string{"env", dex.BinaryVariable + "=" + provider, leashVariable + "=1", self}
	cmd := exec.CommandContext(ctx, sudo, append(args, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	leash, err := cmd.StdinPipe() // sudo asks for passwords on the terminal itself
	if err != nil {
		return err
	}
	cmd.Cancel = leash.Close
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the demo, run by sudo, ended: %w", err)
	}
	return nil
}

// onLeash returns a context that ends with ctx, and when the leash, if this
// process is on one, is let go.
func onLeash(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(leashVariable) != "" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	return ctx, cancel
}
