package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
	"sallyport/internal/ids"
)

// Call is one call as it came, to be authenticated.
type Call struct {
	Authorization string // the header
	Method        string
	Target        string // path and query, as in the request line
	Body          []byte
	Source        string // address of the caller
	// Changes says that the call must not be taken twice.
	Changes bool
}

// Caller is a host that made a call.
type Caller struct {
	ID, Name, Source string

	key     string // of the host, as the registry has it
	letInBy event.Actor
}

// Actor is the host in events.
func (c Caller) Actor() event.Actor { return event.Actor{Kind: event.Host, ID: c.ID, Name: c.Name} }

func (c Caller) certifies() hosts.By {
	return hosts.By{Actor: c.Actor(), OnBehalfOf: &c.letInBy, Source: c.Source}
}

// enrolled is a host that is enrolled now: it is in the registry, with the key that it
// enrolled with.
type enrolled struct {
	id, name, key string
	letInBy       event.Actor
}

// known returns the enrolled host of that id, or nil.
func known(ctx context.Context, q querier, id string) (*enrolled, error) {
	rows, err := q.Query(ctx, `
		SELECT h.id, h.name, h.host_key, e.let_in_by, e.let_in_by_name FROM enrolled_hosts AS e JOIN hosts AS h ON h.id = e.host_id
		WHERE e.host_id = $1 AND h.removed_at IS NULL AND h.host_key = e.host_key`, id)
	if err != nil {
		return nil, fmt.Errorf("finding an enrolled host: %w", err)
	}
	h, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*enrolled, error) {
		h := &enrolled{letInBy: event.Actor{Kind: event.Person}}
		return h, row.Scan(&h.id, &h.name, &h.key, &h.letInBy.ID, &h.letInBy.Name)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding an enrolled host: %w", err)
	}
	return h, nil
}

// Authenticate says which host made a call. The rules, each of which refuses:
//
//  1. The call is signed in the one form of api/hostapi, at most 5 minutes ago by the
//     broker's clock.
//  2. The host is enrolled, and the signature is by its key and over all of the call.
//  3. A call that changes something was not made before, as far as this process has seen.
//
// Who only asks is known again for rememberFor without asking the database: thousands of
// hosts ask again at the same moment, whenever something is revoked. A host that was
// removed meanwhile hears so long what opens it no more, which it should.
func (s *Service) Authenticate(ctx context.Context, call Call) (Caller, error) {
	credential, err := s.credential(call)
	if err != nil {
		return Caller{}, err
	}
	if !ids.Valid(ids.Host, credential.ID) {
		return Caller{}, ErrUnknownHost
	}
	h := s.acquainted(credential.ID)
	if h == nil || call.Changes {
		if h, err = known(ctx, s.cfg.Pool, credential.ID); err != nil {
			return Caller{}, err
		}
	}
	if h == nil {
		return Caller{}, ErrUnknownHost
	}
	if err := s.verify(credential, h.key, call); err != nil {
		return Caller{}, err
	}
	s.remember(h)
	s.note(h.id)
	return Caller{ID: h.id, Name: h.name, Source: call.Source, key: h.key, letInBy: h.letInBy}, nil
}

func (s *Service) credential(call Call) (hostapi.Credential, error) {
	credential, err := hostapi.ParseCredential(call.Authorization)
	if err != nil {
		return credential, ErrSignature.Because(err)
	}
	if now := s.cfg.Clock.Now(); !credential.InTime(now) {
		return credential, ErrClock.With("the host's clock is %s off the broker's", now.Sub(credential.Time).Abs().Truncate(time.Second))
	}
	return credential, nil
}

func (s *Service) verify(credential hostapi.Credential, line string, call Call) error {
	key, err := certs.ParseKey(line)
	if err != nil {
		return ErrSignature.Because(err)
	}
	if err := credential.Verify(key, call.Method, call.Target, call.Body); err != nil {
		return ErrSignature.Because(err)
	}
	if call.Changes && !s.nonces.first(credential, s.cfg.Clock.Now()) {
		return ErrReplay
	}
	return nil
}

