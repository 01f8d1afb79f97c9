// Sally is Sallyport's command for people, pipelines and auditors: sign in, ask
// for a login on a host, decide on what others ask for, and log in.
//
//	sally login --url https://sallyport.example.com
//	sally ssh dba@db-1
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 4 still waiting (with
// --no-wait). `sally ssh` exits with ssh's own code once ssh runs.
package main

import (
	"os"

	"sallyport/cmd/sally/internal/cli"
)

func main() { os.Exit(run(os.Args[1:]...)) }

// run is the whole command on the process's own terminal, so that tests can
// have it as a program.
func run(args ...string) int { return cli.Run(cli.Process(), args) }
