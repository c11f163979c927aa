package promworkpool

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-a18b2dc9/workpool"
)

var waitOpts = prometheus.HistogramOpts{
	Name: "workpool_task_wait_seconds",
	Help: "How long attempts of tasks waited, from when they were handed in or due again until they began.",
}

var runOpts = prometheus.HistogramOpts{
	Name: "workpool_task_run_seconds",
	Help: "How long the handler ran for attempts of tasks.",
}

// histogram returns a new histogram for the pool with the given name.
func (c *Collector) histogram(opts prometheus.HistogramOpts, name string) prometheus.Histogram {
	opts.Unit = "seconds"
	opts.Buckets = c.buckets
	// Each native bucket is at most 10% wider than the one before, and their number is bounded.
	opts.NativeHistogramBucketFactor = 1.1
	opts.NativeHistogramMaxBucketNumber = 160
	opts.NativeHistogramMinResetDuration = time.Hour
	return prometheus.NewHistogramVec(opts, []string{"pool"}).WithLabelValues(name).(prometheus.Histogram)
}

// Observer returns an observer for [workpool.WithObserver], which feeds the histograms. All pools
// may have the same. It ignores pools that are not added. If a function given with [WithExemplar]
// panics, that is the error of the task.
func (c *Collector) Observer() workpool.Observer {
	return workpool.Observer{
		Begin: func(ctx context.Context, e workpool.Event) context.Context {
			if s := c.source(e.Pool); s != nil {
				c.observe(ctx, s.wait, e.Waited)
			}
			return nil
		},
		End: func(ctx context.Context, e workpool.Event) {
			if s := c.source(e.Pool); s != nil {
				c.observe(ctx, s.run, e.Took)
			}
		},
	}
}

// source returns what is collected of the pool with the given name, or nil.
func (c *Collector) source(name string) *source {
	if s, ok := c.pools.Load(name); ok {
		return s.(*source)
	}
	return nil
}

// observe counts d in h, with the exemplar that belongs to ctx.
func (c *Collector) observe(ctx context.Context, h prometheus.Histogram, d time.Duration) {
	if c.exemplar != nil {
		if labels := c.exemplar(ctx); usable(labels) {
			h.(prometheus.ExemplarObserver).ObserveWithExemplar(d.Seconds(), labels)
			return
		}
	}
	h.Observe(d.Seconds())
}
