package posture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/api/hostapi"
)

// Store reads and writes what is known of hosts' postures.
type Store struct{ pool *pgxpool.Pool }

// New returns a store.
func New(pool *pgxpool.Pool) *Store { return &Store{pool} }

// Facts are what is known of each of the hosts, nil meaning all live ones, but for
// grants, which package approvals knows. A host counts as enrolled while the registry has the key that it enrolled with.
// Of the checks only those are read that did not pass.
func (s *Store) Facts(ctx context.Context, hostIDs []string) (map[string]Facts, error) {
	which, args := `h.id = ANY ($1)`, []any{hostIDs}
	if hostIDs == nil {
		which, args = `h.removed_at IS NULL`, nil
	}
	rows, err := s.pool.Query(ctx, `
		SELECT h.id, h.quarantined_at IS NOT NULL, (SELECT count(*) FROM host_sessions AS s WHERE s.host_id = h.id AND s.ended_at IS NULL),
			e.host_id IS NOT NULL, greatest(e.enrolled_at, e.seen_at), coalesce(e.session_report, 0), e.session_at,
			EXISTS (SELECT FROM deployment_hosts AS d WHERE d.host_id = h.id AND d.open_until IS NOT NULL), coalesce(r.number, 0), r.at,
			p.number, p.boot_id, p.list, p.ports, p.taken_at, p.received_at, jsonb_path_query_array(p.checks, '$[*] ? (@.result != "pass")'),
			b.at, b.result, b.login, b.findings
		FROM hosts AS h
			LEFT JOIN enrolled_hosts AS e ON e.host_id = h.id AND e.host_key = h.host_key
			LEFT JOIN LATERAL (`+lastSealing+`) AS r ON true
			LEFT JOIN host_postures AS p ON p.host_id = e.host_id
			LEFT JOIN host_probes AS b ON b.host_id = e.host_id AND b.at IS NOT NULL
		WHERE `+which, args...)
	if err != nil {
		return nil, fmt.Errorf("reading postures: %w", err)
	}
	found := make(map[string]Facts, len(hostIDs))
	for rows.Next() {
		var (
			id                                    string
			f                                     Facts
			seen, session, sealed, taken, got, at *time.Time
			number, list                          *uint64
			boot, result, login                   *string
			ports                                 []int
			checks                                []hostapi.Check
			findings                              []string
		)
		err := rows.Scan(&id, &f.Quarantined, &f.Live, &f.Enrolled, &seen, &f.LastSession, &session,
			&f.Deploying, &f.LastSealing, &sealed, &number, &boot, &list, &ports, &taken, &got, &checks, &at, &result, &login, &findings)
		if err != nil {
			return nil, fmt.Errorf("reading postures: %w", err)
		}
		f.SeenAt, f.LastSessionAt, f.LastSealingAt = value(seen), value(session), value(sealed)
		if number != nil {
			f.Posture = &Report{Number: *number, BootID: value(boot), List: value(list), Ports: ports, TakenAt: value(taken), ReceivedAt: value(got), Checks: checks}
		}
		if at != nil {
			f.Probe = &Probe{At: *at, Result: hostapi.Result(value(result)), Login: value(login), Findings: findings}
		}
		found[id] = f
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading postures: %w", err)
	}
	return found, nil
}

// lastSealing is what the list of revocations has of the sealings of a host h.
const lastSealing = `SELECT r.number, r.at FROM revocations AS r WHERE r.what = 'sealed' AND r.host_id = h.id ORDER BY r.number DESC LIMIT 1`

// Checks are all that the host reported last.
func (s *Store) Checks(ctx context.Context, hostID string) (checks []hostapi.Check, err error) {
	err = s.pool.QueryRow(ctx, `SELECT checks FROM host_postures WHERE host_id = $1`, hostID).Scan(&checks)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("reading a host's checks: %w", err)
	}
	return checks, nil
}

// Last is the posture that the host reported last, or nil. The caller holds a lock on
// what the host reports.
func Last(ctx context.Context, tx pgx.Tx, hostID string) (*Report, error) {
	r := &Report{}
	err := tx.QueryRow(ctx, `SELECT number, boot_id, list, ports, taken_at, received_at, checks FROM host_postures WHERE host_id = $1`, hostID).
		Scan(&r.Number, &r.BootID, &r.List, &r.Ports, &r.TakenAt, &r.ReceivedAt, &r.Checks)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a host's posture: %w", err)
	}
	return r, nil
}

