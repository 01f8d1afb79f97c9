package broker

import (
	"context"
	"log/slog"

	"sallyport/internal/refusal"
)

// Refusals of certificates. Those of keys and proofs are package certs', those
// of grants package approvals'.
var (
	ErrNotIssued = refusal.New(refusal.Unavailable, "not-issued",
		"the broker cannot issue certificates now; none was issued",
		"try again in a moment; if it lasts, an operator finds the cause in the broker's own log")
	ErrTooMany = refusal.New(refusal.TooMany, "too-many-certificates",
		"this grant has been issued as many certificates as it may have",
		"keep using the certificate that you have until it ends, or make a new request")
	ErrUsed = refusal.New(refusal.Conflict, "grant-used",
		"the grant is for single use, and has been used",
		"keep using the certificate that you have until it ends, or make a new request")
	ErrWhichHost = refusal.New(refusal.Invalid, "which-host",
		"the grant is for several hosts, and a certificate is for one", "say for which").On("host")
	ErrOtherHost = refusal.New(refusal.Denied, "other-host",
		"the grant is not for this host", "ask for the host that you need").On("host")
	ErrHostGone = refusal.New(refusal.Conflict, "host-gone",
		"the host has been removed since you asked for it",
		"list what you may ask for: sally hosts")
	ErrLoginGone = refusal.New(refusal.Conflict, "login-gone",
		"the host no longer has this login",
		"list what you may ask for: sally hosts")
	ErrNoHostKey = refusal.New(refusal.Conflict, "no-host-key",
		"the registry does not have the host's key",
		"add the line of the host's /etc/ssh/ssh_host_ed25519_key.pub to its description").On("host_key")
)

// failed is the refusal to answer with: the error itself if it is one, else
// ErrNotIssued. What is no fault of the caller goes to the process's log.
func (b *Broker) failed(ctx context.Context, err error, about slog.Attr) *refusal.Error {
	r := refusal.As(err)
	if r == nil {
		r = ErrNotIssued.Because(err)
	}
	if r.Kind == refusal.Unavailable {
		b.cfg.Logger.ErrorContext(ctx, "no certificate was issued", about, slog.Any("error", err))
	}
	return r
}
