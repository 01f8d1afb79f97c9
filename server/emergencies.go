package server

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/approvals"
)

// emergencies are figures of what was opened before approval, read when asked for:
// they are the same in every replica. An alert on the reviews that are overdue is
// worth having.
type emergencies struct{ approvals *approvals.Service }

var (
	emergenciesDesc = prometheus.NewDesc("sallyport_emergencies_total",
		"Emergencies ever started, by whether they were drills.", []string{"drill"}, nil)
	unreviewedDesc = prometheus.NewDesc("sallyport_emergencies_unreviewed",
		"Emergencies and drills that nobody has reviewed, by whether their deadline has passed.", []string{"overdue"}, nil)
)

// Describe implements prometheus.Collector.
func (emergencies) Describe(ch chan<- *prometheus.Desc) {
	ch <- emergenciesDesc
	ch <- unreviewedDesc
}

// Collect implements prometheus.Collector. While the database cannot be read there
// are no figures.
func (e emergencies) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	n, err := e.approvals.CountEmergencies(ctx)
	if err != nil {
		return
	}
	for _, m := range []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value int
		label string
	}{
		{emergenciesDesc, prometheus.CounterValue, n.Real, "false"},
		{emergenciesDesc, prometheus.CounterValue, n.Drills, "true"},
		{unreviewedDesc, prometheus.GaugeValue, n.Unreviewed - n.Overdue, "false"},
		{unreviewedDesc, prometheus.GaugeValue, n.Overdue, "true"},
	} {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value), m.label)
	}
}
