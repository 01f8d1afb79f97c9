package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// Device authorizations (RFC 8628): a sally without a browser shows a short code,
// a person signed in elsewhere types it and says yes or no.

var (
	// ErrAuthorizationPending says that nobody has decided yet (RFC 8628 section 3.5).
	ErrAuthorizationPending = refusal.New(refusal.Conflict, "authorization-pending",
		"nobody has entered the code yet", "open the page that was shown and enter the code")
	// ErrSlowDown says that the device asks more often than its interval, which has grown by 5 s.
	ErrSlowDown = refusal.New(refusal.TooMany, "slow-down",
		"asked too often", "wait for the interval between two questions")
	// ErrDeviceDenied says that the person said no.
	ErrDeviceDenied = refusal.New(refusal.Denied, "device-denied",
		"the person who entered the code said no", "start again: sally login --device")
	// ErrDeviceExpired says that nobody decided in time.
	ErrDeviceExpired = refusal.New(refusal.Unauthenticated, "device-expired",
		"the code was not entered in time", "start again: sally login --device")
	// ErrUnknownUserCode says that no device waits for a decision under the code.
	ErrUnknownUserCode = refusal.New(refusal.NotFound, "unknown-user-code",
		"no device waits with this code", "compare it with what sally shows; codes are good for ten minutes").On("user_code")
)

const (
	deviceLifetime = 10 * time.Minute
	deviceInterval = 5 * time.Second // also what each slow_down adds
)

// userCodeLetters have no vowels, so that codes make no words, and nothing that
// looks like something else (RFC 8628 section 6.1): 20^8 codes are 34 bits.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

// newUserCode is a code such as BDWP-HQPK.
func newUserCode() string {
	var code, b [8]byte
	for n := 0; n < len(code); {
		rand.Read(b[:])
		for _, v := range b {
			// 240 is the greatest multiple of 20 in a byte: no letter is likelier.
			if v < 240 && n < len(code) {
				code[n] = userCodeLetters[v%20]
				n++
			}
		}
	}
	return string(code[:4]) + "-" + string(code[4:])
}

// normalUserCode is the code as it was made, however it was typed. ok is false
// if it cannot be one.
func normalUserCode(typed string) (code string, ok bool) {
	if len(typed) > 32 {
		return "", false
	}
	letters := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	if len(letters) != 8 || strings.Trim(letters, userCodeLetters) != "" {
		return "", false
	}
	return letters[:4] + "-" + letters[4:], true
}

// Device is a device authorization as the device gets it.
type Device struct {
	DeviceCode string // secret, of the device
	UserCode   string // for a person to type
	Expires    time.Time
	Interval   time.Duration // between two questions of the device
}

// BeginDevice starts a device authorization. source is shown to who enters the code.
func (s *Store) BeginDevice(ctx context.Context, source string) (Device, error) {
	now := s.cfg.Clock.Now()
	d := Device{DeviceCode: newSecret(), UserCode: newUserCode(), Expires: now.Add(deviceLifetime), Interval: deviceInterval}
	_, err := s.cfg.Pool.Exec(ctx, `
		INSERT INTO device_authorizations (device_hash, user_code_hash, source, created_at, expires_at, interval_s)
		VALUES ($1, $2, $3, $4, $5, $6)`,
		hash(d.DeviceCode), hash(d.UserCode), source, now, d.Expires, int(d.Interval/time.Second))
	if err != nil {
		return Device{}, fmt.Errorf("starting a device authorization: %w", err)
	}
	return d, nil
}

// WaitingDevice is a device that waits for a decision, as the person sees it.
type WaitingDevice struct {
	UserCode string // in its normal form
	Source   string // address that the device called from
	Created  time.Time
}

