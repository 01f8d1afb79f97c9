package spool_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/spool"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) (s *spool.Spool, dir string, key ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err = ssh.NewSignerFromKey(private)
	must(t, err)
	dir = t.TempDir()
	return spool.Open(dir, key, "boot", time.Now), dir, key
}

func add(t testing.TB, s *spool.Spool, n int) {
	t.Helper()
	for range n {
		_, err := s.Append(hostapi.KindSessionEnded, hostapi.SessionEnded{Login: "dba <&>"})
		must(t, err)
	}
}

// seqs are the numbers that wait, and the details of alarms among them.
func seqs(t testing.TB, s *spool.Spool) (numbers []uint64, alarms string) {
	t.Helper()
	list, err := s.Pending(spool.MaxReports)
	must(t, err)
	for _, r := range list {
		numbers = append(numbers, r.Seq)
		if r.Kind == hostapi.KindAlarm {
			alarms += string(r.Data) + "\n"
		}
	}
	return numbers, alarms
}

func TestReportsWaitInOrderOverRestarts(t *testing.T) {
	t.Parallel()
	s, dir, key := open(t)
	add(t, s, 3)
	must(t, s.Forget(2))
	s = spool.Open(dir, key, "boot", time.Now)
	add(t, s, 2)
	if got, alarms := seqs(t, s); len(got) != 3 || got[0] != 3 || got[2] != 5 || alarms != "" {
		t.Errorf("what waits is %v, %s", got, alarms)
	}
	if list, err := s.Pending(1); err != nil || len(list) != 1 {
		t.Errorf("one of them: %v, %v", list, err)
	}
	must(t, s.Forget(5))
	if got, alarms := seqs(t, s); len(got) != 0 || alarms != "" {
		t.Errorf("what waits is %v, %s", got, alarms)
	}
	files, err := filepath.Glob(filepath.Join(dir, "0*"))
	must(t, err)
	if len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// Many write at once: each number once, none missing.
func TestManyWriteAtOnce(t *testing.T) {
	t.Parallel()
	_, dir, key := open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := spool.Open(dir, key, "boot", time.Now) // as a process of its own
			for range 10 {
				if _, err := s.Append(hostapi.KindSessionStarted, hostapi.SessionStarted{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, alarms := seqs(t, spool.Open(dir, key, "boot", time.Now))
	for i, n := range got {
		if n != uint64(i+1) {
			t.Fatalf("the %dth is %d", i+1, n)
		}
	}
	if len(got) != 80 || alarms != "" {
		t.Errorf("%d wait, %s", len(got), alarms)
	}
}

// Killed between report and head: the report counts, and nobody is suspected.
func TestKilledBetweenReportAndHead(t *testing.T) {
	t.Parallel()
	s, dir, _ := open(t)
	for i := range 3 {
		head := filepath.Join(dir, "head.json")
		old, err := os.ReadFile(head)
		add(t, s, 1)
		if err != nil {
			must(t, os.Remove(head))
		} else {
			must(t, os.WriteFile(head, old, 0o600))
		}
		if got, alarms := seqs(t, s); len(got) != 2*i+1 || alarms != "" {
			t.Errorf("the %dth time: %v, %s", i+1, got, alarms)
		}
		add(t, s, 1)
	}
	if got, alarms := seqs(t, s); len(got) != 6 || alarms != "" {
		t.Errorf("at last: %v, %s", got, alarms)
	}
}

// Each of these is told in one alarm, once; what is good still waits.
func TestWhatIsTamperedWithIsTold(t *testing.T) {
	t.Parallel()
	file := func(dir string, n string) string {
		return filepath.Join(dir, strings.Repeat("0", 20-len(n))+n+".json")
	}
	replace := func(t *testing.T, name, old, by string) {
		text, err := os.ReadFile(name)
		must(t, err)
		must(t, os.WriteFile(name, []byte(strings.Replace(string(text), old, by, 1)), 0o600))
	}
	for what, c := range map[string]struct {
		do    func(t *testing.T, dir string)
		wait  int // of 4, without the alarm
		alarm string
	}{
		"report changed": {func(t *testing.T, dir string) { replace(t, file(dir, "2"), "dba", "web") }, 3, "report 2 of the spool is not what this host wrote"},
		"report gone":    {func(t *testing.T, dir string) { must(t, os.Remove(file(dir, "2"))) }, 3, "report 2 of the spool is gone"},
		"last one gone":  {func(t *testing.T, dir string) { must(t, os.Remove(file(dir, "4"))) }, 3, "report 4 of the spool is gone"},
		"head changed":   {func(t *testing.T, dir string) { replace(t, filepath.Join(dir, "head.json"), `"next":5`, `"next":9`) }, 4, "its head is not what this host wrote"},
		"head gone":      {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "head.json"))) }, 4, "its head is gone"},
		"head of zeros": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "head.json"), make([]byte, 300), 0o600))
		}, 4, "its head is not what this host wrote"},
		"another's report": {func(t *testing.T, dir string) {
			other, theirs, _ := open(t)
			add(t, other, 3)
			text, err := os.ReadFile(file(theirs, "3"))
			must(t, err)
			must(t, os.WriteFile(file(dir, "3"), text, 0o600))
		}, 3, "report 3 of the spool is not what this host wrote"},
		"exchanged": {func(t *testing.T, dir string) { must(t, os.Rename(file(dir, "3"), file(dir, "2"))) }, 2, "report 3 of the spool is gone"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, dir, _ := open(t)
			add(t, s, 4)
			c.do(t, dir)
			for range 3 {
				seqs(t, s)
			}
			got, alarms := seqs(t, s)
			if n := strings.Count(alarms, "\n"); len(got) != c.wait+n || !strings.Contains(alarms, c.alarm) || n > 2 || n == 2 && what != "exchanged" {
				t.Errorf("%d wait, with alarms\n%s", len(got), alarms)
			}
			add(t, s, 1)
			must(t, s.Forget(got[len(got)-1]))
			if rest, _ := seqs(t, s); len(rest) != 1 {
				t.Errorf("what is left is %v", rest)
			}
		})
	}
}

