package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
	"sallyport/internal/ids"
)

// candidate is a host that wants to enrol, and has proved that it holds its key.
type candidate struct {
	in     hostapi.EnrolmentInput
	key    string // normal form
	print  string // its fingerprint
	source string
}

// Enrol lets a host in that shows a join token, or lets one that has none wait. The
// rules:
//
//  1. The host proves that it holds its key, for this broker, now, for all that it says.
//  2. The token is good, and is used up together with what it does. If the answer was
//     lost, the same host may show it again.
//  3. A new host gets the name, the labels and the logins of the token, and the name is
//     free; a host that there is keeps its own and gets the key.
//  4. No other live host has the key.
//  5. Where it is, the token says, or else the host. Its own word leads the broker, which
//     looks at it from outside, to no address of the broker's own (posture.Elsewhere).
//
// That somebody shows a token that is over is an event, as it may have been stolen.
// Exactly one of the results is not nil.
func (s *Service) Enrol(ctx context.Context, source string, in hostapi.EnrolmentInput) (*hostapi.Enrolment, *hostapi.Pending, error) {
	c, err := s.candidate(source, in)
	if err != nil {
		return nil, nil, err
	}
	if in.Token == "" {
		p, err := s.wait(ctx, c)
		return nil, p, err
	}
	var hostID string
	var over *token
	err = s.change(ctx, func(tx pgx.Tx) error {
		over = nil
		if err := oneByOne(ctx, tx); err != nil {
			return err
		}
		t, err := findToken(ctx, tx, "secret_hash", hostapi.TokenHash(in.Token))
		switch {
		case err != nil:
			return err
		case t == nil:
			return ErrJoinToken
		case !t.good(s.cfg.Clock.Now()):
			if hostID, err = s.again(ctx, tx, c, *t); err != nil || hostID != "" {
				return err
			}
			over = t
			return ErrJoinToken
		}
		hostID, err = s.join(ctx, tx, c, *t)
		return err
	})
	if over != nil {
		now := s.cfg.Clock.Now()
		s.cfg.Log.Refused(ctx, event.New(now, event.Actor{Kind: event.Host}, source, event.Subject{HostID: over.usedBy}, event.EnrolmentRefused{
			TokenID: over.ID, Name: over.Name, HostKey: c.print, Code: ErrJoinToken.Code, Reason: "the token is " + over.api(now).State}))
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := s.enrolment(ctx, hostID, source)
	return e, nil, err
}

// candidate checks what can be checked without asking anybody.
func (s *Service) candidate(source string, in hostapi.EnrolmentInput) (candidate, error) {
	for _, fact := range []string{in.Facts.OS, in.Facts.OpenSSH, in.Facts.Kernel, in.Facts.Helper} {
		if len(fact) > hostapi.MaxFact || !utf8.ValidString(fact) || strings.ContainsRune(fact, 0) {
			return candidate{}, ErrFacts
		}
	}
	if now := s.cfg.Clock.Now(); in.Time.Add(hostapi.MaxSkew).Before(now) || now.Add(hostapi.MaxSkew).Before(in.Time) {
		return candidate{}, ErrClock.With("the host's clock is %s off the broker's", now.Sub(in.Time).Abs().Truncate(time.Second))
	}
	key, err := hostapi.VerifyEnrolment(in, s.cfg.URL)
	if err != nil {
		return candidate{}, ErrEnrolProof.Because(err)
	}
	if err := certs.CheckKey(key); err != nil {
		return candidate{}, err
	}
	if in.Address == "" {
		in.Address = net.JoinHostPort(source, "22")
	}
	return candidate{in: in, key: certs.Line(key), print: ssh.FingerprintSHA256(key), source: source}, nil
}

// again is the host that used the token before, if that was this one and it is enrolled
// still.
func (s *Service) again(ctx context.Context, tx pgx.Tx, c candidate, t token) (string, error) {
	if t.used == nil {
		return "", nil
	}
	h, err := known(ctx, tx, t.usedBy)
	if err != nil || h == nil || h.key != c.key {
		return "", err
	}
	return h.id, nil
}

// join makes the host that the token is for, and uses it up.
func (s *Service) join(ctx context.Context, tx pgx.Tx, c candidate, t token) (string, error) {
	id := cmp.Or(t.HostID, ids.New(ids.Host))
	operator := event.Actor{Kind: event.Person, ID: t.MadeBy.ID, Name: t.MadeBy.Name}
	by := hosts.By{Actor: event.Actor{Kind: event.Host, ID: id, Name: t.Name}, OnBehalfOf: &operator, Source: c.source}
	if err := s.keyIsFree(ctx, tx, c.key, id); err != nil {
		return "", err
	}
	var h api.Host
	var proposed string
	var err error
	if t.HostID == "" && t.Address == "" {
		if proposed, err = proposal(c.in.Address); err != nil {
			return "", err
		}
	}
	if t.HostID != "" {
		h, err = s.cfg.Hosts.Rekey(ctx, tx, by, id, c.key)
		if errors.Is(err, approvals.ErrUnknownHost) { // removed since
			return "", ErrJoinToken
		}
	} else {
		h, err = s.cfg.Hosts.Add(ctx, tx, by, id, api.HostInput{Name: t.Name, Address: cmp.Or(t.Address, proposed), Labels: t.Labels,
			Logins: t.Logins, HostKey: c.key})
	}
	if err != nil {
		return "", err
	}
	now := s.cfg.Clock.Now()
	if _, err := tx.Exec(ctx, `UPDATE join_tokens SET used_at = $2, used_by = $3 WHERE id = $1`, t.ID, now, id); err != nil {
		return "", fmt.Errorf("using a join token: %w", err)
	}
	return id, s.letIn(ctx, tx, c, h, by, letting{operator, proposed, "", t.ID})
}

// proposal is the address that a host proposes, in the form in which it is kept, or
// refuses it. What a name leads to is looked at whenever somebody goes there.
func proposal(address string) (string, error) {
	address, err := hosts.Address(address)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip, err := netip.ParseAddr(host); err == nil && !posture.Elsewhere(ip) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return "", ErrProposedAddress
	}
	return address, nil
}

