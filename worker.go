package workpool

import (
	"cmp"
	"runtime/pprof"
	"runtime/trace"
	"sync/atomic"
)

// A worker runs tasks, one at a time, on a goroutine of its own.
//
// The goroutine has one deferred function for all its tasks. When a handler panics or calls
// Goexit, that function records it and a new goroutine continues with the worker. So
// calling a handler costs no more than a function call.
type worker[T, R any] struct {
	waiter
	pool *Pool[T, R]

	// Used by the worker's goroutine only:
	phase    phase
	contexts contexts[T, R] // for its tasks
	panicked bool           // the handler panicked
	skipped  bool           // the handler was not called

	claimed atomic.Uint64 // the index of the Map task that it runs
	began   atomic.Int64  // when the handler was called, on the observer's clock; 0 without an observer, or while no handler runs

	// Guarded by the pool's mutex:
	before int32          // the worker of the previous attempt
	job    *job[T, R]     // the task that it is working on
	serves *inPlace[T, R] // whose tasks it runs; nil for a worker of the crew
	place  *inPlace[T, R] // runs the tasks that its handler waits for; nil until there are some
}

// A phase is how far a worker has come with its task.
type phase uint8

const (
	idle       phase = iota // it has none
	taken                   // it has taken one
	handling                // the handler runs
	handled                 // the handler has ended
	concluding              // its error is examined and its context released
	concluded               // that is done
	telling                 // the result function runs
	told                    // the result function has ended
)

// callWorkersLocked wakes idle workers for the queued tasks, or starts new ones. At most
// one worker for each processor is on its way at once; each one that arrives calls the
// next.
func (p *Pool[T, R]) callWorkersLocked() {
	c := &p.crew
	for c.coming < min(p.tasks.n, c.most) && !c.paused {
		switch {
		case c.idle.n > 0:
			c.call(c.idle.last)
		case c.within < c.size:
			w := p.newWorker()
			c.join(&w.waiter)
			w.coming = true
			c.coming++
			p.startLocked(w)
		default:
			return
		}
	}
}

func (p *Pool[T, R]) newWorker() *worker[T, R] {
	w := &worker[T, R]{pool: p}
	if p.observer != nil {
		w.report = w.working
	}
	return w
}

// startLocked starts a worker.
func (p *Pool[T, R]) startLocked(w *worker[T, R]) {
	p.life.goroutines++
	go w.work()
}

// work runs tasks until the pool no longer needs w.
func (w *worker[T, R]) work() {
	p := w.pool
	pprof.SetGoroutineLabels(p.life.labels)
	if p.results.on {
		id := goroutineID()
		p.workers.Store(id, nil)
		defer p.workers.Delete(id)
	}
	defer w.replace()
	for w.phase == taken || w.next() {
		w.run()
	}
	p.leave()
}

// replace runs when the worker's goroutine ends. If that was due to a panic or Goexit, a
// new goroutine continues from that phase.
func (w *worker[T, R]) replace() {
	if w.phase == idle {
		return
	}
	v := recover()
	switch w.phase {
	case handling, concluding:
		if v != nil || !w.panicked { // else a Goexit goes on in which there was a panic, which is noted
			w.failed(v)
		}
		w.phase++
	case telling:
		w.pool.resultFuncFailed(w.job.index, errorOf(v))
		w.phase = told
	default:
		panic(v) // a bug of the pool, not of a handler
	}
	go w.work()
}

// failed records that the handler did not return. recovered is what recover returned.
func (w *worker[T, R]) failed(recovered any) {
	var none R
	w.job.value, w.job.err = none, errorOf(recovered) // instead of those of the previous attempt
	w.panicked = recovered != nil
}

// next hands in the task that w has finished and takes the next one. It reports false if w
// is to exit.
func (w *worker[T, R]) next() bool {
	p := w.pool
	if w.phase == handled && (w.job.err != nil || w.job.bound && !w.job.inBatch()) {
		w.conclude()
	}
	if p.functions.result != nil && (w.phase == handled || w.phase == concluded) {
		w.tell()
	}
	p.lock()
	if w.phase != idle {
		w.finishLocked()
	}
	more := w.takeLocked()
	p.unlock()
	return more
}

// run calls the handler for the task of w. If that is a task of a Map and nothing else is
// queued, it continues with the next tasks of the Map.
func (w *worker[T, R]) run() {
	p, j := w.pool, w.job
	w.phase = handling
	switch {
	case j.state == untold:
		w.skipped = true
	case j.bound && j.ctx.Err() != nil: // ctx ended while the task was queued
		j.err, j.unrun, w.skipped = after(contextError(j.ctx), j.err), cancelled, true
	default:
		m, ofMap := j.to.(*mapping[T, R])
		for {
			if p.observer != nil || trace.IsEnabled() {
				w.callObserved(j)
			} else {
				j.value, j.err = p.handler(w.contextFor(j), j.task)
			}
			if !ofMap || j.err != nil || !m.claim(w, j) {
				break
			}
		}
	}
	w.phase = handled
}

// conclude examines the error of a task and releases what its context holds. It may call
// user code, so it runs without the mutex.
func (w *worker[T, R]) conclude() {
	w.phase = concluding
	j := w.job
	if j.err != nil && !w.skipped {
		j.err = asRetry(j.err)
	}
	if retryOf(j.err) == nil {
		if call, ok := j.ctx.(*callContext); ok {
			call.end()
		}
		if j.to != nil && j.err != nil {
			j.to.failed(j.err)
		}
	}
	w.phase = concluded
}

