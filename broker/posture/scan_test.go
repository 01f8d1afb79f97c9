package posture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/broker/posture"
)

// inside, if set, says that this process is in a network of its own, to be the test's
// other half.
const inside = "SALLYPORT_POSTURE_NETWORK"

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(m.Run())
	}
	seen, err := lookInside()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(seen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// looked is what came of looking at two machines.
type looked struct {
	Host, Stranger posture.Probe
	Tried          int32 // connections to the stranger's other port
}

// In a network where nothing else listens: of the host's open ports those are found that
// nobody allowed, and no others; and who is not the host is not scanned.
func TestOpenPortsAreFoundOnTheHostAlone(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-ec",
		`ip link set lo up; ip address add 192.0.2.7/32 dev lo; ip address add 192.0.2.8/32 dev lo; exec "$0"`, exe)
	cmd.Env, cmd.Stderr = append(os.Environ(), inside+"=1"), os.Stderr
	out, err := cmd.Output()
	must(t, err)
	var seen looked
	must(t, json.Unmarshal(out, &seen))
	want := []string{"tcp/2375 is open, and nothing allows it", "tcp/6379 is open, and nothing allows it"}
	if seen.Host.Result != hostapi.Fail || !slices.Equal(seen.Host.Findings, want) {
		t.Errorf("the host: %+v, want %q", seen.Host, want)
	}
	if seen.Stranger.Result != hostapi.Unknown || len(seen.Stranger.Findings) != 1 || seen.Tried != 0 {
		t.Errorf("a stranger at the host's address: %+v, after %d connections", seen.Stranger, seen.Tried)
	}
}

func lookInside() (seen looked, err error) {
	var keys [3]ssh.Signer
	for i := range keys {
		if keys[i], err = signer(); err != nil {
			return seen, err
		}
	}
	host, stranger, ca := keys[0], keys[1], keys[2]
	for address, key := range map[string]ssh.Signer{"192.0.2.7:2222": host, "192.0.2.8:2222": stranger} {
		if err := serveSSH(address, key); err != nil {
			return seen, err
		}
	}
	var tried atomic.Int32
	for _, address := range []string{"192.0.2.7:6379", "192.0.2.7:2375", "192.0.2.7:5432", "192.0.2.7:4711", "127.0.0.1:8080", "192.0.2.8:6379"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return seen, err
		}
		go accept(l, func(conn net.Conn) {
			if address == "192.0.2.8:6379" {
				tried.Add(1)
			}
			conn.Close()
		})
	}
	allowed := []hostapi.Listener{{Network: "tcp", Port: 5432}, {Network: "udp", Port: 6379}}
	look := func(address string) posture.Probe {
		d := posture.Door{HostID: "host-1", Address: address, HostKey: certs.Line(host.PublicKey()), Proposed: true}
		return posture.Look(context.Background(), d, "root", ca.PublicKey(), allowed, time.Now)
	}
	seen.Host, seen.Stranger = look("192.0.2.7:2222"), look("192.0.2.8:2222")
	seen.Tried = tried.Load()
	return seen, nil
}

// serveSSH is an sshd that lets nobody in.
func serveSSH(address string, key ssh.Signer) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, errors.New("no") }}
	config.AddHostKey(key)
	go accept(l, func(conn net.Conn) {
		defer conn.Close()
		_, _, _, _ = ssh.NewServerConn(conn, config)
	})
	return nil
}

func accept(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go serve(conn)
	}
}
