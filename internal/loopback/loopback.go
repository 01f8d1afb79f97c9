// Package loopback chooses addresses for the servers of the demo and the tests.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are chosen below those that the kernel gives to outgoing connections
// (32768 and up on Linux). One of those is free now and may be somebody's source
// port by the time that a server, killed and started again, wants it back.
const lowest, highest = 12000, 31999

var chosen struct {
	sync.Mutex
	ports map[int]bool
}

// Address is a free TCP address of the host, one that this process has not been
// given before and that stays free when its server is down. Another process may
// still take it first, so whoever can choose again tries a few.
func Address(host string) (string, error) {
	chosen.Lock()
	defer chosen.Unlock()
	if chosen.ports == nil {
		chosen.ports = map[int]bool{}
	}
	var last error
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest+1)
		if chosen.ports[port] {
			continue
		}
		address := net.JoinHostPort(host, strconv.Itoa(port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			last = err
			continue
		}
		chosen.ports[port] = true
		return address, l.Close()
	}
	return "", fmt.Errorf("no port of %s between %d and %d is free: %w", host, lowest, highest, last)
}
