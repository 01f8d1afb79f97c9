package broker

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/broker/hosts"
)

// errChanged says that something has changed, or is about to, since it was decided on
// a certificate: it must be decided anew.
var errChanged = errors.New("the grant or its host has changed meanwhile")

// writing writes down the intents of a batch in the sequencer's transaction. Each was
// decided on without a lock. So first what it was decided by is locked and compared:
// the request's row, which is all that a grant can become, its person, and the host;
// and the certificates are counted, under that lock. What has changed is errChanged.
type writing struct {
	approvals   *approvals.Service
	intents     []*intent
	same, there []bool // by intent: the request, the host
	counts      counts
}

func (b *Broker) writing(intents []*intent) audit.Writing {
	return &writing{b.cfg.Approvals, intents, make([]bool, len(intents)), make([]bool, len(intents)), counts{}}
}

// Look implements audit.Writing.
func (w *writing) Look(batch *pgx.Batch) {
	requests, machines := make([]approvals.Seen, len(w.intents)), make([]hosts.Seen, len(w.intents))
	for i, in := range w.intents {
		requests[i], machines[i] = in.seen, in.host
	}
	w.approvals.QueueHold(batch, requests, func(i int) { w.same[i] = true })
	hosts.QueueHold(batch, machines, func(i int) { w.there[i] = true })
	w.counts.queue(batch, w.intents) // after the locks
}

// Write implements audit.Writing.
func (w *writing) Write(batch *pgx.Batch) []error {
	refused := make([]error, len(w.intents))
	var rows certificateRows
	var used, keys []string
	bound := map[string]string{} // by request: the key that this batch binds it to
	for i, in := range w.intents {
		id := in.user.RequestID
		key, binds := bound[id]
		if !w.same[i] || !w.there[i] || binds && key != in.print {
			refused[i] = errChanged
			continue
		}
		if refused[i] = w.counts.allow(in); refused[i] != nil {
			continue
		}
		if in.first && !binds {
			bound[id] = in.print
			used, keys = append(used, id), append(keys, in.print)
		}
		rows.add(in)
	}
	if len(rows.serial) > 0 {
		w.approvals.QueueUse(batch, used, keys)
		rows.queue(batch)
	}
	return refused
}

// counts are how many certificates there are of grants, and of those for one host.
type counts map[countOf]int

type countOf struct{ request, host string } // host is empty: for all of them

func (c counts) queue(batch *pgx.Batch, intents []*intent) {
	requests, at := make([]string, len(intents)), make([]string, len(intents))
	for i, in := range intents {
		requests[i], at[i] = in.user.RequestID, in.user.HostID
	}
	batch.Queue(`
		SELECT u.request, u.host,
			(SELECT count(*) FROM certificates c WHERE c.request_id = u.request),
			CASE WHEN u.single THEN (SELECT count(*) FROM certificates c WHERE c.request_id = u.request AND c.host_id = u.host) ELSE 0 END
		FROM (SELECT DISTINCT request, host, single FROM unnest($1::text[], $2::text[], $3::boolean[]) AS u (request, host, single)) AS u`,
		requests, at, single(intents)).Query(func(rows pgx.Rows) error {
		var request, host string
		var n, here int
		_, err := pgx.ForEachRow(rows, []any{&request, &host, &n, &here}, func() error {
			c[countOf{request, ""}], c[countOf{request, host}] = n, here
			return nil
		})
		if err != nil {
			return fmt.Errorf("counting certificates: %w", err)
		}
		return nil
	})
}

func single(intents []*intent) []bool {
	out := make([]bool, len(intents))
	for i, in := range intents {
		out[i] = in.terms.Rule.SingleUse
	}
	return out
}

// allow counts one more, unless the grant has had as many as it may: one for each
// host, if it is for single use. What was written down counts, even if its signature
// then failed.
func (c counts) allow(in *intent) error {
	all, here := countOf{in.user.RequestID, ""}, countOf{in.user.RequestID, in.user.HostID}
	switch t := in.terms; {
	case t.Rule.SingleUse && c[here] > 0 && len(t.MoreHosts) > 0:
		return ErrUsed.With("the grant is for single use on each host, and has been used on this one")
	case t.Rule.SingleUse && c[here] > 0:
		return ErrUsed
	case c[all] >= MaxCertificates:
		return ErrTooMany.With("this grant has been issued %d certificates, as many as it may have", c[all])
	}
	c[all]++
	c[here]++
	return nil
}

// certificateRows are rows of certificates, column by column.
type certificateRows struct {
	serial                                         []int64
	request, person, host, keyID, principal, print []string
	issued, after, before                          []time.Time
	pre                                            [][]byte
	event                                          []uuid.UUID
	record                                         []bool
}

func (r *certificateRows) add(in *intent) {
	u := in.user
	r.serial = append(r.serial, int64(u.Serial))
	r.request, r.person, r.host = append(r.request, u.RequestID), append(r.person, u.PersonID), append(r.host, u.HostID)
	r.keyID, r.principal, r.print = append(r.keyID, in.pre.KeyID()), append(r.principal, in.pre.Principals()[0]), append(r.print, in.print)
	r.issued, r.after, r.before = append(r.issued, u.Now), append(r.after, in.pre.ValidAfter()), append(r.before, in.pre.ValidBefore())
	r.pre, r.event = append(r.pre, in.pre.Bytes()), append(r.event, in.event.ID)
	r.record = append(r.record, in.terms.Rule.Record)
}

func (r *certificateRows) queue(batch *pgx.Batch) {
	batch.Queue(`
		INSERT INTO certificates (serial, request_id, person_id, host_id, key_id, principal, fingerprint,
			issued_at, valid_after, valid_before, pre_certificate, event_id, record)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
			$8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::bytea[], $12::uuid[], $13::boolean[])`,
		r.serial, r.request, r.person, r.host, r.keyID, r.principal, r.print, r.issued, r.after, r.before, r.pre, r.event, r.record)
}
