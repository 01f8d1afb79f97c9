package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/pgtest"
	"sallyport/internal/sshd"
)

// openWeb lets anybody in as web on web-1, as often as they like.
const openWeb = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
rules:
  - {name: all, who: [engineers], where: "*", logins: [web], duration: {max: 1h}, automatic: true}
`

// BenchmarkEndOfSession prints how long a session lasts once its grant is finished, with
// a program running in it: from the call's answer to the end of the connection, with one
// broker, one enrolled host and a PostgreSQL with fsync on. And what memory the host's
// daemon has then.
//
//	go test -run '^$' -bench EndOfSession -benchtime 5x ./internal/e2e	a hundred sessions
func BenchmarkEndOfSession(b *testing.B) {
	fast := filepath.Join(b.TempDir(), "sallyportd")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", fast, "sallyport/cmd/sallyportd").CombinedOutput(); err != nil {
		b.Fatalf("building sallyportd: %v\n%s", err, out)
	}
	slow := programs.sallyportd
	programs.sallyportd = fast
	b.Cleanup(func() { programs.sallyportd = slow })
	_, db := pgtest.NewCluster(b, true)
	h := newHouseOn(b, openWeb, db)
	host := h.enrol(b, "web-1", map[string]string{"class": "web"}, "web")
	erin := h.signIn(engineer)
	var took []time.Duration
	for b.Loop() {
		for range 20 {
			connection, r := h.enter(b, erin, "web-1", "web")
			s, err := connection.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Start("exec sleep 1000"); err != nil {
				b.Fatal(err)
			}
			erin.call(http.MethodPost, "/requests/"+r.ID+"/finish", struct{}{}, nil, http.StatusOK)
			began := time.Now()
			_ = connection.Wait()
			took = append(took, time.Since(began))
		}
	}
	memory, err := host.Command(b.Context(), "sh", "-c", "cat /proc/$(pgrep -xf '"+sshd.Helper+" daemon')/status").Output()
	if err != nil {
		b.Fatal(err)
	}
	resident := ""
	for line := range strings.Lines(string(memory)) {
		if kind, size, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && (kind == "VmRSS" || kind == "VmHWM" || kind == "RssAnon") {
			resident += fmt.Sprintf(", %s %s", kind, strings.Join(strings.Fields(size), " "))
		}
	}
	b.ReportMetric(0, "ns/op") // of a session: says nothing
	fmt.Printf("\n%d sessions ended %s after their grant was finished (median), p99 %s, at most %s\nthe host's daemon%s\n\n", len(took),
		percentile(took, 0.5).Round(time.Millisecond), percentile(took, 0.99).Round(time.Millisecond), percentile(took, 1).Round(time.Millisecond),
		strings.Replace(resident, ",", ":", 1))
}
