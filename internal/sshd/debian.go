package sshd

import (
	"fmt"
	"os"
	"path/filepath"

	"sallyport/internal/refusal"
)

// ErrNoDebian says that the files of a release are not there.
var ErrNoDebian = refusal.New(refusal.Unavailable, "debian-not-there",
	"the files of another release of Debian, with its OpenSSH, are not there",
	"get them: scripts/install-deps test")

// Debian is the folder with the files of a release, for [Config.System]: 11 has OpenSSH
// 8.4, and 13 has 10.0. They were put there by scripts/debian-roots.
func Debian(release int) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", ErrNoDebian.Because(err)
	}
	dir := filepath.Join(cache, "sallyport", fmt.Sprintf("debian-%d", release))
	if _, err := os.Stat(filepath.Join(dir, ".made-by")); err != nil { // written last
		return "", ErrNoDebian.Because(err)
	}
	return dir, nil
}
