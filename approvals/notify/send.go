package notify

import (
	"context"
	"errors"
	"log/slog"
	"net/mail"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// MaxAttempts is how often a message is tried, over about two hours.
const MaxAttempts = 10

// pauses are those after the first attempts; the last one is for all further.
var pauses = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute}

func pause(attempts int) time.Duration { return pauses[min(attempts, len(pauses))-1] }

// send makes one attempt to deliver a message. The order makes the follow-up
// complete: first the attempt is on record, then the request is read. So a
// message that tells of an open request is on record before the request closes,
// and the follow-up goes to whoever may have got it.
func (d *Desk) send(ctx context.Context, job messageJob) error {
	m, ok, err := d.begin(ctx, job.MessageID)
	if err != nil || !ok {
		return err
	}
	n := job.Notice
	about, err := d.story(ctx, n)
	if err != nil {
		return err
	}
	if about.overtaken(n, d.cfg.Clock.Now()) {
		return d.end(ctx, n, m, "dropped", "")
	}
	err = d.attempt(ctx, n, m, about)
	// The attempt has been made: that the process is stopping must not hide its outcome.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	switch {
	case err == nil:
		return d.end(ctx, n, m, "sent", "")
	case errors.Is(err, errGone):
		return d.end(ctx, n, m, "dropped", "")
	case errors.Is(err, errPermanent) || m.Attempts >= MaxAttempts:
		d.cfg.Logger.WarnContext(ctx, "a message was given up", slog.String("message", m.ID),
			slog.String("channel", m.Channel), slog.Any("error", err))
		return d.end(ctx, n, m, "failed", brief(err))
	}
	if err := d.retry(ctx, m, brief(err)); err != nil {
		return err
	}
	d.cfg.Observe(m.Channel, "retrying")
	return river.JobSnooze(pause(m.Attempts))
}

// errGone says that the addressee has been removed, and is told nothing any more.
var errGone = errors.New("the person has been removed")

func (d *Desk) attempt(ctx context.Context, n Notice, m message, about story) error {
	channel, ok := d.cfg.Setup.channels[m.Channel]
	if !ok {
		return permanent{errors.New("the channel is no longer configured")}
	}
	out := Message{ID: m.ID, At: d.cfg.Clock.Now(), Kind: n.Kind, Link: d.link(n),
		Request: about.request, Delegation: about.delegation, Proposal: about.proposal, Failure: n.Failure, Alarm: n.Alarm}
	if m.PersonID != "" {
		p, err := d.cfg.People.Person(ctx, m.PersonID)
		if err != nil {
			return err
		}
		if p.Removed != nil {
			return errGone
		}
		if out.To, err = addressee(p.DisplayName(), p.Email); err != nil {
			return permanent{err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*sendTimeout)
	defer cancel()
	return channel.Send(ctx, out)
}

// addressee is a person's address, as the provider gives it: exactly one, and
// nothing around it.
func addressee(name, address string) (*mail.Address, error) {
	a, err := mail.ParseAddress(address)
	if err != nil || a.Address != address {
		return nil, errors.New("the provider gives no usable mail address for the person")
	}
	return &mail.Address{Name: strings.ReplaceAll(oneLine(name, 60), "=?", "= ?"), Address: address}, nil
}

// end closes a message, and when it failed says so.
func (d *Desk) end(ctx context.Context, n Notice, m message, state, why string) error {
	err := pgx.BeginFunc(ctx, d.cfg.Pool, func(tx pgx.Tx) error {
		if err := d.close(ctx, tx, m, state, why); err != nil {
			return err
		}
		if state == "failed" {
			return d.failed(ctx, tx, n, m, why)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if state == "failed" {
		d.cfg.Log.Kick()
	} else {
		d.cfg.Observe(m.Channel, state)
	}
	return nil
}

// brief is an error as it is kept and shown.
func brief(err error) string { return oneLine(err.Error(), 300) }
