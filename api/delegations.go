package api

import (
	"context"
	"net/http"
	"time"
)

// Delegate is somebody who can decide for another, now and until the time.
type Delegate struct {
	Person     Person    `json:"person"`
	For        Person    `json:"for"`
	Until      time.Time `json:"until"`
	Delegation string    `json:"delegation" example:"del-4f8k2m9qhx1z"`
}

// Delegation is that one person may decide for another for a while.
type Delegation struct {
	ID        string     `json:"id" example:"del-4f8k2m9qhx1z"`
	State     string     `json:"state" enum:"planned,running,over,ended" doc:"over: its time has passed; ended: somebody ended it before"`
	Delegator Person     `json:"delegator" doc:"Whose groups are lent"`
	Delegate  Person     `json:"delegate" doc:"Who may decide with them"`
	MadeBy    Person     `json:"made_by" doc:"The delegator, or an operator"`
	Groups    []string   `json:"groups" doc:"Approver groups that are lent; those that the delegator is in no more lend nothing"`
	From      time.Time  `json:"from"`
	Until     time.Time  `json:"until" doc:"Excluded"`
	Reason    string     `json:"reason"`
	MadeAt    time.Time  `json:"made_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	EndedBy   *Person    `json:"ended_by,omitempty"`
	CanEnd    bool       `json:"can_end" doc:"The caller can end it"`
}

// DelegationInput lets somebody decide for the caller, or, by an operator, for
// somebody else.
type DelegationInput struct {
	Delegate  string     `json:"delegate" minLength:"1" maxLength:"320" doc:"Id or address, exactly"`
	Delegator string     `json:"delegator,omitempty" maxLength:"320" doc:"Id or address, exactly; the caller if empty. Only operators name others"`
	From      *time.Time `json:"from,omitempty" doc:"Now if absent; at most 90 days ahead"`
	Until     time.Time  `json:"until" doc:"At most 90 days after from"`
	Groups    []string   `json:"groups,omitempty" maxItems:"50" doc:"Some of the delegator's approver groups; all if empty"`
	Reason    string     `json:"reason" minLength:"1" maxLength:"2000"`
}

// DelegationFilter narrows Delegations. Zero fields do not filter.
type DelegationFilter struct {
	Scope  string // "mine": made of the caller's groups; "to-me": to the caller
	Past   bool   // also those that are over or were ended
	Cursor string
	Limit  int
}

// Delegations lists those of the caller and to the caller, for operators and
// auditors all, newest first.
func (c *Client) Delegations(ctx context.Context, f DelegationFilter) (Page[Delegation], error) {
	return fetch[Page[Delegation]](ctx, c, v1(http.MethodGet, "delegations").where(query(
		"scope", f.Scope, "past", yes(f.Past), "cursor", f.Cursor, "limit", number(f.Limit))))
}

// Delegation is one delegation.
func (c *Client) Delegation(ctx context.Context, id string) (Delegation, error) {
	return fetch[Delegation](ctx, c, v1(http.MethodGet, "delegations", id))
}

// Delegate makes a delegation.
func (c *Client) Delegate(ctx context.Context, in DelegationInput) (Delegation, error) {
	return fetch[Delegation](ctx, c, v1(http.MethodPost, "delegations").with(in))
}

// EndDelegation ends one at once.
func (c *Client) EndDelegation(ctx context.Context, id string) (Delegation, error) {
	return fetch[Delegation](ctx, c, v1(http.MethodPost, "delegations", id, "end"))
}
