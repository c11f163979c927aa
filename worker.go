package workpool

import "math"

// A worker runs tasks, one at a time, on a goroutine of its own.
//
// Its goroutine has one deferred function, which finds out about a panic or
// Goexit when it happens, and goes on with the job on a new goroutine. So the
// call of a handler costs a call.
type worker[T, R any] struct {
	pool *Pool[T, R]

	// Of the worker's goroutine alone:
	ctx      *taskContext // for tasks that come with the same context as the last one
	ctxOnce  uintptr      // the address of that context while it has come only once
	panicked bool         // the handler did
	skipped  bool         // the handler was not called
	phase    phase
	job      *job[T, R] // what it has in hand

	// Guarded by the pool's mutex:
	id     int32
	before int32         // the worker of the attempt before
	busy   bool          // it has something in hand, if only a result that found no room
	held   bool          // its last result found no room
	nested chan struct{} // of a worker for one nested task: closed when it leaves; else nil
	outer  *worker[T, R] // the one in whose place it runs
}

// A phase is how far a worker has come with the job that it has in hand.
type phase uint8

const (
	idle     phase = iota // it has none
	taken                 // it has taken one
	handling              // the handler runs
	handled               // the handler has ended
	telling               // the result function runs
	told                  // the result function has ended
)

// eagerWorkers is how many workers are started before there are tasks for them.
const eagerWorkers = 1024

// setSizeLocked makes size workers, numbered from 1. Those with a higher
// number leave when they next have nothing in hand.
func (p *Pool[T, R]) setSizeLocked(size int) {
	shrinks := size < p.size
	p.size, p.free, p.unstarted, p.vacant = size, 0, 0, 0
	eager := eagerWorkers
	if p.elasticity != nil {
		eager = p.minWorkers
	}
	if more := size - len(p.workers); more > 0 {
		p.workers = append(p.workers, make([]*worker[T, R], more)...)
	}
	for i := range size {
		if p.workers[i] == nil {
			p.unstarted++
			if p.alive < eager {
				p.startWorkerLocked(i)
			}
		}
		if w := p.workers[i]; w == nil || !w.busy {
			p.free++
		}
	}
	if shrinks {
		p.recallLocked()
		p.recallRoomLocked()
		p.tasks.wakeAllLocked()
	}
	if p.elasticity != nil {
		p.recountLocked()
	}
	if p.tasks.n+p.runs.rest > 0 && !p.paused {
		p.offerTaskLocked()
	}
	p.watchFeedersLocked()
	p.grantLocked()
	for _, f := range p.feeders {
		if s, ok := f.owner.(*streamBatch[T, R]); ok {
			s.wakeFeederLocked() // the pool may hold more now
		}
	}
}

// startWorkerLocked starts the worker at an index of workers.
func (p *Pool[T, R]) startWorkerLocked(i int) {
	w := &worker[T, R]{pool: p, id: int32(i + 1)}
	p.workers[i] = w
	p.unstarted--
	p.alive++
	p.goroutines++
	go w.work()
}

// startVacantLocked starts the worker with the lowest number that there is not.
func (p *Pool[T, R]) startVacantLocked() (started bool) {
	for p.vacant < p.size && p.workers[p.vacant] != nil {
		p.vacant++
	}
	if p.vacant >= p.size {
		return false
	}
	p.startWorkerLocked(p.vacant)
	return true
}

// offerTaskLocked sees to it that somebody comes for a task. In a very large pool
// that may be a worker that is only started now. There, too, it is one at a time,
// who then wakes or starts the next.
func (p *Pool[T, R]) offerTaskLocked() {
	switch {
	case p.tasks.waiting > 0:
		p.tasks.offerLocked()
	case p.unstarted > 0 && p.starting == nil && p.elasticity == nil && p.startVacantLocked():
		p.starting = p.workers[p.vacant]
	}
}

// startNestedLocked runs an accepted task on a goroutine of its own, as a
// worker with the number of the one that waits for it. It can't be the
// goroutine of that one, since a Goexit takes the whole goroutine along, and
// the outer task with it.
func (p *Pool[T, R]) startNestedLocked(id int32, j *job[T, R]) *worker[T, R] {
	w := &worker[T, R]{pool: p, id: id, nested: make(chan struct{})}
	if j.isRun {
		j, _ = p.takeRunLocked(j, maxRun, math.MaxInt64) // never overdue: the handler that waits for it would take it again
		if p.runs.rest > 0 && !p.paused {
			p.offerTaskLocked() // to a worker whose room was given to a submitter, who may give up
		}
	}
	w.beginLocked(j)
	p.goroutines++
	go w.work()
	return w
}