// Asked says what became of an enrolment that waited, to the host that made it. It is
// either an enrolment or, as long as it waits, the same as before.
func (s *Service) Asked(ctx context.Context, id string, call Call) (*hostapi.Enrolment, *hostapi.Pending, error) {
	credential, err := s.credential(call)
	if err != nil {
		return nil, nil, err
	}
	if !ids.Valid(ids.Enrolment, id) || credential.ID != id {
		return nil, nil, ErrUnknownEnrolment
	}
	list, err := enrolments(ctx, s.cfg.Pool, `WHERE id = $1`, id)
	if err != nil {
		return nil, nil, err
	}
	if len(list) == 0 {
		return nil, nil, ErrUnknownEnrolment
	}
	e := list[0]
	if err := s.verify(credential, e.key, call); err != nil {
		return nil, nil, err
	}
	switch {
	case e.state == "approved":
		out, err := s.enrolment(ctx, e.hostID, call.Source)
		return out, nil, err
	case e.state == "refused":
		return nil, nil, ErrRefused
	case e.state == "expired" || !s.cfg.Clock.Now().Before(e.expires):
		return nil, nil, ErrUnknownEnrolment
	}
	return nil, e.pending(), nil
}

// Renew returns a host's enrolment as it is now, with a new certificate.
func (s *Service) Renew(ctx context.Context, c Caller) (*hostapi.Enrolment, error) {
	return s.enrolment(ctx, c.ID, c.Source)
}

// enrolment certifies an enrolled host and says all that it has to know.
func (s *Service) enrolment(ctx context.Context, hostID, source string) (*hostapi.Enrolment, error) {
	k, err := known(ctx, s.cfg.Pool, hostID)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, ErrUnknownHost
	}
	if !s.certificates.Allow(hostID) {
		return nil, ErrTooManyCalls
	}
	caller := Caller{ID: k.id, Name: k.name, Source: source, letInBy: k.letInBy}
	cert, err := s.cfg.Broker.CertifyHost(ctx, caller.certifies(), hostID)
	if err != nil {
		return nil, err
	}
	h, err := s.cfg.Hosts.Get(ctx, hostID)
	if err != nil {
		return nil, err
	}
	var last uint64
	if err := s.cfg.Pool.QueryRow(ctx, `SELECT last_report FROM enrolled_hosts WHERE host_id = $1`, hostID).Scan(&last); err != nil {
		return nil, fmt.Errorf("reading a host's last report: %w", err)
	}
	principals := map[string]string{}
	for _, login := range h.Logins {
		if principals[login], err = certs.Principal(login, h.ID); err != nil {
			return nil, err
		}
	}
	return &hostapi.Enrolment{HostID: h.ID, Name: h.Name, Labels: h.Labels, Logins: h.Logins, Principals: principals, URL: s.cfg.URL,
		UserCAs: []string{s.cfg.Broker.UserCA()}, LogKey: s.cfg.Log.VerifierKey(), HostCA: s.cfg.Broker.HostCA(),
		HostCertificate: cert.Certificate, ValidBefore: cert.ValidBefore, LastReport: last,
		Settings: hostapi.Settings{MaxSilenceSeconds: int64(MaxSilence / time.Second), RenewAt: s.cfg.Clock.Now().Add(renewAfter),
			PostureEverySeconds: int64(posture.Every / time.Second), Listen: s.listen(h.Labels), AuditorKeys: s.cfg.RecordingKeys}}, nil
}

// nonces remembers calls for as long as they could be made again. It is bounded by how
// often hosts may call.
type nonces struct {
	mu   sync.Mutex
	seen [2]map[string]struct{} // of this stretch of time and the one before
	at   time.Time              // when this stretch began
}

// first reports whether the call was not seen before, and remembers it. A call is good
// from MaxSkew before to MaxSkew after its time, so that two stretches of twice that
// have all that is.
func (n *nonces) first(c hostapi.Credential, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := now.Sub(n.at); n.seen[0] == nil || age > 2*hostapi.MaxSkew {
		n.seen[1] = n.seen[0]
		if age > 4*hostapi.MaxSkew {
			n.seen[1] = nil
		}
		n.seen[0], n.at = map[string]struct{}{}, now
	}
	key := c.ID + " " + c.Nonce
	for _, seen := range n.seen {
		if _, again := seen[key]; again {
			return false
		}
	}
	n.seen[0][key] = struct{}{}
	return true
}
