package e2e

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/internal/child"
	"sallyport/internal/pgtest"
)

// wantedHosts is how many hosts one broker shall hold. Where a process may have fewer open
// files, there are as many as it may.
const wantedHosts = 20_000

const waitingRules = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
rules:
  - {name: all, who: [engineers], where: "*", logins: [dba], duration: {max: 1h}, automatic: true}
`

// BenchmarkWaitingHosts prints what it takes one broker on two cores to have thousands of
// hosts wait for revocations, and how long it takes to tell all of them of one. The hosts
// are connections of other processes, whose calls are signed and verified as any host's.
//
//	go test -run '^$' -bench WaitingHosts -benchtime 3x ./internal/e2e	three revocations
func BenchmarkWaitingHosts(b *testing.B) {
	b.Setenv("GOMAXPROCS", "2")
	fast := filepath.Join(b.TempDir(), "sallyportd")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", fast, "sallyport/cmd/sallyportd").CombinedOutput(); err != nil {
		b.Fatalf("building sallyportd: %v\n%s", err, out)
	}
	programs.sallyportd = fast
	_, db := pgtest.NewCluster(b, true)
	h := newHouseOn(b, waitingRules, db)
	n := min(wantedHosts, openFiles(b)-300)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	h.enrolMany(n, key)
	idle := rss(b, h.first.PID())
	began, cpu := time.Now(), cpuOf(b, h.first.PID())
	crowds := []*crowd{h.crowd(1, n/2, key), h.crowd(n/2+1, n, key)}
	for _, c := range crowds {
		c.ready(b)
	}
	joined, cpuJoined := time.Since(began), cpuOf(b, h.first.PID())-cpu
	waiting := rss(b, h.first.PID())
	person := h.signIn(engineer)
	var told []map[string]time.Duration
	var spent []time.Duration
	for b.Loop() {
		var r api.Request
		person.call(http.MethodPost, "/requests", api.RequestInput{Host: "sim-1", Login: "dba", Reason: "to be ended"}, &r, http.StatusCreated)
		before := cpuOf(b, h.first.PID())
		at := time.Now()
		person.call(http.MethodPost, "/requests/"+r.ID+"/finish", nil, nil, http.StatusOK)
		var heard []time.Duration
		for _, c := range crowds {
			for _, t := range c.heard(b) {
				heard = append(heard, time.Unix(0, t).Sub(at))
			}
		}
		if len(heard) != n {
			b.Fatalf("%d of %d hosts heard of it", len(heard), n)
		}
		slices.Sort(heard)
		told = append(told, map[string]time.Duration{"first": heard[0], "half": heard[n/2], "99 %": heard[n*99/100], "all": heard[n-1]})
		for _, c := range crowds {
			c.ready(b) // all wait again
		}
		spent = append(spent, cpuOf(b, h.first.PID())-before)
	}
	b.ReportMetric(0, "ns/op") // of a round: says nothing
	fmt.Printf("\n%d hosts wait at one broker, GOMAXPROCS=2: joined in %s (%s of CPU); RSS %d MB before, %d MB while they wait (%d kB each), %d MB at the end\n",
		n, joined.Round(time.Millisecond), cpuJoined, idle>>20, waiting>>20, (waiting-idle)/int64(n)>>10, rss(b, h.first.PID())>>20)
	fmt.Printf("one revocation, medians of %d: ", len(told))
	for _, part := range []string{"first", "half", "99 %", "all"} {
		fmt.Printf("%s after %s, ", part, median(told, func(m map[string]time.Duration) time.Duration { return m[part] }).Round(time.Millisecond))
	}
	fmt.Printf("%s of CPU until all wait again\n\n", median(spent, func(d time.Duration) time.Duration { return d }))
}

func openFiles(t testing.TB) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(limit.Max, 1<<20)) // which Go programs take
}

// enrolMany writes hosts down as enrolled, all with one key.
func (h *house) enrolMany(n int, key ed25519.PrivateKey) {
	h.t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	h.must(err)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	h.signIn(operator).call(http.MethodGet, "/me", nil, nil, http.StatusOK)
	root, err := pgx.Connect(h.t.Context(), h.db.AdminURL)
	h.must(err)
	defer root.Close(h.t.Context())
	_, err = root.Exec(h.t.Context(), `
		WITH made AS (
			INSERT INTO hosts (id, name, address, labels, logins, host_key, created_at, changed_at)
			SELECT 'host-' || lpad(i::text, 12, '0'), 'sim-' || i, '192.0.2.1:22', '{}', '{dba}', $2, now(), now()
			FROM generate_series(1, $1::int) AS i RETURNING id)
		INSERT INTO enrolled_hosts (host_id, host_key, facts, enrolled_at, let_in_by, let_in_by_name, proposed)
		SELECT id, $2, '{}', now(), (SELECT id FROM people LIMIT 1), 'x', '' FROM made`, n, line)
	h.must(err)
	// No looks from outside: there is nothing to look at.
	_, err = root.Exec(h.t.Context(), `INSERT INTO host_probes (host_id, at, result, claimed_at) SELECT host_id, now(), 'pass', now() + interval '1 day' FROM enrolled_hosts`)
	h.must(err)
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// crowd is a process that is many hosts.
type crowd struct{ lines *bufio.Scanner }

func (h *house) crowd(from, to int, key ed25519.PrivateKey) *crowd {
	h.t.Helper()
	cmd := exec.Command(os.Args[0], strings.TrimPrefix(h.URL, "http://"), strconv.Itoa(from), strconv.Itoa(to), hex.EncodeToString(key.Seed()))
	cmd.Env = append(os.Environ(), "SALLYPORT_E2E_CROWD=1")
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, os.Stderr
	p, err := child.Start(cmd, syscall.SIGKILL)
	h.must(err)
	h.t.Cleanup(func() { p.Stop(syscall.SIGKILL, time.Second) })
	go func() {
		<-p.Done()
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	return &crowd{lines}
}

// ready waits until all of them wait.
func (c *crowd) ready(t testing.TB) {
	t.Helper()
	if !c.lines.Scan() || c.lines.Text() != "waiting" {
		t.Fatalf("the hosts say %q", c.lines.Text())
	}
}

// heard is when each of them had the news, in nanoseconds since 1970.
func (c *crowd) heard(t testing.TB) (at []int64) {
	t.Helper()
	c.lines.Scan()
	if err := json.Unmarshal(c.lines.Bytes(), &at); err != nil {
		t.Fatalf("the hosts say %.100q", c.lines.Text())
	}
	return at
}

// simulate is the process: it says "waiting" when all of its hosts have asked, then when
// each of them had its answer, and so on.
func simulate(args []string) int {
	from, _ := strconv.Atoi(args[1])
	to, _ := strconv.Atoi(args[2])
	seed, _ := hex.DecodeString(args[3])
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return 1
	}
	hosts := make([]*simulated, to-from+1)
	at := make([]int64, len(hosts))
	after, slots := uint64(0), make(chan struct{}, 64)
	all := func(do func(i int, h *simulated) error) bool {
		var wg sync.WaitGroup
		failed := make(chan error, len(hosts))
		for i, h := range hosts {
			wg.Go(func() { failed <- do(i, h) })
		}
		wg.Wait()
		for range hosts {
			if err := <-failed; err != nil {
				fmt.Fprintln(os.Stderr, err)
				return false
			}
		}
		return true
	}
	for i := range hosts {
		hosts[i] = &simulated{id: fmt.Sprintf("host-%012d", from+i), key: key, addr: args[0]}
	}
	// The first answer comes at once: it says what the number is, and that the call was good.
	if !all(func(i int, h *simulated) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		if err := h.ask(0, "0s"); err != nil {
			return err
		}
		return h.hear()
	}) {
		return 1
	}
	for {
		if !all(func(i int, h *simulated) error {
			slots <- struct{}{}
			defer func() { <-slots }()
			return h.ask(after, "60s")
		}) {
			return 1
		}
		fmt.Println("waiting")
		if !all(func(i int, h *simulated) error {
			err := h.hear()
			at[i] = time.Now().UnixNano()
			return err
		}) {
			return 1
		}
		after++
		text, _ := json.Marshal(at)
		fmt.Println(string(text))
	}
}

// simulated is one host's connection.
type simulated struct {
	id, addr string
	key      ssh.Signer
	conn     net.Conn
	in       *bufio.Reader
}

func (s *simulated) ask(after uint64, wait string) error {
	if s.conn == nil {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return err
		}
		s.conn, s.in = conn, bufio.NewReaderSize(conn, 2048)
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+s.addr+hostapi.RevocationsPath+"?after="+strconv.FormatUint(after, 10)+"&wait="+wait, nil)
	if err != nil {
		return err
	}
	if err := hostapi.Sign(req, s.id, s.key, nil, time.Now(), rand.Reader); err != nil {
		return err
	}
	return req.Write(s.conn)
}

func (s *simulated) hear() error {
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}
