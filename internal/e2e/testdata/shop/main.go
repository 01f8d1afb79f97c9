// Command shop is what the tests deploy: a server of HTTP that says which version it is,
// and whether it is well. When it is told to end, somebody starts what is there by then.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// What the linker says of this version.
var version, health = "", "200"

func main() {
	status, err := strconv.Atoi(health)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, version) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(0)
	}()
	// Who deploys finds by this which process serves now.
	if err := os.WriteFile("pid.new", []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename("pid.new", "pid"); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, nil))
}
