package workpool

import (
	"context"
	"iter"
)

// Submit submits task. Its result comes from [Pool.Results], or goes to the
// function given with [WithResultFunc].
//
// It waits for room until ctx ends or the pool closes, and returns nil as soon as
// the task is accepted. If ctx has already ended, the task is refused. ctx bounds
// only this wait: the handler sees the values of ctx, but not its cancellation.
//
// Called with the context of a running handler of the same pool, Submit does not
// wait for room. If there is none, the task runs in the handler's place, at once or
// after the one that already does. Submit then returns when the task has ended, has
// asked for another attempt, or has been begun by another worker.
//
// It returns [ErrClosed] once the pool is closing, and otherwise an error that
// matches ctx.Err(). If it gave up waiting, the error also matches [ErrQueueFull]
// and says what the pool was busy with. [WithOverflow] sets what it does instead of
// waiting.
func (p *Pool[T, R]) Submit(ctx context.Context, task T) error {
	c, err := p.begin(ctx, BySubmit)
	if err != nil {
		return p.refused(err)
	}
	_, err = p.submit(ctx, c, task, policy{overflows: true})
	return err
}

// TrySubmit is like [Pool.Submit], but never waits: if there is no room, it returns
// [ErrQueueFull] at once, also in a handler of the same pool and with
// [WithOverflow].
func (p *Pool[T, R]) TrySubmit(ctx context.Context, task T) error {
	c, err := p.begin(ctx, BySubmit)
	if err != nil {
		return p.refused(err)
	}
	_, err = p.submit(ctx, c, task, policy{try: true})
	return err
}

// SubmitCancel is like [Pool.Submit], and returns a function that cancels the task.
// A queued task then ends with context.Canceled, without running; a running one has
// its context cancelled. If the result buffer is full, a cancelled queued task ends
// when a worker reaches it. In every case the task yields its one [Result].
//
// cancel may be called at any time, any number of times, by any goroutine. After
// the task has ended, it does nothing. It is never nil, and need not be called. As
// in Submit, ctx bounds only the wait for room.
func (p *Pool[T, R]) SubmitCancel(ctx context.Context, task T) (cancel func(), err error) {
	c, err := p.begin(ctx, BySubmit)
	if err != nil {
		return func() {}, p.refused(err)
	}
	own, end := context.WithCancel(context.Background())
	bound := &callContext{caller: own, values: c.values, pool: &p.life}
	c.values = bound
	j, err := p.submit(ctx, c, task, policy{overflows: true})
	if err != nil {
		end()
		return func() {}, err
	}
	return func() {
		end()
		p.lock()
		defer p.unlock()
		if j.ctx == context.Context(bound) && j.waits() && // else the job has been reused for another task
			p.hasRoomForUnrunLocked(j) { // else it keeps its place, and a worker finds that it has ended
			p.endQueuedLocked(j, context.Canceled, cancelled)
		}
	}, nil
}

// SubmitAll submits the tasks of a sequence, in order, as [Pool.Submit] does, and
// returns how many were accepted. It stops at the first task that is not accepted,
// and returns its error. If the sequence panics, the error wraps a [*PanicError].
func (p *Pool[T, R]) SubmitAll(ctx context.Context, tasks iter.Seq[T]) (accepted int, err error) {
	if tasks == nil {
		return 0, errNilTasks
	}
	c, err := p.begin(ctx, BySubmit)
	if err != nil {
		return 0, p.refused(err)
	}
	defer func() {
		if v := recover(); v != nil {
			err = after(from("input sequence", newPanicError(v)), err)
		}
	}()
	for task := range tasks {
		if ctx.Err() != nil {
			return accepted, p.refused(contextError(ctx))
		}
		if _, err = p.submit(ctx, c, task, policy{overflows: true}); err != nil {
			break
		}
		accepted++
	}
	return accepted, err
}

// A caller is what the pool knows of a call that submits tasks.
type caller[T, R any] struct {
	values context.Context       // where the handlers' contexts get their values from, or nil
	inside *handlerContext[T, R] // of the handler that makes the call, or nil
	origin *origin
}

// begin is the first step of each call that submits tasks.
func (p *Pool[T, R]) begin(ctx context.Context, way Way) (c caller[T, R], err error) {
	switch {
	case ctx == nil:
		return c, errNilContext
	case ctx.Err() != nil:
		return c, contextError(ctx)
	case p.life.ctx == nil: // the zero Pool
		return c, ErrClosed
	}
	if ctx != context.Background() {
		c.values, c.inside = p.carried(ctx), p.handlerOf(ctx)
	}
	c.origin, err = p.origin(ctx, way)
	return c, err
}

