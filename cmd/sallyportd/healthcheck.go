package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckCommand asks the broker on this machine whether it lives; container
// engines call it. It reads the same settings as serve.
func healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the broker on this machine whether it lives",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := resolve(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			return healthcheck(cmd.Context(), set)
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

func healthcheck(ctx context.Context, set settings) error {
	host, port, err := net.SplitHostPort(set["listen"])
	if err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	// It asks its own machine whether a process lives, and believes the answer as
	// far as that: the certificate's name is the public one and cannot match here.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if set["tls-cert"] != "" {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the broker answered %s", res.Status)
	}
	return nil
}
