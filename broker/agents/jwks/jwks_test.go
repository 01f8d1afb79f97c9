package jwks_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/approvals/policy"
	"sallyport/broker/agents/jwks"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// kit is one issuer and who asks it.
type kit struct {
	*jwks.Keys
	t      *testing.T
	issuer *agenttest.Issuer
	clock  *clock.Manual
	logged *lockedBuffer
}

func newKit(t *testing.T, configure ...func(*jwks.Config)) *kit {
	t.Helper()
	k := &kit{t: t, clock: clock.NewManual(time.Now()), logged: new(lockedBuffer)}
	k.issuer = agenttest.New(t, policy.SPIFFE, k.clock)
	cfg := jwks.Config{Clock: k.clock, Roots: agenttest.Roots(k.issuer), Logger: slog.New(slog.NewTextHandler(k.logged, nil))}
	for _, c := range configure {
		c(&cfg)
	}
	var err error
	if k.Keys, err = jwks.New(cfg); err != nil {
		t.Fatal(err)
	}
	return k
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// find asks for the issuer's key, where it may be at the addresses.
func (k *kit) find(addresses []netip.Prefix) error {
	_, err := k.Find(k.t.Context(), jwks.Issuer{URL: k.issuer.URL, Addresses: addresses}, "key-1", "ES256")
	return err
}

// down wants the issuer's keys not to be had, because of what is in the process's log
// and not in the answer: who probes for what is inside hears nothing.
func (k *kit) down(err error, because string) {
	k.t.Helper()
	if !errors.Is(err, jwks.ErrIssuerDown) {
		k.t.Errorf("error %v, want ErrIssuerDown", err)
	}
	if !strings.Contains(k.logged.String(), because) {
		k.t.Errorf("the log does not say %q: %s", because, k.logged)
	}
}

func TestKeysAreFetchedOnceForAll(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := k.find(loopback); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	k.clock.Advance(jwks.RefreshAfter)
	if err := k.find(loopback); err != nil || k.issuer.Asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, k.issuer.Asked.Load())
	}
	k.clock.Advance(time.Second)
	if err := k.find(loopback); err != nil || k.issuer.Asked.Load() != 2 {
		t.Errorf("%v, asked %d times", err, k.issuer.Asked.Load())
	}
}

// Whoever makes up ids of keys does not make the broker ask all the time.
func TestMadeUpKeyIDsDoNotHammerTheIssuer(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	made := func(i int) error {
		_, err := k.Find(t.Context(), jwks.Issuer{URL: k.issuer.URL, Addresses: loopback}, fmt.Sprint("made-up-", i), "ES256")
		return err
	}
	for i := range 100 {
		if err := made(i); !errors.Is(err, jwks.ErrUnknownKey) {
			t.Fatal(err)
		}
	}
	if err := k.find(loopback); err != nil || k.issuer.Asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, k.issuer.Asked.Load())
	}
	k.clock.Advance(jwks.Pause)
	made(0)
	made(1)
	if k.issuer.Asked.Load() != 2 {
		t.Errorf("asked %d times", k.issuer.Asked.Load())
	}
}

func TestIssuerThatComesBack(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.issuer.Fault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	k.down(k.find(loopback), "answered 500")
	k.issuer.Fault(nil)
	k.down(k.find(loopback), "answered 500") // it is left alone for a while
	k.clock.Advance(jwks.Pause)
	if err := k.find(loopback); err != nil {
		t.Error(err)
	}
	// A failure later does no harm while what is known is young enough.
	k.issuer.Fault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	k.clock.Advance(jwks.MaxAge)
	if err := k.find(loopback); err != nil {
		t.Error(err)
	}
	k.clock.Advance(time.Second)
	k.down(k.find(loopback), "answered 500")
	// A clock that was put back makes nothing younger.
	k.issuer.Fault(nil)
	k.clock.Advance(jwks.Pause)
	if err := k.find(loopback); err != nil {
		t.Error(err)
	}
	asked := k.issuer.Asked.Load()
	k.clock.Advance(-24 * time.Hour)
	if err := k.find(loopback); err != nil || k.issuer.Asked.Load() == asked {
		t.Errorf("%v, asked %d times after %d", err, k.issuer.Asked.Load(), asked)
	}
}

func TestDiscoveryPointsInwards(t *testing.T) {
	t.Parallel()
	// The issuer itself is inside, and the policy does not say so.
	k := newKit(t)
	k.down(k.find(nil), "not a public address")
	if k.issuer.Asked.Load() != 0 {
		t.Error("it was connected to")
	}
	k = newKit(t)
	k.down(k.find([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}), "not a public address")

	// Its metadata say that the keys are.
	for _, inside := range []string{"https://127.0.0.2:%s/keys", "https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/keys", "https://[::1]/keys",
		"https://[::ffff:10.0.0.1]/keys", "https://[64:ff9b::a00:1]/keys", "https://[fe80::1]/keys", "https://[fd00::1]/keys", "https://0.0.0.0/keys",
		"https://100.64.0.1/keys", "https://192.0.2.1/keys", "https://[2002:a00:1::]/keys", "https://localhost/keys", "https://0x7f.1/keys"} {
		k := newKit(t)
		only := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		target := inside
		if strings.Contains(inside, "%s") {
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(k.issuer.URL, "https://"))
			target = fmt.Sprintf(inside, port)
		}
		k.answers(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, k.issuer.URL, target))
		if err := k.find(only); !errors.Is(err, jwks.ErrIssuerDown) {
			t.Errorf("%s: %v", target, err)
		}
	}
	for _, other := range []string{"http://127.0.0.1:1/keys", "file:///etc/passwd", "gopher://127.0.0.1/", "", "//127.0.0.1/keys", "https://user:secret@127.0.0.1/keys",
		"https:///keys", "https://127.0.0.1/keys#x"} {
		k := newKit(t)
		k.answers(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, k.issuer.URL, other))
		k.down(k.find(loopback), "not an https URL")
	}
}

