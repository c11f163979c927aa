package promworkpool

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-a18b2dc9/workpool"
)

// A statistic is a metric that is one number of a pool's Stats.
type statistic struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*workpool.Stats) float64
}

var fromStats = []statistic{
	gauge("workpool_workers", "Workers, or the started ones of an elastic pool.",
		func(s *workpool.Stats) float64 { return float64(s.Workers) }),
	gauge("workpool_workers_max", "Workers that there may be.",
		func(s *workpool.Stats) float64 { return float64(s.Size) }),
	gauge("workpool_workers_held", "Workers that wait because their result has no room.",
		func(s *workpool.Stats) float64 { return float64(s.Held) }),
	gauge("workpool_tasks_running", "Tasks that a worker has begun.",
		func(s *workpool.Stats) float64 { return float64(s.Running) }),
	gauge("workpool_tasks_queued", "Accepted tasks that no worker has begun.",
		func(s *workpool.Stats) float64 { return float64(s.Queued) }),
	gauge("workpool_tasks_parked", "Queued tasks that wait for their next attempt.",
		func(s *workpool.Stats) float64 { return float64(s.Parked) }),
	gauge("workpool_queue_capacity", "Tasks that the queue has room for, with priorities each queue.",
		func(s *workpool.Stats) float64 { return float64(s.QueueDepth) }),
	gauge("workpool_callers_waiting", "Callers that wait for room in the queue.",
		func(s *workpool.Stats) float64 { return float64(s.Waiting) }),
	gauge("workpool_results_undelivered", "Results that no receiver has taken.",
		func(s *workpool.Stats) float64 { return float64(s.Undelivered) }),
	gauge("workpool_results_capacity", "Results that the result buffer has room for.",
		func(s *workpool.Stats) float64 { return float64(s.ResultBuffer) }),
	gauge("workpool_paused", "Whether the pool is paused: 1 or 0.",
		func(s *workpool.Stats) float64 { return number(s.Paused) }),
	gauge("workpool_closed", "Whether the pool is closed: 1 or 0.",
		func(s *workpool.Stats) float64 { return number(s.Closed) }),
	counter("workpool_tasks_submitted_total", "Tasks accepted.",
		func(s *workpool.Stats) float64 { return float64(s.Submitted) }),
	counter("workpool_tasks_refused_total", "Tasks not accepted: no room, closed, or their caller gave up waiting.",
		func(s *workpool.Stats) float64 { return float64(s.Refused) }),
	counter("workpool_retries_total", "Attempts of tasks beyond the first.",
		func(s *workpool.Stats) float64 { return float64(s.Retried) }),
}

var outcomeDesc = prometheus.NewDesc("workpool_tasks_total",
	"Tasks ended. succeeded, failed and panicked ran; aborted, dropped and cancelled never ran, or were not run again.",
	[]string{"pool", "outcome"}, nil)

// outcomes are the ways in which tasks end. Each task is counted for one of them.
var outcomes = []struct {
	name  string
	value func(*workpool.Stats) uint64
}{
	{"succeeded", func(s *workpool.Stats) uint64 { return s.Succeeded }},
	{"failed", func(s *workpool.Stats) uint64 { return s.Failed - s.Panicked }},
	{"panicked", func(s *workpool.Stats) uint64 { return s.Panicked }},
	{"aborted", func(s *workpool.Stats) uint64 { return s.Aborted - s.Dropped - s.Cancelled }},
	{"dropped", func(s *workpool.Stats) uint64 { return s.Dropped }},
	{"cancelled", func(s *workpool.Stats) uint64 { return s.Cancelled }},
}

func gauge(name, help string, value func(*workpool.Stats) float64) statistic {
	return statistic{prometheus.NewDesc(name, help, []string{"pool"}, nil), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(*workpool.Stats) float64) statistic {
	return statistic{prometheus.NewDesc(name, help, []string{"pool"}, nil), prometheus.CounterValue, value}
}

// number returns 1 for true and 0 for false.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collectStats sends the metrics that s has of the pool with the given name.
func collectStats(metrics chan<- prometheus.Metric, name string, s workpool.Stats) {
	for _, m := range fromStats {
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s), name)
	}
	for _, o := range outcomes {
		metrics <- prometheus.MustNewConstMetric(outcomeDesc, prometheus.CounterValue, float64(o.value(&s)), name, o.name)
	}
}
