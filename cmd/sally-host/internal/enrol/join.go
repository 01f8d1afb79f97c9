package enrol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// askAgain is how often a host that waits asks.
const askAgain = 5 * time.Second

// join gets what the broker says of this host, and its list of revocations. A host that
// is enrolled asks for the same anew.
func (e *Enroller) join(ctx context.Context, ask Ask, keyFile string, v Version) (s place.Settings, list string, err error) {
	known, err := e.Place.Read()
	if err != nil && !errors.Is(err, place.ErrNotEnrolled) {
		return s, "", err
	}
	enrolled := err == nil
	if enrolled {
		keyFile = known.HostKey
		if ask.URL == "" {
			ask.URL = known.URL
		}
	}
	s.HostKey = keyFile
	key, err := s.Key(e.Place)
	if err != nil {
		return s, "", err
	}
	client, err := e.client(ask.URL, key)
	if err != nil {
		return s, "", err
	}
	var got *hostapi.Enrolment
	if enrolled {
		client.ID = known.HostID
		renewed, err := client.Renew(ctx)
		var p *hostapi.Problem
		switch {
		case err == nil:
			got = &renewed
		case errors.As(err, &p) && p.Code == hostapi.CodeUnknownHost && ask.Token != "":
			// It was removed, and is to come back as another.
		default:
			return s, "", err
		}
	}
	if got == nil {
		if got, err = e.enter(ctx, client, ask, v); err != nil {
			return s, "", err
		}
	}
	s.Enrolment = *got
	s.Format = place.Format
	if ask.LogKey != "" && s.LogKey != ask.LogKey {
		return s, "", fmt.Errorf("the broker's log has the key %s, and you expect %s: somebody may stand between this host and the broker", s.LogKey, ask.LogKey)
	}
	if _, err := s.Trust(); err != nil {
		return s, "", fmt.Errorf("what the broker says: %w", err)
	}
	if enrolled && known.HostID != s.HostID {
		if err := os.Remove(e.Place.Settings()); err != nil { // those of the host that was removed
			return s, "", err
		}
		if err := os.Remove(e.Place.Revocations()); err != nil && !os.IsNotExist(err) {
			return s, "", err
		}
	}
	client.ID = s.HostID
	note, err := client.Revocations(ctx, 0, 0)
	if err != nil {
		return s, "", fmt.Errorf("the list of revocations: %w", err)
	}
	if _, err := place.JoinRevocations([]string{string(note)}, s.LogKey); err != nil {
		return s, "", err
	}
	e.say("enrolled     as %s (%s), for %s", s.Name, s.HostID, strings.Join(s.Logins, ", "))
	return s, string(note), nil
}

// client calls the broker. Only on this very machine it may do so without TLS.
func (e *Enroller) client(rawURL string, key ssh.Signer) (*hostapi.Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q is no URL of a broker", rawURL)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())) {
		return nil, fmt.Errorf("the broker's URL begins with https://, not %q: what it says of whom to trust would be anybody's", u.Scheme)
	}
	return &hostapi.Client{URL: strings.TrimRight(rawURL, "/"), Key: key, HTTP: e.HTTP, Now: e.Now}, nil
}

// pending is what a host keeps that waits, to ask again as the same one.
type pending struct{ URL, ID string }

func (e *Enroller) pendingFile() string { return e.Place.State() + "/pending" }

// enter introduces the host, and waits for an operator if it has no token.
func (e *Enroller) enter(ctx context.Context, client *hostapi.Client, ask Ask, v Version) (*hostapi.Enrolment, error) {
	waiting := pending{}
	if text, err := os.ReadFile(e.pendingFile()); err == nil && ask.Token == "" {
		_ = json.Unmarshal(text, &waiting) // what cannot be read is asked for again
	}
	if waiting.URL == client.URL && waiting.ID != "" {
		client.ID = waiting.ID
		got, p, err := client.Enrolment(ctx)
		if err == nil {
			return e.await(ctx, client, got, p, ask.Wait)
		}
		var problem *hostapi.Problem
		if !errors.As(err, &problem) {
			return nil, err
		}
		_ = os.Remove(e.pendingFile()) // it is over, and may ask anew
		if problem.Code == hostapi.CodeRefused {
			return nil, err
		}
	}
	client.ID = ""
	name := ask.Name
	if name == "" {
		name, _ = os.Hostname() // without one the broker asks for it
	}
	got, p, err := client.Enrol(ctx, hostapi.EnrolmentInput{Token: ask.Token, Name: strings.ToLower(name), Address: ask.Address, Logins: ask.Logins,
		Facts: hostapi.Facts{OS: osName(), OpenSSH: "OpenSSH_" + v.String(), Kernel: kernel(), Helper: e.Version}})
	if err != nil {
		return nil, err
	}
	return e.await(ctx, client, got, p, ask.Wait)
}

func (e *Enroller) await(ctx context.Context, client *hostapi.Client, got *hostapi.Enrolment, p *hostapi.Pending, wait time.Duration) (*hostapi.Enrolment, error) {
	if got != nil {
		_ = os.Remove(e.pendingFile()) // if there was one
		return got, nil
	}
	text, err := json.Marshal(pending{client.URL, p.ID})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.Place.State(), 0o750); err != nil {
		return nil, err
	}
	if err := place.Write(e.pendingFile(), text, 0o600); err != nil {
		return nil, err
	}
	e.say("waiting      for an operator to let in %s, with the fingerprint\n               %s\n             sally hosts approve %s --fingerprint %s", p.ID, p.Fingerprint, p.ID, p.Fingerprint)
	client.ID = p.ID
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil, ErrWaiting
		case <-time.After(askAgain):
		}
		got, _, err := client.Enrolment(ctx)
		if ctx.Err() != nil {
			return nil, ErrWaiting
		}
		if err != nil {
			return nil, err
		}
		if got != nil {
			_ = os.Remove(e.pendingFile())
			return got, nil
		}
	}
}

// osName is PRETTY_NAME of os-release(5).
func osName() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range bytes.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "PRETTY_NAME="); ok {
			return bound(strings.Trim(name, `"'`))
		}
	}
	return ""
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return bound(strings.TrimSpace(string(text)))
}

func bound(s string) string { return strings.ToValidUTF8(s[:min(len(s), hostapi.MaxFact)], "") }
