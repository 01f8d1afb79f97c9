package dex

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"sallyport/internal/refusal"
)

// BinaryVariable names the environment variable that, if set, says where a
// built Dex is. The demo sets it when it starts itself again as root, for whom
// there may be no Go.
const BinaryVariable = "SALLYPORT_DEX"

// ErrNoDex says that Dex could be neither found nor built.
var ErrNoDex = refusal.New(refusal.Unavailable, "dex-not-built",
	"the sample OIDC provider, Dex, could not be built",
	"run this inside a clone of Sallyport, with Go on PATH and a way to the Go module proxy")

// Binary is the path of Dex's program. The Go command builds it, at the version
// that tools/go.mod names, and keeps it in its cache: a minute the first time,
// an instant after that.
func Binary(ctx context.Context) (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		return path, nil
	}
	tools, err := toolsFolder()
	if err != nil {
		return "", ErrNoDex.Because(err)
	}
	// Test binaries run in parallel: one builds, the others wait for it. The lock
	// is on the folder, since go locks go.mod itself; closing it releases it.
	lock, err := os.Open(tools)
	if err != nil {
		return "", ErrNoDex.Because(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", ErrNoDex.Because(err)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "dex")
	cmd.Dir = tools
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", ErrNoDex.Because(fmt.Errorf("go tool -n dex: %w\n%s", err, stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// toolsFolder finds tools/ beside the go.mod at or above the working folder:
// tests run in their package's folder, the demo at the top.
func toolsFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		tools := filepath.Join(dir, "tools")
		if _, err := os.Stat(filepath.Join(tools, "go.mod")); err == nil {
			return tools, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no tools/go.mod at or above the working folder")
		}
		dir = parent
	}
}
