package workpool

import (
	linked "container/list"
	"context"
	"fmt"
	"sync"
)

// A Pool runs one [Handler] for many tasks on a number of workers. The workers
// drain a buffered task channel and push typed results onto a collector channel.
//
// Create one with [New]. The zero Pool is closed: calls that run tasks return
// [ErrClosed]. A Pool must not be copied. All methods are safe for concurrent use.
type Pool[T, R any] struct {
	handler   Handler[T, R]
	functions functions[T, R] // given with options
	config
	observer   *observer // nil without WithObserver
	life       life
	calls      sync.Pool // spare jobs of Do
	submitters sync.Pool // spare submitters
	workers    sync.Map  // the IDs of the goroutines of workers, if results are collected

	_       [64]byte // so that the mutex has a cache line of its own
	mu      mutex    // guards what follows, the jobs and the workers
	tasks   taskChannel[T, R]
	line    line[T, R]
	keys    keys[T, R]
	parking list[T, R]          // tasks that wait for their next attempt
	byAge   [levels]linked.List // with DropOldest: the tasks that may be dropped, in the order in which they came
	crew    crew
	results collector[T, R]
	untold  inPlace[T, R]  // calls the result function for tasks that have not run
	woken   waiting        // waiters that unlock will wake
	claims  *mapping[T, R] // the Map whose tasks workers claim without the mutex, or nil
	count   counters
	spare   store[T, R]
	quiet   chan struct{} // closed when everything accepted has ended; nil if nobody waits for that
	changed chan struct{} // closed when the pool is resized or closed; nil if no Stream waits for that
}

// New creates a pool whose workers call handler. Workers start with the first
// tasks.
//
// An error wraps [ErrInvalidOption] and says which option is wrong, or which two
// conflict, and why.
func New[T, R any](handler Handler[T, R], opts ...Option) (*Pool[T, R], error) {
	if handler == nil {
		return nil, invalid("nil handler: a pool needs a function from a task to a value or an error")
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	f, err := functionsOf[T, R](c)
	if err != nil {
		return nil, err
	}
	p := &Pool[T, R]{config: c, handler: handler, functions: f, observer: newObserver(c.observers)}
	p.tasks.depth = c.queueDepth
	p.keys.depth = c.keyDepth
	p.results = newCollector(p)
	p.crew = newCrew(c)
	p.crew.idle.woken, p.crew.held.woken, p.results.readers.woken = &p.woken, &p.woken, &p.woken
	p.line.ordered = c.ordered
	p.spare = newStore[T, R](c.workers)
	p.life.begin(&p.config)
	if p.life.tied {
		p.mu.Lock() // if ctx has ended already, another goroutine aborts the pool at once
		p.life.unlink = context.AfterFunc(p.life.ctx, func() {
			p.lock() // this aborts the pool
			p.unlock()
		})
		p.mu.Unlock()
	}
	return p, nil
}

// lock enters the mutex. It first settles what happened outside of it: it accounts for the
// tasks of a Map that workers claimed without the mutex, and stops such claims; and it aborts
// the pool if the pool's context has ended.
func (p *Pool[T, R]) lock() {
	if !p.mu.TryLock() {
		p.mu.lockSlow()
	}
	if p.claims != nil || p.life.tied {
		p.settleLocked()
	}
}

// lockAhead is lock for receivers. They do not yield to the crowd, as lockSlow does: there are
// few of them, and they make the room that others wait for.
func (p *Pool[T, R]) lockAhead() {
	p.mu.Lock()
	if p.claims != nil || p.life.tied {
		p.settleLocked()
	}
}

func (p *Pool[T, R]) settleLocked() {
	if p.claims != nil {
		p.claims.settleLocked()
	}
	if p.life.tied && !p.life.noticed && p.life.ctx.Err() != nil {
		p.abortByContextLocked()
	}
}

// unlock leaves the mutex. It alone wakes workers, receivers and submitters: it checks what can
// proceed, and wakes a goroutine for it. A goroutine must be woken only if it will find something
// to do. Otherwise the next unlock would wake it again, without end. Channels that never block
// their sender, such as that of a Map or a DoChan, get their message where it arises.
func (p *Pool[T, R]) unlock() {
	if p.crew.held.n > 0 {
		p.releaseHeldLocked()
	}
	if p.line.n > 0 {
		p.admitLocked()
	}
	if p.tasks.n > p.crew.coming && (p.crew.idle.n > 0 || p.crew.within < p.crew.size) {
		p.callWorkersLocked()
	}
	if p.results.readers.n > 0 && p.results.list.n > 0 {
		p.results.callReceiver()
	}
	if p.count.running+p.tasks.n == 0 && p.isQuietLocked() {
		p.quietLocked()
	}
	woken := p.woken.first
	if woken == nil {
		p.mu.Unlock()
		return
	}
	p.woken = waiting{}
	p.mu.Unlock()
	wakeFrom(woken)
}

// isQuietLocked reports whether everything accepted has ended.
func (p *Pool[T, R]) isQuietLocked() bool { return p.count.running == 0 && p.tasks.queued() == 0 }

// quietLocked tells those who wait for it that everything accepted has ended. If the pool is
// closed, workers and receivers can end too.
func (p *Pool[T, R]) quietLocked() {
	if p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
	if p.life.open {
		return
	}
	p.crew.idle.wakeAll()
	p.results.readers.wakeAll()
	if p.life.goroutines == 0 && !p.life.over && p.life.done != nil {
		p.life.goroutines++
		go p.leave()
	}
}

// Resize sets the number of workers. It has the range of [WithWorkers], and must
// not be below the minimum of [WithElastic]. Resize does not wait: surplus workers
// finish their current task, begin no other, and exit. It returns [ErrClosed] once
// the pool is closing.
func (p *Pool[T, R]) Resize(workers int) error {
	if err := checkWorkers("Resize", workers); err != nil {
		return err
	}
	if workers < p.minWorkers {
		return invalid("Resize(%d): the minimum of WithElastic is %d", workers, p.minWorkers)
	}
	p.lock()
	defer p.unlock()
	if !p.life.open {
		return ErrClosed
	}
	p.crew.resize(workers)
	p.changedLocked()
	return nil
}

// onChangeLocked returns a channel that is closed when the pool is resized or closed.
func (p *Pool[T, R]) onChangeLocked() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

func (p *Pool[T, R]) changedLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// Pause stops the workers from beginning tasks, until [Pool.Resume]. Running tasks
// continue, also with tasks that their handlers wait for, and tasks are accepted as
// long as the queue has room. Closing the pool ends the pause.
func (p *Pool[T, R]) Pause() {
	p.lock()
	defer p.unlock()
	p.crew.paused = p.life.open
}

// Resume ends a [Pool.Pause].
func (p *Pool[T, R]) Resume() {
	p.lock()
	defer p.unlock()
	p.crew.paused = false
}

// Wait waits until every accepted task has ended, and returns nil. If ctx ends
// first, it returns an error that matches ctx.Err() and says what the pool was busy
// with. The pool stays open: while others submit, there may never be a moment
// without tasks.
//
// Called with the context of a handler of the same pool, it returns [ErrReentrant].
func (p *Pool[T, R]) Wait(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	inside := p.handlerOf(ctx)
	p.lock()
	if inside.runsLocked() {
		p.unlock()
		return ErrReentrant
	}
	if p.isQuietLocked() {
		p.unlock()
		return nil
	}
	if p.quiet == nil {
		p.quiet = make(chan struct{})
	}
	quiet := p.quiet
	p.unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("workpool: gave up waiting for all tasks to end: %s: %w", p.load(), contextError(ctx))
	}
}
