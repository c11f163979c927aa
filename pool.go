package workpool

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// A Pool runs one [Handler] for many tasks on a number of workers. It is made
// by [New] and ended by [Pool.Shutdown] or [Pool.Close]; the zero Pool is a
// closed one. A Pool must not be copied. All its methods may be called by many
// goroutines at once.
type Pool[T, R any] struct {
	// What every task reads comes first.
	handler    Handler[T, R]
	resultFunc func(Result[T, R])
	window     *window[T, R] // of pools with WithOrdered
	elasticity *elastic      // of pools with WithElastic
	collects   bool          // results go to the collector channel
	special    bool          // an option is on that takes more than a place in the channel to accept a task
	config
	keyOf      func(T) any
	priorityOf func(T) Priority

	// abortContext is cancelled, with the cause, when the pool is aborted.
	abortContext context.Context
	cancel       context.CancelCauseFunc
	stopWatching func() bool   // of the context given with WithContext
	done         chan struct{} // closed when the last goroutine of the pool leaves

	calls sync.Pool // spare jobs of Do, which its callers take and give back without the mutex
	began time.Time // where the clock of the pool starts

	// Everybody reads these all the time: they must not lie beside what is written.
	ofWorkers   attention
	ofReceivers attention
	ofFeeders   attention // an idle worker wants to know of tasks that are handed in without the mutex
	_           [64]byte  // to the start of a cache line

	// mu guards what follows, and the jobs and workers. No code of the user
	// runs under it, and no goroutine waits under it. What a submitter touches
	// comes first, then what workers and receivers do, to be in few cache lines.
	mu        mutex
	open      bool              // tasks are accepted
	paused    bool              // workers take no tasks
	tasks     taskChannel[T, R] // the task channel: accepted tasks that no worker has taken
	free      int               // workers that have nothing in hand, with those that are not started
	unstarted int               // of these
	granted   int               // submitters that were given room and have not used it yet
	blocked   int               // accepted tasks that can't be taken: behind another of their key, or parked
	index     uint64            // of the next task
	submitted uint64
	tail      *run[T, R]   // the last in the task channel, which the next task may join
	filled    int          // places of block that are used
	block     *block[T, R] // where the next task goes that is submitted
	runs      runs[T, R]   // of workers
	waiting   list[T, R]   // submitters that wait for room
	feeders   []*feeder[T, R]

	collector collector[T, R] // the collector channel: results that no receiver has taken
	held      int             // workers whose result exceeds the buffer
	receivers runs[T, R]      // of receivers
	succeeded uint64
	running   int // tasks in hand of a worker, until they have ended
	pace      pace[T, R]
	room      claims        // where held workers wait for a receiver
	size      int           // how many workers there may be
	promised  int           // queued tasks that count on a worker that was free
	awaited   int           // streams that wait for a result
	quiet     chan struct{} // made by Wait, closed when nothing is queued or running

	failed, panicked, aborted, retried uint64

	// To use again:
	spare        *job[T, R]   // linked by next
	spares       int          // how many
	spareRuns    *run[T, R]   // linked by spare
	spareRunsN   int          // how many
	spareBlocks  *block[T, R] // linked by spare
	spareBlocksN int          // how many

	lanes  map[any]*lane[T, R]        // by key; of pools with WithKey
	most   int                        // how many there were at most since lanes was made
	parked list[T, R]                 // tasks that wait for their next attempt
	timers map[*job[T, R]]*time.Timer // of these

	workers    []*worker[T, R] // by number, from 1 at index 0; nil where there is none
	alive      int             // how many there are
	vacant     int             // no index in workers below this one is vacant
	starting   *worker[T, R]   // started for a task, which it has not looked for yet
	goroutines int             // all of the pool's, with timers, which become one
	unanswered list[T, R]      // aborted tasks that the result function must be told of
	draining   bool            // someone was promised that all that was accepted runs
	cut        int             // queued tasks that closing has ended
	abortedBy  error           // what these ended with
	outcome    error           // of Shutdown and Close
	misdeed    error           // the first panic or Goexit of the result function
}

