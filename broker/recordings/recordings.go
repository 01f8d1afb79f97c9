// Package recordings keeps what hosts record of sessions: ciphertext, for auditors whose
// keys the broker does not have. Hosts bring it in pieces while it is made; what the log
// says of its end decides whether it is whole and unchanged.
//
//   - A piece goes on where the last one ended, or is not taken. So a piece that comes
//     again, at another place or changed, changes nothing.
//   - A host brings recordings of its own sessions only (package broker/fleet sees to it),
//     within limits for each recording, for each host, and in all.
//   - Only auditors get them (P10), and that they did is in the log before the first byte
//     leaves.
//   - They are kept for Kept, and then forgotten, which is an event.
package recordings

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api/hostapi"
	"sallyport/audit/recording"
	"sallyport/internal/refusal"
)

// Limits on recordings.
const (
	// Kept is for how long recordings are kept, from their beginning.
	Kept = 90 * 24 * time.Hour
	// MaxOfHost and MaxInAll are how many bytes there may be, of one host and of all, when
	// another recording begins.
	MaxOfHost = 4 << 30
	MaxInAll  = 64 << 30
	// MaxAtOnce is how many recordings of a host there may be whose end was not told, when
	// another begins: as many as a host makes at a time.
	MaxAtOnce = 256
	// MaxNumber is how many recordings a session can have.
	MaxNumber = 9999
)

// Refusals of what hosts bring, and auditors ask for.
var (
	ErrPiece = refusal.New(refusal.Invalid, "recording-piece", "this is no piece of a recording",
		"bring 1 to 262144 bytes, for recordings 1 to 9999 of a session")
	ErrSession = refusal.New(refusal.NotFound, "recording-session", "no session of this name was reported by this host",
		"report the session first")
	ErrRefused = refusal.New(refusal.Denied, "recording-refused", "the recording cannot be taken",
		"see docs/recording.md for what is")
	ErrNoRoom = refusal.New(refusal.Unavailable, "recordings-full", "there are as many recordings as the broker keeps",
		"the oldest are forgotten after 90 days; see docs/limits.md")
	ErrUnknown = refusal.New(refusal.NotFound, "recording-unknown", "there is no such recording",
		"sally audit replay SESSION lists them; it may have been forgotten since")
)

// held is what is known of a recording, within a transaction that has it alone.
type held struct {
	bytes   int64
	claimed *int64 // what the log says of it, once it has ended
	digest  string
	removed bool
	hashed  []byte
}

