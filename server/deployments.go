package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/agents"
	"sallyport/broker/hosts"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/clock"
)

// openDeployments makes the room of deployments. A run that is revoked stops what it was
// deploying with it.
func (s *Server) openDeployments(people *identity.Store, registry *hosts.Registry, deployers *agents.Service) (*rollout.Service, error) {
	cfg := rollout.Config{Pool: s.cfg.Pool, Log: s.log, Clock: s.cfg.Clock, Approvals: s.requests, People: people,
		Hosts: machines{registry, s.broker, s.cfg.Clock}, Certificates: s.broker, Gates: gates.NewProber(gates.Config{}), Logger: s.cfg.Logger}
	if cfg.Clock == clock.System {
		cfg.Clock = nil // the database's is the same for all replicas
	}
	deployments, err := rollout.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the deployments: %w", err)
	}
	deployers.OnRevoke(func(ctx context.Context, tx pgx.Tx, run agents.Run) error {
		return deployments.RunRevoked(ctx, tx, run.ID, fmt.Sprintf("run %s was revoked: %s", run.ID, run.RevokedWhy))
	})
	return deployments, nil
}

// machines are the hosts of the registry, and what they show of themselves.
type machines struct {
	*hosts.Registry
	broker *broker.Broker
	clock  clock.Clock
}

// Select implements rollout.Hosts.
func (m machines) Select(ctx context.Context, where labels.Selector, login string) ([]plan.Host, error) {
	all, err := m.Targets(ctx)
	if err != nil {
		return nil, err
	}
	var list []plan.Host
	for _, h := range all {
		if where.Matches(labels.Set(h.Labels)) && slices.Contains(h.Logins, login) {
			list = append(list, plan.Host{ID: h.ID, Name: h.Name})
		}
	}
	return list, nil
}

// Verified implements rollout.Hosts. A host is sealed as of the older of its posture and
// the last look from outside, both of which came after the last session and sealing; and
// drifted as of the newer. One that runs no sally-host, or on which somebody may be, has
// shown nothing.
func (m machines) Verified(ctx context.Context, ids []string) (map[string]gates.Posture, error) {
	known, err := m.broker.Facts(ctx, ids)
	if err != nil {
		return nil, err
	}
	now := m.clock.Now()
	shown := map[string]gates.Posture{}
	for id, f := range known {
		state, why := f.State(now)
		p := gates.Posture{State: gates.Unknown}
		switch {
		case f.Posture == nil || f.Probe == nil:
		case state == api.HostSealed:
			p = gates.Posture{State: gates.Sealed, At: f.Posture.ReceivedAt, Ports: f.Posture.Ports}
			if f.Probe.At.Before(p.At) {
				p.At = f.Probe.At
			}
			if p.At.Before(f.LastSealingAt) { // by another clock: the list's number says that it was after that
				p.At = f.LastSealingAt
			}
		case state == api.HostDrifted && f.Posture.List >= f.LastSealing && f.Posture.Number >= f.LastSession:
			p = gates.Posture{State: gates.Drifted, At: f.Posture.ReceivedAt, Why: why[0], Ports: f.Posture.Ports}
			if f.Probe.At.After(p.At) {
				p.At = f.Probe.At
			}
		}
		shown[id] = p
	}
	return shown, nil
}
