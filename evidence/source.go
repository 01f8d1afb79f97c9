package evidence

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/evidence/pack"
)

// source is the broker's log and what is kept beside it, as a pack's writer reads them.
type source struct {
	log       *audit.Log
	approvals Documents
}

func (s source) Scan(ctx context.Context, from, to int64, each func(int64, []byte) error) error {
	return s.log.Scan(ctx, from, to, func(e audit.Entry) error { return each(e.Index, e.Leaf) })
}

func (s source) LeafHashes(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	return s.log.LeafHashes(ctx, from, to)
}

func (s source) Hashes(ctx context.Context) tlog.HashReader { return s.log.Hashes(ctx) }

func (s source) Policy(ctx context.Context, hash string) ([]byte, error) {
	text, err := s.approvals.PolicyDocument(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, pack.ErrNotKept
	}
	return text, err
}

func (s source) IDTokens(ctx context.Context, statements []string) (map[string]string, error) {
	return s.approvals.IDTokens(ctx, statements)
}

func (s source) Vouch(kind, text string) ([]byte, error) { return s.log.Vouch(kind, text) }
