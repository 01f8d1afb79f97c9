package rollout

import (
	"context"
	"fmt"
	"maps"
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

// visited adds to what people are shown who was on the deployments' hosts, besides agents,
// since they were opened, and what that means for hosts of one that is over:
//
//  1. While it goes on, it has all of its hosts; and those that it opened from then on.
//  2. A host is another's from when one was opened that has opened the host, too. One that
//     ended before it got there has changed nothing on it.
func (s *Service) visited(ctx context.Context, out []api.Deployment) error {
	places := map[string]int{}
	var all []string
	for i, d := range out {
		places[d.ID] = i
		all = append(all, d.ID)
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT v.deployment_id, v.host_id, h.name, v.request_id, v.login, v.reported_at, v.ended_at
		FROM (
			SELECT d.id AS deployment_id, s.host_id, coalesce(s.request_id, '') AS request_id, s.login, s.reported_at, s.ended_at, s.id,
				row_number() OVER (PARTITION BY d.id ORDER BY s.reported_at DESC, s.id DESC) AS place
			FROM deployments AS d
				JOIN deployment_hosts AS o ON o.deployment_id = d.id AND (d.ended_at IS NULL OR o.sealings > 0)
				JOIN host_sessions AS s ON s.host_id = o.host_id AND s.deployment_id IS NULL AND s.reported_at > d.opened_at
			WHERE d.id = ANY ($1) AND NOT EXISTS (SELECT FROM deployment_hosts AS l JOIN deployments AS n ON n.id = l.deployment_id
				WHERE l.host_id = s.host_id AND (l.sealings > 0 OR l.open_until IS NOT NULL) AND n.opened_at > d.opened_at AND n.opened_at <= s.reported_at)
		) AS v JOIN hosts AS h ON h.id = v.host_id
		WHERE v.place <= $2 ORDER BY v.deployment_id, v.place`, all, maxVisits)
	if err != nil {
		return fmt.Errorf("looking for who came to hosts: %w", err)
	}
	var of string
	var v api.DeploymentVisit
	_, err = pgx.ForEachRow(rows, []any{&of, &v.HostID, &v.Host, &v.RequestID, &v.Login, &v.At, &v.EndedAt}, func() error {
		d := &out[places[of]]
		d.Visits = append(d.Visits, v)
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for who came to hosts: %w", err)
	}
	return s.since(ctx, out)
}

// since says of hosts to which somebody came after the end whether they have shown since
// that they are sealed.
func (s *Service) since(ctx context.Context, list []api.Deployment) error {
	hosts := map[string]bool{}
	came := make([]map[string]time.Time, len(list)) // the last time, by host
	for i, d := range list {
		came[i] = map[string]time.Time{}
		for _, v := range d.Visits {
			if d.EndedAt != nil && v.At.After(*d.EndedAt) && v.At.After(came[i][v.HostID]) {
				came[i][v.HostID], hosts[v.HostID] = v.At, true
			}
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	postures, err := s.cfg.Hosts.Verified(ctx, slices.Collect(maps.Keys(hosts)))
	if err != nil {
		return fmt.Errorf("asking for postures: %w", err)
	}
	for i := range list {
		reopened(&list[i], came[i], postures)
	}
	return nil
}

// reopened puts hosts of a deployment that is over in question.
func reopened(out *api.Deployment, came map[string]time.Time, postures map[string]gates.Posture) {
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
}
