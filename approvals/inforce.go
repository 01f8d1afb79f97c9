package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// ErrPolicyUnknown says that this process cannot know which version is in force.
var ErrPolicyUnknown = refusal.New(refusal.Unavailable, "policy-unknown",
	"the broker cannot find out which version of the policy is in force, so nothing is decided",
	"try again in a moment; if it lasts, an operator finds the cause in the broker's log")

const (
	// lookEvery is how often a process looks for a newer version.
	lookEvery = 2 * time.Second
	// maxStale is how long ago a process may have looked when it decides. One that
	// could not look for so long looks first, and if it cannot, decides nothing (P9).
	maxStale = 5 * time.Second
)

// inForce is the version in force as a process knows it.
type inForce struct {
	*policy.Policy
	newest int64 // version in the database when it was read, whether or not believed; -1: look again
}

// Policy is the version in force, as this process knows it: at most seconds old
// while Run runs. It is for what is only shown; decisions take current, once.
func (s *Service) Policy() *policy.Policy { return s.inForce.Load().Policy }

// Roles are those that membership of the groups gives under the version in force,
// which it names; none, if that cannot be known.
func (s *Service) Roles(groups []string) ([]api.Role, event.PolicyRef) {
	ctx, cancel := context.WithTimeout(context.Background(), maxStale)
	defer cancel()
	p, err := s.current(ctx)
	if err != nil {
		s.cfg.Logger.Error("nobody has a role: the policy in force is not known", "error", err)
		return []api.Role{}, event.PolicyRef{}
	}
	return p.RolesOf(groups), ref(p)
}

// current is the version in force for one decision, which must not ask twice.
func (s *Service) current(ctx context.Context) (*policy.Policy, error) {
	if !s.fresh() {
		if err := s.look(ctx); err != nil {
			return nil, ErrPolicyUnknown.Because(err)
		}
	}
	return s.Policy(), nil
}

// fresh reports whether the process has looked for newer versions of late. A clock
// that was put back tells nothing.
func (s *Service) fresh() bool {
	age := s.cfg.Clock.Now().Sub(time.UnixMicro(s.looked.Load()))
	return age >= 0 && age < maxStale
}

// watch looks for newer versions until ctx ends.
func (s *Service) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("looking for a newer policy failed; soon nothing will be decided", "error", err)
		}
	}
}

// look finds out which version is in force now.
func (s *Service) look(ctx context.Context) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	began := s.cfg.Clock.Now()
	var newest int64
	if err := s.cfg.Pool.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM policy_activations`).Scan(&newest); err != nil {
		return fmt.Errorf("looking for versions of the policy: %w", err)
	}
	known := s.inForce.Load()
	if known == nil || known.newest != newest {
		found, err := s.findInForce(ctx, newest)
		if err != nil {
			return err
		}
		if known != nil && found.Version < known.Version {
			return fmt.Errorf("version %d of the policy was in force, and the database knows only version %d", known.Version, found.Version)
		}
		s.inForce.Store(found)
		if known != nil && found.Version != known.Version {
			s.cfg.Logger.Info("another version of the policy is in force", "version", found.Version, "hash", found.Hash)
		}
	}
	s.looked.Store(began.UnixMicro())
	return nil
}

// findInForce is the newest version that is vouched for and whose event has its
// place in the log.
func (s *Service) findInForce(ctx context.Context, newest int64) (*inForce, error) {
	out := inForce{newest: newest}
	err := s.believed(ctx, s.cfg.Pool, func(v version) (bool, error) {
		logged, err := s.activationLogged(ctx, v)
		if err != nil {
			return false, err
		}
		if !logged {
			out.newest = -1 // it may be on its way
			return false, nil
		}
		out.Policy, err = v.parse()
		return true, err
	})
	if err != nil {
		return nil, err
	}
	if out.Policy == nil {
		return nil, errors.New("no version of the policy is in force")
	}
	return &out, nil
}

// activationLogged reports whether the log says of the version what its
// activation says.
func (s *Service) activationLogged(ctx context.Context, v version) (bool, error) {
	entry, err := s.cfg.Log.Find(ctx, v.eventID)
	if errors.Is(err, audit.ErrNoEntry) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e, err := entry.Event()
	if err != nil {
		return false, err
	}
	a := v.activation
	data, ok := e.Data.(event.PolicyActivated)
	if !ok || e.Policy == nil || e.Policy.Version != a.Version || e.Policy.Hash != a.Hash ||
		data.ProposalHash != a.ProposalHash || data.EvidenceHash != a.DecisionHash {
		s.cfg.Logger.Error("the log does not say of a version of the policy what its activation says", "version", a.Version)
		return false, nil
	}
	return true, nil
}

// believed goes through the versions that brokers vouch for, the newest first,
// until visit says that it has seen enough.
func (s *Service) believed(ctx context.Context, db querier, visit func(version) (enough bool, err error)) error {
	rows, err := db.Query(ctx, `SELECT version FROM policy_activations ORDER BY version DESC`)
	if err != nil {
		return fmt.Errorf("reading versions of the policy: %w", err)
	}
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("reading versions of the policy: %w", err)
	}
	for _, n := range numbers {
		v, err := readVersion(ctx, db, n)
		if err != nil {
			return err
		}
		if err := v.check(s.cfg.Log.VerifierKey()); err != nil {
			// Somebody wrote it by hand. It changes nothing, and is news once.
			if _, told := s.forged.LoadOrStore(n, true); !told {
				s.cfg.Logger.Error("a version of the policy in the database is not what a broker put there; it is not in force",
					"version", n, "error", err)
			}
			continue
		}
		if enough, err := visit(v); enough || err != nil {
			return err
		}
	}
	return nil
}

// head is the newest version that brokers vouch for, whether or not the log has
// its event yet: what the next one follows. Nil if there is none. db is the
// transaction that holds lockVersions.
func (s *Service) head(ctx context.Context, db querier) (*policy.Policy, error) {
	var out *policy.Policy
	err := s.believed(ctx, db, func(v version) (_ bool, err error) {
		if known := s.inForce.Load(); known != nil && known.Version == v.activation.Version && known.Hash == v.activation.Hash {
			out = known.Policy
			return true, nil
		}
		out, err = v.parse()
		return true, err
	})
	return out, err
}

// lockVersions lets one process at a time make versions, until tx ends.
func lockVersions(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('policy versions', 0))`)
	return err
}
