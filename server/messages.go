package server

import "github.com/prometheus/client_golang/prometheus"

// newMessageFigures counts attempts of this process to tell people something.
// Channels are named by the operators' own file, so that nobody else can invent
// labels.
func newMessageFigures() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sallyport_messages_total",
		Help: "Attempts to tell people something, by channel and outcome: sent, retrying, dropped (overtaken by events), failed (given up).",
	}, []string{"channel", "outcome"})
}
