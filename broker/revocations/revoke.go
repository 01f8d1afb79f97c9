package revocations

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// ErrUnknownCertificate refuses the revocation of a certificate that there is not, or
// that the caller may not know of.
var ErrUnknownCertificate = refusal.New(refusal.NotFound, "unknown-certificate",
	"there is no such certificate", "the serial stands in the request, and in the host's log").On("serial")

// certificate is what is known of the one to be revoked.
type certificate struct {
	serial                       uint64
	request, person, host, login string
}

// Revoke ends what the input names. Requests, people and hosts are package approvals'
// to end; of a certificate the rules are:
//
//  1. Operators revoke anybody's, others their own.
//  2. It opens nothing any more, and the sessions that it opened end. Its grant goes
//     on: who shall get no other has to lose that.
//
// One that is revoked already is no error, and no event.
func (l *List) Revoke(ctx context.Context, c identity.Caller, in api.RevocationInput) (api.Revocation, error) {
	if in.Serial == "" || in.Request != "" || in.Person != "" || in.Host != "" || in.Agent != "" {
		return l.cfg.Approvals.Revoke(ctx, c, in)
	}
	why, err := approvals.CheckWhy(in.Reason)
	if err != nil {
		return api.Revocation{}, err
	}
	cert, err := l.find(ctx, in.Serial)
	if err != nil {
		return api.Revocation{}, err
	}
	about := event.Subject{RequestID: cert.request, PersonID: cert.person, HostID: cert.host}
	if cert.person != c.ID && !c.Has(api.Operator) {
		refused := ErrUnknownCertificate
		if c.Has(api.Auditor) {
			refused = approvals.ErrNotOperator
		}
		l.cfg.Log.Refused(ctx, c.Event(l.cfg.Clock.Now(), about,
			event.AccessRefused{Action: "revocations", Code: refused.Code, Reason: refused.Detail}))
		return api.Revocation{}, refused
	}
	err = pgx.BeginFunc(ctx, l.cfg.Pool, func(tx pgx.Tx) error {
		now := l.cfg.Clock.Now()
		// Last but the event: from here on the list's number is ours until the commit.
		var added bool
		if err := tx.QueryRow(ctx, `SELECT revoke_certificate($1, $2)`, cert.serial, now).Scan(&added); err != nil {
			return fmt.Errorf("revoking a certificate: %w", err)
		}
		if !added {
			return nil
		}
		return l.cfg.Log.Stage(ctx, tx, c.Event(now, about,
			event.CertificateRevoked{Serial: cert.serial, Host: cert.host, Login: cert.login, Reason: why}))
	})
	if err != nil {
		return api.Revocation{}, err
	}
	l.cfg.Log.Kick()
	return api.Revocation{Ended: []string{}, Cancelled: []string{}, Serials: []string{in.Serial}}, nil
}

func (l *List) find(ctx context.Context, serial string) (certificate, error) {
	n, err := strconv.ParseInt(serial, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != serial {
		return certificate{}, ErrUnknownCertificate
	}
	c := certificate{serial: uint64(n)}
	var principal string
	err = l.cfg.Pool.QueryRow(ctx, `SELECT request_id, person_id, host_id, principal FROM certificates WHERE serial = $1`, n).
		Scan(&c.request, &c.person, &c.host, &principal)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, ErrUnknownCertificate
	}
	if err != nil {
		return c, fmt.Errorf("finding a certificate: %w", err)
	}
	c.login, _, _ = strings.Cut(principal, "@")
	return c, nil
}