// Write puts a posture in the place of the one before, with what the host signed.
func Write(ctx context.Context, tx pgx.Tx, hostID string, r Report, signed hostapi.PostureReport) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO host_postures (host_id, number, boot_id, list, ports, taken_at, received_at, checks, text, signature)
		VALUES ($1, $2, $3, $9, $10, $4, $5, $6, $7, $8)
		ON CONFLICT (host_id) DO UPDATE SET number = excluded.number, boot_id = excluded.boot_id, list = excluded.list, ports = excluded.ports,
			taken_at = excluded.taken_at, received_at = excluded.received_at, checks = excluded.checks, text = excluded.text, signature = excluded.signature`,
		hostID, r.Number, r.BootID, r.TakenAt, r.ReceivedAt, r.Checks, signed.Text, signed.Signature, r.List, r.Ports)
	if err != nil {
		return fmt.Errorf("writing down a posture: %w", err)
	}
	return nil
}

// Door is a host that somebody is to look at from outside.
type Door struct {
	HostID, Name, Address, HostKey string
	Logins                         []string
	Labels                         map[string]string
	Turn                           int64 // how often it was looked at before: each time another login is tried
	Before                         *Probe
	// Proposed says that the address is the host's own word, and no operator's.
	Proposed bool
}

// Claim takes up to so many hosts that nobody has looked at from outside for as long as
// every, or since their last session or sealing; for as long as lease nobody else takes them.
func (s *Store) Claim(ctx context.Context, now time.Time, every, lease time.Duration, most int) ([]Door, error) {
	rows, err := s.pool.Query(ctx, `
		WITH due AS (
			SELECT e.host_id FROM enrolled_hosts AS e JOIN hosts AS h ON h.id = e.host_id AND h.host_key = e.host_key AND h.removed_at IS NULL
				LEFT JOIN host_probes AS b ON b.host_id = e.host_id
				LEFT JOIN LATERAL (`+lastSealing+`) AS r ON true
			WHERE (b.at IS NULL OR b.at <= $2 OR b.at < e.session_at OR b.at < r.at) AND (b.claimed_at IS NULL OR b.claimed_at <= $3)
			ORDER BY b.at NULLS FIRST LIMIT $4
		), claimed AS (
			INSERT INTO host_probes AS b (host_id, claimed_at) SELECT host_id, $1 FROM due
			ON CONFLICT (host_id) DO UPDATE SET claimed_at = excluded.claimed_at, turn = b.turn + 1
			WHERE b.claimed_at IS NULL OR b.claimed_at <= $3
			RETURNING b.host_id, b.turn, b.at, b.result, b.login, b.findings
		)
		SELECT h.id, h.name, h.address, h.host_key, h.logins, h.labels, c.turn, c.at, coalesce(c.result, ''), coalesce(c.login, ''), c.findings,
			h.address = e.proposed
		FROM claimed AS c JOIN hosts AS h ON h.id = c.host_id JOIN enrolled_hosts AS e ON e.host_id = h.id`, now, now.Add(-every), now.Add(-lease), most)
	if err != nil {
		return nil, fmt.Errorf("choosing hosts to look at: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Door, err error) {
		var at *time.Time
		var before Probe
		err = row.Scan(&d.HostID, &d.Name, &d.Address, &d.HostKey, &d.Logins, &d.Labels, &d.Turn, &at, &before.Result, &before.Login, &before.Findings, &d.Proposed)
		if at != nil {
			before.At, d.Before = *at, &before
		}
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("choosing hosts to look at: %w", err)
	}
	return list, nil
}

// WriteProbe puts a look from outside in the place of the one before.
func WriteProbe(ctx context.Context, tx pgx.Tx, hostID string, p Probe) error {
	_, err := tx.Exec(ctx, `
		UPDATE host_probes SET at = $2, result = $3, login = $4, findings = $5, claimed_at = NULL WHERE host_id = $1`,
		hostID, p.At, string(p.Result), p.Login, append([]string{}, p.Findings...))
	if err != nil {
		return fmt.Errorf("writing down a look from outside: %w", err)
	}
	return nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
