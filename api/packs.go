package api

import (
	"context"
	"io"
	"net/http"
	"time"
)

// PackState is how far an evidence pack has come.
type PackState string

// The states of a pack.
const (
	PackWaiting PackState = "waiting"
	PackRunning PackState = "running"
	PackReady   PackState = "ready"
	PackFailed  PackState = "failed"
	PackExpired PackState = "expired" // it was kept for as long as packs are
)

// PackInput asks for an evidence pack.
type PackInput struct {
	From     string   `json:"from" maxLength:"40" doc:"Start of the period: RFC 3339, or a date, which begins at midnight in the zone" example:"2026-01-01"`
	To       string   `json:"to,omitempty" maxLength:"40" doc:"End of the period, excluded; now, if it lies ahead or is left out" example:"2026-04-01"`
	Zone     string   `json:"zone,omitempty" maxLength:"64" doc:"IANA time zone of dates; UTC if left out" example:"Europe/Zurich"`
	Controls []string `json:"controls,omitempty" maxItems:"50" doc:"Criteria, such as CC6.1; all if left out"`
	Seed     string   `json:"seed,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._-]*$" doc:"Chooses the samples; give your own, so that nobody else can choose"`
}

// Pack is an evidence pack, made or on its way.
type Pack struct {
	ID         string     `json:"id"`
	State      PackState  `json:"state" enum:"waiting,running,ready,failed,expired"`
	From       time.Time  `json:"from"`
	To         time.Time  `json:"to" doc:"Excluded"`
	Zone       string     `json:"zone"`
	Controls   []string   `json:"controls" doc:"None: all"`
	By         Person     `json:"by" doc:"Who asked for it"`
	CreatedAt  time.Time  `json:"created_at"`
	Done       int64      `json:"done" doc:"Entries of the log that have been read"`
	Total      int64      `json:"total" doc:"Entries of the log to be read; 0 before it is known"`
	Exceptions int64      `json:"exceptions" doc:"Found, once it is ready"`
	Missing    int64      `json:"missing" doc:"Entries that the database lacks: such a pack does not verify"`
	Bytes      int64      `json:"bytes" doc:"Of the zip"`
	Manifest   string     `json:"manifest,omitempty" doc:"SHA-256 of its manifest, hex"`
	File       string     `json:"file" doc:"What the zip is called"`
	Problem    string     `json:"problem,omitempty" doc:"Why it failed"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"Until when it can be downloaded"`
}

// MakePack asks for an evidence pack. Auditors only, as are the next three.
func (c *Client) MakePack(ctx context.Context, in PackInput) (Pack, error) {
	return fetch[Pack](ctx, c, v1(http.MethodPost, "audit", "packs").with(in))
}

// Pack is one pack.
func (c *Client) Pack(ctx context.Context, id string) (Pack, error) {
	return fetch[Pack](ctx, c, v1(http.MethodGet, "audit", "packs", id))
}

// Packs lists packs, newest first.
func (c *Client) Packs(ctx context.Context, cursor string, limit int) (Page[Pack], error) {
	return fetch[Page[Pack]](ctx, c, v1(http.MethodGet, "audit", "packs").where(query("cursor", cursor, "limit", number(limit))))
}

// DownloadPack writes a pack's zip to w and returns how many bytes it has. It takes
// as long as it takes: ctx is what ends it.
func (c *Client) DownloadPack(ctx context.Context, id string, w io.Writer) (int64, error) {
	return c.download(ctx, v1(http.MethodGet, "audit", "packs", id, "download"), w)
}
