package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"

	"sallyport/cmd/sally/internal/home"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

// ErrNone says that nobody has signed in to the broker here.
var ErrNone = refusal.New(refusal.Unauthenticated, "not-signed-in",
	"you are not signed in", "sign in: sally login")

// early is how long before its end an access token is renewed, so that it does
// not end on the way.
const early = 30 * time.Second

// Tokens are the tokens of this computer's sign-ins, one for each broker, in
// token.json. It is safe for use by several processes at once: whoever renews a
// token holds a lock from reading the old one until the new one is on disk, and
// the others then find the new one there.
type Tokens struct {
	dir    string
	client *http.Client
	clock  clock.Clock
}

// NewTokens returns the tokens kept in a folder.
func NewTokens(dir string, client *http.Client, clock clock.Clock) *Tokens {
	return &Tokens{dir: dir, client: client, clock: clock}
}

type token struct {
	Access    string    `json:"access_token"`
	Refresh   string    `json:"refresh_token"`
	ExpiresAt time.Time `json:"expires_at"` // of the access token
}

// Source is an api.TokenSource for one broker.
func (t *Tokens) Source(broker string) *Source { return &Source{t, broker} }

// Source gives the access token for one broker, renewing it when it is time.
type Source struct {
	tokens *Tokens
	broker string
}

// Token returns an access token that is good for a while. It returns ErrNone if
// nobody has signed in and ErrAgain if the sign-in is over.
func (s *Source) Token(ctx context.Context) (string, error) {
	t := s.tokens
	all, err := t.read()
	if err != nil {
		return "", err
	}
	if found, ok := all[s.broker]; ok && t.fresh(found) {
		return found.Access, nil
	} else if !ok {
		return "", ErrNone
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if all, err = t.read(); err != nil {
		return "", err
	}
	old, ok := all[s.broker]
	if !ok {
		return "", ErrNone
	}
	if t.fresh(old) { // another process was faster
		return old.Access, nil
	}
	server, err := Discover(ctx, t.client, s.broker)
	if err != nil {
		return "", err
	}
	renewed, err := server.Refresh(ctx, old.Refresh)
	if errors.Is(err, ErrAgain) {
		delete(all, s.broker)
		return "", errors.Join(err, t.write(all))
	}
	if err != nil {
		return "", err
	}
	all[s.broker] = kept(renewed)
	return renewed.AccessToken, t.write(all)
}

// Known reports whether somebody has signed in to the broker here; the sign-in may
// be over.
func (t *Tokens) Known(broker string) bool {
	all, err := t.read()
	_, ok := all[broker]
	return err == nil && ok
}

// Put keeps the tokens of a new sign-in and returns the refresh token of the
// one before, if there was one.
func (t *Tokens) Put(ctx context.Context, broker string, fresh *oauth2.Token) (before string, err error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	all, err := t.read()
	if refusal.As(err) != nil {
		all, err = map[string]token{}, nil // exposed or broken: worth nothing
	}
	if err != nil {
		return "", err
	}
	before = all[broker].Refresh
	all[broker] = kept(fresh)
	return before, t.write(all)
}

// Take removes a broker's tokens and returns the refresh token, for revocation.
// It returns ErrNone if there is none.
func (t *Tokens) Take(ctx context.Context, broker string) (refresh string, err error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	all, err := t.read()
	if refusal.As(err) != nil {
		return "", errors.Join(err, os.Remove(t.file()))
	}
	if err != nil {
		return "", err
	}
	found, ok := all[broker]
	if !ok {
		return "", ErrNone
	}
	delete(all, broker)
	return found.Refresh, t.write(all)
}

func kept(t *oauth2.Token) token {
	return token{Access: t.AccessToken, Refresh: t.RefreshToken, ExpiresAt: t.Expiry.UTC()}
}

func (t *Tokens) fresh(k token) bool { return t.clock.Now().Add(early).Before(k.ExpiresAt) }

func (t *Tokens) file() string { return filepath.Join(t.dir, "token.json") }

func (t *Tokens) lock(ctx context.Context) (func(), error) {
	// A file of its own: token.json is replaced, and a lock goes with the file.
	return home.Lock(ctx, filepath.Join(t.dir, "token.lock"))
}

var errBroken = refusal.New(refusal.Unauthenticated, "tokens-broken",
	"the file with the tokens cannot be read", "sign in again: sally login")

func (t *Tokens) read() (map[string]token, error) {
	all := map[string]token{}
	content, err := home.ReadSecret(t.file())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(content, &all) != nil {
		return nil, errBroken.With("%s cannot be read", t.file())
	}
	return all, nil
}

func (t *Tokens) write(all map[string]token) error {
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the tokens: %w", err)
	}
	return home.Write(t.file(), append(content, '\n'))
}
