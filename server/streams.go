package server

import (
	"cmp"
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/audit/stream"
)

// startStreams sends the log where it is to go.
func (s *Server) startStreams(background context.Context) error {
	if len(s.cfg.Streams) == 0 {
		return nil
	}
	var err error
	s.streams, err = stream.New(stream.Config{Pool: s.cfg.Pool, Log: s.log, Clock: s.cfg.Clock, Logger: s.cfg.Logger,
		Outlets: s.cfg.Streams, Version: cmp.Or(s.cfg.Version, "(devel)")})
	if err != nil {
		return errors.Join(errors.New("opening the streams"), err)
	}
	s.work.Go(func() error { return untilStopped(background, "streams", s.streams.Run) })
	return nil
}

// streamFigures are figures about the streams that this process sends.
type streamFigures struct{ s *Server }

var (
	streamLagDesc = prometheus.NewDesc("sallyport_stream_lag_entries",
		"Entries of the log that wait for the receiver of a stream that this process sends.", []string{"stream"}, nil)
	streamUpDesc = prometheus.NewDesc("sallyport_stream_up",
		"Whether the receiver of a stream that this process sends took what it got last.", []string{"stream"}, nil)
)

// Describe implements prometheus.Collector.
func (streamFigures) Describe(ch chan<- *prometheus.Desc) {
	ch <- streamLagDesc
	ch <- streamUpDesc
}

// Collect implements prometheus.Collector.
func (f streamFigures) Collect(ch chan<- prometheus.Metric) {
	for _, one := range f.s.streams.Status() {
		if !one.Held {
			continue
		}
		up := 1.0
		if one.Error != "" {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(streamLagDesc, prometheus.GaugeValue, float64(one.Size-one.Next), one.Name)
		ch <- prometheus.MustNewConstMetric(streamUpDesc, prometheus.GaugeValue, up, one.Name)
	}
}
