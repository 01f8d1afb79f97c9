package broker

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
	"sallyport/internal/refusal"
)

// HostCertificateLifetime is how long a host's certificate is valid: long enough
// to be renewed by hand where nothing renews it, short enough for a host that was lost.
const HostCertificateLifetime = 30 * 24 * time.Hour

// ErrHostState refuses a state that no host is ever shown as.
var ErrHostState = refusal.New(refusal.Invalid, "host-state", "hosts are in no such state",
	"use drifted, silent, unknown, quarantined, open or sealed; hosts that wait to be let in are a list of their own").On("state")

// HostFilter narrows ListHosts. Zero fields do not filter.
type HostFilter struct {
	hosts.Filter
	States []api.HostState // only hosts that are shown as one of these
}

// ListHosts lists hosts with their state and, for the caller, the rules that
// would apply. Operators and auditors see every host; others those that some
// rule lets them ask for.
func (b *Broker) ListHosts(ctx context.Context, c identity.Caller, f HostFilter) (api.Page[api.Host], error) {
	for _, state := range f.States {
		if state == api.HostPending || !slices.Contains(api.HostStates, state) {
			return api.Page[api.Host]{}, ErrHostState
		}
	}
	page, err := b.cfg.Hosts.List(ctx, f.Filter, func(list []api.Host) ([]api.Host, error) {
		seen := list[:0]
		for _, h := range list {
			if h, visible := b.forCaller(c, h); visible {
				seen = append(seen, h)
			}
		}
		if len(f.States) == 0 {
			return seen, nil
		}
		if err := b.addState(ctx, c, seen); err != nil {
			return nil, err
		}
		return slices.DeleteFunc(seen, func(h api.Host) bool { return !slices.Contains(f.States, h.State) }), nil
	})
	if err != nil || len(f.States) > 0 {
		return page, err
	}
	return page, b.addState(ctx, c, page.Items)
}

// Host is one host, under the same rules as ListHosts: to those who may not see
// it, it does not exist.
func (b *Broker) Host(ctx context.Context, c identity.Caller, nameOrID string) (api.Host, error) {
	h, err := b.cfg.Hosts.Get(ctx, nameOrID)
	if err != nil {
		return api.Host{}, err
	}
	h, visible := b.forCaller(c, h)
	if !visible {
		return api.Host{}, approvals.ErrUnknownHost
	}
	list := []api.Host{h}
	err = b.addState(ctx, c, list)
	return list[0], err
}

// Shown are hosts as Host shows them to an operator.
func (b *Broker) Shown(ctx context.Context, c identity.Caller, list []api.Host) ([]api.Host, error) {
	out := make([]api.Host, len(list))
	for i, h := range list {
		out[i], _ = b.forCaller(c, h)
	}
	return out, b.addState(ctx, c, out)
}

// forCaller adds the rules, and leaves out what the caller may not see (P10).
func (b *Broker) forCaller(c identity.Caller, h api.Host) (api.Host, bool) {
	h.Rules = b.cfg.Approvals.Rules(c, approvals.Target{ID: h.ID, Name: h.Name, Labels: h.Labels, Logins: h.Logins})
	if c.Has(api.Operator) || c.Has(api.Auditor) {
		return h, true
	}
	h.Logins = nil
	for _, rule := range h.Rules {
		h.Logins = append(h.Logins, rule.Login)
	}
	return h, len(h.Rules) > 0
}

// addState says of each host how it is; why, and how many sessions it has, is for
// operators and auditors.
func (b *Broker) addState(ctx context.Context, c identity.Caller, list []api.Host) error {
	ids := make([]string, len(list))
	for i, h := range list {
		ids[i] = h.ID
	}
	known, err := b.Facts(ctx, ids)
	if err != nil {
		return err
	}
	all := c.Has(api.Operator) || c.Has(api.Auditor)
	for i := range list {
		f, h := known[list[i].ID], &list[i]
		var why []string
		h.State, why = f.State(b.cfg.Clock.Now())
		h.Helper = f.Enrolled
		if all {
			h.StateWhy, h.Sessions = why, f.Live
		}
	}
	return nil
}

// States is how many of the live hosts are in each state. However many there are, it
// puts two questions to the database.
func (b *Broker) States(ctx context.Context) (map[api.HostState]int, error) {
	known, err := b.Facts(ctx, nil)
	if err != nil {
		return nil, err
	}
	now := b.cfg.Clock.Now()
	count := map[api.HostState]int{}
	for _, f := range known {
		state, _ := f.State(now)
		count[state]++
	}
	return count, nil
}

