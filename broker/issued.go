package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Issued is a certificate of a person or an agent that was decided on, as it is written
// down.
type Issued struct {
	Serial                  uint64
	RequestID, PersonID     string // of a person's
	DeploymentID            string // of an agent's
	HostID                  string
	KeyID, Principal        string
	Fingerprint             string // of its key
	IssuedAt                time.Time
	ValidAfter, ValidBefore time.Time
	Record                  bool // its sessions have to be recorded
}

// Issued finds a certificate by its serial, or returns nil.
func (b *Broker) Issued(ctx context.Context, tx pgx.Tx, serial uint64) (*Issued, error) {
	if serial == 0 || serial > 1<<63-1 {
		return nil, nil
	}
	i := &Issued{Serial: serial}
	err := tx.QueryRow(ctx, `
		SELECT request_id, person_id, '', host_id, key_id, principal, fingerprint, issued_at, valid_after, valid_before, record
		FROM certificates WHERE serial = $1
		UNION ALL
		SELECT '', '', deployment_id, host_id, key_id, principal, fingerprint, issued_at, valid_after, valid_before, false
		FROM deployment_certificates WHERE serial = $1`, serial).
		Scan(&i.RequestID, &i.PersonID, &i.DeploymentID, &i.HostID, &i.KeyID, &i.Principal, &i.Fingerprint, &i.IssuedAt, &i.ValidAfter, &i.ValidBefore, &i.Record)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding certificate %d: %w", serial, err)
	}
	i.IssuedAt, i.ValidAfter, i.ValidBefore = i.IssuedAt.UTC(), i.ValidAfter.UTC(), i.ValidBefore.UTC()
	return i, nil
}
