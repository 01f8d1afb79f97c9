package event

import (
	"fmt"
	"slices"
	"strings"
)

// The broker itself: what was started, with which settings, on which database.

// BrokerStarted records that a broker process began to serve.
type BrokerStarted struct {
	Version       string `json:"version"`                 // of the program
	Schema        int    `json:"schema"`                  // number of the newest migration of the database
	Configuration string `json:"configuration,omitempty"` // SHA-256 of its settings, hex; broker.configured has them
}

func (BrokerStarted) EventType() (string, int) { return "broker.started", 1 }
func (d BrokerStarted) Summary() string        { return "started, version " + d.Version }

// BrokerConfigured records the settings of a broker that starts with others than
// the one that wrote the last such event.
type BrokerConfigured struct {
	Configuration string            `json:"configuration"`    // SHA-256 of the settings, hex
	Before        string            `json:"before,omitempty"` // SHA-256 of those in the last such event, hex
	Changed       []string          `json:"changed"`          // names of those that differ from the last such event; of the first, all
	Settings      map[string]string `json:"settings"`         // options of sallyportd serve by name; never secrets, nor their hashes
}

func (BrokerConfigured) EventType() (string, int) { return "broker.configured", 1 }
func (d BrokerConfigured) Summary() string {
	if d.Before == "" {
		return fmt.Sprintf("started with %d settings for the first time", len(d.Settings))
	}
	return "started with other settings: " + strings.Join(slices.Sorted(slices.Values(d.Changed)), ", ")
}

// DatabaseMigrated records that the database's schema was brought to a newer
// version. It comes from sallyportd migrate or, if that was stopped before it could
// say so, from the first broker that starts on the new schema.
type DatabaseMigrated struct {
	Before int `json:"before"` // number of the migration in the last such event; 0 in the first
	Schema int `json:"schema"` // number of the newest migration now
}

func (DatabaseMigrated) EventType() (string, int) { return "database.migrated", 1 }
func (d DatabaseMigrated) Summary() string {
	return fmt.Sprintf("brought the database from schema %d to %d", d.Before, d.Schema)
}
