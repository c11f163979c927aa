package debug

import (
	"time"
	"unsafe"

	"github.com/seed-a18b2dc9/workpool"
)

// What tests look at from the inside.
const (
	MaxFailures = maxFailures
	EndedPools  = endedPools
	Patience    = patience

	// WatchSize is how many bytes a page has of a pool, failures aside.
	WatchSize = unsafe.Sizeof(watch{})
)

type (
	Failure  = failure
	Failures = failures
)

func (f *Failures) Add(err error)     { f.add(workpool.Event{Err: err}) }
func (f *Failures) Latest() []Failure { return f.latest() }

// Percentiles returns those of what a histogram makes of durations.
func Percentiles(durations ...time.Duration) (p50, p99, most time.Duration) {
	var h histogram
	for _, d := range durations {
		h.add(d)
	}
	var s sum
	s.add(&h)
	return s.percentile(50), s.percentile(99), s.most
}

// Duration returns d as the page writes it.
func Duration(d time.Duration) string { return duration(seconds(d)) }