// FindDevice returns the device that waits under the code, or ErrUnknownUserCode.
func (s *Store) FindDevice(ctx context.Context, userCode string) (WaitingDevice, error) {
	code, ok := normalUserCode(userCode)
	if !ok {
		return WaitingDevice{}, ErrUnknownUserCode
	}
	d := WaitingDevice{UserCode: code}
	err := s.cfg.Pool.QueryRow(ctx, `
		SELECT source, created_at FROM device_authorizations
		WHERE user_code_hash = $1 AND expires_at > $2 AND approved IS NULL`,
		hash(code), s.cfg.Clock.Now()).Scan(&d.Source, &d.Created)
	if errors.Is(err, pgx.ErrNoRows) {
		return WaitingDevice{}, ErrUnknownUserCode
	}
	if err != nil {
		return WaitingDevice{}, fmt.Errorf("looking for a device: %w", err)
	}
	return d, nil
}

// DecideDevice lets the device that waits under the code act for the person of
// the browser's sign-in, or not. The first decision counts; after it the code is
// unknown.
func (s *Store) DecideDevice(ctx context.Context, browser SignedIn, userCode string, approve bool) error {
	code, ok := normalUserCode(userCode)
	if !ok {
		return ErrUnknownUserCode
	}
	tag, err := s.cfg.Pool.Exec(ctx, `
		UPDATE device_authorizations SET approved = $3, sign_in = $4
		WHERE user_code_hash = $1 AND expires_at > $2 AND approved IS NULL`,
		hash(code), s.cfg.Clock.Now(), approve, browser.ID)
	if err != nil {
		return fmt.Errorf("deciding on a device: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrUnknownUserCode
	}
	return nil
}

// RedeemDevice exchanges a device code for tokens, once (RFC 8628 section 3.5):
//
//  1. an unknown or redeemed code, or one whose browser has signed out since, is ErrInvalidGrant;
//  2. a late one is ErrDeviceExpired, a denied one ErrDeviceDenied;
//  3. asking before the interval has passed is ErrSlowDown and lengthens it by 5 s;
//  4. otherwise an undecided one is ErrAuthorizationPending.
func (s *Store) RedeemDevice(ctx context.Context, deviceCode, source string) (Tokens, error) {
	var t Tokens
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		now := s.cfg.Clock.Now()
		var d struct {
			expires  time.Time
			interval int
			polled   *time.Time
			approved *bool
			signIn   *string
			used     bool
		}
		err := tx.QueryRow(ctx, `
			SELECT expires_at, interval_s, polled_at, approved, sign_in, used_at IS NOT NULL
			FROM device_authorizations WHERE device_hash = $1 FOR UPDATE`, hash(deviceCode)).
			Scan(&d.expires, &d.interval, &d.polled, &d.approved, &d.signIn, &d.used)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, ErrInvalidGrant, nil
		}
		if err != nil {
			return nil, nil, err
		}
		switch {
		case d.used:
			return nil, ErrInvalidGrant, nil
		case !now.Before(d.expires):
			return nil, ErrDeviceExpired, nil
		case d.polled != nil && now.Before(d.polled.Add(time.Duration(d.interval)*time.Second)):
			_, err := tx.Exec(ctx, `UPDATE device_authorizations SET polled_at = $2, interval_s = interval_s + $3 WHERE device_hash = $1`,
				hash(deviceCode), now, int(deviceInterval/time.Second))
			return nil, ErrSlowDown, err
		case d.approved == nil:
			_, err := tx.Exec(ctx, `UPDATE device_authorizations SET polled_at = $2 WHERE device_hash = $1`, hash(deviceCode), now)
			return nil, ErrAuthorizationPending, err
		}
		if _, err := tx.Exec(ctx, `UPDATE device_authorizations SET used_at = $2 WHERE device_hash = $1`, hash(deviceCode), now); err != nil {
			return nil, nil, err
		}
		browser, err := lockSignIn(ctx, tx, *d.signIn, now)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, ErrInvalidGrant, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if !*d.approved {
			return []event.Event{s.signInFailed(browser.Person, ViaDevice, source, ErrDeviceDenied)}, ErrDeviceDenied, nil
		}
		tokens, ev, err := s.newFamily(ctx, tx, browser, ViaDevice, source)
		t = tokens
		return []event.Event{ev}, nil, err
	})
	if err != nil {
		return Tokens{}, fmt.Errorf("redeeming a device code: %w", err)
	}
	return t, nil
}