// letting is how a host is let in.
type letting struct {
	operator           event.Actor // who made the token, or approved
	proposed           string      // address that is the host's own word, if it is
	enrolment, tokenID string
}

// letIn writes down that the host speaks for itself from now on. One that enrols again
// keeps its address, and whose word that is.
func (s *Service) letIn(ctx context.Context, tx pgx.Tx, c candidate, h api.Host, by hosts.By, l letting) error {
	now, facts := s.cfg.Clock.Now(), c.in.Facts
	_, err := tx.Exec(ctx, `
		INSERT INTO enrolled_hosts (host_id, host_key, facts, enrolled_at, let_in_by, let_in_by_name, proposed) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (host_id) DO UPDATE SET host_key = excluded.host_key, facts = excluded.facts, enrolled_at = excluded.enrolled_at,
			let_in_by = excluded.let_in_by, let_in_by_name = excluded.let_in_by_name`,
		h.ID, c.key, facts, now, l.operator.ID, l.operator.Name, l.proposed)
	if err != nil {
		return fmt.Errorf("enrolling a host: %w", err)
	}
	return s.cfg.Log.Stage(ctx, tx, by.Event(now, event.Subject{HostID: h.ID}, event.HostEnrolled{Name: h.Name, HostKey: c.print,
		EnrolmentID: l.enrolment, TokenID: l.tokenID, OS: facts.OS, OpenSSH: facts.OpenSSH, Kernel: facts.Kernel, Helper: facts.Helper}))
}

// keyIsFree refuses a key that another live host has: two hosts with one key could speak
// for each other.
func (s *Service) keyIsFree(ctx context.Context, tx pgx.Tx, key, but string) error {
	var taken bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM enrolled_hosts AS e JOIN hosts AS h ON h.id = e.host_id
			WHERE e.host_key = $1 AND h.id <> $2 AND h.removed_at IS NULL AND h.host_key = e.host_key)`, key, but).Scan(&taken)
	if err != nil {
		return fmt.Errorf("looking for a host's key: %w", err)
	}
	if taken {
		return ErrKeyTaken
	}
	return nil
}
