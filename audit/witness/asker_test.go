package witness_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit"
	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/audit/witness"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
)

func TestHeadsAreCosignedByAQuorum(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	l := newLedger(t, key)
	l.grow(t, 3)
	one, two := newPost(t, "one.example", "", key.Verifier), newPost(t, "two.example", "", key.Verifier)
	_, dead, err := cosignature.NewKey("three.example")
	must(t, err)
	p := policy(t, key, one.line+two.line+"witness three "+dead+" http://127.0.0.1:1\n"+
		"group both 2 one.example two.example\nquorum both\n")
	a := newAsker(t, l.Log, p)
	must(t, a.Check(t.Context()))
	if a.Newest() != nil {
		t.Error("something is cosigned before anybody asked")
	}
	audittest.Run(t, a.Run)
	for range 4 {
		l.grow(t, 5)
		size := l.size(t)
		msg, err := a.Cosigned(t.Context(), size)
		must(t, err)
		if names, enough := p.Witnesses(msg); !enough || len(names) < 2 {
			t.Fatalf("cosigned by %v", names)
		}
		verifier, err := note.NewVerifier(key.Verifier)
		must(t, err)
		if tree, err := checkpoint.Open(msg, verifier); err != nil || tree.N < size {
			t.Fatalf("a head of %d, %v, want %d", tree.N, err, size)
		}
	}
	if list, _ := a.Status(); len(list) != 3 || list[0].Size == 0 || list[0].Error != "" {
		t.Errorf("status %+v", list)
	}
	// Another replica, and one that begins anew, learn from the witnesses where they are.
	again := newAsker(t, l.open(t), p)
	must(t, again.Check(t.Context()))
	audittest.Run(t, again.Run)
	l.grow(t, 1)
	msg, err := again.Cosigned(t.Context(), l.size(t))
	must(t, err)
	if _, enough := p.Witnesses(msg); !enough {
		t.Error("the second replica's head has no quorum")
	}
}

// The attacks of whoever has the database, and an old checkpoint that is truly signed.
// Each is made to a log that a witness has seen; a broker that remembers nothing itself
// then refuses to start.
func TestP9_WitnessedLogsCannotBeRolledBack(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger{
		"an old backup is restored": func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger {
			truncate(t, l, old)
			return l
		},
		"the tail is cut off and grown anew": func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger {
			truncate(t, l, old)
			again := &ledger{Log: l.open(t), db: l.db, key: key}
			again.grow(t, 40)
			return again
		},
		"a fork with the stolen key": func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger {
			fork := newLedger(t, key)
			fork.grow(t, 40)
			return fork
		},
		"a fork of the same size": func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger {
			fork := newLedger(t, key)
			fork.grow(t, int(l.size(t)))
			return fork
		},
		"a new, empty database": func(t *testing.T, l *ledger, old []byte, key audittest.Key) *ledger {
			return newLedger(t, key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := audittest.NewKey(t)
			l := newLedger(t, key)
			l.grow(t, 8)
			old, err := l.Checkpoint(t.Context())
			must(t, err)
			l.grow(t, 7)
			w := newPost(t, "one.example", "", key.Verifier)
			p := policy(t, key, quorumOf(w))
			must(t, newAsker(t, l.Log, p).Check(t.Context()))
			if w.Sizes()[key.Signer.Name()] != l.size(t) {
				t.Fatalf("the witness has seen %v", w.Sizes())
			}
			changed := attack(t, l, old, key)
			if err := newAsker(t, changed.open(t), p).Check(t.Context()); !errors.Is(err, witness.ErrRolledBack) {
				t.Errorf("the broker starts: %v", err)
			}
		})
	}
}

// truncate is what a superuser can do: everything after the old checkpoint goes.
func truncate(t *testing.T, l *ledger, old []byte) {
	t.Helper()
	verifier, err := note.NewVerifier(l.key.Verifier)
	must(t, err)
	tree, err := checkpoint.Open(old, verifier)
	must(t, err)
	conn := l.superuser(t)
	for _, sql := range []string{
		`DELETE FROM audit.entries WHERE index >= $1`,
		`DELETE FROM audit.hashes WHERE index >= audit.hash_count($1)`,
		`UPDATE audit.head SET size = $1`,
	} {
		_, err := conn.Exec(t.Context(), sql, tree.N)
		must(t, err)
	}
	_, err = conn.Exec(t.Context(), `UPDATE audit.head SET root = $1, checkpoint = $2`, tree.Hash[:], string(old))
	must(t, err)
}

// While the broker runs, a witness that contradicts it is an event and an alarm; that it
// lies would be as bad, so nothing stops.
func TestAWitnessThatContradictsIsAnEvent(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	l, other := newLedger(t, key), newLedger(t, key)
	l.grow(t, 3)
	other.grow(t, 9)
	w := newPost(t, "one.example", "", key.Verifier)
	p := policy(t, key, quorumOf(w))
	must(t, newAsker(t, other.Log, p).Check(t.Context()))
	a := newAsker(t, l.Log, p)
	audittest.Run(t, a.Run)
	eventually(t, "the event", func() bool {
		return len(audittest.Leaves(t, l.Log, time.Now(), "witness.contradicts")) == 1
	})
	l.grow(t, 3)
	if a.Newest() != nil {
		t.Error("it is cosigned")
	}
}

