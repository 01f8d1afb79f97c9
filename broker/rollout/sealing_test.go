package rollout_test

import (
	"strings"
	"testing"

	"sallyport/broker/hosts"
)

// Closing a batch seals its hosts in the list that hosts are told, once each; and by no
// way but opening one again does the database take a certificate for them.
func TestSealedHostsGetNoCertificates(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	must(t, second(j.batch(1)))
	host := j.state().Batches[0].Hosts[0]
	must(t, second(j.cert(1, host.Name)))
	if n := s.count(`SELECT count(*) FROM deployment_hosts WHERE open_until IS NOT NULL`); n != 1 {
		t.Fatalf("%d hosts are open", n)
	}
	if n := s.count(`SELECT count(*) FROM revocations WHERE what = 'sealed'`); n != 0 {
		t.Fatalf("%d hosts are sealed before", n)
	}
	must(t, second(j.report(1, map[string]string{host.Name: "ok"})))
	s.until(j.id, 1, "soaking")
	if n := s.count(`SELECT count(*) FROM revocations AS r JOIN deployment_certificates AS c USING (deployment_id, host_id)
		WHERE r.what = 'sealed' AND r.at >= c.issued_at AND r.number = (SELECT number FROM revocation_head)`); n != 1 {
		t.Errorf("%d certificates are listed as sealed", n)
	}
	_, err := s.pool.Exec(t.Context(), `
		INSERT INTO deployment_certificates (serial, deployment_id, batch, epoch, run_id, host_id, key_id, principal, fingerprint, uses,
			issued_at, valid_after, valid_before, pre_certificate, event_id)
		SELECT serial + 1000, deployment_id, batch, epoch, run_id, host_id, key_id, principal, fingerprint, uses,
			issued_at, valid_after, valid_before, pre_certificate, gen_random_uuid() FROM deployment_certificates`)
	if err == nil || !strings.Contains(err.Error(), "is not open") {
		t.Errorf("a certificate for a sealed host: %v", err)
	}
	s.check()
}

// An operator who shuts a host shuts the agent out too, in the middle of its batch.
func TestQuarantineShutsAgentsOut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	must(t, second(j.batch(1)))
	host := j.state().Batches[0].Hosts[0]
	must(t, second(j.cert(1, host.Name)))
	must(t, second(s.hosts.Quarantine(t.Context(), s.operator, host.Name, "it behaves strangely")))
	if n := s.count(`SELECT count(*) FROM revocations WHERE what = 'sealed' AND host_id = '` + host.ID + `'`); n != 1 {
		t.Errorf("%d sealings are listed", n)
	}
	_, err := j.cert(1, host.Name)
	refused(t, err, hosts.ErrQuarantined)
	must(t, second(j.report(1, map[string]string{host.Name: "failed"})))
}

func second[T any](_ T, err error) error { return err }
