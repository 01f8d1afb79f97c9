package api

import (
	"context"
	"net/http"
)

// Explain says what would become of an ask, and why.
func (c *Client) Explain(ctx context.Context, in ExplainInput) (Explanation, error) {
	return fetch[Explanation](ctx, c, v1(http.MethodPost, "explain").with(in))
}

// HostReach says who can reach a login on a host. Operators and auditors only.
// The page is one of people.
func (c *Client) HostReach(ctx context.Context, host, login, cursor string, limit int) (HostReach, error) {
	return fetch[HostReach](ctx, c, v1(http.MethodGet, "hosts", host, "reach").where(query(
		"login", login, "cursor", cursor, "limit", number(limit))))
}

// PersonReach says what a person, by id or address, can reach; "me" is oneself,
// all others are for operators and auditors. The page is one of hosts.
func (c *Client) PersonReach(ctx context.Context, person string, f HostFilter) (PersonReach, error) {
	return fetch[PersonReach](ctx, c, v1(http.MethodGet, "people", person, "reach").where(query(
		"selector", f.Selector, "search", f.Search, "cursor", f.Cursor, "limit", number(f.Limit))))
}
