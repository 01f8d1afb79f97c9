package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Issued is a person's certificate that was decided on, as it is written down.
type Issued struct {
	Serial                      uint64
	RequestID, PersonID, HostID string
	KeyID, Principal            string
	Fingerprint                 string // of its key
	ValidAfter, ValidBefore     time.Time
	Record                      bool // its sessions have to be recorded
}

// Issued finds a certificate by its serial, or returns nil.
func (b *Broker) Issued(ctx context.Context, tx pgx.Tx, serial uint64) (*Issued, error) {
	if serial == 0 || serial > 1<<63-1 {
		return nil, nil
	}
	i := &Issued{Serial: serial}
	err := tx.QueryRow(ctx, `
		SELECT request_id, person_id, host_id, key_id, principal, fingerprint, valid_after, valid_before, record
		FROM certificates WHERE serial = $1`, serial).
		Scan(&i.RequestID, &i.PersonID, &i.HostID, &i.KeyID, &i.Principal, &i.Fingerprint, &i.ValidAfter, &i.ValidBefore, &i.Record)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding certificate %d: %w", serial, err)
	}
	i.ValidAfter, i.ValidBefore = i.ValidAfter.UTC(), i.ValidBefore.UTC()
	return i, nil
}