// A key that was exchanged finds nothing that it signed.
func TestAnotherKeyTrustsNothing(t *testing.T) {
	t.Parallel()
	s, dir, _ := open(t)
	add(t, s, 2)
	_, _, key := open(t)
	s = spool.Open(dir, key, "boot", time.Now)
	got, alarms := seqs(t, s)
	if len(got) != 3 || strings.Count(alarms, "\n") != 3 { // head, and each report
		got, alarms = seqs(t, s)
	}
	if len(got) != 3 || strings.Count(alarms, "\n") != 3 || !strings.Contains(alarms, "its head") {
		t.Errorf("%v wait, %s", got, alarms)
	}
}

func TestRenumbered(t *testing.T) {
	t.Parallel()
	s, _, _ := open(t)
	add(t, s, 3)
	_, err := s.Append(hostapi.KindPosture, hostapi.PostureReport{})
	must(t, err)
	must(t, s.Renumber(100))
	got, alarms := seqs(t, s)
	if len(got) != 4 || got[0] != 101 || got[3] != 104 || !strings.Contains(alarms, "reports-renumbered") {
		t.Errorf("%v wait, %s", got, alarms)
	}
}

// Postures give way first, then starts, then ends.
func TestFull(t *testing.T) {
	t.Parallel()
	dir := "/dev/shm" // thousands of files, each synced
	dir, err := os.MkdirTemp(dir, "spool")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	_, _, key := open(t)
	s := spool.Open(dir, key, "boot", time.Now)
	try := func(kind hostapi.Kind, want int) {
		t.Helper()
		for n := 0; ; n++ {
			_, err := s.Append(kind, struct{}{})
			if errors.Is(err, spool.ErrFull) {
				break
			}
			must(t, err)
		}
		if n, _, err := s.Waiting(); err != nil || n != want {
			t.Errorf("after every %s %d wait, %v", kind, n, err)
		}
	}
	try(hostapi.KindPosture, spool.MaxPostures)
	try(hostapi.KindSessionStarted, spool.MaxStarts)
	try(hostapi.KindSessionEnded, spool.MaxReports)
}

func TestReserve(t *testing.T) {
	t.Parallel()
	s, dir, _ := open(t)
	for range 2 {
		must(t, s.Reserve())
	}
	if info, err := os.Stat(filepath.Join(dir, "reserve")); err != nil || info.Size() != spool.ReserveSize {
		t.Errorf("the reserve: %v, %v", info, err)
	}
	if !s.GiveUpReserve() || s.GiveUpReserve() {
		t.Error("the reserve is not given up once")
	}
}
