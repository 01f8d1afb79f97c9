package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/audit/cosignature"
	"sallyport/audit/witness"
	"sallyport/internal/refusal"
)

// Witnesses say who watches the log.
type Witnesses struct {
	// Text is a policy (package audit/cosignature): witnesses, where they are, and how
	// many must agree.
	Text string
	// Require is for how long certificates are issued while they lag; 0: for ever.
	Require time.Duration
}

// errNotWitnessed says that there is no head that witnesses have cosigned.
var errNotWitnessed = refusal.New(refusal.NotFound, "not-witnessed",
	"no witnesses have cosigned this log's head", "the log's own signature is at /log/checkpoint; operators name witnesses with serve --witnesses")

// askWitnesses asks those that watch the log, before anybody is answered, whether the
// database has what they remember; and from then on has them cosign.
func (s *Server) askWitnesses(ctx, background context.Context) error {
	if s.cfg.Witnesses.Text == "" {
		return nil
	}
	policy, err := cosignature.ParsePolicy([]byte("log " + s.log.VerifierKey() + "\n" + s.cfg.Witnesses.Text))
	if err != nil {
		return fmt.Errorf("the witnesses: %w", err)
	}
	s.asker, err = witness.NewAsker(witness.AskerConfig{Log: s.log, Policy: policy, Clock: s.cfg.Clock, Logger: s.cfg.Logger, Require: s.cfg.Witnesses.Require})
	if err != nil {
		return err
	}
	if err := s.asker.Check(ctx); err != nil {
		return err
	}
	s.work.Go(func() error { return untilStopped(background, "witnesses", s.asker.Run) })
	return nil
}

// unwitnessed says why nothing may be issued; nil: nobody is waited for.
func (s *Server) unwitnessed() func() error {
	if s.asker == nil {
		return nil
	}
	return s.asker.Late
}

// witnessed gives the heads that evidence packs end with; nil: the log's own.
func (s *Server) witnessed() func(context.Context, int64) ([]byte, error) {
	if s.asker == nil {
		return nil
	}
	return s.asker.Cosigned
}

// cosigned is the newest head that the quorum of witnesses has cosigned.
func (s *Server) cosigned(w http.ResponseWriter, r *http.Request) {
	var text []byte
	if s.asker != nil {
		text = s.asker.Newest()
	}
	if text == nil {
		send(w, r, "", "", nil, errNotWitnessed)
		return
	}
	send(w, r, "text/plain; charset=utf-8", "no-store", text, nil)
}

func (s *Server) collectors(more ...prometheus.Collector) []prometheus.Collector {
	all := append([]prometheus.Collector{emergencies{s.requests}, hostStates{s.fleet}}, more...)
	if s.asker != nil {
		all = append(all, witnesses{s})
	}
	if s.streams != nil {
		all = append(all, streamFigures{s})
	}
	return all
}

// witnesses are figures about those that watch the log.
type witnesses struct{ s *Server }

var (
	witnessSizeDesc = prometheus.NewDesc("sallyport_witness_size",
		"Entries of the log that the witness has cosigned last.", []string{"witness"}, nil)
	witnessUpDesc = prometheus.NewDesc("sallyport_witness_up",
		"Whether the witness cosigned when it was asked last.", []string{"witness"}, nil)
	witnessWaitDesc = prometheus.NewDesc("sallyport_witness_wait_seconds",
		"For how long the log's head has waited for the quorum of witnesses.", nil, nil)
)

// Describe implements prometheus.Collector.
func (witnesses) Describe(ch chan<- *prometheus.Desc) {
	ch <- witnessSizeDesc
	ch <- witnessUpDesc
	ch <- witnessWaitDesc
}

// Collect implements prometheus.Collector.
func (w witnesses) Collect(ch chan<- prometheus.Metric) {
	list, waiting := w.s.asker.Status()
	for _, one := range list {
		up := 0.0
		if one.Error == "" && !one.At.IsZero() {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(witnessSizeDesc, prometheus.GaugeValue, float64(one.Size), one.Name)
		ch <- prometheus.MustNewConstMetric(witnessUpDesc, prometheus.GaugeValue, up, one.Name)
	}
	seconds := 0.0
	if !waiting.IsZero() {
		seconds = w.s.cfg.Clock.Now().Sub(waiting).Seconds()
	}
	ch <- prometheus.MustNewConstMetric(witnessWaitDesc, prometheus.GaugeValue, seconds)
}
