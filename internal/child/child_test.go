package child_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/child"
)

// In the middle process of TestDiesWithItsParent, this program starts a child of
// its own, says its number, and waits to be killed.
func TestMain(m *testing.M) {
	if os.Getenv("SALLYPORT_CHILD_TEST") != "" {
		p, err := child.Start(exec.Command("sleep", "600"), syscall.SIGKILL)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		<-p.Done()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestDiesWithItsParent(t *testing.T) {
	t.Parallel()
	middle := exec.Command(os.Args[0])
	middle.Env = append(os.Environ(), "SALLYPORT_CHILD_TEST=1")
	out, err := middle.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := middle.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !running(pid) {
		t.Fatalf("the child %d does not run", pid)
	}
	middle.Process.Kill() // kill -9: no handler of ours runs
	middle.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for running(pid) {
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the child outlived its killed parent")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Stop(syscall.SIGTERM, 50*time.Millisecond)
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended with %v, want killed", err)
	}
	p.Stop(syscall.SIGTERM, time.Minute) // a second time is fine
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	if _, err := child.Start(exec.Command("/nonexistent/program"), syscall.SIGKILL); err == nil {
		t.Error("starting a program that is not there succeeded")
	}
}

// running reports whether the process exists and is not a zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
