// Package promworkpool exposes pools of [workpool] to Prometheus.
//
// One [Collector] serves any number of pools. Its observer measures how long the attempts of
// tasks wait and run, and everything else is read from the pools' Stats at each scrape:
//
//	metrics, err := promworkpool.New()
//	...
//	pool, err := workpool.New(thumbnail,
//		workpool.WithName("thumbnails"),
//		workpool.WithObserver(metrics.Observer()))
//	...
//	err = metrics.Add(pool)
//	...
//	prometheus.MustRegister(metrics)
//
// Each metric has the label pool, the name of the pool. All metrics of one pool but the
// histograms belong to one moment, at which
//
//	workpool_tasks_submitted_total == workpool_tasks_queued + workpool_tasks_running + sum(workpool_tasks_total)
//
// dashboard.json, beside this file, is a dashboard for Grafana.
package promworkpool

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-a18b2dc9/workpool"
)

// A Pool is a [workpool.Pool], whatever its types.
type Pool interface{ Stats() workpool.Stats }

// A Collector is a [prometheus.Collector] of pools. Create one with [New]. All methods are safe
// for concurrent use, before and after registration.
type Collector struct {
	options
	pools sync.Map // of *source, by the name of the pool
}

var _ prometheus.Collector = (*Collector)(nil)

// A source is what is collected of one pool.
type source struct {
	name      string
	pool      Pool
	wait, run prometheus.Histogram
}

// New returns a Collector without pools. Its error wraps [workpool.ErrInvalidOption].
func New(opts ...Option) (*Collector, error) {
	c := &Collector{options: options{buckets: defaultBuckets}}
	for _, option := range opts {
		if option == nil {
			return nil, fmt.Errorf("promworkpool: %w: an Option is nil", workpool.ErrInvalidOption)
		}
		if err := option.apply(&c.options); err != nil {
			return nil, fmt.Errorf("promworkpool: %w: %w", workpool.ErrInvalidOption, err)
		}
	}
	return c, nil
}

// Add adds a pool to those that are collected. Call it before the first task: the histograms
// lack attempts that began or ended earlier. A pool, even a closed one, is collected until
// [Collector.Remove].
//
// Add returns an error, and does not add the pool, if it is nil, if it has no name, if its
// name is not valid UTF-8, or if a pool of the same name is collected already. The histograms
// of that name then count the tasks of both, if both have the observer.
func (c *Collector) Add(pool Pool) error {
	if v := reflect.ValueOf(pool); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return errors.New("promworkpool: Add of a nil pool")
	}
	name := pool.Stats().Name
	if name == "" {
		return errors.New("promworkpool: the pool has no name for the label pool: give it one with workpool.WithName")
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("promworkpool: the name of the pool, %q, is not valid UTF-8, as a label has to be", name)
	}
	s := &source{name, pool, c.histogram(waitOpts, name), c.histogram(runOpts, name)}
	if _, taken := c.pools.LoadOrStore(name, s); taken {
		return fmt.Errorf("promworkpool: a pool named %q has been added already: give each its own name, or call Remove(%[1]q) first if that pool is gone", name)
	}
	return nil
}

// Remove removes the pool with the given name, if there is one, and its histograms. Then another
// pool of that name may be added. Its counters begin at 0, which Prometheus handles as it does
// the restart of a program.
func (c *Collector) Remove(name string) { c.pools.Delete(name) }

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range fromStats {
		descs <- m.desc
	}
	descs <- outcomeDesc
	c.histogram(waitOpts, "").Describe(descs)
	c.histogram(runOpts, "").Describe(descs)
}

// Collect implements [prometheus.Collector]. It calls Stats of each pool once.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	for _, s := range c.pools.Range {
		s := s.(*source)
		collectStats(metrics, s.name, s.pool.Stats())
		metrics <- s.wait
		metrics <- s.run
	}
}
