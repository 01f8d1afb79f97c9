// Package broker opens the second door: it issues certificates for grants whose
// evidence it has checked itself, keeps the hosts, and never lets a certificate
// out before the event that describes it is in the log (P1).
//
// One certificate goes through four steps, of which a crash may leave out the
// later ones but never an earlier one: the intent (row and event, one
// transaction), its place in the log, the signature, the answer. What is signed
// is byte for byte what was logged, and the log's receipt for it. Beside them, and
// in nobody's way, goes a second event with what came of the intent.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/broker/keys"
	"sallyport/broker/posture"
	"sallyport/broker/sessions"
	"sallyport/internal/clock"
	"sallyport/internal/remember"
)

// Config is what the broker needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log takes the events. Its Run must be running in this process, or nothing
	// is ever issued.
	Log *audit.Log
	// Clock decides what is past, and until when certificates are valid.
	Clock clock.Clock
	// Approvals has the grants and their evidence.
	Approvals *approvals.Service
	// Hosts are the machines that certificates open.
	Hosts *hosts.Registry
	// UserCA signs people's certificates.
	UserCA keys.Signer
	// HostCA signs hosts' certificates. It is another key than UserCA.
	HostCA keys.Signer
	// URL is where clients reach the broker; proofs of possession name it.
	URL string
	// Hold says why no certificates may be issued for now, as long as it returns an
	// error. Optional.
	Hold func() error
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// remembered is how many grants, and how many proofs of possession, a broker remembers
// at least (package remember).
const remembered = 4096

// Broker issues certificates. It is safe for concurrent use, also by several
// processes on one database.
type Broker struct {
	cfg      Config
	verifier note.Verifier // of the log
	results  results
	lane     *audit.Lane[*intent]
	serials  serials
	logged   remember.Memory[struct{}] // grants that the log is known to have
	proved   remember.Memory[struct{}] // proofs that are known to hold: a key gives the same again for the same request
	sessions *sessions.Store
	postures *posture.Store
}

// New records the keys in the log, if they are others than the last, and returns the
// broker. It does not wait for the event's place, which comes when the log runs.
func New(ctx context.Context, cfg Config) (*Broker, error) {
	switch {
	case cfg.Pool == nil:
		return nil, errors.New("broker: no database")
	case cfg.Log == nil:
		return nil, errors.New("broker: no log")
	case cfg.Clock == nil:
		return nil, errors.New("broker: no clock")
	case cfg.Approvals == nil:
		return nil, errors.New("broker: no approvals")
	case cfg.Hosts == nil:
		return nil, errors.New("broker: no hosts")
	case cfg.UserCA == nil || cfg.HostCA == nil:
		return nil, errors.New("broker: a CA's key is missing")
	case fingerprint(cfg.UserCA) == fingerprint(cfg.HostCA):
		return nil, errors.New("broker: users and hosts need separate CAs")
	case cfg.URL == "":
		return nil, errors.New("broker: no URL")
	}
	for _, ca := range []keys.Signer{cfg.UserCA, cfg.HostCA} {
		if err := certs.CheckKey(ca.PublicKey()); err != nil {
			return nil, fmt.Errorf("broker: the key of a CA: %w", err)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	verifier, err := note.NewVerifier(cfg.Log.VerifierKey())
	if err != nil {
		return nil, fmt.Errorf("broker: the log's verifier key: %w", err)
	}
	if _, err := certs.ReceiptExtension(verifier.Name()); err != nil {
		return nil, keys.ErrOrigin.Because(err)
	}
	b := &Broker{cfg: cfg, verifier: receipt.Remember(verifier),
		logged: remember.Memory[struct{}]{Size: remembered}, proved: remember.Memory[struct{}]{Size: remembered},
		sessions: sessions.New(cfg.Pool), postures: posture.New(cfg.Pool)}
	b.results.write, b.results.logger = b.writeResults, cfg.Logger
	b.lane = audit.NewLane(cfg.Log, b.writing)
	if err := b.recordKeys(ctx); err != nil {
		return nil, fmt.Errorf("recording the keys: %w", err)
	}
	return b, nil
}

func (b *Broker) recordKeys(ctx context.Context) error {
	loaded := event.KeysLoaded{UserCA: fingerprint(b.cfg.UserCA), HostCA: fingerprint(b.cfg.HostCA), Log: b.cfg.Log.VerifierKey()}
	return b.cfg.Log.RecordChange(ctx, "broker.keys_loaded", func(before event.Data) (event.Event, bool) {
		last, known := before.(event.KeysLoaded)
		for _, key := range []struct{ name, was, is string }{
			{"user_ca", last.UserCA, loaded.UserCA}, {"host_ca", last.HostCA, loaded.HostCA}, {"log", last.Log, loaded.Log}} {
			if known && key.was != key.is {
				loaded.Replaced = append(loaded.Replaced, key.name)
			}
		}
		return event.New(b.cfg.Clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, loaded), !known || len(loaded.Replaced) > 0
	})
}

// UserCA is the public key of the user CA, a line for TrustedUserCAKeys.
func (b *Broker) UserCA() string {
	return certs.Line(b.cfg.UserCA.PublicKey()) + " sallyport user CA"
}

// HostCA is the public key of the host CA, "type base64".
func (b *Broker) HostCA() string { return certs.Line(b.cfg.HostCA.PublicKey()) }

// KnownHosts are lines for known_hosts that trust the host CA for the names, and
// for nothing else.
func (b *Broker) KnownHosts(names ...string) []string {
	return []string{"@cert-authority " + strings.Join(names, ",") + " " + certs.Line(b.cfg.HostCA.PublicKey())}
}

func fingerprint(s keys.Signer) string { return ssh.FingerprintSHA256(s.PublicKey()) }
