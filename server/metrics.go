package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/audit"
	"sallyport/server/rest"
)

// issueRoute is the one way in which certificates leave.
const issueRoute = rest.Prefix + "/requests/{id}/certificates"

// metrics are this process's figures in a registry of its own. Labels are
// methods, route patterns, statuses and problem codes: no names, no ids.
//
// /metrics is open to whoever reaches the listener. It tells how busy the broker
// is and how large the log; where that is too much, let a proxy keep it inside.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	issued   prometheus.Counter
}

// newMetrics also shows what more collects.
func newMetrics(log *audit.Log, more ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sallyport_http_request_duration_seconds", Help: "How long calls took, by route pattern.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"method", "route", "status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_problems_total", Help: "Calls answered with a problem, by its code.",
		}, []string{"code"}),
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_certificates_issued_total", Help: "User certificates handed out by this process.",
		}),
	}
	m.registry.MustRegister(m.calls, m.refusals, m.issued, logSize{log},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(more...)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) observe(method, route string, status int, code string, took time.Duration) {
	m.calls.WithLabelValues(knownMethod(method), route, strconv.Itoa(status)).Observe(took.Seconds())
	if code != "" {
		m.refusals.WithLabelValues(code).Inc()
	}
	if route == issueRoute && status == http.StatusCreated {
		m.issued.Inc()
	}
}

// knownMethod keeps callers from inventing labels.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete:
		return method
	}
	return "other"
}

// logSize is the number of entries in the signed log, read when asked for: it is
// the same in every replica.
type logSize struct{ log *audit.Log }

var logSizeDesc = prometheus.NewDesc("sallyport_log_size", "Entries in the log's newest checkpoint.", nil, nil)

// Describe implements prometheus.Collector.
func (logSize) Describe(ch chan<- *prometheus.Desc) { ch <- logSizeDesc }

// Collect implements prometheus.Collector. While the log cannot be read there is no figure.
func (l logSize) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	text, err := l.log.Checkpoint(ctx)
	if err != nil {
		return
	}
	// The second line of a checkpoint is the tree's size (c2sp.org/tlog-checkpoint).
	lines := strings.SplitN(string(text), "\n", 3)
	if len(lines) < 3 {
		return
	}
	if n, err := strconv.ParseFloat(lines[1], 64); err == nil {
		ch <- prometheus.MustNewConstMetric(logSizeDesc, prometheus.GaugeValue, n)
	}
}
