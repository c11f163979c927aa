package workpool

// A worker runs tasks, one at a time, on a goroutine of its own.
//
// Its goroutine has one deferred function, which finds out about a panic or
// Goexit when it happens, and goes on with the job on a new goroutine. So the
// call of a handler costs a call.
type worker[T, R any] struct {
	pool *Pool[T, R]
	id   int

	// Of the worker's goroutine alone:
	phase       phase
	panicked    bool // the handler did
	ctx         *taskContext
	ctxRepeated bool // ctx has served more than one task

	// Guarded by the pool's mutex:
	job   *job[T, R]    // what the worker has in hand
	busy  bool          // it has something in hand, if only a result that found no room
	held  bool          // its last result found no room
	ended chan struct{} // of a nested worker: closed when it leaves; nil for all others
}

// A phase is how far a worker has come with the job that it has in hand.
type phase int

const (
	idle     phase = iota // it has none
	taken                 // it has taken one
	handling              // the handler runs
	handled               // the handler has ended
	telling               // the result function runs
	told                  // the result function has ended
)

// setSizeLocked makes size workers, numbered from 1. Those with a higher
// number leave when they next have nothing in hand.
func (p *Pool[T, R]) setSizeLocked(size int) {
	shrinks := size < p.size
	p.size, p.free = size, 0
	for len(p.workers) < size {
		p.workers = append(p.workers, nil)
	}
	for i := range size {
		if p.workers[i] == nil {
			p.workers[i] = &worker[T, R]{pool: p, id: i + 1}
			p.goroutines++
			go p.workers[i].work()
		}
		if !p.workers[i].busy {
			p.free++
		}
	}
	if shrinks {
		p.tasks.wakeAllLocked()
	}
	p.grantLocked()
}

// startNestedLocked runs a task on behalf of the worker whose handler
// submitted it and waits for it, and returns a channel that is closed when it
// has ended. It runs on a goroutine of its own, since a Goexit takes the whole
// goroutine along, and the outer task with it.
func (p *Pool[T, R]) startNestedLocked(inside *taskContext, j *job[T, R]) <-chan struct{} {
	outer := inside.worker.(*worker[T, R])
	w := &worker[T, R]{pool: p, id: outer.id, phase: taken, job: j, busy: true, ended: make(chan struct{})}
	p.countLocked(j)
	p.running++
	p.goroutines++
	j.worker = w.id
	go w.work()
	return w.ended
}

// work runs one task after the other until the pool needs w no longer.
func (w *worker[T, R]) work() {
	defer w.replace()
	for w.next() {
		w.phase = handling
		j := w.job
		j.value, j.err = w.pool.handler(w.contextFor(j.ctx), j.task)
		w.phase = handled
	}
	if w.ended != nil {
		close(w.ended)
	}
	w.pool.left()
}

// replace is the end of the worker's goroutine. If that was not in order, a
// new one goes on from there.
func (w *worker[T, R]) replace() {
	if w.phase == idle {
		return
	}
	err := errorOf(recover())
	switch w.phase {
	case handling:
		_, w.panicked = err.(*PanicError)
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
	if w.phase == taken {
		return true
	}
	if w.phase == handled {
		w.conclude()
	}
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.phase != idle {
		w.endLocked()
	}
	return w.takeLocked()
}

// conclude does what has to be done between the end of the handler and that
// of the task.
func (w *worker[T, R]) conclude() {
	j := w.job
	switch {
	case j.to != nil:
		if call, ok := j.ctx.(*callContext); ok {
			call.end()
		}
		if j.err != nil {
			j.to.failed(j.err)
		}
	case w.pool.resultFunc != nil:
		w.phase = telling
		w.pool.resultFunc(j.result())
		w.phase = told
	}
}

// endLocked ends the job that w has in hand.
func (w *worker[T, R]) endLocked() {
	p, j := w.pool, w.job
	p.running--
	switch {
	case j.err == nil:
		p.succeeded++
	case w.panicked:
		p.panicked++
		fallthrough
	default:
		p.failed++
	}
	w.job, w.phase, w.panicked = nil, idle, false
	p.answerLocked(j)
	p.noteQuietLocked()
	if !p.closing && p.overfullLocked() {
		w.held = true
		p.held++
		return
	}
	w.releaseLocked()
}

// releaseLocked makes w free to take a task.
func (w *worker[T, R]) releaseLocked() {
	w.busy = false
	if w.id <= w.pool.size && w.ended == nil {
		w.pool.free++
		w.pool.grantLocked()
	}
}

// takeLocked waits for a task and takes it in hand. It reports false if w is
// to leave instead.
func (w *worker[T, R]) takeLocked() bool {
	p := w.pool
	for w.held {
		if p.closing || p.hasRoomForResultLocked() {
			w.held = false
			p.held--
			w.releaseLocked()
			p.offerRoomLocked()
			break
		}
		p.room.waitLocked(&p.mu)
	}
	for woken := false; ; woken = true {
		// A surplus worker that was waiting may have been counted on when a
		// handler queued a task of its own: it takes what is there.
		surplus := w.id > p.size && (!woken || p.tasks.n == 0)
		switch {
		case w.ended != nil || surplus || p.closing && p.tasks.n == 0:
			w.leaveLocked()
			return false
		case p.tasks.n > 0 && !p.paused:
			w.busy = true
			if w.id <= p.size {
				p.free--
			}
			w.job, w.phase = p.tasks.pop(), taken
			w.job.worker = w.id
			p.running++
			if p.tasks.n > 0 {
				p.tasks.offerLocked()
			}
			return true
		}
		w.forgetContext()
		p.tasks.waitLocked(&p.mu)
	}
}

// leaveLocked takes w off the list of workers.
func (w *worker[T, R]) leaveLocked() {
	p := w.pool
	if w.ended != nil {
		return
	}
	p.workers[w.id-1] = nil
	if w.id <= p.size {
		p.free--
	}
	if p.tasks.n > 0 && !p.paused {
		p.tasks.offerLocked() // the claim that woke w may have been meant for another
	}
}

// left is the last that a goroutine of the pool does.
func (p *Pool[T, R]) left() {
	p.mu.Lock()
	p.goroutines--
	last := p.goroutines == 0 && p.closing
	p.mu.Unlock()
	if last {
		p.stopWatching()
		close(p.done)
	}
}

// info is what InfoFrom returns.
func (w *worker[T, R]) info() (Info, bool) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	if w.job == nil {
		return Info{}, false
	}
	return Info{Pool: w.pool.name, Worker: w.id, Index: w.job.index, Attempt: w.job.attempt}, true
}
