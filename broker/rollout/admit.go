package rollout

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/broker/agents"
)

// RunOf is the run as deployments know it, with the address of this call.
func RunOf(r agents.Run, source string) Run {
	return Run{ID: r.ID, Entry: r.Entry, Issuer: r.Issuer, Subject: r.Subject, Claims: r.Claims, Key: r.Key,
		TokenHash: r.TokenHash, Policy: r.Policy, Source: source, Expires: r.Expires}
}

// OpenBy opens a deployment for whoever made the call, or attaches them to the one under
// way. With a token, which is a job's first call, the transaction that takes the token
// opens; what is refused takes none. Without, the call's key has made a run before.
func (s *Service) OpenBy(ctx context.Context, admission *agents.Service, call agents.Call, token string, in api.DeploymentInput) (api.Deployment, error) {
	var run Run // as soon as it is known
	if token == "" {
		found, err := admission.Authenticate(ctx, call)
		if err != nil {
			return api.Deployment{}, err
		}
		run = RunOf(found, call.Source)
	}
	// What is wrong with it only those hear whose token is good.
	opening, unfit := s.Prepare(ctx, in)
	var id string
	var err error
	switch {
	case run.ID != "" && unfit != nil:
		err = unfit
	case run.ID != "":
		id, err = s.Open(ctx, run, opening)
	default:
		_, err = admission.Redeem(ctx, token, call, func(ctx context.Context, tx pgx.Tx, found agents.Run) (err error) {
			if run = RunOf(found, call.Source); unfit != nil {
				return unfit
			}
			id, err = s.OpenIn(ctx, tx, run, opening)
			return err
		})
	}
	if err != nil {
		return api.Deployment{}, s.Refused(ctx, run, event.DeploymentRefused{Action: "open", Service: in.Service, Environment: in.Environment}, err)
	}
	return s.Opened(ctx, run, id)
}