// New starts a pool whose workers call handler. Unless options say otherwise
// it has GOMAXPROCS workers, a task channel of 128 and a collector channel
// of 128. An error wraps [ErrInvalidOption].
func New[T, R any](handler Handler[T, R], opts ...Option) (*Pool[T, R], error) {
	if handler == nil {
		return nil, invalid("New(nil): a pool needs a handler")
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	p := &Pool[T, R]{
		config:    c,
		handler:   handler,
		special:   c.ordered || c.key != nil || c.priority != nil || c.elastic || c.overflow != Block,
		began:     time.Now(),
		pace:      pace[T, R]{limit: 1},
		done:      make(chan struct{}),
		tasks:     taskChannel[T, R]{claims: newClaims()},
		collector: collector[T, R]{channel: channel[T, R]{claims: newClaims()}},
		room:      newClaims(),
	}
	p.collector.pool = p
	if err := p.setFuncs(); err != nil {
		return nil, err
	}
	if c.ordered {
		p.window = new(window[T, R])
	}
	if c.priority != nil {
		p.tasks.others = &otherLevels[T, R]{prioritized: true}
	}
	if c.elastic {
		p.elasticity = new(elastic)
	}
	p.abortContext, p.cancel = context.WithCancelCause(context.Background())
	p.mu.Lock()
	p.open = true
	p.setSizeLocked(c.workers)
	p.stopWatching = context.AfterFunc(c.ctx, p.abortByContext)
	p.mu.Unlock()
	if c.ctx.Err() != nil {
		p.abortByContext()
	}
	return p, nil
}

// setFuncs sets the functions that were given with options, which have to be of
// the types of the pool.
func (p *Pool[T, R]) setFuncs() (err error) {
	c := p.config
	wantResult, wantKey, wantPriority := fmt.Sprintf("%T", p.resultFunc), fmt.Sprintf("func(%v) K", reflect.TypeFor[T]()), fmt.Sprintf("%T", p.priorityOf)
	if p.resultFunc, err = typedOf[func(Result[T, R])]("WithResultFunc", c.resultFunc, c.resultFunc, wantResult); err != nil {
		return err
	}
	if p.keyOf, err = typedOf[func(T) any]("WithKey", c.keyFunc, c.key, wantKey); err != nil {
		return err
	}
	if p.priorityOf, err = typedOf[func(T) Priority]("WithPriority", c.priority, c.priority, wantPriority); err != nil {
		return err
	}
	if p.keyOf != nil {
		p.lanes = map[any]*lane[T, R]{}
	}
	p.collects = p.resultFunc == nil && !c.withoutResults
	return nil
}

// Resize changes the number of workers, within the range of [WithWorkers] and
// not below the minimum of [WithElastic], and returns at once. Surplus workers that are busy finish
// their task and leave; no queued task is lost. It returns [ErrClosed] once
// the pool is closing, and an error that wraps [ErrInvalidOption] for a
// number out of range.
func (p *Pool[T, R]) Resize(workers int) error {
	if err := checkWorkers("Resize", workers); err != nil {
		return err
	}
	if workers < p.minWorkers {
		return invalid("Resize(%d): the minimum of WithElastic is %d", workers, p.minWorkers)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return ErrClosed
	}
	p.setSizeLocked(workers)
	return nil
}

// Pause keeps the workers from taking tasks. Running tasks go on, and tasks
// are accepted until the queue is full. Closing the pool ends the pause.
func (p *Pool[T, R]) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = p.open
	p.recallLocked()
	p.recallRoomLocked() // it may be that of workers, who take nothing now
}

// Resume ends a [Pool.Pause].
func (p *Pool[T, R]) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resumeLocked()
}

func (p *Pool[T, R]) resumeLocked() {
	p.paused = false
	p.collectLocked()
	p.watchLocked()
	p.grantLocked()
	if p.special {
		p.noteTaskLocked()
	}
	if p.alive > p.size { // surplus workers that the pause has kept
		p.tasks.wakeAllLocked()
	}
	if p.tasks.n+p.runs.rest > 0 {
		p.offerTaskLocked()
	}
}

