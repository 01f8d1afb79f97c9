package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/broker/certs"
)

// leaf is one event on its way into the bare log.
type leaf struct {
	bytes []byte
	done  chan error
}

// bare is the yardstick: a certificate's event becomes a leaf of a Merkle tree,
// and one statement and one commit store as many as have come while the last was
// under way; then the certificate is signed. There is nobody to sign in, no
// grant, no host, and no other replica.
func (h *bench) bare() func(context.Context, *asker, int) error {
	h.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	pool, err := pgxpool.New(ctx, h.house.db.AdminURL)
	h.must(err)
	_, err = pool.Exec(ctx, `
		CREATE TABLE bare_entries (index bigint PRIMARY KEY, leaf bytea NOT NULL);
		CREATE TABLE bare_hashes (index bigint PRIMARY KEY, hash bytea NOT NULL);
		CREATE TABLE bare_head (checkpoint text NOT NULL);
		INSERT INTO bare_head VALUES ('')`)
	h.must(err)
	queue := make(chan leaf, 4096)
	done := make(chan struct{})
	go func() { defer close(done); h.commitMany(ctx, pool, queue) }()
	h.t.Cleanup(func() { stop(); <-done; pool.Close() })

	var serial atomic.Uint64
	return func(ctx context.Context, p *asker, _ int) error {
		key, err := certs.ParseKey(p.in.PublicKey)
		if err != nil {
			return err
		}
		now := time.Now().UTC()
		user := certs.User{Serial: serial.Add(1), Key: key, Login: "dba", HostID: "host-7k3m9q2x4f8h", RequestID: p.request,
			PersonID: p.caller.ID, Now: now, Lifetime: time.Minute, GrantEnds: now.Add(time.Hour)}
		pre, err := user.Pre(h.keys.UserCA.PublicKey(), rand.Reader)
		if err != nil {
			return err
		}
		text, err := event.New(now, p.caller.Actor(), p.caller.Source, event.Subject{RequestID: p.request, HostID: user.HostID},
			event.CertificateIssued{Serial: user.Serial, KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: user.Login,
				Host: "db-1", PreCertificate: pre.Bytes(), ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(),
				TermsHash: strings.Repeat("0", 64), Decisions: []string{strings.Repeat("0", 64)}}).Encode()
		if err != nil {
			return err
		}
		l := leaf{text, make(chan error, 1)}
		queue <- l
		if err := <-l.done; err != nil {
			return err
		}
		_, err = h.keys.UserCA.Sign(rand.Reader, pre.Bytes()) // its log gives no receipts
		return err
	}
}

// commitMany takes what waits and stores it, until ctx ends.
func (h *bench) commitMany(ctx context.Context, pool *pgxpool.Pool, queue chan leaf) {
	var stored []tlog.Hash // the whole tree: there is no cheaper way to keep it
	var size int64
	for {
		var batch []leaf
		select {
		case <-ctx.Done():
			return
		case first := <-queue:
			batch = append(batch, first)
		}
		for len(queue) > 0 {
			batch = append(batch, <-queue)
		}
		before := len(stored)
		leaves := make([][]byte, len(batch))
		reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(indexes))
			for i, index := range indexes {
				out[i] = stored[index]
			}
			return out, nil
		})
		err := func() error {
			for i, l := range batch {
				leaves[i] = l.bytes
				added, err := tlog.StoredHashes(size+int64(i), l.bytes, reader)
				if err != nil {
					return err
				}
				stored = append(stored, added...)
			}
			hashes := make([][]byte, len(stored)-before)
			for i := range hashes {
				hashes[i] = stored[before+i][:]
			}
			root, err := tlog.TreeHash(size+int64(len(batch)), reader)
			if err != nil {
				return err
			}
			head, err := checkpoint.Sign(tlog.Tree{N: size + int64(len(batch)), Hash: root}, h.signer)
			if err != nil {
				return err
			}
			var b pgx.Batch // one transaction and one round trip
			b.Queue(`INSERT INTO bare_entries SELECT $1::bigint + n - 1, l FROM unnest($2::bytea[]) WITH ORDINALITY AS u (l, n)`, size, leaves)
			b.Queue(`INSERT INTO bare_hashes SELECT $1::bigint + n - 1, l FROM unnest($2::bytea[]) WITH ORDINALITY AS u (l, n)`, before, hashes)
			b.Queue(`UPDATE bare_head SET checkpoint = $1`, string(head))
			return pool.SendBatch(ctx, &b).Close()
		}()
		if err != nil {
			err = fmt.Errorf("the bare log: %w", err)
		}
		size += int64(len(batch))
		for _, l := range batch {
			l.done <- err
		}
	}
}
