package broker

import (
	"context"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
)

// outcome is what came of an intent.
type outcome struct {
	index   int64 // of the event that says so; -1 while it waits for its place
	failure string
}

// outcomes are those that are known of the intents that the filter's events are
// about, by the intent's id.
func (b *Broker) outcomes(ctx context.Context, f audit.Filter) (map[string]outcome, error) {
	found := map[string]outcome{}
	f.Limit = 200
	for {
		entries, err := b.cfg.Log.Entries(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			e, err := entry.Event()
			if err != nil {
				return nil, err
			}
			switch data := e.Data.(type) {
			case event.CertificateSigned:
				found[data.Intent] = outcome{entry.Index, data.Failure}
			case event.HostCertificateSigned:
				found[data.Intent] = outcome{entry.Index, data.Failure}
			case event.DeploymentCertificateSigned:
				found[data.Intent] = outcome{entry.Index, data.Failure}
			}
		}
		if len(entries) < f.Limit || entries[len(entries)-1].Index <= 0 {
			return found, nil
		}
		f.Before = entries[len(entries)-1].Index
	}
}

// addResults says of each certificate of a request what came of it.
func (b *Broker) addResults(ctx context.Context, requestID string, list []api.CertificateInfo) error {
	if len(list) == 0 {
		return nil
	}
	known, err := b.outcomes(ctx, audit.Filter{RequestID: requestID, Type: "certificate.signed"})
	if err != nil {
		return err
	}
	for i := range list {
		o, ok := known[list[i].Event]
		list[i].Result, list[i].Failure = result(o, ok), o.failure
	}
	return nil
}

func result(o outcome, known bool) api.SigningResult {
	switch {
	case !known:
		return api.NoResult
	case o.failure != "":
		return api.NotSigned
	}
	return api.Signed
}

// Outcome is what came of the intent that an entry of the log is, if it is one: nil
// for every other event.
func (b *Broker) Outcome(ctx context.Context, intent audit.Entry) (*api.Outcome, error) {
	var f audit.Filter
	e, err := intent.Event()
	if err != nil {
		return nil, nil // a newer program's
	}
	switch e.Data.(type) {
	case event.CertificateIssued:
		f = audit.Filter{RequestID: e.Subject.RequestID, Type: "certificate.signed"}
	case event.HostCertificateIssued:
		f = audit.Filter{HostID: e.Subject.HostID, Type: "host.certificate_signed"}
	case event.DeploymentCertificateIssued:
		f = audit.Filter{HostID: e.Subject.HostID, Type: "deployment.certificate_signed"}
	default:
		return nil, nil
	}
	known, err := b.outcomes(ctx, f)
	if err != nil {
		return nil, err
	}
	o, ok := known[intent.ID.String()]
	out := &api.Outcome{Result: result(o, ok), Failure: o.failure, Index: -1}
	if ok {
		out.Index = o.index
	}
	return out, nil
}
