package loopback

import (
	"net"
	"sync"
	"testing"
)

func TestAddressesAreFreeAndDifferent(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]bool{}
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			address, err := Address("127.0.0.1")
			if err != nil {
				t.Error(err)
				return
			}
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Errorf("the address is not free: %v", err)
				return
			}
			defer l.Close()
			if port := l.Addr().(*net.TCPAddr).Port; port < lowest || port > highest {
				t.Errorf("port %d is one that the kernel gives away", port)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[address] {
				t.Errorf("%s was chosen twice", address)
			}
			seen[address] = true
		})
	}
	all.Wait()
}

func TestNoSuchHost(t *testing.T) {
	t.Parallel()
	if address, err := Address("203.0.113.1"); err == nil {
		t.Errorf("%s is not ours", address)
	}
}
