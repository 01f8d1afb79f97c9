package server

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/api"
	"sallyport/broker/fleet"
)

// hostStates are how many hosts are in each state, counted when asked for: they are the
// same in every replica. An alert on drifted ones is worth having.
type hostStates struct{ fleet *fleet.Service }

var hostStatesDesc = prometheus.NewDesc("sallyport_hosts", "Hosts, by their state.", []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (hostStates) Describe(ch chan<- *prometheus.Desc) { ch <- hostStatesDesc }

// Collect implements prometheus.Collector. While the database cannot be read there are no
// figures.
func (h hostStates) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	count, err := h.fleet.Count(ctx)
	if err != nil {
		return
	}
	for _, state := range api.HostStates {
		ch <- prometheus.MustNewConstMetric(hostStatesDesc, prometheus.GaugeValue, float64(count[state]), string(state))
	}
}
