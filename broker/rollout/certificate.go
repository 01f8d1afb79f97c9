package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/rollout/machine"
	"sallyport/internal/refusal"
	"sallyport/internal/remember"
)

// MaxCertificates is how many certificates a run is issued for one host of one batch.
const MaxCertificates = 20

// Certificate gives the run a certificate for its own key and one host of the open batch.
// The rules, all of them checked in the transaction that writes it down:
//
//  1. the run has the lease, in the epoch that it names, and the batch was opened in it;
//  2. the batch is open, the host is in it and has not been reported yet;
//  3. nothing holds the deployment, and no freeze does, of its terms or of the policy in
//     force, whose entry still names the agent;
//  4. the start was approved, and so was going on in a freeze, as is recomputed from the
//     evidence; and the log has the deployment with these terms and the opening of this batch;
//  5. the certificate has the forced command, addresses and uses of the terms, and ends
//     with its lifetime, the batch, the lease, the run, or before a freeze begins.
func (s *Service) Certificate(ctx context.Context, run Run, id string, in api.AgentCertificateInput) (api.AgentCertificate, error) {
	cert, err := s.certificate(ctx, run, id, in)
	if err != nil {
		refused := event.DeploymentRefused{DeploymentID: id, Action: "certificate", Batch: in.Batch, Host: in.Host}
		if errors.Is(err, ErrUnknown) {
			refused.DeploymentID = ""
		}
		if r := refusal.As(err); r == nil || r.Kind == refusal.Unavailable {
			s.cfg.Logger.ErrorContext(ctx, "an agent was issued no certificate", "deployment", id, "error", err)
			if r == nil {
				err = broker.ErrNotIssued.Because(err)
			}
		}
		return api.AgentCertificate{}, s.Refused(ctx, run, refused, err)
	}
	return cert, nil
}

func (s *Service) certificate(ctx context.Context, run Run, id string, in api.AgentCertificateInput) (api.AgentCertificate, error) {
	var none api.AgentCertificate
	seen, err := load(ctx, s.cfg.Pool, id, "")
	if err != nil {
		return none, err
	}
	entry, err := s.own(ctx, run, seen)
	if err != nil {
		return none, err
	}
	// Asked without a lock first, so that what is refused in any case costs the log nothing.
	now, err := s.now(ctx, s.cfg.Pool)
	if err != nil {
		return none, err
	}
	if _, err := machine.MayMint(seen.terms, seen.state, machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, in.Batch, seen.hostID(in.Host), now); err != nil {
		return none, err
	}
	if err := s.checkLogged(ctx, seen, in.Batch); err != nil {
		return none, err
	}
	var host api.Host
	cert, err := s.cfg.Certificates.IssueAgent(ctx, run.Key, func(ctx context.Context, tx pgx.Tx) (broker.AgentIntent, error) {
		// Shared: certificates of one batch do not wait for each other, and nobody closes
		// the batch until they are written.
		d, err := load(ctx, tx, id, "FOR SHARE")
		if err != nil {
			return broker.AgentIntent{}, err
		}
		if d.termsHash != seen.termsHash {
			return broker.AgentIntent{}, ErrEvidence
		}
		c, err := s.changing(ctx, tx, d, by{run.Actor(), run.Source})
		if err != nil {
			return broker.AgentIntent{}, err
		}
		intent, err := c.mint(ctx, run, entry, in)
		host = intent.Host
		return intent, err
	})
	if err != nil {
		return none, err
	}
	return api.AgentCertificate{Certificate: cert, SSHConfig: sshConfig(host, cert.Connect)}, nil
}