// work runs one task after the other until the pool needs w no longer.
func (w *worker[T, R]) work() {
	defer w.replace()
	for w.next() {
		w.phase = handling
		j := w.job
		if j.bound && j.ctx.Err() != nil {
			j.err, w.skipped = j.afterLast(contextError(j.ctx)), true // it ended while the task was queued
		} else if r, ok := j.to.(*run[T, R]); ok {
			w.handleRun(r)
		} else if j.value, j.err = w.pool.handler(w.contextFor(j.ctx), j.task); j.err != nil {
			j.err = asRetry(j.err)
		}
		w.phase = handled
	}
	if w.nested != nil {
		close(w.nested)
	}
	w.pool.left()
}

// replace is the end of the worker's goroutine. If that was not in order, a
// new one goes on from there.
func (w *worker[T, R]) replace() {
	if w.phase == idle {
		return
	}
	recovered := recover()
	err := errorOf(recovered)
	switch w.phase {
	case handling:
		var none R
		w.job.value = none // not that of the attempt before
		w.panicked = recovered != nil
		w.job.err = err
		w.phase = handled
	case telling:
		w.pool.resultFuncFailed(w.job, err)
		w.phase = told
	}
	go w.work()
}

// next hands in the job that w has finished and takes the next one. It
// reports false when w is to leave.
func (w *worker[T, R]) next() bool {
	p := w.pool
	switch {
	case w.phase == taken:
		return true
	case w.phase == handled && (w.job.bound || p.resultFunc != nil):
		w.conclude()
	}
	if w.phase != idle && w.job.isRun {
		p.mu.Lock() // not many come with a run, and while one yields others take its rest
		p.leaveRunLocked(w.job)
	} else {
		p.mu.lockYielding()
	}
	fromTask := w.phase != idle
	var answered *job[T, R] // whose caller is to be woken, better without the mutex that it needs soon
	if fromTask {
		answered = w.endLocked()
	}
	if answered != nil && (w.held || p.tasks.n == 0 || p.paused) { // the worker may wait now
		p.mu.Unlock()
		answered.signal <- struct{}{}
		answered = nil
		p.mu.Lock()
	}
	more := w.takeLocked(fromTask)
	p.mu.Unlock()
	if answered != nil {
		answered.signal <- struct{}{}
	}
	return more
}

// conclude does what has to be done between the end of the handler and that
// of the task.
func (w *worker[T, R]) conclude() {
	j := w.job
	if retryIn(j.err) != nil {
		return
	}
	if j.isRun && j.err != nil && w.pool.resultFunc != nil { // the result function has not been told of it
		w.pool.mu.Lock()
		w.pool.leaveRunLocked(j)
		w.pool.mu.Unlock()
	}
	if call, ok := j.ctx.(*callContext); ok {
		call.end()
	}
	switch {
	case j.to == nil && w.pool.resultFunc != nil:
		result := j.result()
		if w.skipped {
			result.Worker, result.Attempt = int(w.before), max(1, result.Attempt-1)
		}
		w.phase = telling
		w.pool.resultFunc(result)
		w.phase = told
	case j.to != nil && j.err != nil:
		j.to.failed(j.err)
	}
}

// endLocked ends the job that w has in hand.
func (w *worker[T, R]) endLocked() (answered *job[T, R]) {
	p, j := w.pool, w.job
	skipped, panicked := w.skipped, w.panicked
	w.job, w.phase, w.panicked, w.skipped = nil, idle, false, false
	p.running--
	if j.attempt > 1 && !skipped {
		p.retried++
	}
	if j.err == nil {
		p.succeeded++
		if j.signals && !j.abandoned && j.lane == nil {
			answered = j
			j.ctx = nil
		} else {
			p.answerLocked(j)
		}
	} else {
		w.endFailedLocked(j, skipped, panicked)
	}
	if p.running+p.tasks.n == 0 {
		p.noteQuietLocked()
	}
	if p.open && w.id != 0 && p.overfullLocked(0) && (p.window == nil || w.nested == nil) {
		w.held = true
		p.held++
		return answered
	}
	w.releaseLocked()
	return answered
}