// Facts are what the states of the hosts are made of; nil means all live hosts.
func (b *Broker) Facts(ctx context.Context, hostIDs []string) (map[string]posture.Facts, error) {
	known, err := b.postures.Facts(ctx, hostIDs)
	if err != nil {
		return nil, err
	}
	open, err := b.cfg.Approvals.OpenHosts(ctx, hostIDs)
	if err != nil {
		return nil, err
	}
	for id, f := range known {
		f.Granted = open[id]
		known[id] = f
	}
	return known, nil
}

// IssueHost gives a host a certificate for the key in the registry: for its id, its
// name and its address, unless that is the host's own word. Operators only. As with
// people's certificates, the event has its place in the log before the CA signs (P1).
func (b *Broker) IssueHost(ctx context.Context, c identity.Caller, nameOrID string) (api.HostCertificate, error) {
	if err := b.cfg.Hosts.OnlyOperators(ctx, c, "hosts.certificate", ""); err != nil {
		return api.HostCertificate{}, err
	}
	return b.CertifyHost(ctx, hosts.Operator(c), nameOrID)
}

// CertifyHost is IssueHost for a caller who is known to be allowed: an operator, or an
// enrolled host itself.
func (b *Broker) CertifyHost(ctx context.Context, by hosts.By, nameOrID string) (api.HostCertificate, error) {
	cert, err := b.issueHost(ctx, by, nameOrID)
	if err != nil {
		return api.HostCertificate{}, b.failed(ctx, err, slog.String("host", nameOrID))
	}
	return cert, nil
}

func (b *Broker) issueHost(ctx context.Context, by hosts.By, nameOrID string) (api.HostCertificate, error) {
	var (
		none     api.HostCertificate
		template certs.Host
		pre      *certs.PreCertificate
		e        event.Event
	)
	if err := b.held(); err != nil {
		return none, err
	}
	err := pgx.BeginFunc(ctx, b.cfg.Pool, func(tx pgx.Tx) (err error) {
		template, pre, e, err = b.intendHost(ctx, tx, by, nameOrID)
		return err
	})
	if err != nil {
		return none, err
	}
	entries, err := b.cfg.Log.Wait(ctx, e.ID)
	if err != nil {
		b.result(e, nil, event.NoPlace)
		return none, err
	}
	line, err := b.sign(ctx, e, pre, b.cfg.HostCA, entries[0], func(c *ssh.Certificate) error {
		return template.CheckContent(c, b.cfg.Clock.Now())
	})
	if err != nil {
		return none, err
	}
	return api.HostCertificate{Certificate: line, Serial: template.Serial, ValidBefore: pre.ValidBefore()}, nil
}

// intendHost decides on a host certificate and stages its event.
func (b *Broker) intendHost(ctx context.Context, tx pgx.Tx, by hosts.By, nameOrID string) (t certs.Host, pre *certs.PreCertificate, e event.Event, err error) {
	h, err := b.cfg.Hosts.Hold(ctx, tx, nameOrID)
	if err != nil {
		return t, nil, e, err
	}
	if t, err = b.hostTemplate(h); err != nil {
		return t, nil, e, err
	}
	var proposed bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM enrolled_hosts WHERE host_id = $1 AND proposed = $2)`, h.ID, h.Address).Scan(&proposed); err != nil {
		return t, nil, e, fmt.Errorf("looking for whose word an address is: %w", err)
	}
	if proposed { // a host could propose another's, and then be taken for that
		t.Names = t.Names[:1]
	}
	if err := tx.QueryRow(ctx, `SELECT nextval('host_certificate_serial')`).Scan(&t.Serial); err != nil {
		return t, nil, e, fmt.Errorf("allocating a serial: %w", err)
	}
	if pre, err = t.Pre(b.cfg.HostCA.PublicKey(), rand.Reader); err != nil {
		return t, nil, e, err
	}
	e = by.Event(t.Now, event.Subject{HostID: h.ID}, event.HostCertificateIssued{
		Serial: t.Serial, Host: h.Name, Principals: pre.Principals(), Key: ssh.FingerprintSHA256(t.Key),
		PreCertificate: pre.Bytes(), CA: fingerprint(b.cfg.HostCA),
		ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(),
	})
	return t, pre, e, b.cfg.Log.Stage(ctx, tx, e)
}

func (b *Broker) hostTemplate(h api.Host) (certs.Host, error) {
	if h.HostKey == "" {
		return certs.Host{}, ErrNoHostKey
	}
	key, err := certs.ParseKey(h.HostKey)
	if err != nil {
		return certs.Host{}, err
	}
	address, _, err := splitAddress(h.Address)
	if err != nil {
		return certs.Host{}, err
	}
	return certs.Host{
		Key: key, HostID: h.ID, Names: slices.Compact([]string{h.Name, address}),
		Now: b.cfg.Clock.Now(), Lifetime: HostCertificateLifetime,
	}, nil
}
