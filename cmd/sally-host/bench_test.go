package main

import (
	"encoding/base64"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"sallyport/cmd/sally-host/internal/place"
)

// BenchmarkLogin compares logins at an sshd that asks the helper with those at one that
// has files with principals: one after the other, in turn, and the medians. A login is a
// connection, a command and its end.
func BenchmarkLogin(b *testing.B) {
	helper, static := guard(b), guardWith(b, "")
	var by [2][]time.Duration
	for range b.N {
		for i, g := range []*guarded{helper, static} {
			cert := g.issue(nil)
			begin := time.Now()
			g.opens(cert, "dba")
			by[i] = append(by[i], time.Since(begin))
		}
	}
	var more []time.Duration
	for i := range by[0] {
		more = append(more, by[0][i]-by[1][i])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(by[0]), "helper-ms")
	b.ReportMetric(milliseconds(by[1]), "file-ms")
	b.ReportMetric(milliseconds(more), "more-ms")
}

// BenchmarkPrincipals is the helper's own time, from fork to exit, for a certificate that
// opens; beside it a program that does nothing, and the helper's size. sshd asks twice
// for each login.
func BenchmarkPrincipals(b *testing.B) {
	g := guard(b)
	cert := base64.StdEncoding.EncodeToString(g.issue(nil).Marshal())
	run := func(program string, args ...string) (wall, cpu time.Duration) {
		cmd := exec.Command(program, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: g.Path("/."), Credential: &syscall.Credential{Uid: groupOfHelper, Gid: groupOfHelper}}
		cmd.Dir = "/"
		begin := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	var walls, cpus, nothing []time.Duration
	for range b.N {
		wall, cpu := run(place.Program, "principals", "dba", cert)
		walls, cpus = append(walls, wall), append(cpus, cpu)
		wall, _ = run("/bin/true")
		nothing = append(nothing, wall)
	}
	binary, err := program()
	must(b, err)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(walls), "own-ms")
	b.ReportMetric(milliseconds(cpus), "cpu-ms")
	b.ReportMetric(milliseconds(nothing), "true-ms")
	b.ReportMetric(float64(len(binary))/1e6, "MB")
}

// milliseconds is the median.
func milliseconds(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Microseconds()) / 1000
}
