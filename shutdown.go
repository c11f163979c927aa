package workpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// Shutdown ends the pool in an orderly way: from now on nothing is accepted,
// submitters that wait for room get [ErrClosed], and everything accepted runs,
// the queued tasks of a paused pool included. When the last task has ended and
// the last goroutine of the pool has left, Shutdown returns nil: no code of a
// task runs any more. It never waits for a receiver; what was not received is
// still there for [Pool.Results].
//
// If ctx ends first, the pool is aborted: the contexts of running handlers are
// cancelled with cause [ErrAborted], queued tasks end with ErrAborted without
// running, and Shutdown returns a [*ShutdownError] at once. Handlers that
// ignore their context run on; a further call waits for them.
//
// Tasks that submit tasks get ErrClosed as well. To let them finish, call
// [Pool.Wait] first.
//
// Shutdown and [Pool.Close] may be called any number of times, by many
// goroutines, and all return the same outcome. Called with the context of a
// handler of the same pool, Shutdown does nothing and returns [ErrReentrant].
func (p *Pool[T, R]) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if p.inside(ctx) != nil {
		return ErrReentrant
	}
	p.close(Drain)
	return p.awaitEnd(ctx)
}

// Close ends the pool in the way set with [WithShutdown], by default as a
// Shutdown without a limit. It returns nil if it could do so in time, even
// where that meant to end tasks without running them. At the timeout it aborts
// the pool and returns a [*ShutdownError], as [Pool.Shutdown] does.
//
// Close has no context by which it could know a handler of the same pool. A
// handler that closes its own pool uses Shutdown, and learns that it has to be
// done from elsewhere, or starts Close on a goroutine.
func (p *Pool[T, R]) Close() error {
	p.close(p.mode)
	ctx := context.Background()
	if p.shutdownTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.shutdownTimeout)
		defer cancel()
	}
	return p.awaitEnd(ctx)
}

// close begins to end the pool as mode says.
func (p *Pool[T, R]) close(mode ShutdownMode) {
	p.mu.Lock()
	began := p.beginLocked()
	p.recallLocked()
	switch {
	case mode == Drain:
		p.draining = true
	case p.draining && p.queuedLocked() > 0:
		p.outcomeLocked(ErrAborted)
	}
	if mode != Drain {
		p.endAllQueuedLocked(ErrAborted)
	}
	p.mu.Unlock()
	if mode == Abort {
		p.cancel(ErrAborted)
	}
	if began {
		p.left()
	}
}

// beginLocked closes the pool for new tasks. It reports whether it was open.
// The caller then counts as one of its goroutines, since there may be no other,
// until it calls left.
func (p *Pool[T, R]) beginLocked() bool {
	if !p.open {
		return false
	}
	p.goroutines++
	p.open = false
	p.disarmLocked()
	p.recallRoomLocked()
	p.resumeLocked()
	p.refuseLocked()
	p.tasks.wakeAllLocked()
	p.room.wakeAllLocked()
	p.noteQuietLocked()
	return true
}

