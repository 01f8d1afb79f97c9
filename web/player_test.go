package web

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The parts of the player that others wrote are those that scripts/vendor-player made of
// the pinned packages, and nobody changed them since.
func TestThePlayersPartsAreThePinnedOnes(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("../tools/player/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) == 2 {
			want[f[1]] = f[0]
		}
	}
	for _, name := range []string{"age.js", "xterm.js", "licences.txt"} {
		sum := sha256.Sum256(assets["player/"+name].body)
		if got := hex.EncodeToString(sum[:]); got != want[name] {
			t.Errorf("%s has the hash %s, and the list says %q", name, got, want[name])
		}
		if !strings.HasPrefix(assets["player/"+name].url, "/static/player/") {
			t.Errorf("%s is served at %s", name, assets["player/"+name].url)
		}
	}
	if len(want) != 3 {
		t.Errorf("the list has %d files", len(want))
	}
	lock, err := os.ReadFile("../tools/player/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(lock); strings.Contains(text, `"resolved"`) || strings.Count(text, `"integrity"`) < 7 {
		t.Error("the packages are not pinned by their hashes alone")
	}
}
