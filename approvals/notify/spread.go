package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// MaxPeople is how many people one notice tells personally, through one channel.
// A group that is larger needs an address of its own: nobody in particular would
// feel meant.
const MaxPeople = 200

// recipient is one to whom a notice goes.
type recipient struct {
	channel string
	person  string // "": the channel's own addressees
}

// spread turns a due notice into messages, one for each recipient that has none
// yet. It may run any number of times, in several replicas at once.
func (d *Desk) spread(ctx context.Context, n Notice) error {
	if err := d.wait(n.Due); err != nil {
		return err
	}
	about, err := d.story(ctx, n)
	if err != nil {
		return err
	}
	if about.overtaken(n, d.cfg.Clock.Now()) {
		return nil
	}
	to, problems, err := d.recipients(ctx, n, about)
	if err != nil {
		return err
	}
	if len(to) == 0 && len(problems) == 0 && mustReachSomebody(n.Kind) {
		problems = append(problems, Failure{Error: "nobody could be told: no channel is routed for " +
			strings.Join(n.Groups, ", ") + ", or nobody in these groups is known"})
	}
	err = pgx.BeginFunc(ctx, d.cfg.Pool, func(tx pgx.Tx) error {
		added, err := d.insert(ctx, tx, n, to)
		if err != nil {
			return err
		}
		jobs := make([]river.InsertManyParams, len(added))
		for i, id := range added {
			jobs[i] = river.InsertManyParams{Args: messageJob{MessageID: id, Notice: n}, InsertOpts: &river.InsertOpts{Queue: Queue}}
		}
		if len(jobs) > 0 {
			if _, err := d.queue.InsertManyTx(ctx, tx, jobs); err != nil {
				return fmt.Errorf("enqueueing messages: %w", err)
			}
		}
		for _, p := range problems {
			if err := d.undeliverable(ctx, tx, n, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.cfg.Log.Kick()
	return nil
}

// story is what a notice is about, as it is now. What it is not about is nil.
type story struct {
	request    *api.Request
	delegation *api.Delegation
	proposal   *api.PolicyProposal
}

func (d *Desk) story(ctx context.Context, n Notice) (about story, err error) {
	switch {
	case n.RequestID != "":
		var r api.Request
		r, err = d.cfg.Source.Story(ctx, n.RequestID)
		about.request = &r
	case n.DelegationID != "":
		var l api.Delegation
		l, err = d.cfg.Source.Delegation(ctx, n.DelegationID)
		about.delegation = &l
	case n.ProposalID != "":
		var p api.PolicyProposal
		p, err = d.cfg.Source.Proposal(ctx, n.ProposalID)
		about.proposal = &p
	}
	if refused := refusal.As(err); refused != nil && refused.Kind != refusal.Unavailable {
		err = river.JobCancel(err) // another attempt would find the same
	}
	return about, err
}

// recipients are those who are told of the notice:
//
//  1. of what settles earlier messages: whoever was told by them;
//  2. of all else: the channels of its groups, and each member of a group where
//     the channel is personal, without those who know already;
//  3. of a request to decide, those who can decide for a member, too;
//  4. the requester, of what becomes of the request and that access ends soon, and
//     who proposed a policy, of what becomes of that;
//  5. of a delegation, the two whom it names;
//  6. the operators, of what concerns everybody.
//
// What keeps somebody from being told is returned as problems.
func (d *Desk) recipients(ctx context.Context, n Notice, about story) ([]recipient, []Failure, error) {
	var to []recipient
	var problems []Failure
	if kinds := followsUp(n.Kind); len(kinds) > 0 {
		earlier, err := d.toldBefore(ctx, n.RequestID, kinds)
		if err != nil {
			return nil, nil, err
		}
		to = append(to, slices.DeleteFunc(earlier, func(t recipient) bool { return t.person != "" && about.excluded(n, t.person) })...)
	}
	for _, route := range d.cfg.Setup.routes(d.cfg.Setup.told(n)) {
		if !d.cfg.Setup.personal(route.channel) {
			to = append(to, recipient{channel: route.channel})
			continue
		}
		members, err := d.cfg.People.Members(ctx, route.groups, MaxPeople+about.mayDropOut())
		if err != nil {
			return nil, nil, err
		}
		told := 0
		for _, p := range members {
			if p.Email == "" || about.excluded(n, p.ID) {
				continue
			}
			if told++; told > MaxPeople {
				problems = append(problems, Failure{Channel: route.channel, Error: fmt.Sprintf(
					"only %d people of %s were told: give so large a group a channel with an address of its own",
					MaxPeople, strings.Join(route.groups, ", "))})
				break
			}
			to = append(to, recipient{route.channel, p.ID})
		}
	}
	to = append(to, d.standIns(n, about)...)
	if channel, p := d.cfg.Setup.requester, about.concerned(n); channel != "" && p != nil && p.Email != "" {
		to = append(to, recipient{channel, p.ID})
	}
	if tellsOperators(n.Kind) {
		for _, channel := range d.cfg.Setup.operators {
			to = append(to, recipient{channel: channel})
		}
	}
	return to, problems, nil
}

// undeliverable keeps that a notice did not reach people whom it should have
// reached, where operators see it, with its event.
func (d *Desk) undeliverable(ctx context.Context, tx pgx.Tx, n Notice, f Failure) error {
	id, now := ids.New(ids.Message), d.cfg.Clock.Now()
	tag, err := tx.Exec(ctx, `
		INSERT INTO messages (id, notice, kind, request_id, channel, created_at, state, ended_at, error)
		VALUES ($1, $2, $3, $4, $5, $6, 'failed', $6, $7)
		ON CONFLICT (notice, channel, person_id) DO NOTHING`,
		id, n.ID, n.Kind, nullable(n.RequestID), f.Channel, now, f.Error)
	if err != nil {
		return fmt.Errorf("writing a message: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return d.failed(ctx, tx, n, message{ID: id, Channel: f.Channel}, f.Error)
}

// failed stages the event of a message that was given up, and tells the operators
// of the channel: once an hour is enough, and never of its own kind.
func (d *Desk) failed(ctx context.Context, tx pgx.Tx, n Notice, m message, why string) error {
	now := d.cfg.Clock.Now()
	d.cfg.Observe(m.Channel, "failed")
	if n.Kind != DeliveryFailed {
		hour := now.Format("2006-01-02T15")
		err := d.Post(ctx, tx, Notice{ID: "failed/" + m.Channel + "/" + hour, Kind: DeliveryFailed, Due: now,
			Failure: &Failure{Channel: m.Channel, Error: why}})
		if err != nil {
			return err
		}
	}
	return d.cfg.Log.Stage(ctx, tx, event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: n.RequestID},
		event.MessageFailed{MessageID: m.ID, Notice: string(n.Kind), Channel: m.Channel, Attempts: m.Attempts, Error: why}))
}
