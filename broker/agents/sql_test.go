package agents_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/approvals/policy"
)

// A run's row stays as it was made, but for being revoked once: neither the broker's
// role nor the owner of the tables can let a token be taken again or a run go on.
func TestRunsByHand(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	k.admitted(policy.GitLab)
	admin, err := pgxpool.New(t.Context(), k.db.AdminURL)
	must(t, err)
	defer admin.Close()
	if _, err := k.db.Pool.Exec(t.Context(), `UPDATE agent_runs SET revoked_at = now(), revoked_why = 'stolen'`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`UPDATE agent_runs SET revoked_at = NULL, revoked_why = ''`,
		`UPDATE agent_runs SET revoked_why = 'a mistake'`,
		`UPDATE agent_runs SET expires_at = expires_at + interval '1 hour'`,
		`UPDATE agent_runs SET token_id = 'jti:other'`,
		`UPDATE agent_runs SET fingerprint = 'SHA256:other', key = 'ssh-ed25519 AAAA'`,
		`UPDATE agent_runs SET entry = 'other', claims = '{}'`,
		`DELETE FROM agent_runs`,
		`TRUNCATE agent_runs CASCADE`,
	} {
		if _, err := k.db.Pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the broker's role may %s", sql)
		}
		for _, as := range []string{`SET LOCAL ROLE sallyport_owner; `, `SET LOCAL session_replication_role = replica; `} {
			if _, err := admin.Exec(t.Context(), as+sql); err == nil || !strings.Contains(err.Error(), "never change") {
				t.Errorf("%s%s: %v", as, sql, err)
			}
		}
	}
	if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; SELECT * FROM agent_runs, agent_calls`); err != nil {
		t.Errorf("an auditor cannot read: %v", err)
	}
}
