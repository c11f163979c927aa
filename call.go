package workpool

import "context"

// Do runs task on a worker and returns its answer. Results never sees it.
//
// It waits for room as [Pool.Submit] does, then for the answer. The context of
// the handler is derived from ctx. If ctx ends first, Do returns at once with
// an error that matches ctx.Err(): a queued task is taken back and never runs,
// a running one is cancelled and its answer dropped.
//
// Called with the context of a handler of the same pool, the task runs in
// place of the calling one if no worker is free.
func (p *Pool[T, R]) Do(ctx context.Context, task T) (R, error) {
	var none R
	j, _, err := p.call(ctx, task, reply[T, R]{})
	if err != nil {
		return none, err
	}
	if ended := ctx.Done(); ended == nil {
		<-j.signal
	} else {
		select {
		case <-j.signal:
		case <-ended:
			if p.takeBack(j) {
				return none, contextError(ctx)
			}
		}
	}
	value, err := j.value, j.err
	j.reset()
	p.calls.Put(j)
	return value, err
}

// DoChan is like [Pool.Do] but returns as soon as the task is accepted. The
// channel then receives one Result, whatever happens, and is not closed. A
// task that was not accepted yields a Result with the error alone.
//
// Called with the context of a handler of the same pool, the task runs in
// place of the calling one if no worker is free, and DoChan returns when it has
// been answered.
func (p *Pool[T, R]) DoChan(ctx context.Context, task T) <-chan Result[T, R] {
	d := &delivery[T, R]{pool: p, results: make(chan Result[T, R], 1), done: make(chan struct{})}
	j, inPlace, err := p.call(ctx, task, d)
	if err != nil {
		d.results <- Result[T, R]{Task: task, Err: err, Attempt: 1}
		return d.results
	}
	if ctx.Done() != nil {
		d.watch(ctx, j)
	}
	if inPlace {
		<-d.done
	}
	return d.results
}

// call gets a task accepted whose answer is for the caller. It reports whether
// that takes the place of the handler that calls, which then has to wait.
func (p *Pool[T, R]) call(ctx context.Context, task T, to answerer[T, R]) (j *job[T, R], inPlace bool, err error) {
	if err := endedContext(ctx); err != nil {
		return nil, false, err
	}
	class, err := p.classify(task)
	if err != nil {
		return nil, false, err
	}
	inside := p.inside(ctx)
	handlerContext := p.newCallContext(ctx)
	_, signals := to.(reply[T, R])
	if signals {
		j = p.newSignalling()
	}
	p.mu.lockYielding()
	if !signals {
		j = p.newJobLocked()
	}
	j.ctx, j.task, j.to, j.bound, j.signals = handlerContext, task, to, ctx.Done() != nil, signals
	p.joinLocked(j, class)
	if inside == nil && !p.special && p.open && p.roomLocked() {
		p.countLocked(j)
		p.queueLocked(j)
	} else {
		_, err = p.enterLocked(ctx, inside, j)
		inPlace = err == nil && inside != nil && (!j.promised || p.keyOf != nil)
	}
	p.mu.Unlock()
	return j, inPlace, p.gaveUp(err)
}

// newSignalling returns an empty job for a caller that waits for its signal.
func (p *Pool[T, R]) newSignalling() *job[T, R] {
	if j, ok := p.calls.Get().(*job[T, R]); ok {
		return j
	}
	return &job[T, R]{signal: make(chan struct{}, 1)}
}

// A reply is the answerer of Do, which waits for the signal of its job.
type reply[T, R any] struct{}

func (reply[T, R]) failed(error)              {}
func (reply[T, R]) answerLocked(j *job[T, R]) { j.signal <- struct{}{} }

// takeBack drops a job whose caller waits no longer. It reports false if the
// job has been answered meanwhile: then it is the caller's.
func (p *Pool[T, R]) takeBack(j *job[T, R]) bool {
	p.mu.lockYielding()
	defer p.mu.Unlock()
	select {
	case <-j.signal:
		return false
	default:
	}
	j.abandoned = true
	if j.waits() {
		p.endQueuedLocked(j, context.Canceled)
	}
	return true
}

// A delivery is the answerer of DoChan.
type delivery[T, R any] struct {
	pool    *Pool[T, R]
	results chan Result[T, R]
	done    chan struct{} // closed with the answer
	// Guarded by the pool's mutex:
	answered bool
}

func (d *delivery[T, R]) failed(error) {}

func (d *delivery[T, R]) answerLocked(j *job[T, R]) {
	d.answered = true
	close(d.done)
	d.results <- j.result()
	d.pool.freeLocked(j)
}

// watch answers in place of the handler when ctx ends first.
func (d *delivery[T, R]) watch(ctx context.Context, j *job[T, R]) {
	p := d.pool
	p.mu.Lock()
	if d.answered { // and the job may be another task's by now
		p.mu.Unlock()
		return
	}
	call := j.ctx.(*callContext)
	p.mu.Unlock()
	call.watch(func() {
		err := contextError(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case d.answered:
		case j.waits():
			p.endQueuedLocked(j, err)
		default:
			d.answered = true
			close(d.done)
			d.results <- Result[T, R]{Index: j.index, Task: j.task, Err: err, Worker: int(j.worker), Attempt: int(j.attempt)}
			j.abandoned = true
		}
	})
}