// mint decides on a certificate.
func (c *change) mint(ctx context.Context, run Run, entry *policy.Deployment, in api.AgentCertificateInput) (broker.AgentIntent, error) {
	var none broker.AgentIntent
	hostID := c.hostID(in.Host)
	may, err := machine.MayMint(c.terms, c.state, machine.By{Run: run.ID, Epoch: int64(in.Epoch)}, in.Batch, hostID, c.now)
	if err != nil {
		return none, err
	}
	if err := thawed(entry, c.deployment, in.Batch, c.now); err != nil {
		return none, err
	}
	if err := c.overridden(ctx, entry, in.Batch); err != nil {
		return none, err
	}
	tally, err := c.start(ctx)
	if err != nil {
		return none, err
	}
	host, err := c.s.cfg.Hosts.Hold(ctx, c.tx, hostID)
	if err != nil {
		return none, broker.ErrHostGone.Because(err)
	}
	if host.Quarantine != nil {
		return none, hosts.ErrQuarantined
	}
	if host.ID != hostID || !slices.Contains(host.Logins, c.terms.Login) {
		return none, broker.ErrLoginGone
	}
	var issued int
	if err := c.tx.QueryRow(ctx, `SELECT count(*) FROM deployment_certificates WHERE deployment_id = $1 AND host_id = $2 AND batch = $3`,
		c.id, hostID, in.Batch).Scan(&issued); err != nil {
		return none, fmt.Errorf("counting certificates: %w", err)
	}
	if issued >= MaxCertificates {
		return none, ErrTooManyCertificates
	}
	until := may.Until
	if run.Expires.Before(until) {
		until = run.Expires
	}
	if f := nextFreeze(entry, c.now); !f.IsZero() && !may.Rollback && !c.state.Overridden(f) && f.Before(until) {
		until = f
	}
	return broker.AgentIntent{
		Template: certs.Agent{Login: c.terms.Login, HostID: hostID, DeploymentID: c.id, Batch: in.Batch, Epoch: in.Epoch, Run: run.ID,
			Command: c.terms.CommandFor(may.Rollback), SourceAddress: c.terms.SourceAddress, Now: c.now, Lifetime: c.terms.LifetimeFor(), Until: until},
		Host: host, Actor: c.actor, Source: c.source, Policy: c.policy,
		Data: event.DeploymentCertificateIssued{Rollback: may.Rollback, Digest: c.digest(may.Rollback), Uses: c.terms.Uses, BatchEndsAt: may.Closes,
			TermsHash: c.termsHash, TokenHash: run.TokenHash, Decisions: tally},
		Write: func(ctx context.Context, tx pgx.Tx, row broker.AgentCertificate) error {
			data := row.Event.Data.(event.DeploymentCertificateIssued)
			_, err := tx.Exec(ctx, `
				INSERT INTO deployment_certificates (serial, deployment_id, batch, epoch, run_id, host_id, key_id, principal, fingerprint, uses,
					issued_at, valid_after, valid_before, pre_certificate, event_id)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
				int64(row.Serial), c.id, in.Batch, int64(in.Epoch), run.ID, hostID, data.KeyID, data.Principal, data.Key, data.Uses,
				c.now, data.ValidAfter, data.ValidBefore, data.PreCertificate, row.Event.ID)
			if err != nil {
				return fmt.Errorf("writing down a certificate: %w", err)
			}
			return nil
		},
	}, nil
}

// nextFreeze is when the next freeze of the policy in force begins, as far ahead as a
// certificate could be good; zero, if none does. Freezes begin on whole minutes.
func nextFreeze(entry *policy.Deployment, at time.Time) time.Time {
	end := at.Add(policy.MaxAgentCertificate)
	for next := at.Truncate(time.Minute).Add(time.Minute); next.Before(end); next = next.Add(time.Minute) {
		if entry.FrozenAt(next) != nil {
			return next
		}
	}
	return time.Time{}
}

// digest is of the artifact that a certificate is for.
func (d *deployment) digest(rollback bool) string {
	if rollback {
		return d.terms.Previous
	}
	return d.terms.Digest
}

// checkLogged refuses a batch whose opening, or a deployment whose terms, the log does not
// have: somebody else may have written the row. What the log has once it has for ever.
func (s *Service) checkLogged(ctx context.Context, d *deployment, batch int) error {
	b := d.state.Batch(batch)
	if b == nil {
		return machine.ErrNoBatch
	}
	key := remember.Of(fmt.Appendf(nil, "%s %s %d %d", d.id, d.termsHash, batch, b.Epoch))
	if _, known := s.logged.Get(key); known {
		return nil
	}
	for _, want := range []struct {
		kind, host string
		is         func(event.Data) bool
	}{
		{"deployment.opened", d.terms.Batches[0].Hosts[0].ID, func(e event.Data) bool {
			o, ok := e.(event.DeploymentOpened)
			return ok && o.DeploymentID == d.id && o.TermsHash == d.termsHash
		}},
		{"batch.moved", b.Hosts[0].ID, func(e event.Data) bool {
			m, ok := e.(event.BatchMoved)
			return ok && m.DeploymentID == d.id && m.Batch == batch && m.Epoch == uint64(b.Epoch) && m.State == string(machine.Open) && m.Rollback == b.Rollback
		}},
	} {
		found, err := s.inLog(ctx, audit.Filter{Type: want.kind, HostID: want.host, From: d.openedAt.Add(-time.Minute), Limit: 200}, want.is)
		if err != nil {
			return err
		}
		if !found {
			return ErrUnlogged
		}
	}
	s.logged.Put(key, struct{}{})
	return nil
}

// inLog reports whether the log has such an event, of which is is true.
func (s *Service) inLog(ctx context.Context, f audit.Filter, is func(event.Data) bool) (bool, error) {
	for {
		entries, err := s.cfg.Log.Entries(ctx, f)
		if err != nil {
			return false, err
		}
		for _, entry := range entries {
			e, err := entry.Event()
			if err == nil && is(e.Data) {
				return true, nil
			}
		}
		if len(entries) < f.Limit || entries[len(entries)-1].Index <= 0 {
			return false, nil
		}
		f.Before = entries[len(entries)-1].Index
	}
}

// sshConfig are lines by which ssh finds the host and trusts it alone.
func sshConfig(h api.Host, c api.Connect) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", h.Name)
	for _, line := range [][2]string{
		{"HostName", c.Address}, {"Port", fmt.Sprint(c.Port)}, {"User", c.Login}, {"HostKeyAlias", c.HostKeyAlias},
		{"StrictHostKeyChecking", "yes"}, {"IdentitiesOnly", "yes"}, {"BatchMode", "yes"}, {"RequestTTY", "no"}, {"ForwardAgent", "no"},
		{"ClearAllForwardings", "yes"},
	} {
		fmt.Fprintf(&b, "  %s %s\n", line[0], line[1])
	}
	return b.String()
}
