package otelworkpool

import (
	"context"
	"errors"
	"reflect"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/seed-a18b2dc9/workpool"
)

// Register reports the numbers of a pool's Stats as metrics, each time that they are
// collected. See the package documentation for their names. The pool is any *workpool.Pool, or what
// else has such a method; the name is that of its Stats.
//
// What is registered keeps the pool in memory, also when it is closed. For pools that come and go,
// call Unregister of what is returned when the pool is closed and its last numbers have been
// collected; for one that lives as long as the program there is no need. Register returns an error
// for a nil pool and for what the provider refuses.
func Register(pool interface{ Stats() workpool.Stats }, opts ...Option) (metric.Registration, error) {
	if v := reflect.ValueOf(pool); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New("otelworkpool: Register(nil): pass a pool")
	}
	c := newConfig(opts)
	meter := c.meters.Meter(scope)
	name := pool.Stats().Name

	type observed struct {
		instrument metric.Int64Observable
		attributes metric.MeasurementOption
		value      func(*workpool.Stats) uint64
	}
	var (
		instruments []metric.Observable
		all         []observed
	)
	for _, m := range metrics {
		instrument, err := m.instrument(meter)
		if err != nil {
			return nil, err
		}
		instruments = append(instruments, instrument)
		for _, s := range m.series {
			attributes := c.of(name)
			if m.by != "" {
				attributes = append(attributes, m.by.String(s.is))
			}
			all = append(all, observed{instrument, metric.WithAttributes(attributes...), s.value})
		}
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		stats := pool.Stats()
		for _, o := range all {
			to.ObserveInt64(o.instrument, int64(o.value(&stats)), o.attributes)
		}
		return nil
	}, instruments...)
}

// A metricOf is one metric of a pool's Stats.
type metricOf struct {
	name, unit, description string
	sum                     bool          // it never decreases
	by                      attribute.Key // which tells its series apart, if there are several
	series                  []series
}

// A series is one value of a metric.
type series struct {
	is    string // the value of the attribute by
	value func(*workpool.Stats) uint64
}

func (m *metricOf) instrument(meter metric.Meter) (metric.Int64Observable, error) {
	if m.sum {
		return meter.Int64ObservableCounter(m.name, metric.WithUnit(m.unit), metric.WithDescription(m.description))
	}
	return meter.Int64ObservableUpDownCounter(m.name, metric.WithUnit(m.unit), metric.WithDescription(m.description))
}

// one is the series of a metric that has no other.
func one(value func(s *workpool.Stats) uint64) []series { return []series{{value: value}} }

// active returns how many workers run a task. Those that a handler waits for run too, beside it.
func active(s *workpool.Stats) int { return min(s.Running, max(0, s.Workers-s.Held)) }

var metrics = []metricOf{
	{
		name: "workpool.worker.count", unit: "{worker}", description: "Workers, by what they do.",
		by: "workpool.worker.state",
		series: []series{
			{"active", func(s *workpool.Stats) uint64 { return uint64(active(s)) }},
			{"idle", func(s *workpool.Stats) uint64 { return uint64(max(0, s.Workers-s.Held-active(s))) }},
			{"held", func(s *workpool.Stats) uint64 { return uint64(s.Held) }},
		},
	},
	{
		name: "workpool.worker.limit", unit: "{worker}", description: "How many workers there may be.",
		series: one(func(s *workpool.Stats) uint64 { return uint64(s.Size) }),
	},
	{
		name: "workpool.queue.size", unit: "{task}", description: "Accepted tasks that have not begun, or wait for their next attempt.",
		series: one(func(s *workpool.Stats) uint64 { return uint64(s.Queued) }),
	},
	{
		name: "workpool.queue.capacity", unit: "{task}", description: "How many accepted tasks may wait while all workers are busy.",
		series: one(func(s *workpool.Stats) uint64 { return uint64(s.QueueDepth) }),
	},
	{
		name: "workpool.caller.waiting", unit: "{caller}", description: "Callers that wait for room.",
		series: one(func(s *workpool.Stats) uint64 { return uint64(s.Waiting) }),
	},
	{
		name: "workpool.result.undelivered", unit: "{result}", description: "Results that no receiver has taken.",
		series: one(func(s *workpool.Stats) uint64 { return uint64(s.Undelivered) }),
	},
	{
		name: "workpool.task.submitted", unit: "{task}", description: "Tasks accepted.",
		sum: true, series: one(func(s *workpool.Stats) uint64 { return s.Submitted }),
	},
	{
		name: "workpool.task.completed", unit: "{task}", description: "Tasks that ran to their end, by its outcome.",
		sum: true, by: "workpool.task.outcome",
		series: []series{
			{"success", func(s *workpool.Stats) uint64 { return s.Succeeded }},
			{"error", func(s *workpool.Stats) uint64 { return s.Failed }},
		},
	},
	{
		name: "workpool.task.panicked", unit: "{task}", description: "Tasks completed with an error that is a panic.",
		sum: true, series: one(func(s *workpool.Stats) uint64 { return s.Panicked }),
	},
	{
		name: "workpool.task.retried", unit: "{attempt}", description: "Attempts of tasks beyond the first.",
		sum: true, series: one(func(s *workpool.Stats) uint64 { return s.Retried }),
	},
	{
		name: "workpool.task.aborted", unit: "{task}", description: "Tasks that ended without having run, or run again, by why.",
		sum: true, by: "workpool.abort.reason",
		series: []series{
			{"closed", func(s *workpool.Stats) uint64 { return s.Aborted - s.Dropped - s.Cancelled }},
			{"dropped", func(s *workpool.Stats) uint64 { return s.Dropped }},
			{"cancelled", func(s *workpool.Stats) uint64 { return s.Cancelled }},
		},
	},
	{
		name: "workpool.task.rejected", unit: "{task}", description: "Tasks that were not accepted.",
		sum: true, series: one(func(s *workpool.Stats) uint64 { return s.Refused }),
	},
}
