package demo

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// The hosts' loopback addresses; broker and Dex are on localhost.
const (
	web1IP = "127.0.0.2"
	db1IP  = "127.0.0.3"
)

// shopIPs are those of the hosts that are deployed to.
var shopIPs = [3]string{"127.0.0.4", "127.0.0.5", "127.0.0.6"}

// ports is where everything listens.
type ports struct {
	broker, dex, web1, db1 int
	shop                   [3]int
	notes                  []string // about those that are not the usual ones
	claims                 []net.Listener
}

// choosePorts takes the usual ports, or free ones where others have those.
func choosePorts() (*ports, error) {
	p := new(ports)
	type want struct {
		port  *int
		what  string
		ip    string
		usual int
	}
	all := []want{
		{&p.broker, "the broker", "127.0.0.1", 8080},
		{&p.dex, "the OpenID provider", "127.0.0.1", 5556},
		{&p.web1, "web-1", web1IP, 2222},
		{&p.db1, "db-1", db1IP, 2222},
	}
	for i := range p.shop {
		all = append(all, want{&p.shop[i], fmt.Sprintf("shop-%d", i+1), shopIPs[i], 2222})
	}
	for _, want := range all {
		if free(want.ip, want.usual) && p.claim(want.ip, want.usual) {
			*want.port = want.usual
			continue
		}
		l, err := net.Listen("tcp", want.ip+":0")
		if err != nil {
			p.release()
			return nil, fmt.Errorf("looking for a free port for %s: %w", want.what, err)
		}
		*want.port = l.Addr().(*net.TCPAddr).Port
		p.claim(want.ip, *want.port)
		l.Close()
		p.notes = append(p.notes, fmt.Sprintf("Port %d of %s is taken: %s gets %d.", want.usual, want.ip, want.what, *want.port))
	}
	return p, nil
}

// free reports whether the port can be listened on. A browser that looks for
// localhost may try ::1 first, so 127.0.0.1 is free only if that is, too.
func free(ip string, port int) bool {
	ips := []string{ip}
	if ip == "127.0.0.1" {
		ips = append(ips, "::1")
	}
	for _, ip := range ips {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			continue // this machine has no IPv6
		}
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// claim keeps the port for this demo among all demos of this machine: between
// choosing a port and listening on it, there is time for another to choose it,
// too. The kernel releases a claim, which is an abstract socket, with the process.
func (p *ports) claim(ip string, port int) bool {
	l, err := net.Listen("unix", fmt.Sprintf("@sallyport-demo/%s:%d", ip, port))
	if err != nil {
		return false
	}
	p.claims = append(p.claims, l)
	return true
}

func (p *ports) release() {
	for _, l := range p.claims {
		l.Close()
	}
}