// tell calls the result function, unless the task will have another attempt or its answer
// goes to a caller.
func (w *worker[T, R]) tell() {
	if j := w.job; j.to == nil && (w.skipped || retryOf(j.err) == nil) {
		w.phase = telling
		w.pool.functions.result(w.result())
		w.phase = told
	}
}

// result returns the result of the task of w.
func (w *worker[T, R]) result() Result[T, R] {
	r := w.job.result()
	if w.skipped { // there was no attempt
		r.Worker = int(w.before)
		if w.job.state != untold { // else the attempt was corrected already
			r.Attempt = max(1, r.Attempt-1)
		}
	}
	return r
}

// finishLocked ends the task of w, or its attempt. The order matters: countLocked corrects what
// the answer says, the answer may free the job, and the next task of the key may be one that runs
// in the place of w.
func (w *worker[T, R]) finishLocked() {
	p, j := w.pool, w.job
	retry := retryOf(j.err)
	w.countLocked(j, retry)
	if retry == nil {
		if j.key != nil {
			p.releaseKeyLocked(j, w.place)
		}
		p.answerLocked(j)
	} else {
		if k := j.key; k != nil && k.turn == j {
			k.turn = cmp.Or(w.place.heir(k), j)
		}
		p.parkLocked(j, retry)
	}
	w.job, w.phase, w.panicked, w.skipped = nil, idle, false, false
}

// countLocked counts the end of a task, or of its attempt.
func (w *worker[T, R]) countLocked(j *job[T, R], retry *retryError) {
	n := &w.pool.count
	n.running--
	if j.attempt > 1 && !w.skipped {
		n.retried++
	}
	switch {
	case w.skipped:
		n.unrun(j.unrun)
		j.worker, j.attempt = w.before, max(1, j.attempt-1) // there was no attempt
	case retry != nil:
	case j.err == nil:
		n.succeeded++
	default:
		n.failed++
		if w.panicked {
			n.panicked++
		}
	}
}

// takeLocked waits for a task and takes it. It reports false if w is to exit instead.
func (w *worker[T, R]) takeLocked() bool {
	p, c := w.pool, &w.pool.crew
	if w.place != nil && w.closePlaceLocked() {
		return false // the helper has taken its place
	}
	if w.seated {
		held := p.life.open && p.results.isOverfull(c.held.n)
		switch {
		case held:
			p.results.recall() // so that each result that is received lets a worker go on
			w.awaitLocked(&c.held)
		case w.mayBeginLocked(): // it stays seated
			w.beginLocked(p.tasks.pop())
			return true
		default:
			c.stand(&w.waiter)
		}
	}
	for {
		p.crew.arrived(&w.waiter)
		switch {
		case w.serves != nil:
			if j := w.serves.nextLocked(p); j != nil {
				w.beginLocked(j)
				return true
			}
			w.serves.helper = nil
			return false
		case w.leavesLocked():
			return false
		case w.mayBeginLocked():
			p.crew.sit(&w.waiter)
			w.beginLocked(p.tasks.pop())
			return true
		}
		w.forgetContext()
		p.crew.rest(&w.waiter)
		if p.crew.elastic != nil {
			p.watchIdleLocked()
		}
		p.unlock()
		<-w.wake
		p.lock()
	}
}

// mayBeginLocked reports whether w, a worker of the crew, may begin a task now.
func (w *worker[T, R]) mayBeginLocked() bool {
	c := &w.pool.crew
	return w.pool.tasks.n > 0 && !c.paused && int(w.number) <= c.size
}

// awaitLocked waits in a list until it is woken.
func (w *worker[T, R]) awaitLocked(l *waiting) {
	l.push(&w.waiter)
	w.pool.unlock()
	<-w.wake
	w.pool.lock()
}

// releaseHeldLocked releases workers whose results have room now, or need none because the
// pool is closing.
func (p *Pool[T, R]) releaseHeldLocked() {
	for c := &p.crew; c.held.n > 0 && (!p.life.open || p.results.hasRoom(c.held.n)); {
		c.stand(c.held.first)
		c.held.wake(c.held.first)
	}
}

// leavesLocked reports whether w is to exit, and if so removes it from the crew.
func (w *worker[T, R]) leavesLocked() bool {
	p, c := w.pool, &w.pool.crew
	needed := int(w.number) <= c.size && (p.life.open || !p.isQuietLocked())
	if needed && (!w.dismissed || p.tasks.n > c.coming) {
		w.dismissed = false
		return false
	}
	c.leave(&w.waiter)
	return true
}

// beginLocked makes j the task of w. If j is the entry of a Map, it takes the next task of
// the Map.
func (w *worker[T, R]) beginLocked(j *job[T, R]) {
	w.pool.count.running++
	w.phase = taken
	if j.to != nil {
		j = w.drawLocked(j)
	}
	if j.age != nil {
		w.pool.unmarkDroppableLocked(j)
	}
	if j.batch != nil {
		j.batch.begun(j)
		if w.serves == nil { // a handler that submitted j need not wait until j has run in its place
			w.pool.releaseSubmitterLocked(j, nil)
		}
	}
	if j.state != untold {
		j.state = outside
	}
	w.before, j.worker = j.worker, w.number
	w.job = j
}
