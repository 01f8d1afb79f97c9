package jobkey_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/cmd/sally/internal/deploy/jobkey"
	"sallyport/internal/clock"
)

func newKey(t *testing.T) *jobkey.Key {
	t.Helper()
	k, err := jobkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysAreKeptUntilForgotten(t *testing.T) {
	t.Parallel()
	c := clock.NewManual(time.Now())
	f := jobkey.Folder{Dir: filepath.Join(t.TempDir(), "deploy"), Clock: c}
	if _, _, err := f.Find(""); !errors.Is(err, jobkey.ErrNoKey) {
		t.Fatal(err)
	}
	k := newKey(t)
	kept := jobkey.Kept{Broker: "https://broker", Deployment: "dep-1", Epoch: 1<<63 + 1, TokenHash: "hash", Opened: c.Now()}
	if err := f.Keep(k, kept); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "dep-1"} {
		found, got, err := f.Find(id)
		if err != nil || found.Public() != k.Public() || got != kept {
			t.Fatalf("%+v %v", got, err)
		}
	}
	if again, err := f.Taken("https://broker", "hash"); err != nil || again.Public() != k.Public() {
		t.Error(err)
	}
	if again, err := f.Taken("https://another", "hash"); err != nil || again != nil {
		t.Error("a key of another broker's", err)
	}
	if info, err := os.Stat(f.Identity("dep-1")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	// Which one is not guessed.
	kept.Deployment = "dep-2"
	if err := f.Keep(newKey(t), kept); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Find(""); err == nil {
		t.Error("one of two was taken")
	}
	if err := f.Forget("dep-2"); err != nil {
		t.Fatal(err)
	}
	// What a job left goes when it can open nothing any more.
	if err := f.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Find("dep-1"); err != nil {
		t.Error(err)
	}
	c.Advance(7 * time.Hour)
	if err := f.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Find("dep-1"); !errors.Is(err, jobkey.ErrNoKey) {
		t.Error(err)
	}
}

func TestExposedKeysAreNotUsed(t *testing.T) {
	t.Parallel()
	f := jobkey.Folder{Dir: t.TempDir(), Clock: clock.System}
	if err := f.Keep(newKey(t), jobkey.Kept{Deployment: "dep-1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Identity("dep-1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Find("dep-1"); err == nil {
		t.Error("it was used")
	}
}

func TestIDsAreNoPaths(t *testing.T) {
	t.Parallel()
	f := jobkey.Folder{Dir: t.TempDir(), Clock: clock.System}
	for _, id := range []string{"..", "dep-1/..", "", "dep-", "dep-../x", "req-1"} {
		if err := f.Keep(newKey(t), jobkey.Kept{Deployment: id}); err == nil {
			t.Errorf("%q was kept", id)
		}
		if err := f.Forget(id); err == nil {
			t.Errorf("%q was forgotten", id)
		}
	}
}
