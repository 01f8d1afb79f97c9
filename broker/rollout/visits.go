package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

// Who comes to a host that a deployment has sealed can change what was judged, or open
// it again. So every session on it that is no agent's puts in question what is known of
// the host until it has shown once more that it is sealed, also when the deployment has
// long ended.

// maxVisits is how many sessions a deployment is shown with, the latest.
const maxVisits = 200

// entered are the last sessions on the hosts that no agent had, since the deployment was
// opened.
func (s *Service) entered(ctx context.Context, d *deployment, hosts []string) ([]machine.Event, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT DISTINCT ON (host_id) host_id, reported_at, coalesce(request_id, '') FROM host_sessions
		WHERE host_id = ANY ($1) AND deployment_id IS NULL AND reported_at > $2 ORDER BY host_id, reported_at DESC`, hosts, d.openedAt)
	if err != nil {
		return nil, fmt.Errorf("looking for who came to hosts: %w", err)
	}
	news, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (machine.Event, error) {
		var e machine.Entered
		var request string
		err := row.Scan(&e.Host, &e.At, &request)
		e.At, e.Why = e.At.UTC(), "somebody was on it "+letIn(request)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for who came to hosts: %w", err)
	}
	return news, nil
}

// letIn says what let somebody in.
func letIn(request string) string {
	if request == "" {
		return "without a certificate that is known"
	}
	return "for request " + request
}

// drifted are those of the hosts that can be opened, by what they have shown last.
func (s *Service) drifted(ctx context.Context, hosts []plan.Host) (map[string]string, error) {
	ids := make([]string, len(hosts))
	for i, h := range hosts {
		ids[i] = h.ID
	}
	postures, err := s.cfg.Hosts.Verified(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("asking for postures: %w", err)
	}
	found := map[string]string{}
	for id, p := range postures {
		if p.State == gates.Drifted {
			found[id] = p.Why
		}
	}
	return found, nil
}

// strayed is what the service's drifted hosts mean to a deployment with the terms.
func (o *Opening) strayed(t *plan.Terms, now time.Time) (news []machine.Event) {
	own := t.Hosts()
	for _, h := range o.hosts {
		switch why, drifted := o.drifted[h.ID]; {
		case drifted && slices.Contains(own, h):
			news = append(news, machine.Verified{Host: h.ID, At: now, Why: why})
		case drifted:
			news = append(news, machine.Strayed{Why: "host " + h.ID + " of the service has drifted: " + why})
		}
	}
	return news
}

// visited adds to what people are shown who was on the deployment's hosts, besides its
// agents, since they were sealed, and what that means for hosts of one that is over.
func (s *Service) visited(ctx context.Context, d *deployment, out *api.Deployment) error {
	var all []string
	for _, h := range d.terms.Hosts() {
		all = append(all, h.ID)
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT s.host_id, h.name, coalesce(s.request_id, ''), s.login, s.reported_at, s.ended_at
		FROM host_sessions AS s JOIN hosts AS h ON h.id = s.host_id
		WHERE s.host_id = ANY ($1) AND s.deployment_id IS NULL AND s.reported_at > $2
			-- as long as it is the last deployment of the host
			AND s.reported_at < coalesce((SELECT min(n.opened_at) FROM deployment_hosts AS dh JOIN deployments AS n ON n.id = dh.deployment_id
				WHERE dh.host_id = s.host_id AND n.opened_at > $2), 'infinity')
		ORDER BY s.reported_at DESC, s.id DESC LIMIT $3`, all, d.openedAt, maxVisits)
	if err != nil {
		return fmt.Errorf("looking for who came to hosts: %w", err)
	}
	if out.Visits, err = pgx.CollectRows(rows, pgx.RowToStructByPos[api.DeploymentVisit]); err != nil {
		return fmt.Errorf("looking for who came to hosts: %w", err)
	}
	if out.EndedAt == nil {
		return nil
	}
	came := map[string]time.Time{}
	for _, v := range out.Visits {
		if v.At.After(*out.EndedAt) && v.At.After(came[v.HostID]) {
			came[v.HostID] = v.At
		}
	}
	return s.since(ctx, out, came)
}

// since says of hosts to which somebody came after the end whether they have shown since
// that they are sealed.
func (s *Service) since(ctx context.Context, out *api.Deployment, came map[string]time.Time) error {
	var hosts []string
	for id := range came {
		hosts = append(hosts, id)
	}
	if len(hosts) == 0 {
		return nil
	}
	postures, err := s.cfg.Hosts.Verified(ctx, hosts)
	if err != nil {
		return fmt.Errorf("asking for postures: %w", err)
	}
	for i := range out.Batches {
		for j := range out.Batches[i].Hosts {
			h := &out.Batches[i].Hosts[j]
			at, entered := came[h.ID]
			switch p := postures[h.ID]; {
			case !entered || h.State != string(machine.HostSealed):
			case p.State == gates.Drifted:
				h.State, h.Why = string(machine.HostDrifted), p.Why
			case p.State != gates.Sealed || p.At.Before(at):
				h.State, h.Why = string(machine.HostVerifying), "somebody was on it after the end, and it has not shown since that it is sealed"
			}
		}
	}
	return nil
}
