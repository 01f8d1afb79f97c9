package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/internal/refusal"
)

// head is one signed tree head. It is never changed once made.
type head struct {
	size       int64
	root       tlog.Hash
	checkpoint []byte
	// edge holds the stored hashes that the root, and all later hashes, are made
	// from. Nil when it has not been read yet.
	edge edge
}

func (h *head) same(o *head) bool { return h.size == o.size && h.root == o.root }

// knownHead is the newest head that this process has seen and found consistent
// with all before it. It only moves forward.
type knownHead struct {
	mu  sync.Mutex
	h   *head
	bad error // why the database's head was refused, until a good one is seen
}

func (k *knownHead) load() *head {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.h
}

// store notes a head that was found consistent.
func (k *knownHead) store(h *head) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bad = nil
	if h != nil && (k.h == nil || h.size > k.h.size || h.size == k.h.size && k.h.edge == nil) {
		k.h = h
	}
}

func (k *knownHead) refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bad = err
}

func (k *knownHead) refused() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bad
}

// querier is what reads: a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// check reads the database's head, compares it with the last known one, and
// returns it. It returns ErrBehind if they contradict each other, ErrUnavailable
// if the head cannot be read.
func (l *Log) check(ctx context.Context) (*head, error) {
	known := l.known.load() // before reading: meanwhile the head may move on
	h, err := scanHead(l.cfg.Pool.QueryRow(ctx, "SELECT size, root, checkpoint FROM audit.head"))
	return l.admit(ctx, l.cfg.Pool, h, err, known)
}

// admit returns a head that was read, or was not, with its edge, if it is consistent
// with known:
//
//  1. the checkpoint is signed by the log's key and says what the row says;
//  2. it is not smaller than the known one, nor another of the same size;
//  3. the stored hashes give its root, and at the known size the known root.
//
// A head that passes becomes the known one.
func (l *Log) admit(ctx context.Context, q querier, h *head, err error, known *head) (*head, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, l.behind(errors.New("the head is gone"))
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if known != nil && known.edge != nil && known.same(h) {
		l.known.store(known)
		return known, nil
	}

	tree, err := checkpoint.Open(h.checkpoint, l.verifier)
	if err != nil {
		return nil, l.refuse(ErrKey.Because(err))
	}
	if tree.N != h.size || tree.Hash != h.root {
		return nil, l.behind(errors.New("the head is not what its checkpoint says"))
	}
	sizes := []int64{h.size}
	if known != nil {
		if h.size < known.size {
			return nil, l.behind(fmt.Errorf("it has %d entries, the last known checkpoint %d", h.size, known.size))
		}
		sizes = append(sizes, known.size)
	}
	edges, err := readEdges(ctx, q, sizes...)
	if err != nil {
		return nil, l.unreadable(err)
	}
	if known != nil {
		if root, err := edges[1].root(known.size); err != nil || root != known.root {
			return nil, l.behind(fmt.Errorf("its first %d entries are not those of the last known checkpoint", known.size))
		}
	}
	h.edge = edges[0]
	if root, err := h.edge.root(h.size); err != nil || root != h.root {
		return nil, l.behind(errors.New("its tree hashes do not give its root"))
	}
	l.known.store(h)
	return h, nil
}

func scanHead(row pgx.Row) (*head, error) {
	var (
		h    head
		root []byte
		msg  string
	)
	if err := row.Scan(&h.size, &root, &msg); err != nil {
		return nil, fmt.Errorf("reading the log's head: %w", err)
	}
	if len(root) != tlog.HashSize {
		return nil, errors.New("reading the log's head: its root is not a hash")
	}
	h.root, h.checkpoint = tlog.Hash(root), []byte(msg)
	return &h, nil
}

// behind says that the database's log contradicts what is known.
func (l *Log) behind(cause error) error { return l.refuse(ErrBehind.Because(cause)) }

// refuse keeps the log from being used until a good head is seen again.
func (l *Log) refuse(err error) error {
	l.known.refuse(err)
	l.logger.Error("the log in the database is refused", "error", err)
	return err
}

// unreadable tells hashes that are missing from a database that is.
func (l *Log) unreadable(err error) error {
	if errors.Is(err, errMissingHash) {
		return l.behind(err)
	}
	return unavailable(err)
}

// unavailable makes a refusal of what is none.
func unavailable(err error) error {
	if refusal.As(err) != nil {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23514" && strings.HasPrefix(pg.Message, "no partition of relation") {
		return ErrNoPartition.Because(err)
	}
	return ErrUnavailable.Because(err)
}