// endFailedLocked ends a task with an error, unless that asks for another
// attempt.
func (w *worker[T, R]) endFailedLocked(j *job[T, R], skipped, panicked bool) {
	p := w.pool
	retry := retryIn(j.err)
	switch {
	case skipped:
		p.aborted++
		j.worker, j.attempt = w.before, max(1, j.attempt-1)
	case retry != nil:
		p.parkLocked(j, retry)
		return
	case panicked:
		p.panicked++
		p.failed++
	default:
		p.failed++
	}
	p.answerLocked(j)
}

// staysLocked tells whether w is one of those that take one task after the other.
func (w *worker[T, R]) staysLocked() bool { return w.nested == nil && int(w.id) <= w.pool.size }

// releaseLocked makes w free to take a task.
func (w *worker[T, R]) releaseLocked() {
	w.busy = false
	if p := w.pool; int(w.id) <= p.size && w.nested == nil {
		p.free++
		if p.elasticity != nil {
			p.noteIdleLocked()
		}
		if p.waiting.n > 0 {
			p.grantLocked()
		}
	}
}

// takeLocked waits for a task and takes it in hand. It reports false if w is
// to leave instead.
func (w *worker[T, R]) takeLocked(fromTask bool) bool {
	p := w.pool
	if p.starting == w {
		p.starting = nil
	}
	var j *job[T, R]
	if w.held {
		j = w.awaitReceiverLocked()
	}
	for ; j == nil; fromTask = false {
		// A surplus worker that was free may be the one that was promised to
		// the task of a handler that waits.
		surplus := int(w.id) > p.size && (fromTask || p.promised == 0)
		if w.nested != nil || surplus || p.elasticity != nil && p.elasticity.leaving > 0 || !p.open && p.running+p.queuedLocked() == 0 {
			w.leaveLocked()
			return false
		}
		if p.collectLocked(); p.tasks.n == 0 && p.runs.rest > 0 {
			p.recallLocked()
		}
		if p.tasks.n == 0 || p.paused {
			w.forgetContext()
			p.pace.forgetLocked(w)
			p.waitLocked(&p.tasks.claims)
			continue
		}
		j = w.popLocked()
		if j.promised {
			j.promised = false
			p.promised--
		}
	}
	if p.tasks.n+p.runs.rest > 0 {
		p.offerTaskLocked()
	}
	if p.unstarted > 0 {
		p.watchFeedersLocked()
	}
	if int(w.id) <= p.size {
		p.free--
		if p.elasticity != nil {
			p.noteBusyLocked()
		}
	}
	w.beginLocked(j)
	if j.isRun && p.runs.accepted > 0 {
		p.watchLocked() // now that w is not free any more, or it would give its room twice
	}
	return true
}

// beginLocked takes j in hand.
func (w *worker[T, R]) beginLocked(j *job[T, R]) {
	p := w.pool
	p.running++
	w.before, j.worker = j.worker, w.id
	w.job, w.phase, w.busy = j, taken, true
}

// awaitReceiverLocked waits until a receiver has made room for the last
// result of w. In an ordered pool it may return a task instead, for which the
// receivers wait, and which w is to take.
func (w *worker[T, R]) awaitReceiverLocked() (oldest *job[T, R]) {
	p := w.pool
	for p.open && !p.hasRoomForResultLocked() {
		if oldest = p.oldestQueuedLocked(); oldest != nil {
			p.unqueueLocked(oldest)
			break
		}
		p.waitLocked(&p.room)
	}
	p.pace.forgetLocked(w)
	w.held = false
	p.held--
	w.releaseLocked()
	p.offerRoomLocked()
	return oldest
}

// leaveLocked takes w off the list of workers.
func (w *worker[T, R]) leaveLocked() {
	p := w.pool
	if w.nested != nil {
		return
	}
	p.workers[w.id-1] = nil
	p.alive--
	if int(w.id) <= p.size {
		p.unstarted++
		p.vacant = min(p.vacant, int(w.id)-1)
	}
	if p.elasticity != nil {
		p.noteLeftLocked(w)
	}
	p.collectLocked()
	if p.tasks.n+p.runs.rest > 0 && !p.paused {
		p.offerTaskLocked() // the claim that woke w may have been meant for another
	}
}

// left is the last that a goroutine of the pool does.
func (p *Pool[T, R]) left() {
	p.mu.Lock()
	p.goroutines--
	last := p.goroutines == 0 && !p.open
	p.mu.Unlock()
	if last {
		p.stopWatching()
		close(p.done)
	}
}
