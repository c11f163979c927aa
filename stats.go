package workpool

import "fmt"

// Stats is a snapshot of a pool. All numbers are of the same moment, at which
// Submitted == Queued + Running + Succeeded + Failed + Aborted.
type Stats struct {
	Name           string // as given with WithName
	Size           int    // how many workers there may be
	QueueDepth     int    // as given with WithQueueDepth
	ResultBuffer   int    // as given with WithResultBuffer, or the default
	Paused, Closed bool

	Workers     int // Size, or with WithElastic the minimum or those that are started; more while surplus workers finish their task after a Resize; once the pool is closing, those that are left
	Running     int // tasks that a worker has begun, or with CallerRuns their caller
	Queued      int // accepted tasks that no worker has begun
	Undelivered int // results that no receiver has taken
	Waiting     int // callers in line for room
	Held        int // workers that wait for room for their result
	Parked      int // those of Queued that wait for their next attempt

	Submitted uint64 // tasks accepted
	Succeeded uint64 // tasks that ran and ended without an error
	Failed    uint64 // tasks that ran and ended with an error, a panic or Goexit
	Panicked  uint64 // those of Failed that panicked
	Aborted   uint64 // tasks that never ran, or were not run again: aborted, dropped, or nobody waited for them any more
	Dropped   uint64 // those of Aborted that WithOverflow dropped
	Cancelled uint64 // those of Aborted whose caller gave up
	Refused   uint64 // tasks that were not accepted: no room, closed, or their caller gave up waiting; a call with many that was refused as a whole counts as one
	Retried   uint64 // attempts beyond the first
}

// counters are the counts of tasks for Stats.
type counters struct {
	index   uint64 // of the next task
	running int

	submitted, succeeded, failed, panicked, aborted, dropped, cancelled, refused, retried uint64
}

// An unrun is the reason why a task ended without running.
type unrun uint8

const (
	aborted unrun = iota
	dropped
	cancelled
)

// unrun counts a task that ended without running.
func (n *counters) unrun(why unrun) {
	n.aborted++
	switch why {
	case dropped:
		n.dropped++
	case cancelled:
		n.cancelled++
	}
}

// Stats returns a snapshot of the pool.
func (p *Pool[T, R]) Stats() Stats {
	p.lock()
	defer p.unlock()
	n := &p.count
	return Stats{
		Name:         p.name,
		Size:         p.crew.size,
		QueueDepth:   p.queueDepth,
		ResultBuffer: p.resultBuffer,
		Paused:       p.crew.paused,
		Closed:       !p.life.open,

		Workers:     p.crew.workers(p.life.open),
		Running:     n.running,
		Queued:      p.tasks.queued(),
		Undelivered: p.results.undelivered(),
		Waiting:     p.line.n,
		Held:        p.crew.held.n,
		Parked:      p.parking.n,

		Submitted: n.submitted,
		Succeeded: n.succeeded,
		Failed:    n.failed,
		Panicked:  n.panicked,
		Aborted:   n.aborted,
		Dropped:   n.dropped,
		Cancelled: n.cancelled,
		Refused:   n.refused,
		Retried:   n.retried,
	}
}

// load describes what keeps the pool busy.
func (p *Pool[T, R]) load() string {
	s := p.Stats()
	load := fmt.Sprintf("tasks: %d queued, %d running", s.Queued, s.Running)
	if s.Parked > 0 {
		load += fmt.Sprintf(", %d of the queued wait for their next attempt", s.Parked)
	}
	if s.Undelivered > 0 {
		load += fmt.Sprintf("; results not received: %d", s.Undelivered)
	}
	if s.Held > 0 {
		load += fmt.Sprintf("; %d of %d workers wait for a receiver of their results", s.Held, s.Size)
	}
	if s.Paused {
		load += "; the pool is paused"
	}
	return load
}
