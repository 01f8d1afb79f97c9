package evidence

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
)

// hold keeps packs from being made, in the middle of it, until release is called:
// nobody can read policies.
func (r *room) hold() (release func()) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.db.AdminURL)
	r.must(err)
	_, err = conn.Exec(r.t.Context(), "BEGIN; LOCK TABLE policy_versions IN ACCESS EXCLUSIVE MODE")
	r.must(err)
	return func() { conn.Close(context.WithoutCancel(r.t.Context())) }
}

// during has a replica make a pack, in the middle of which something happens.
func (r *room) during(s *Service, id string, happens func()) error {
	r.t.Helper()
	release := r.hold()
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(r.t.Context())
	defer stop()
	go func() { _, err := s.next(ctx); done <- err }()
	for deadline := time.Now().Add(30 * time.Second); r.state(id).Total == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("it is not begun")
		}
	}
	happens()
	release()
	return <-done
}

// A replica that dies while it makes a pack says so by its silence. Another makes
// the same pack, between the same heads.
func TestAPackIsMadeThoughItsMakerDied(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	// What a kill -9 leaves behind: a pack that runs, half of a file, and a folder.
	dead := r.replica()
	row, err := dead.claim(t.Context())
	r.must(err)
	_, err = dead.begin(t.Context(), row)
	r.must(err)
	half := dead.path(p.ID) + partial
	r.must(os.WriteFile(half, []byte("PK"), 0o600))
	r.grow(20)

	other := r.replica()
	if r.turn(other) {
		t.Fatal("another replica takes it while its maker may be alive")
	}
	r.clock.Advance(stale + time.Second)
	if !r.turn(other) {
		t.Fatal("nobody goes on")
	}
	got := r.state(p.ID)
	if got.State != api.PackReady || got.Exceptions != 0 {
		t.Fatalf("it is %+v", got)
	}
	if v := r.download(other, p.ID); v.Manifest.Log.End != got.Total {
		t.Errorf("it ends at %d, not at %d", v.Manifest.Log.End, got.Total)
	}
	// The dead one's process starts again, and clears up.
	dead.clean(t.Context())
	if _, err := os.Stat(half); err == nil {
		t.Error("half of a file is still there")
	}
	if n := r.events("pack.made"); n != 1 {
		t.Errorf("%d events say that it was made", n)
	}
}

// A replica that stood still and comes back learns that the pack is another's.
func TestAReplicaThatStoodStillDoesNotFinish(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	err := r.during(r.Service, p.ID, func() {
		r.clock.Advance(stale + time.Second)
		if _, err := r.replica().claim(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if got := r.state(p.ID); got.State != api.PackRunning || r.events("pack.made")+r.events("pack.failed") != 0 {
		t.Errorf("it is %s (%v)", got.State, err)
	}
}

// A replica that is told to stop gives its pack back, so that another need not wait.
func TestAReplicaThatStopsGivesItsPackBack(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	release := r.hold()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for deadline := time.Now().Add(30 * time.Second); r.state(p.ID).Total == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not begun")
		}
	}
	stop()
	r.must(<-done)
	release()
	if got := r.state(p.ID); got.State != api.PackWaiting {
		t.Fatalf("it is %s", got.State)
	}
	other := r.replica()
	if !r.turn(other) || r.state(p.ID).State != api.PackReady {
		t.Errorf("it is %s", r.state(p.ID).State)
	}
}

// However many replicas there are, one pack is made at a time.
func TestOnePackAtATime(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	first, second := r.ask(), r.ask()
	err := r.during(r.Service, first.ID, func() {
		if r.turn(r.replica()) || r.state(second.ID).State != api.PackWaiting {
			t.Error("two are made at once")
		}
	})
	r.must(err)
	if !r.turn(r.Service) || r.state(first.ID).State != api.PackReady || r.state(second.ID).State != api.PackReady {
		t.Error("they are not made one after the other")
	}
}

// A pack that takes down whoever makes it is given up.
func TestAPackThatKillsItsMakersIsGivenUp(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	for range maxAttempts {
		if _, err := r.replica().claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(stale + time.Second)
	}
	r.turn(r.Service)
	if got := r.state(p.ID); got.State != api.PackFailed || got.Problem == "" || r.events("pack.failed") != 1 {
		t.Errorf("it is %+v", got)
	}
}

// A failure of the folder is tried again, then said, with nothing left behind.
func TestAFullDiskIsSaid(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	r.must(os.RemoveAll(r.cfg.Dir))
	for range maxAttempts {
		if _, err := r.next(t.Context()); err == nil {
			t.Fatal("it is made in no folder")
		}
	}
	if got := r.state(p.ID); got.State != api.PackFailed || !strings.Contains(got.Problem, "broker's log") {
		t.Errorf("it is %+v", got)
	}
	if _, err := r.Download(t.Context(), r.auditor, "test", p.ID); !errors.Is(err, ErrGone) {
		t.Errorf("a download says %v", err)
	}
}

func TestPacksExpire(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	r.turn(r.Service)
	if _, err := os.Stat(r.path(p.ID)); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(Kept)
	if _, err := r.Download(t.Context(), r.auditor, "test", p.ID); !errors.Is(err, ErrGone) {
		t.Errorf("a download says %v", err)
	}
	r.clock.Advance(time.Second)
	r.clean(t.Context())
	if got := r.state(p.ID); got.State != api.PackExpired {
		t.Errorf("it is %s", got.State)
	}
	if _, err := os.Stat(r.path(p.ID)); err == nil {
		t.Error("the file is still there")
	}
}

// The oldest packs go when there are too many bytes of them; another replica's, or a
// download, makes them again.
func TestPacksHaveRoom(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	r.turn(r.Service)
	old := time.Now().Add(-time.Hour)
	r.must(os.Chtimes(r.path(p.ID), old, old))
	for _, name := range []string{"pack-00000000000a", "pack-00000000000b"} { // sparse
		r.must(os.WriteFile(filepath.Join(r.cfg.Dir, name+extension), nil, 0o600))
		r.must(os.Truncate(filepath.Join(r.cfg.Dir, name+extension), MaxKept/4+1))
	}
	r.makeRoom()
	if _, err := os.Stat(r.path(p.ID)); err == nil {
		t.Error("the oldest is still there")
	}
	left, err := os.ReadDir(r.cfg.Dir)
	r.must(err)
	if len(left) != 1 {
		t.Errorf("%d files are left", len(left))
	}
	r.download(r.Service, p.ID)
}

// Making packs again for downloads is bounded, for each replica.
func TestDownloadsThatMakePacksAgainAreFew(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	p := r.ask()
	r.turn(r.Service)
	other := r.replica()
	var open []*Content
	for range maxAgain {
		c, err := other.Download(t.Context(), r.auditor, "test", p.ID)
		r.must(err)
		open = append(open, c)
	}
	if _, err := other.Download(t.Context(), r.auditor, "test", p.ID); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	for _, c := range open {
		r.must(c.Close())
	}
	r.download(other, p.ID)
}

func TestPacksWaitInLine(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	for range MaxWaiting {
		r.ask()
	}
	_, err := r.Make(t.Context(), r.auditor, "test", api.PackInput{From: "2026-01-01", To: "2026-02-01"})
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
}

// A folder that nobody named goes with the process.
func TestATemporaryFolderGoes(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	s, err := New(Config{Pool: r.db.Pool, Log: r.log, Approvals: r.below, Clock: r.clock, Version: "test"})
	r.must(err)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	r.must(s.Run(ctx))
	if _, err := os.Stat(s.cfg.Dir); err == nil {
		t.Errorf("%s is still there", s.cfg.Dir)
	}
}
