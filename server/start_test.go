package server

import (
	"slices"
	"testing"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

// started are the events of a type, oldest first.
func started[T event.Data](t *testing.T, k *kit) []T {
	t.Helper()
	var zero T
	name, _ := zero.EventType()
	entries, err := k.log.Entries(t.Context(), audit.Filter{Type: name})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]T, len(entries))
	for i, e := range entries {
		ev, err := e.Event()
		if err != nil {
			t.Fatal(err)
		}
		list[len(list)-1-i] = ev.Data.(T)
	}
	return list
}

// Each start is an event, and its settings are one if they are others than before.
func TestStartsAndSettingsAreRecorded(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	keys := newKitOn(t, db, nil).cfg.Keys // one log has one key
	var k *kit
	for _, settings := range []map[string]string{
		{"listen": ":8080", "state-dir": ""},
		{"listen": ":8080", "state-dir": ""},
		{"listen": ":9090", "trusted-proxies": "10.0.0.5"},
		{"listen": ":8080", "state-dir": ""}, // back again
	} {
		k = newKitOn(t, db, func(cfg *Config) { cfg.Settings, cfg.Keys, cfg.Version = settings, keys, "1.2.3" })
	}
	starts, settings := started[event.BrokerStarted](t, k), started[event.BrokerConfigured](t, k)
	if len(starts) != 5 || len(settings) != 3 {
		t.Fatalf("%d starts and %d settings, want 5 and 3", len(starts), len(settings))
	}
	if starts[0].Configuration != "" || starts[4].Version != "1.2.3" || starts[4].Schema < 16 {
		t.Errorf("starts: %+v", starts)
	}
	first, second, third := settings[0], settings[1], settings[2]
	if first.Before != "" || !slices.Equal(first.Changed, []string{"listen", "state-dir"}) || first.Settings["listen"] != ":8080" {
		t.Errorf("the first settings: %+v", first)
	}
	if second.Before != first.Configuration || !slices.Equal(second.Changed, []string{"listen", "state-dir", "trusted-proxies"}) {
		t.Errorf("the second settings: %+v", second)
	}
	if third.Configuration != first.Configuration || starts[1].Configuration != first.Configuration || starts[3].Configuration != second.Configuration {
		t.Errorf("the third settings, which are the first: %+v, starts %+v", third, starts)
	}
	if n := len(started[event.DatabaseMigrated](t, k)); n != 1 {
		t.Errorf("%d events of one migration", n)
	}
}

// What an auditor reads over HTTP is in the log by whom, and from where.
func TestReadsOverHTTPAreRecorded(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "web-1", "web", "web")
	r := k.ask(t, "web-1", "web")
	for _, path := range []string{"/api/v1/audit/events?type=request.", "/api/v1/audit/events/0", "/api/v1/audit/events/1",
		"/api/v1/requests/" + r.ID, "/log/tile/entries/000.p/1", "/log?text=disk", "/log/events/2", "/log/events/3/leaf", "/api/v1/people",
		"/log?request=" + r.ID} {
		for range 2 {
			if a := k.do(t, "auditor", "GET", path, ""); a.StatusCode != 200 {
				t.Fatalf("%s: %s\n%s", path, a.Status, a.body)
			}
		}
	}
	entries, err := k.log.Record(t.Context(), k.itself(event.BrokerStarted{Version: "marks the end"}))
	if err != nil {
		t.Fatal(err)
	}
	found, err := k.log.Search(t.Context(), audit.Filter{Type: "disclosed.", Before: entries[0].Index})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range found.Entries {
		ev, err := e.Event()
		if err != nil || ev.Actor.ID != k.people["auditor"].ID || ev.Source != "127.0.0.1" || ev.Policy == nil {
			t.Errorf("%v: %s", err, e.Leaf)
		}
		types = append(types, ev.Type)
	}
	slices.Reverse(types)
	want := []string{"disclosed.search", "disclosed.event", "disclosed.event", "disclosed.request", "disclosed.entries",
		"disclosed.search", "disclosed.event", "disclosed.event", "disclosed.people", "disclosed.search"}
	if !slices.Equal(types, want) {
		t.Errorf("recorded %q\nwant %q", types, want)
	}
}