// answers makes the issuer's metadata that text.
func (k *kit) answers(text string) {
	k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "openid-configuration") {
			return false
		}
		w.Write([]byte(text))
		return true
	})
}

func TestIssuerByAnotherName(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"issuer":"https://other.example.com","jwks_uri":"%s/keys"}`, `{"jwks_uri":"%s/keys"}`, `[]`, `<html>%s`, ``} {
		k := newKit(t)
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, k.issuer.URL)
		}
		k.answers(text)
		k.down(k.find(loopback), "cannot be fetched")
		if k.issuer.Asked.Load() != 0 {
			t.Errorf("%q: the keys were asked for", text)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		k := newKit(t)
		var followed atomic.Bool
		k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/elsewhere" {
				followed.Store(true)
				return false
			}
			http.Redirect(w, r, k.issuer.URL+"/elsewhere", status)
			return true
		})
		k.down(k.find(loopback), fmt.Sprint("answered ", status))
		if followed.Load() {
			t.Errorf("%d was followed", status)
		}
	}
}

// A name whose address is public when it is looked at, and inside when it is dialled.
func TestDNSRebinding(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	dns := startDNS(t, func() netip.Addr {
		if asked.Add(1) == 1 {
			return netip.MustParseAddr("93.184.215.14")
		}
		return netip.MustParseAddr("127.0.0.1")
	})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", dns)
	}}
	if first, err := resolver.LookupNetIP(t.Context(), "ip4", "example.com."); err != nil || first[0].IsLoopback() {
		t.Fatalf("%v, %v", first, err)
	}
	k := newKit(t, func(c *jwks.Config) { c.Resolver = resolver })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(k.issuer.URL, "https://"))
	url := "https://example.com:" + port // a name of the test server's certificate
	_, err := k.Find(t.Context(), jwks.Issuer{URL: url}, "key-1", "ES256")
	k.down(err, "127.0.0.1:"+port+" is not a public address")
	if k.issuer.Asked.Load() != 0 {
		t.Error("it was connected to")
	}
	// The name works where the policy has the address.
	k.answers(fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/keys"}`, url, url))
	if _, err := k.Find(t.Context(), jwks.Issuer{URL: url, Addresses: loopback}, "key-1", "ES256"); err != nil {
		t.Error(err)
	}
}

// startDNS answers every question for an address (RFC 1035) with what is given.
func startDNS(t *testing.T, address func() netip.Addr) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // of the question: its name, its type, its class
			for end < n && buffer[end] != 0 {
				end += int(buffer[end]) + 1
			}
			end += 5
			if end > n {
				continue
			}
			answer := append([]byte{}, buffer[:end]...)
			answer[2], answer[3] = 0x84, 0                       // an answer, authoritative
			binary.BigEndian.PutUint16(answer[6:], 0)            // answers
			binary.BigEndian.PutUint32(answer[8:], 0)            // nothing further
			if binary.BigEndian.Uint16(buffer[end-4:end]) == 1 { // A
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				answer = append(answer, address().AsSlice()...)
			}
			conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestHugeBodies(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"openid-configuration", "keys"} {
		k := newKit(t)
		var sent atomic.Int64
		k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			chunk := bytes.Repeat([]byte(" "), 64<<10)
			for {
				n, err := w.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return true
				}
			}
		})
		k.down(k.find(loopback), "more than")
	}
	// Few bytes that become many.
	k := newKit(t)
	k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			t.Error("the broker wants answers compressed")
		}
		return false
	})
	if err := k.find(loopback); err != nil {
		t.Error(err)
	}
	// And a head without end.
	k = newKit(t)
	k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		for i := range 100 {
			w.Header().Add(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
		}
		return false
	})
	k.down(k.find(loopback), "cannot be fetched")
}

// An issuer that sends a byte now and then keeps nobody waiting who gives up, and the
// broker gives up, too.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	gone := make(chan struct{})
	k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		defer close(gone)
		w.WriteHeader(200)
		for {
			if _, err := w.Write([]byte(" ")); err != nil {
				return true
			}
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return true
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := k.Find(ctx, jwks.Issuer{URL: k.issuer.URL, Addresses: loopback}, "key-1", "ES256")
	if !errors.Is(err, jwks.ErrIssuerDown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who gave up hears %v", err)
	}
	k.down(k.find(loopback), "deadline exceeded")
	<-gone
}

func TestCertificatesThatNobodyKnows(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(c *jwks.Config) { c.Roots = nil })
	k.down(k.find(loopback), "certificate")
}

func TestKeySetsThatAreNone(t *testing.T) {
	t.Parallel()
	for text, because := range map[string]string{
		``: "not a JWK set", `{}`: "no key", `{"keys":[]}`: "no key", `[]`: "not a JWK set", `{"keys":[{"kty":"oct","kid":"key-1","k":"eHh4"}]}`: "secret key",
		`{"keys":[{"kty":"EC","kid":"key-1","crv":"P-256","x":"AA","y":"AA"}]}`: "no key", `{"keys":[{"kty":"EC","kid":"key-1","d":"AA"}]}`: "secret key",
	} {
		k := newKit(t)
		k.issuer.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/keys") {
				return false
			}
			w.Write([]byte(text))
			return true
		})
		k.down(k.find(loopback), because)
	}
}

func TestNewNeedsAClock(t *testing.T) {
	t.Parallel()
	if _, err := jwks.New(jwks.Config{}); err == nil {
		t.Error("no error")
	}
}
