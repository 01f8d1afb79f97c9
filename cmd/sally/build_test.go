package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An auditor verifies on whatever computer they have.
func TestBuildsEverywhere(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			dir, name := filepath.Split(system)
			cmd := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), "sally"), ".")
			cmd.Env = append(os.Environ(), "GOOS="+filepath.Clean(dir), "GOARCH="+name, "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