// Witnesses that are not there, slow or hostile keep nobody from anything.
func TestHostileWitnesses(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	l := newLedger(t, key)
	l.grow(t, 3)
	honest := newPost(t, "one.example", "", key.Verifier)
	otherKey, _, err := cosignature.NewKey("one.example")
	must(t, err)
	signer, err := cosignature.NewSigner(otherKey, time.Now)
	must(t, err)
	var redirected atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { redirected.Store(true) }))
	t.Cleanup(elsewhere.Close)
	for name, answer := range map[string]http.HandlerFunc{
		"garbage":      func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("\x00\xff")) },
		"nothing":      func(http.ResponseWriter, *http.Request) {},
		"endless":      func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 4<<20)) },
		"500":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"another size": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409); w.Write([]byte("-7\n")) },
		"always another size": func(w http.ResponseWriter, r *http.Request) {
			body := make([]byte, 16)
			n, _ := r.Body.Read(body)
			w.WriteHeader(409)
			if strings.HasPrefix(string(body[:n]), "old 1\n") {
				w.Write([]byte("2\n"))
			} else {
				w.Write([]byte("1\n"))
			}
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"another key of that name": func(w http.ResponseWriter, _ *http.Request) {
			msg, _ := l.Checkpoint(t.Context())
			text, _, _ := strings.Cut(string(msg), "\n\n")
			signed, err := note.Sign(&note.Note{Text: text + "\n"}, signer)
			must(t, err)
			w.Write(signed[len(text)+2:])
		},
		"a cosignature of something else": func(w http.ResponseWriter, _ *http.Request) {
			signed, err := note.Sign(&note.Note{Text: "something else\n"}, signer)
			must(t, err)
			w.Write(signed)
		},
	} {
		server := httptest.NewServer(answer)
		t.Cleanup(server.Close)
		p := policy(t, key, "witness one.example "+honest.key+" "+server.URL+"\nquorum one.example\n")
		a := newAsker(t, l.Log, p)
		if err := a.Check(t.Context()); err != nil {
			t.Errorf("%s: it keeps the broker from starting: %v", name, err)
		}
		if list, _ := a.Status(); list[0].Size != 0 {
			t.Errorf("%s is taken for a cosignature: %+v", name, list)
		}
	}
	if redirected.Load() {
		t.Error("a witness sent the broker elsewhere")
	}
}

// Where certificates wait for witnesses, they do so after a while, and no longer.
func TestLateOnlyWhenToldTo(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	l := newLedger(t, key)
	l.grow(t, 3)
	w := newPost(t, "one.example", "", key.Verifier)
	var down atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(out, "down", http.StatusServiceUnavailable)
			return
		}
		w.ServeHTTP(out, r)
	}))
	t.Cleanup(front.Close)
	p := policy(t, key, "witness one.example "+w.key+" "+front.URL+"/\nquorum one.example\n")
	now := clock.NewManual(time.Now())
	a := newAsker(t, l.Log, p, func(c *witness.AskerConfig) { c.Clock, c.Require = now, 10*time.Minute })
	audittest.Run(t, a.Run)
	_, err := a.Cosigned(t.Context(), l.size(t))
	must(t, err)
	must(t, a.Late())
	down.Store(true)
	l.grow(t, 1)
	eventually(t, "the head waits", func() bool { _, since := a.Status(); return !since.IsZero() })
	must(t, a.Late())
	now.Advance(witness.LagAlarm)
	eventually(t, "the alarm", func() bool { return len(audittest.Leaves(t, l.Log, now.Now(), "witness.lagging")) == 1 })
	must(t, a.Late())
	now.Advance(6 * time.Minute)
	if err := a.Late(); !errors.Is(err, witness.ErrUnwitnessed) {
		t.Errorf("after eleven minutes: %v", err)
	}
	down.Store(false)
	eventually(t, "they are back", func() bool { now.Advance(time.Minute); return a.Late() == nil })
	eventually(t, "that is told", func() bool { return len(audittest.Leaves(t, l.Log, now.Now(), "witness.caught_up")) >= 1 })
}

func TestNewAskerRefuses(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	l := newLedger(t, key)
	w := newPost(t, "one.example", "", key.Verifier)
	good := witness.AskerConfig{Log: l.Log, Policy: policy(t, key, quorumOf(w)), Clock: clock.System, Logger: quiet}
	for name, change := range map[string]func(*witness.AskerConfig){
		"log":     func(c *witness.AskerConfig) { c.Log = (*audit.Log)(nil) },
		"policy":  func(c *witness.AskerConfig) { c.Policy = nil },
		"clock":   func(c *witness.AskerConfig) { c.Clock = nil },
		"logger":  func(c *witness.AskerConfig) { c.Logger = nil },
		"address": func(c *witness.AskerConfig) { c.Policy = policy(t, key, "witness x "+w.key+"\nquorum x\n") },
		"witness": func(c *witness.AskerConfig) { c.Policy = policy(t, key, "") },
	} {
		cfg := good
		change(&cfg)
		if _, err := witness.NewAsker(cfg); err == nil {
			t.Errorf("without a %s", name)
		}
	}
}
