package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/keys"
	"sallyport/internal/clock"
)

// aged URL KEYS-DIR STATE-DIR NUMBER begins a log with so many events of a year ago and
// one of now, and keeps its checkpoint as a broker does.
func aged(ts *testscript.TestScript, _ bool, args []string) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	signer, verifier, err := keys.LoadLog(ts.MkAbs(args[1]))
	ts.Check(err)
	pool, err := pgxpool.New(ctx, args[0])
	ts.Check(err)
	defer pool.Close()
	log, err := audit.Open(ctx, audit.Config{Pool: pool, Signer: signer, VerifierKey: verifier, Clock: clock.System,
		StateFile: ts.MkAbs(args[2]) + "/checkpoint"})
	ts.Check(err)
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	began := time.Now().AddDate(-1, 0, 0).Truncate(time.Second)
	var events []event.Event
	for i := range n {
		events = append(events, event.New(began.Add(time.Duration(i)*time.Second), event.Actor{Kind: event.Broker}, "",
			event.Subject{RequestID: fmt.Sprintf("req-%d", i)}, event.RequestClosed{State: "expired"}))
	}
	events = append(events, event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: "req-now"}, event.RequestClosed{State: "expired"}))
	for chunk := range slices.Chunk(events, 256) {
		_, err = log.Record(ctx, chunk...)
		ts.Check(err)
	}
	stop()
	<-done
}