// submit submits a task whose answer goes to Results.
func (p *Pool[T, R]) submit(ctx context.Context, c caller[T, R], task T, how policy) (*job[T, R], error) {
	class, err := p.classify(task)
	if err != nil {
		return nil, p.refused(err)
	}
	at := p.observer.now()
	p.lock()
	j := p.spare.get()
	j.ctx, j.task, j.origin, j.at = c.values, task, c.origin, at
	_, j.bound = c.values.(*callContext) // of SubmitCancel
	p.classLocked(j, class)
	waits, err := p.offerLocked(j, c.inside, how)
	if waits {
		return j, p.awaitRoomLocked(ctx, j)
	}
	if err != nil {
		p.dismissLocked(j)
	}
	p.unlock()
	return j, err
}

// A policy says what happens to a task for which there is no room.
type policy struct {
	try       bool // it is refused
	overflows bool // WithOverflow decides first
}

// offerLocked does what can be done at once with a submitted task: accept it, refuse it, or
// put it in line. It reports whether the caller has to wait: in line, or, with WithOverflow
// or in a handler, until the task has run in its place.
//
// It need not look whether others are in line. They have found no room, and room depends only
// on the priority and the key of a task.
func (p *Pool[T, R]) offerLocked(j *job[T, R], inside *handlerContext[T, R], how policy) (waits bool, err error) {
	switch {
	case !p.life.open:
		return false, ErrClosed
	case j.isCall() && inside.runsLocked():
		p.awaitOnceLocked(j, p.placeOfLocked(inside))
		p.acceptLocked(j)
		return false, nil
	case p.mayPassLocked(j) && p.hasRoomLocked(j):
		p.acceptLocked(j)
		return false, nil
	}
	if how.overflows && (p.overflow != CallerRuns || !inside.runsLocked()) {
		if done, waits, err := p.overflowLocked(j); done {
			return waits, err
		}
	}
	switch {
	case how.try:
		return false, ErrQueueFull
	case !inside.runsLocked():
		p.lineUpLocked(j)
		return true, nil
	}
	// A handler does not wait for room. The task is accepted in excess of the queue depth, and
	// the handler waits until it has run in its place, or another worker has begun it: so the
	// excess is one task at a time. It does not wait for a task whose key is busy, which might be
	// busy for as long as the handler itself runs.
	waits = j.takable() && (j.batch == nil || !j.batch.feeds)
	if waits && j.batch == nil {
		p.awaitOnceLocked(j, p.placeOfLocked(inside))
	}
	p.acceptLocked(j)
	return waits, nil
}

// mayPassLocked reports whether j may be accepted as far as its key is concerned: no task
// of the key waits before it, and the key is not full.
func (p *Pool[T, R]) mayPassLocked(j *job[T, R]) bool {
	return j.key == nil || j.key.head == nil && !p.keys.isFull(j.key)
}

// acceptLocked makes j an accepted task that waits for a worker, or for its turn.
func (p *Pool[T, R]) acceptLocked(j *job[T, R]) {
	p.countLocked(j)
	p.queueLocked(j)
}

// countLocked makes j an accepted task.
func (p *Pool[T, R]) countLocked(j *job[T, R]) {
	p.count.submitted++
	if j.key != nil {
		j.key.tasks++
	}
	j.attempt = 1
	if b := j.batch; j.inBatch() {
		j.index = b.next
		b.next++
	} else {
		j.index = p.count.index
		p.count.index++
	}
	switch {
	case j.to == nil && p.results.order != nil:
		p.results.order.push(j)
	case j.batch != nil && j.batch.order != nil:
		j.batch.order.push(j)
	}
}

// queueLocked lets an accepted task wait: for its turn if another one of its key has that, and
// otherwise in the task channel. If a handler waits for the task and has nothing running in its
// place, the task begins there at once instead.
func (p *Pool[T, R]) queueLocked(j *job[T, R]) {
	if p.overflow == DropOldest {
		p.markDroppableLocked(j)
	}
	if k := j.key; k != nil {
		if k.turn == nil {
			k.turn = j
		}
		p.placeHeadLocked(k)
		if k.turn != j {
			p.queueBehindLocked(j)
			return
		}
	}
	if j.batch.isIdle() {
		p.helpWithLocked(j.batch.place, j)
		return
	}
	p.tasks.push(j)
}

func (p *Pool[T, R]) classLocked(j *job[T, R], c class) {
	j.level = c.level
	if c.key != nil {
		j.key = p.keys.get(c.key)
	}
}

// unclassLocked removes a job that was not accepted from its key.
func (p *Pool[T, R]) unclassLocked(j *job[T, R]) {
	if k := j.key; k != nil {
		j.key = nil
		p.keys.forget(k)
	}
}

// A class is what the user's functions say about a task.
type class struct {
	key   any // nil without one
	level level
}

// classify calls the functions given with WithKey and WithPriority.
func (p *Pool[T, R]) classify(task T) (c class, err error) {
	if !p.functions.classifies() {
		return c, nil
	}
	return p.functions.classify(task)
}