// Stats is a snapshot of a pool. Its numbers belong to one moment, at which
// Submitted == Queued + Running + Succeeded + Failed + Aborted. Running can be
// more than Workers where handlers use their own pool: the outer task runs too
// while one runs in its place.
type Stats struct {
	Workers     int // workers, with those that Resize has made surplus and that are still at a task; with WithElastic, those that are started
	Running     int // tasks whose handler runs
	Queued      int // accepted tasks that no worker has taken, with those that wait for their next attempt
	Undelivered int // results that no receiver has taken

	// Since New:
	Submitted uint64 // tasks accepted
	Succeeded uint64 // tasks that ran and ended without an error
	Failed    uint64 // tasks that ran and ended with an error, a panic or Goexit
	Panicked  uint64 // those of Failed that panicked
	Aborted   uint64 // tasks that ended while they were queued: aborted, dropped, or their caller's context ended
	Retried   uint64 // attempts beyond the first
}

// Stats returns a snapshot of the pool.
func (p *Pool[T, R]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collectLocked()
	p.settleLocked()
	p.settleReceiversLocked()
	return Stats{
		Workers:     p.workersLocked(),
		Running:     p.running,
		Queued:      p.queuedLocked() + p.unanswered.n,
		Undelivered: p.undeliveredLocked(),
		Submitted:   p.submitted,
		Succeeded:   p.succeeded,
		Failed:      p.failed,
		Panicked:    p.panicked,
		Aborted:     p.aborted,
		Retried:     p.retried,
	}
}

// workersLocked returns how many workers there are that don't leave as soon as
// they get to it.
func (p *Pool[T, R]) workersLocked() int {
	if !p.open {
		return p.alive
	}
	n := p.size
	if p.elasticity != nil {
		n = -p.elasticity.leaving
		for _, w := range p.workers[:p.size] {
			if w != nil {
				n++
			}
		}
	}
	for _, w := range p.workers[p.size:] {
		if w != nil && w.busy {
			n++
		}
	}
	return n
}

// queuedLocked returns how many accepted tasks no worker has.
func (p *Pool[T, R]) queuedLocked() int {
	return p.tasks.n + p.runs.accepted + p.blocked
}

// Wait waits until everything accepted has ended: nothing is queued, no
// handler runs. The pool stays open, and tasks accepted meanwhile are waited
// for too. Results need not have been received, but a result that no one
// receives can hold back a worker, and through it tasks.
//
// It returns an error that matches ctx.Err() if ctx ends first, and
// [ErrReentrant] if ctx is that of a handler of the same pool.
func (p *Pool[T, R]) Wait(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if p.inside(ctx) != nil {
		return ErrReentrant
	}
	p.mu.Lock()
	if p.quietLocked() {
		p.mu.Unlock()
		return nil
	}
	if p.quiet == nil {
		p.quiet = make(chan struct{})
	}
	quiet := p.quiet
	p.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("workpool: gave up waiting for all tasks to end: %s: %w", p.load(), contextError(ctx))
	}
}

func (p *Pool[T, R]) quietLocked() bool {
	p.collectLocked()
	return p.running == 0 && p.queuedLocked() == 0 && p.unanswered.n == 0
}

// noteQuietLocked is called whenever a task has ended.
func (p *Pool[T, R]) noteQuietLocked() {
	if !p.quietLocked() {
		return
	}
	if p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
	if !p.open { // they have all that they will ever have
		p.collector.wakeAllLocked()
		p.tasks.wakeAllLocked()
	}
}

// maxSpares is how many jobs are kept for further tasks. What a deeper queue
// has needed once is given back.
const maxSpares = 1 << 16

// newJobLocked returns an empty job.
func (p *Pool[T, R]) newJobLocked() *job[T, R] {
	j := p.spare
	if j == nil {
		return new(job[T, R])
	}
	p.spare = j.next
	p.spares--
	return j
}

// freeLocked keeps a job that nobody needs any more for the next task.
func (p *Pool[T, R]) freeLocked(j *job[T, R]) {
	ofDo := j.signals
	j.reset()
	if ofDo {
		p.calls.Put(j)
	} else {
		p.keepLocked(j)
	}
}

// keepLinkedLocked keeps jobs that are linked to one another.
func (p *Pool[T, R]) keepLinkedLocked(jobs []*job[T, R]) {
	if p.spares < maxSpares {
		jobs[len(jobs)-1].next, p.spare = p.spare, jobs[0]
		p.spares += len(jobs)
	}
}

func (p *Pool[T, R]) keepLocked(j *job[T, R]) {
	if p.spares < maxSpares {
		j.next, p.spare = p.spare, j
		p.spares++
	}
}
