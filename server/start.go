package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"sallyport/audit/event"
)

// recordStart tells the log which program starts on which schema, and with which
// settings if they are others than the last time. Without that there is no start.
func (s *Server) recordStart(ctx context.Context) error {
	schema, err := s.log.RecordSchema(ctx)
	if err != nil {
		return err
	}
	hash, err := s.recordSettings(ctx)
	if err != nil {
		return err
	}
	_, err = s.log.Record(ctx, s.itself(event.BrokerStarted{
		Version: cmp.Or(s.cfg.Version, "(devel)"), Schema: schema, Configuration: hash}))
	if err != nil {
		return fmt.Errorf("recording the start: %w", err)
	}
	return nil
}

// recordSettings returns their hash; "", if they are not known.
func (s *Server) recordSettings(ctx context.Context) (string, error) {
	if len(s.cfg.Settings) == 0 {
		return "", nil
	}
	text, err := json.Marshal(s.cfg.Settings) // in the order of the names
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	now := event.BrokerConfigured{Configuration: hex.EncodeToString(sum[:]), Changed: []string{}, Settings: s.cfg.Settings}
	return now.Configuration, s.log.RecordChange(ctx, "broker.configured", func(before event.Data) (event.Event, bool) {
		last, _ := before.(event.BrokerConfigured)
		now.Before, now.Changed = last.Configuration, differ(last.Settings, now.Settings)
		return s.itself(now), now.Before != now.Configuration
	})
}

// differ are the names of settings that are not the same, in order.
func differ(before, now map[string]string) []string {
	names := []string{}
	for name, value := range now {
		if was, known := before[name]; !known || was != value {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, known := now[name]; !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// itself is an event that the broker causes.
func (s *Server) itself(data event.Data) event.Event {
	return event.New(s.cfg.Clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, data)
}
