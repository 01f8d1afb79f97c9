package session

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// connection is SSH_CONNECTION of what sshd's process starts: both ends of its TCP
// connection, the peer first. Empty if that cannot be told.
func connection(p place.Place, pid int, peer string) string {
	dir := p.Join(fmt.Sprintf("proc/%d", pid))
	var sockets []string
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			sockets = append(sockets, strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]"))
		}
	}
	want, _ := netip.ParseAddr(peer)
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(dir + "/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line) // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			if len(f) < 10 || f[3] != "01" || !slices.Contains(sockets, f[9]) {
				continue
			}
			local, err := Endpoint(f[1])
			remote, rerr := Endpoint(f[2])
			if err != nil || rerr != nil || want.IsValid() && remote.Addr() != want.Unmap() {
				continue
			}
			return fmt.Sprintf("%s %d %s %d", remote.Addr(), remote.Port(), local.Addr(), local.Port())
		}
	}
	return ""
}

// Endpoint reads an address and port as the kernel's tables have them: in hexadecimal,
// the address in words of the machine's own order (proc(5), /proc/net/tcp).
func Endpoint(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	for word := range slices.Chunk(raw, 4) {
		if littleEndian {
			slices.Reverse(word)
		}
	}
	ip, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
