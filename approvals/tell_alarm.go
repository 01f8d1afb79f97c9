package approvals

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/notify"
)

// TellAlarm posts to the operators, in the caller's transaction, what a host reported
// that must not be.
func (s *Service) TellAlarm(ctx context.Context, tx pgx.Tx, a notify.Alarm) error {
	return s.desk.Post(ctx, tx, notify.AlarmNotice(a, s.cfg.Clock.Now()))
}
