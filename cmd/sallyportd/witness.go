package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport/audit/cosignature"
	"sallyport/audit/witness"
	"sallyport/internal/clock"
)

func witnessCommand() *cobra.Command {
	var o struct{ listen, key, state, logFormat string }
	var logs []string
	cmd := &cobra.Command{
		Use:   "witness --log KEY",
		Short: "Watch somebody's log, and cosign that it is only ever added to",
		Long: `Run a witness (c2sp.org/tlog-witness): it remembers the newest head of each log
that it watches, and cosigns another one only if that continues it. Whoever rewrites
the log, or puts its database back, is found out by it.

Run it where the broker's administrators are not: in another account, or at the
auditor's. It needs no database and keeps one small file. Put TLS in front of it, or
let only the brokers reach it; what it says is signed, and nothing of it is secret.`,
		Example: `  sallyportd witness init --name witness.example.org --key witness.key
  sallyportd witness --key witness.key --state witness.json --log "$(curl -fsS https://sallyport.example.com/log/vkey)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(logs) == 0 {
				return usageError{errors.New("--log is not set: the log's key, as its /log/vkey has it")}
			}
			key, err := readSecret(o.key)
			if err != nil {
				return err
			}
			logger, err := newLogger(o.logFormat)
			if err != nil {
				return usageError{err}
			}
			w, err := witness.New(witness.Config{Key: string(key), Logs: logs, State: o.state, Clock: clock.System, Logger: logger})
			if err != nil {
				return err
			}
			defer w.Close()
			l, err := net.Listen("tcp", o.listen)
			if err != nil {
				return err
			}
			logger.Info("watching", "address", l.Addr().String(), "sizes", w.Sizes())
			return serveWitness(cmd.Context(), l, w)
		},
	}
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:8081", "Address and port to listen on; the call is POST /add-checkpoint")
	cmd.Flags().StringVar(&o.key, "key", "/etc/sallyport/witness.key", "File with the witness's private key, as init makes it")
	cmd.Flags().StringVar(&o.state, "state", "/var/lib/sallyport/witness.json", "File to remember heads in. Whoever puts back an older one undoes the witness")
	cmd.Flags().StringArrayVar(&logs, "log", nil, "Key of a log to watch, in note format. May be given several times. Required")
	cmd.Flags().StringVar(&o.logFormat, "log-format", "text", "Format of the process's own log on standard error: text or json")
	cmd.AddCommand(witnessInitCommand())
	return cmd
}

func serveWitness(ctx context.Context, l net.Listener, w *witness.Witness) error {
	front := &http.Server{Handler: w, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10}
	stopped := context.AfterFunc(ctx, func() {
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		front.Shutdown(finish)
	})
	defer stopped()
	if err := front.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func witnessInitCommand() *cobra.Command {
	var name, file string
	cmd := &cobra.Command{
		Use:     "init --name NAME",
		Short:   "Make a witness's key, and print the public half with the line for the brokers",
		Example: "  sallyportd witness init --name witness.example.org --key witness.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usageError{errors.New("--name is not set")}
			}
			private, public, err := cosignature.NewKey(name)
			if err != nil {
				return usageError{err}
			}
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(f, private)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "# for serve --witnesses, and for auditors' sally audit verify --policy\nwitness %s %s https://%s\nquorum %s\n", name, public, name, name)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "The witness's name: a domain of yours. Required")
	cmd.Flags().StringVar(&file, "key", "/etc/sallyport/witness.key", "File to make; one that is there is left alone")
	return cmd
}