// lock finds a recording, or begins it.
func lock(ctx context.Context, tx pgx.Tx, sessionID string, number int, now time.Time) (*held, error) {
	if number < 1 || number > MaxNumber {
		return nil, ErrPiece
	}
	state, err := sha256.New().(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("hashing a recording: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO session_recordings (session_id, number, bytes, hashed, began_at) VALUES ($1, $2, 0, $3, $4)
		ON CONFLICT DO NOTHING`, sessionID, number, state, now); err != nil {
		return nil, fmt.Errorf("beginning a recording: %w", err)
	}
	r := &held{}
	if err = tx.QueryRow(ctx, `
		SELECT bytes, hashed, claimed, coalesce(digest, ''), removed_at IS NOT NULL
		FROM session_recordings WHERE session_id = $1 AND number = $2 FOR UPDATE`, sessionID, number).
		Scan(&r.bytes, &r.hashed, &r.claimed, &r.digest, &r.removed); err != nil {
		return nil, fmt.Errorf("locking a recording: %w", err)
	}
	return r, nil
}

// Append adds a piece to a recording, if it goes on where that ends. It reports whether
// the recording has now turned out to be another than its host told.
func Append(ctx context.Context, tx pgx.Tx, hostID, sessionID string, number int, offset int64, piece []byte, now time.Time) (bytes int64, differs bool, err error) {
	if len(piece) == 0 || len(piece) > hostapi.MaxPiece || offset < 0 {
		return 0, false, ErrPiece
	}
	r, err := lock(ctx, tx, sessionID, number, now)
	if err != nil {
		return 0, false, err
	}
	switch {
	case r.removed:
		return 0, false, ErrRefused.With("the recording was forgotten, as its time was up")
	case offset != r.bytes:
		return r.bytes, false, nil
	case offset+int64(len(piece)) > recording.MaxSize:
		return 0, false, ErrRefused.With("a recording has at most %d bytes", int64(recording.MaxSize))
	case r.claimed != nil && offset+int64(len(piece)) > *r.claimed:
		return 0, false, ErrRefused.With("the host told that the recording has %d bytes", *r.claimed)
	case r.bytes == 0:
		if err := isRoom(ctx, tx, hostID); err != nil {
			return 0, false, err
		}
	}
	sum, err := r.hash()
	if err != nil {
		return 0, false, err
	}
	sum.Write(piece)
	if r.hashed, err = sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return 0, false, fmt.Errorf("hashing a recording: %w", err)
	}
	r.bytes += int64(len(piece))
	differs = r.differs(sum)
	if _, err := tx.Exec(ctx, `INSERT INTO recording_pieces (session_id, number, at, data) VALUES ($1, $2, $3, $4)`, sessionID, number, offset, piece); err != nil {
		return 0, false, fmt.Errorf("writing a piece of a recording: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE session_recordings SET bytes = $3, hashed = $4, differs = $5 WHERE session_id = $1 AND number = $2`,
		sessionID, number, r.bytes, r.hashed, differs); err != nil {
		return 0, false, fmt.Errorf("writing a piece of a recording: %w", err)
	}
	return r.bytes, differs, nil
}

func (r *held) hash() (hash.Hash, error) {
	sum := sha256.New()
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(r.hashed); err != nil {
		return nil, fmt.Errorf("hashing a recording: %w", err)
	}
	return sum, nil
}

// differs reports whether the bytes cannot be those that the host told of.
func (r *held) differs(sum hash.Hash) bool {
	if r.claimed == nil {
		return false
	}
	return r.bytes > *r.claimed || r.bytes == *r.claimed && hex.EncodeToString(sum.Sum(nil)) != r.digest
}

// isRoom refuses another recording of a host that has, or has told of, as many bytes as it
// may; or too many of which nobody knows how long they get. So it goes past its share by no
// more than these.
func isRoom(ctx context.Context, tx pgx.Tx, hostID string) error {
	var host, all, going int64
	if err := tx.QueryRow(ctx, `
		SELECT coalesce(sum(greatest(r.bytes, r.claimed)) FILTER (WHERE s.host_id = $1), 0)::bigint, coalesce(sum(r.bytes), 0)::bigint,
			count(*) FILTER (WHERE s.host_id = $1 AND r.event_id IS NULL AND r.bytes > 0)
		FROM session_recordings AS r JOIN host_sessions AS s ON s.id = r.session_id WHERE r.removed_at IS NULL`, hostID).Scan(&host, &all, &going); err != nil {
		return fmt.Errorf("counting recordings: %w", err)
	}
	if host >= MaxOfHost || all >= MaxInAll || going >= MaxAtOnce {
		return ErrNoRoom
	}
	return nil
}

// End notes what the host's report of a recording's end says. It reports whether what the
// broker has cannot be that; first is false if the end was told before.
func End(ctx context.Context, tx pgx.Tx, sessionID string, d hostapi.SessionRecorded, eventID uuid.UUID, now time.Time) (first, differs bool, err error) {
	r, err := lock(ctx, tx, sessionID, d.Number, now)
	if err != nil {
		return false, false, err
	}
	if r.claimed != nil {
		if *r.claimed == d.Bytes && r.digest == d.SHA256 {
			return false, false, nil
		}
		return false, true, nil
	}
	sum, err := r.hash()
	if err != nil {
		return false, false, err
	}
	r.claimed, r.digest = &d.Bytes, d.SHA256
	differs = r.differs(sum)
	if _, err := tx.Exec(ctx, `
		UPDATE session_recordings SET event_id = $3, claimed = $4, digest = $5, started_at = $6, ended_at = $7, terminal = $8, cut = $9, differs = $10
		WHERE session_id = $1 AND number = $2`,
		sessionID, d.Number, eventID, d.Bytes, d.SHA256, d.StartedAt, d.EndedAt, d.Terminal, d.Cut, differs); err != nil {
		return false, false, fmt.Errorf("writing down the end of a recording: %w", err)
	}
	return true, differs, nil
}
