package workpool

import "context"

// Do runs task on a worker and returns its value or error. The task does not appear
// in Results.
//
// It waits for room as [Pool.Submit] does, then for the answer. The context of the
// handler is derived from ctx. If ctx ends first, Do returns at once with an error
// that matches ctx.Err(): a queued task is removed and never runs; a running one is
// cancelled and its answer is discarded.
//
// Called with the context of a running handler of the same pool, the task runs in
// the handler's place, one at a time for each handler. It needs no free worker.
func (p *Pool[T, R]) Do(ctx context.Context, task T) (R, error) {
	return p.do(ctx, task, policy{overflows: true})
}

// TryDo is like [Pool.Do], but returns [ErrQueueFull] at once if there is no room
// for the task, also with [WithOverflow].
func (p *Pool[T, R]) TryDo(ctx context.Context, task T) (R, error) {
	return p.do(ctx, task, policy{try: true})
}

// DoChan is like [Pool.Do], but always returns at once. The channel receives
// exactly one Result and is not closed. Its capacity is 1, so the Result need not
// be received. If there is no room, the task waits in line; if it is not accepted,
// its Result has the error. Tasks enter the line in the order of the calls.
//
// With [CallerRuns], a task without room runs on a goroutine of its own. Called
// with the context of a running handler of the same pool, the task runs as with Do.
func (p *Pool[T, R]) DoChan(ctx context.Context, task T) <-chan Result[T, R] {
	results := make(chan Result[T, R], 1)
	j, done, err := p.call(ctx, task, results, policy{overflows: true})
	switch {
	case err != nil:
		results <- Result[T, R]{Task: task, Err: err, Attempt: 1}
	case done != nil:
		go func() {
			result := Result[T, R]{Task: task, Err: ErrGoexit, Attempt: 1} // of a method of ctx
			defer func() { results <- result }()
			result = p.await(ctx, done, j, p.leave)
		}()
	}
	return results
}

// A call is the owner of the task of a Do, TryDo or DoChan.
type call[T, R any] struct {
	waiter  // woken when the job has been answered; the job then belongs to the caller
	pool    *Pool[T, R]
	results chan<- Result[T, R] // of a DoChan whose context can't end: gets the answer instead

	// Guarded by the pool's mutex:
	answered  bool
	abandoned bool // nobody waits for the answer any more
}

func (j *job[T, R]) isCall() bool {
	_, ok := j.to.(*call[T, R])
	return ok
}

func (c *call[T, R]) failed(error) {}

func (c *call[T, R]) answerLocked(j *job[T, R]) {
	switch {
	case c.abandoned:
		c.pool.putCall(j, c)
	case c.results != nil:
		c.results <- j.result()
		c.pool.putCall(j, c)
	default:
		c.answered = true
		c.pool.woken.push(&c.waiter)
	}
}

func (p *Pool[T, R]) do(ctx context.Context, task T, how policy) (R, error) {
	j, done, err := p.call(ctx, task, nil, how)
	if err != nil {
		var none R
		return none, err
	}
	r := p.await(ctx, done, j, func() {})
	return r.Value, r.Err
}

// await waits for the answer to a call, or until done of ctx is closed. Then, before it may call
// user code, it calls ended.
func (p *Pool[T, R]) await(ctx context.Context, done <-chan struct{}, j *job[T, R], ended func()) Result[T, R] {
	c, task := j.to.(*call[T, R]), j.task
	if done == nil {
		<-c.wake // faster than a select
	} else {
		select {
		case <-c.wake:
		case <-done:
			ended()
			if err := p.takeBack(ctx, j, c); err != nil {
				return Result[T, R]{Task: task, Err: err, Attempt: 1}
			}
			ended = func() {}
		}
	}
	defer ended()
	result := j.result()
	p.putCall(j, c)
	return result
}

// call submits a task whose answer goes to the caller, on a job of its own. done is that of ctx.
func (p *Pool[T, R]) call(ctx context.Context, task T, results chan<- Result[T, R], how policy) (j *job[T, R], done <-chan struct{}, err error) {
	from, err := p.begin(ctx, ByCall)
	if err != nil {
		return nil, nil, p.refused(err)
	}
	class, err := p.classify(task)
	if err != nil {
		return nil, nil, p.refused(err)
	}
	done = ctx.Done()
	j, c := p.getCall()
	j.ctx, j.bound = p.callContextFor(ctx)
	j.task, j.origin, j.at = task, from.origin, p.observer.now()
	if done == nil {
		c.results = results
	}
	p.lock()
	defer p.unlock()
	p.classLocked(j, class)
	if _, err := p.offerLocked(j, from.inside, how); err != nil {
		p.turnAwayLocked(j)
		p.putCall(j, c)
		return nil, nil, err
	}
	if results != nil && done != nil {
		p.life.goroutines++ // of await
	}
	return j, done, nil
}

// takeBack drops a job whose caller no longer waits because ctx has ended, and returns the
// error. It returns nil if the job has been answered meanwhile; the job then belongs to the
// caller.
func (p *Pool[T, R]) takeBack(ctx context.Context, j *job[T, R], c *call[T, R]) error {
	err := contextError(ctx)
	p.lock()
	if c.answered {
		p.unlock()
		<-c.wake
		return nil
	}
	c.abandoned = true
	if j.state == inLine {
		ofKey := j.ofKey()
		p.leaveLineLocked(j, false)
		p.turnAwayLocked(j)
		p.putCall(j, c)
		p.unlock()
		return p.gaveUp(err, ofKey)
	}
	if j.waits() {
		p.endQueuedLocked(j, context.Canceled, cancelled)
	}
	p.unlock()
	return err
}

// getCall returns a job for a call, and its owner.
func (p *Pool[T, R]) getCall() (*job[T, R], *call[T, R]) {
	if j, ok := p.calls.Get().(*job[T, R]); ok {
		return j, j.to.(*call[T, R])
	}
	c := &call[T, R]{pool: p}
	c.wake = make(chan struct{}, 1)
	return &job[T, R]{to: c}, c
}

func (p *Pool[T, R]) putCall(j *job[T, R], c *call[T, R]) {
	j.forget()
	j.clear()
	c.results, c.answered, c.abandoned = nil, false, false
	p.calls.Put(j)
}
