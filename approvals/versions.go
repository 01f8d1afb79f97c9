package approvals

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// begin makes the file's document a version if nobody could propose one: there is
// none yet, or the one in force names no operators. Otherwise the file decides
// nothing, and begin only says so if it differs. Of several processes that start
// at once, one makes the version.
func (s *Service) begin(ctx context.Context, file *policy.Policy) error {
	now := s.cfg.Clock.Now()
	var head *policy.Policy
	var staged []uuid.UUID
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		if err := lockVersions(ctx, tx); err != nil {
			return err
		}
		if head, err = s.head(ctx, tx); err != nil {
			return err
		}
		if head != nil && (head.Hash == file.Hash || len(head.Roles[api.Operator]) > 0) {
			return nil
		}
		n, adopted, err := adopt(ctx, tx, file, head)
		if err != nil {
			return err
		}
		e := event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{},
			event.PolicyActivated{Rules: len(file.Rules), Bytes: len(file.Text)}).
			Under(event.PolicyRef{Version: n, Hash: file.Hash})
		if !adopted {
			if err := insertVersion(ctx, tx, n, file, now); err != nil {
				return err
			}
		}
		a := Activation{Format: ActivationFormat, Version: n, Hash: file.Hash, EventID: e.ID.String(), Time: now}
		if err := s.insertActivation(ctx, tx, a, ""); err != nil {
			return err
		}
		staged = append(staged, e.ID)
		return s.cfg.Log.Stage(ctx, tx, e)
	})
	if err != nil {
		return fmt.Errorf("activating the policy: %w", err)
	}
	if len(staged) > 0 {
		_, err := s.cfg.Log.Wait(ctx, staged...)
		return err
	}
	if head.Hash != file.Hash {
		s.cfg.Logger.Warn("the policy's file is not what is in force: a version that was approved since is. "+
			"To bring the file into force, propose it: sally policy propose FILE",
			"version_in_force", head.Version, "hash_in_force", head.Hash, "hash_of_file", file.Hash)
	}
	return nil
}

// adopt finds the number of the version that the file becomes. A database that was
// begun before versions were vouched for has rows of documents that were in force:
// the newest of those keeps its number if it is the file's, which somebody has put
// before the broker again.
func adopt(ctx context.Context, tx pgx.Tx, file, head *policy.Policy) (n int64, adopted bool, err error) {
	var newest string
	var taken bool
	err = tx.QueryRow(ctx, `
		SELECT version, hash, EXISTS (SELECT FROM policy_activations AS a WHERE a.version = v.version)
		FROM policy_versions AS v ORDER BY version DESC LIMIT 1`).Scan(&n, &newest, &taken)
	if errors.Is(err, pgx.ErrNoRows) {
		return 1, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if head == nil && newest == file.Hash && !taken {
		return n, true, nil
	}
	return n + 1, false, nil
}
