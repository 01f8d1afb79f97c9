package home_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/cmd/sally/internal/home"
)

func TestFindFollowsXDG(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  map[string]string
		want home.Home
	}{
		{map[string]string{"HOME": "/h"},
			home.Home{Config: "/h/.config/sally", State: "/h/.local/state/sally", Runtime: "/h/.local/state/sally"}},
		{map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/7"},
			home.Home{Config: "/c/sally", State: "/s/sally", Runtime: "/run/user/7/sally"}},
		{map[string]string{"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"},
			home.Home{Config: "/c/sally", State: "/s/sally", Runtime: "/s/sally"}},
		// Relative paths count as none: they would put secrets wherever one is.
		{map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "./s", "XDG_RUNTIME_DIR": ".."},
			home.Home{Config: "/h/.config/sally", State: "/h/.local/state/sally", Runtime: "/h/.local/state/sally"}},
		{map[string]string{"HOME": "h"}, home.Home{}},
		{nil, home.Home{}},
	} {
		got, err := home.Find(func(name string) string { return tc.env[name] })
		if got != tc.want || (err != nil) != (tc.want == home.Home{}) {
			t.Errorf("%v: %+v, %v", tc.env, got, err)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	h := home.Home{Config: filepath.Join(t.TempDir(), "sally")}
	if s, err := h.Settings(); err != nil || s.URL != "" {
		t.Fatal(s, err)
	}
	if err := h.Save(home.Settings{URL: "https://b.example"}); err != nil {
		t.Fatal(err)
	}
	if s, err := h.Settings(); err != nil || s.URL != "https://b.example" {
		t.Fatal(s, err)
	}
	if err := os.WriteFile(filepath.Join(h.Config, "config.yaml"), []byte("ulr: https://b.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Settings(); err == nil {
		t.Error("an unknown key was taken")
	}
}

func TestSecretsAreForTheirOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "sally")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "secret")
	for _, content := range []string{"one", "two, longer"} {
		if err := home.Write(file, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := home.ReadSecret(file); err != nil || string(got) != content {
			t.Fatalf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v", info.Mode())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := home.ReadSecret(file); err == nil {
			t.Errorf("a secret of mode %v was read", mode)
		}
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sally", "lock")
	unlock, err := home.Lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := home.Lock(ctx, file); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a held lock was given: %v", err)
	}
	unlock()
	unlock, err = home.Lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	// A link in the place of the lock would let somebody else choose the file.
	link := filepath.Join(filepath.Dir(file), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Lock(t.Context(), link); err == nil {
		t.Error("a link was followed")
	}
}
