package notify

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"sallyport/api"
	"sallyport/internal/standardwebhooks"
)

// webhook posts JSON, signed as package standardwebhooks says.
type webhook struct {
	url    string
	key    []byte
	client *http.Client
}

// Payload is the body of a webhook. Fields may be added.
type Payload struct {
	Type      Kind      `json:"type"`
	Timestamp time.Time `json:"timestamp"` // of the attempt
	Data      struct {
		Title   string         `json:"title"`
		Link    string         `json:"link"`
		Request *PayloadTarget `json:"request,omitempty"`
		Failure *Failure       `json:"failure,omitempty"`

		Proposal *PayloadProposal `json:"proposal,omitempty"`
	} `json:"data"`
}

// PayloadTarget is the request as webhooks tell it.
type PayloadTarget struct {
	ID        string         `json:"id"`
	State     api.State      `json:"state"`
	Requester api.Person     `json:"requester"`
	HostID    string         `json:"host_id"`
	Host      string         `json:"host"`
	Hosts     []PayloadHost  `json:"hosts,omitempty"` // all of them, if there are several
	Login     string         `json:"login"`
	Duration  string         `json:"duration"`
	Reason    string         `json:"reason,omitempty"`
	Ticket    string         `json:"ticket,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	ApproveBy time.Time      `json:"approve_by"`
	StartsAt  *time.Time     `json:"starts_at,omitempty"`
	EndsAt    *time.Time     `json:"ends_at,omitempty"`
	Emergency *api.Emergency `json:"emergency,omitempty"`
	Waiting   []api.Slot     `json:"waiting,omitempty"` // whose approvals it waits for now
	Decisions []PayloadSaid  `json:"decisions,omitempty"`
}

// PayloadHost is one of several hosts.
type PayloadHost struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// PayloadSaid is a decision without what proves it.
type PayloadSaid struct {
	Approver api.Person  `json:"approver"`
	Verdict  api.Verdict `json:"verdict"`
	Comment  string      `json:"comment,omitempty"`
	At       time.Time   `json:"at"`

	OnBehalfOf *api.Person `json:"on_behalf_of,omitempty"` // for whom, by a delegation
}

// Send implements Channel.
func (w *webhook) Send(ctx context.Context, m Message) error {
	body, err := json.Marshal(payload(m))
	if err != nil {
		return permanent{err}
	}
	header := standardwebhooks.Header(w.key, m.ID, m.At, body)
	header.Set("Content-Type", "application/json")
	return post(ctx, w.client, w.url, header, body, nil)
}

func payload(m Message) Payload {
	p := Payload{Type: m.Kind, Timestamp: m.At}
	p.Data.Title, p.Data.Link, p.Data.Failure = m.headline(), m.Link, m.Failure
	p.Data.Proposal = m.proposalPayload()
	if r := m.Request; r != nil {
		p.Data.Request = &PayloadTarget{ID: r.ID, State: r.State, Requester: r.Requester, HostID: r.HostID,
			Host: r.Host, Login: r.Login, Duration: r.Duration, Reason: r.Reason, Ticket: r.Ticket,
			CreatedAt: r.CreatedAt, ApproveBy: r.ApproveBy, StartsAt: r.StartsAt, EndsAt: r.EndsAt,
			Emergency: r.Emergency}
		if r.Others() > 0 {
			for _, h := range r.Hosts {
				p.Data.Request.Hosts = append(p.Data.Request.Hosts, PayloadHost{h.ID, h.Name})
			}
		}
		for _, d := range r.Decisions {
			p.Data.Request.Decisions = append(p.Data.Request.Decisions, PayloadSaid{d.Approver, d.Verdict, d.Comment, d.At, d.OnBehalfOf})
		}
		if r.State == api.Requested {
			p.Data.Request.Waiting = open(*r)
		}
	}
	return p
}
