package revocations

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
)

// krlEvery is how long one KRL is given out, while nothing new is revoked. Its times are
// multiples of it, so that all replicas make the same.
const krlEvery = 5 * time.Minute

// KRL is an OpenSSH revocation list and its detached signature.
type KRL struct {
	Number    uint64 // of the list, and the KRL's version
	Bytes     []byte
	Signature []byte // armored SSHSIG by the user CA, namespace hostapi.KRLNamespace
}

// KRL is the list as sshd reads it (RevokedKeys), of the user CA's certificates that
// are still valid and must open nothing. A host that fetches it verifies the signature,
// and that the number did not go back, for sshd does neither.
func (l *List) KRL(ctx context.Context) (KRL, error) {
	at, err := l.fresh()
	if err != nil {
		return KRL{}, err
	}
	return l.krl.get(ctx, l.current().number, at.Truncate(krlEvery), l.makeKRL)
}

func (l *List) makeKRL(ctx context.Context, number uint64, at time.Time) (KRL, error) {
	ranges, err := l.ranges(ctx, at)
	if err != nil {
		return KRL{}, err
	}
	krl := KRL{Number: number, Bytes: encodeKRL(l.cfg.UserCA.PublicKey(), number, at, ranges)}
	signature, err := hostapi.SignKRL(krl.Bytes, l.cfg.UserCA)
	if err != nil {
		return KRL{}, err
	}
	krl.Signature = []byte(signature)
	return krl, nil
}

// krlCache holds the last one; those who need another wait for one of them to make it.
type krlCache struct {
	mu   sync.Mutex
	last KRL
	at   time.Time
}

func (c *krlCache) get(ctx context.Context, number uint64, at time.Time, make func(context.Context, uint64, time.Time) (KRL, error)) (KRL, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.Bytes != nil && c.last.Number == number && c.at.Equal(at) {
		return c.last, nil
	}
	krl, err := make(ctx, number, at)
	if err == nil {
		c.last, c.at = krl, at
	}
	return krl, err
}

// serialRange is of serials from first to last, both inclusive.
type serialRange struct{ first, last uint64 }

// ranges are the serials that are revoked and not yet expired, in as few ranges as can
// be: certificates between them that have expired may stand in it too. One that is
// still being issued may not, so that a serial of which nothing is known ends a range.
func (l *List) ranges(ctx context.Context, now time.Time) ([]serialRange, error) {
	rows, err := l.cfg.Pool.Query(ctx, `
		WITH revoked AS (
			SELECT c.serial FROM revocations AS r JOIN certificates AS c ON c.request_id = r.request_id
			WHERE r.what = 'ended' AND r.until > $1 AND c.valid_before > $1
			UNION
			SELECT c.serial FROM revocations AS r JOIN certificates AS c ON c.serial = r.serial
			WHERE r.what = 'serial' AND r.until > $1 AND c.valid_before > $1
			UNION
			SELECT c.serial FROM revocations AS r
				JOIN deployment_certificates AS c ON c.deployment_id = r.deployment_id AND c.host_id = r.host_id AND c.issued_at <= r.at
			WHERE r.what = 'sealed' AND r.until > $1 AND c.valid_before > $1
		), issued AS (
			SELECT serial, valid_before FROM certificates
			UNION ALL
			SELECT serial, valid_before FROM deployment_certificates
		)
		SELECT c.serial, v.serial IS NOT NULL, c.valid_before <= $1
		FROM issued AS c LEFT JOIN revoked AS v ON v.serial = c.serial
		WHERE c.serial BETWEEN (SELECT min(serial) FROM revoked) AND (SELECT max(serial) FROM revoked)
		ORDER BY c.serial`, now)
	if err != nil {
		return nil, fmt.Errorf("reading revoked certificates: %w", err)
	}
	var (
		out              []serialRange
		serial, before   uint64
		revoked, expired bool
		open             bool // the last range goes on, over what has expired
	)
	_, err = pgx.ForEachRow(rows, []any{&serial, &revoked, &expired}, func() error {
		open = open && serial == before+1 && (revoked || expired)
		switch {
		case revoked && open:
			out[len(out)-1].last = serial
		case revoked:
			out, open = append(out, serialRange{serial, serial}), true
		}
		before = serial
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading revoked certificates: %w", err)
	}
	return out, nil
}

// Numbers of the format (OpenSSH, PROTOCOL.krl).
const (
	krlMagic           = 0x5353484b524c0a00
	krlFormat          = 1
	krlCertificates    = 1
	krlCertSerialList  = 0x20
	krlCertSerialRange = 0x21
	krlComment         = "sallyport"
)

// encodeKRL writes a KRL that revokes the CA's certificates with serials in the ranges,
// which are in order. One that revokes nothing is no empty file: of that sshd would not
// know whether it is whole.
func encodeKRL(ca ssh.PublicKey, number uint64, at time.Time, ranges []serialRange) []byte {
	var b bytes.Buffer
	integer := func(to *bytes.Buffer, v any) { binary.Write(to, binary.BigEndian, v) } // a buffer takes all
	text := func(to *bytes.Buffer, s []byte) {
		integer(to, uint32(len(s)))
		to.Write(s)
	}
	integer(&b, uint64(krlMagic))
	integer(&b, uint32(krlFormat))
	integer(&b, number)
	integer(&b, uint64(at.Unix()))
	integer(&b, uint64(0)) // flags
	text(&b, nil)          // reserved
	text(&b, []byte(krlComment))
	if len(ranges) == 0 {
		return b.Bytes()
	}
	var section bytes.Buffer
	text(&section, ca.Marshal())
	text(&section, nil) // reserved
	var single bytes.Buffer
	for _, r := range ranges {
		if r.first == r.last {
			integer(&single, r.first)
			continue
		}
		var span bytes.Buffer
		integer(&span, r.first)
		integer(&span, r.last)
		section.WriteByte(krlCertSerialRange)
		text(&section, span.Bytes())
	}
	if single.Len() > 0 {
		section.WriteByte(krlCertSerialList)
		text(&section, single.Bytes())
	}
	b.WriteByte(krlCertificates)
	text(&b, section.Bytes())
	return b.Bytes()
}
