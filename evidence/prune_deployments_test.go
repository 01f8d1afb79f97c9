package evidence_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/audit/event"
	"sallyport/evidence"
)

// The opening of a deployment stays, with what has happened since, until the deployment is
// over: the broker issues no certificate for one whose opening the log does not have.
func TestPruneKeepsDeploymentsThatAreNotOver(t *testing.T) {
	t.Parallel()
	opened := func(id string, at int) event.Event {
		return event.New(began.Add(time.Duration(at)*time.Second), event.Actor{Kind: event.Agent, ID: "run-000000000000"}, "",
			event.Subject{HostID: "host-000000000000"}, event.DeploymentOpened{DeploymentID: id})
	}
	const over, held, later = "dep-000000000001", "dep-000000000002", "dep-000000000003"
	s := newStore(t, 700, opened(over, 350), opened(held, 351), opened(later, 352)) // from entry 350 on
	for _, id := range []string{over, held, later} {
		s.exec(`SET session_replication_role = replica;
			INSERT INTO deployments (id, entry, service, environment, digest, run_id, policy_version, terms, terms_hash, groups, opened_at, phase, state, epoch)
			VALUES ('` + id + `', 'e', '` + id + `', 'prod', 'sha256:` + strings.Repeat("0", 64) + `', 'run-000000000000', 1, '', encode(sha256(''), 'hex'), '{}', now(), 'held', '{}', 1)`)
	}
	end := func(id string) {
		s.exec(`UPDATE deployments SET phase = 'aborted', ended_at = now() WHERE id = $1`, id)
	}
	end(over)
	refusedBefore := func(index int64) {
		t.Helper()
		_, err := s.pruner(nil).Prune(t.Context(), evidence.Until{Index: index})
		refused(t, err, evidence.ErrStillNeeded)
		if s.oldest() > 256 {
			t.Fatalf("entries before %d were removed", s.oldest())
		}
	}
	refusedBefore(512)
	if plan := s.prune(300); plan.Before != 256 {
		t.Errorf("entries before %d were removed", plan.Before)
	}
	refusedBefore(512)
	end(held)
	refusedBefore(512)
	end(later)
	s.prune(512)
	if s.oldest() != 512 {
		t.Errorf("entries before %d were removed", s.oldest())
	}
	must(t, s.check())
}