// awaitEnd waits for the last goroutine of the pool, and aborts the pool when
// ctx ends first.
func (p *Pool[T, R]) awaitEnd(ctx context.Context) error {
	if p.done == nil {
		return nil // the zero Pool
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if !p.abort(contextError(ctx), ErrAborted) {
			<-p.done // nothing runs: it takes no longer than the goroutines need to leave
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outcome == nil || p.misdeed == nil {
		return cmp.Or(p.outcome, p.misdeed)
	}
	both := errors.Join(p.outcome, p.misdeed)
	if p.goroutines == 0 { // it will not change any more, and is one error for all
		p.outcome, p.misdeed = both, nil
	}
	return both
}

// abortByContext aborts the pool when the context of WithContext has ended.
func (p *Pool[T, R]) abortByContext() {
	p.mu.Lock()
	over := p.goroutines == 0 && !p.open
	if !over {
		p.goroutines++
	}
	p.mu.Unlock()
	if over {
		return
	}
	defer p.left()
	cause := contextError(p.ctx)
	p.abort(cause, fmt.Errorf("%w: %w", ErrAborted, cause))
}

// abort closes the pool and ends what it can because of cause: queued tasks,
// and the contexts of running ones, with err. It reports false if there was
// nothing to abort.
func (p *Pool[T, R]) abort(cause, err error) bool {
	p.mu.Lock()
	began := p.beginLocked()
	p.recallLocked()
	quiet := p.quietLocked()
	if !quiet {
		p.outcomeLocked(cause)
		p.endAllQueuedLocked(err)
	}
	p.mu.Unlock()
	p.cancel(err)
	if began {
		p.left()
	}
	return !quiet
}

// outcomeLocked makes the error that Shutdown and Close return from now on.
func (p *Pool[T, R]) outcomeLocked(cause error) {
	if p.outcome == nil {
		p.outcome = &ShutdownError{Aborted: p.cut + p.queuedLocked(), Running: p.running, Cause: cause}
	}
}

// endAllQueuedLocked ends all queued tasks with err, and from now on those
// that ask for another attempt.
func (p *Pool[T, R]) endAllQueuedLocked(err error) {
	p.abortedBy = err
	p.cut += p.queuedLocked()
	for _, l := range p.lanes { // those behind first, or their turn would come
		for l.waiting.n > 0 {
			p.endQueuedLocked(l.waiting.first, err)
		}
	}
	for l := range levels {
		for p.tasks.of(l).n > 0 {
			p.endQueuedLocked(p.tasks.of(l).first, err)
		}
	}
	for p.parked.n > 0 {
		p.endQueuedLocked(p.parked.first, err)
	}
}

// eachQueuedLocked calls f, which changes nothing, for every task that no worker has.
func (p *Pool[T, R]) eachQueuedLocked(f func(j *job[T, R])) {
	p.parked.each(f)
	p.tasks.each(f)
	for _, l := range p.lanes {
		l.waiting.each(f)
	}
}

// endQueuedLocked ends a task that no worker has with err, and with that of its
// last attempt if there was one.
func (p *Pool[T, R]) endQueuedLocked(j *job[T, R], err error) {
	switch j.place {
	case queued:
		p.unqueueLocked(j)
		j.attempt = max(1, j.attempt-1) // the one that does not come
	case behind:
		p.takeFromBehindLocked(j)
	case parked:
		p.unparkLocked(j)
	}
	err = j.afterLast(err)
	if call, ok := j.ctx.(*callContext); ok && !call.endNothing() {
		p.goroutines++
		go func() { // it may call code of the user, which does not run under the mutex
			call.end()
			p.left()
		}()
	}
	p.endUnrunLocked(j, err)
	p.grantLocked()
	p.noteQuietLocked()
}

// endUnrunLocked ends a task that is in no list with err.
func (p *Pool[T, R]) endUnrunLocked(j *job[T, R], err error) {
	j.err = err
	if p.resultFunc != nil {
		if r, ok := j.to.(*run[T, R]); ok && r.owner.answerer() == nil {
			for _, own := range p.dissolveLocked(r) {
				p.endUnrunLocked(own, err)
			}
			return
		}
		if j.to == nil {
			p.leaveLaneLocked(j)
			j.ctx = nil
			p.unanswered.push(j)
			if p.unanswered.n == 1 {
				p.goroutines++
				go p.tellAborted(nil)
			}
			return
		}
	}
	p.aborted += uint64(j.tasks())
	p.answerLocked(j)
}

// tellAborted calls the result function for tasks that were aborted, on a
// goroutine of its own, since whoever aborts the pool doesn't wait for it. A
// task whose call did not return is passed on as told.
func (p *Pool[T, R]) tellAborted(told *job[T, R]) {
	var telling *job[T, R]
	defer func() {
		if telling != nil {
			p.resultFuncFailed(telling, errorOf(recover()))
			go p.tellAborted(telling)
		}
	}()
	for {
		p.mu.Lock()
		if told != nil {
			p.unanswered.remove(told)
			p.aborted++
			p.freeLocked(told)
			p.noteQuietLocked()
		}
		told = p.unanswered.first
		p.mu.Unlock()
		if told == nil {
			p.left()
			return
		}
		telling = told
		p.resultFunc(telling.result())
		telling = nil
	}
}
