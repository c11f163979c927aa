package workpool

import (
	"cmp"
	"context"
	"errors"
	"runtime/pprof"
	"sync"
)

// A life has the stages of a pool. It is open, then closed, and then over, when its last
// goroutine has exited. If it cannot run what it has accepted, it is aborted in between.
type life struct {
	ctx    context.Context // the parent of handlers' contexts: ends when the pool is aborted, or the context of WithContext ends
	cancel context.CancelCauseFunc
	tied   bool        // the context of WithContext can end
	alone  bool        // ctx never ends
	unlink func() bool // from the context of WithContext
	done   chan struct{}
	labels context.Context // has the pprof label of the pool's goroutines: workpool=name
	aborts sync.Once
	ended  context.Context // has ended, with the cause of the abort

	// Guarded by the pool's mutex:
	open          bool
	noticed       bool  // ctx has ended, or is about to, and the pool is aborted
	draining      bool  // a caller was promised that everything accepted runs
	over          bool  // done is closed, or about to be
	goroutines    int   // goroutines of the pool, including timers, whose functions run on one
	cut           int   // queued tasks that closing has ended
	abortedBy     error // the error of these tasks
	outcome       error // of Shutdown and Close
	resultFuncErr error // the first panic or Goexit of the result function
}

// begin opens the pool. If it is that of a single Map or ForEach, nothing but the context of
// WithContext aborts it.
func (l *life) begin(c *config) {
	l.open = true
	l.done = make(chan struct{})
	l.labels = context.Background()
	if c.name != "" {
		l.labels = pprof.WithLabels(l.labels, pprof.Labels("workpool", c.name))
	}
	l.tied = c.ctx.Done() != nil
	if l.alone = c.own && !l.tied; l.alone {
		l.ctx, l.cancel = c.ctx, func(error) {}
		return
	}
	l.ctx, l.cancel = context.WithCancelCause(c.ctx)
}

// errOver is the cause with which life.ctx ends if the pool was not aborted.
var errOver = errors.New("workpool: pool has ended")

// err returns why the contexts of handlers have ended, or nil.
func (l *life) err() error {
	err := l.ctx.Err()
	if err != nil && context.Cause(l.ctx) == errOver { //nolint:errorlint // our own
		return nil
	}
	return err
}

// aborted returns a context that has ended with the cause of the abort. The context given
// with WithContext ends those of handlers at once, but with its own cause.
func (l *life) aborted() context.Context {
	l.aborts.Do(func() {
		l.ended = l.ctx
		cause := context.Cause(l.ctx)
		if _, known := cause.(*abortError); !known && cause != ErrAborted && cause != errOver { //nolint:errorlint // our own
			var cancel context.CancelCauseFunc
			l.ended, cancel = context.WithCancelCause(context.Background())
			cancel(&abortError{stdError(l.ctx)})
		}
	})
	return l.ended
}

// value returns the value of a handler's context for a key that its task's context does not have.
func (l *life) value(key any) any {
	if l.isKey(key) && l.ctx.Err() != nil {
		return l.aborted().Value(key)
	}
	return l.ctx.Value(key)
}

// isKey reports whether key is the key by which package context finds the context that cancels
// another, as in context.Cause.
func (l *life) isKey(key any) bool { return l.ctx.Value(key) == any(l.ctx) }

// onAbort calls cancel with the cause when the pool is aborted, until it is unlinked.
func (l *life) onAbort(cancel context.CancelCauseFunc) (unlink func() bool) {
	if l.alone {
		return func() bool { return false }
	}
	return context.AfterFunc(l.ctx, func() {
		if l.err() != nil {
			cancel(context.Cause(l.aborted()))
		}
	})
}

// Shutdown closes the pool and waits until everything accepted has run. From now on
// nothing is accepted, submitters that wait for room get [ErrClosed], and every
// accepted task runs, including the queued tasks of a paused pool. When the last
// task has ended and the last goroutine of the pool has exited, Shutdown returns
// nil. No code of a task runs any more. Shutdown never waits for a receiver:
// results that were not received can still be read from [Pool.Results].
//
// If ctx ends first, the pool is aborted: the contexts of running handlers are
// cancelled with cause [ErrAborted], queued tasks end with ErrAborted without
// running, and Shutdown returns a [*ShutdownError] at once. Handlers that ignore
// their context continue to run; a later call waits for them.
//
// Tasks that submit tasks get ErrClosed as well. To let them finish, call
// [Pool.Wait] first.
//
// Shutdown and [Pool.Close] may be called any number of times, by many goroutines,
// and all return the same outcome. Called with the context of a running handler of
// the same pool, Shutdown does nothing and returns [ErrReentrant].
func (p *Pool[T, R]) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	inside := p.handlerOf(ctx)
	p.lock()
	reentrant := inside.runsLocked()
	p.unlock()
	if reentrant {
		return ErrReentrant
	}
	p.close(Drain)
	return p.awaitEnd(ctx)
}

// Close ends the pool as set with [WithShutdown]; the default is a Shutdown without
// a time limit. It returns nil if it finished in time, even if that meant ending
// tasks without running them. At the timeout it aborts the pool and returns a
// [*ShutdownError], as [Pool.Shutdown] does.
//
// Close has no context, so it does not recognize a handler of the same pool: called
// from one, it waits for that handler, and so for itself, until the timeout. A
// handler that closes its own pool calls Close on another goroutine.
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

// close begins to close the pool, as mode says.
func (p *Pool[T, R]) close(mode ShutdownMode) {
	p.lock()
	p.closeLocked()
	switch {
	case mode == Drain:
		p.life.draining = true
	case p.life.draining && p.unbegunLocked() > 0: // an earlier Shutdown was promised that they run
		p.outcomeLocked(ErrAborted)
	}
	if mode != Drain {
		p.endAllQueuedLocked(ErrAborted)
	}
	p.life.noticed = p.life.noticed || mode == Abort
	p.unlock()
	if mode == Abort && p.life.cancel != nil {
		p.life.cancel(ErrAborted)
	}
}

// closeLocked closes the pool for new tasks.
func (p *Pool[T, R]) closeLocked() {
	if !p.life.open {
		return
	}
	p.life.open = false
	p.crew.paused = false
	p.unwatchIdleLocked()
	p.refuseLineLocked()
	p.changedLocked()
}

// awaitEnd waits for the last goroutine of the pool to exit. If ctx ends first, it aborts
// the pool.
func (p *Pool[T, R]) awaitEnd(ctx context.Context) error {
	if p.life.done == nil {
		return nil // the zero Pool
	}
	select {
	case <-p.life.done:
	case <-ctx.Done():
		if !p.abort(contextError(ctx)) {
			<-p.life.done // nothing runs, so the goroutines are about to exit
		}
	}
	p.lock()
	defer p.unlock()
	l := &p.life
	if l.outcome == nil || l.resultFuncErr == nil {
		return cmp.Or(l.outcome, l.resultFuncErr)
	}
	both := errors.Join(l.outcome, l.resultFuncErr)
	if l.over { // the outcome is final: all callers get the same error
		l.outcome, l.resultFuncErr = both, nil
	}
	return both
}

// abort closes the pool, ends queued tasks, and cancels the contexts of running ones. It
// reports false if there was nothing to abort.
func (p *Pool[T, R]) abort(cause error) bool {
	p.lock()
	aborted := p.abortLocked(cause, ErrAborted)
	p.life.noticed = true
	p.unlock()
	p.life.cancel(ErrAborted)
	return aborted
}

// abortByContextLocked aborts the pool because the context of WithContext has ended, which
// has already ended the contexts of running tasks.
func (p *Pool[T, R]) abortByContextLocked() {
	p.life.noticed = true
	if p.life.err() == nil {
		return // it is over
	}
	cause := stdError(p.life.ctx)
	p.abortLocked(cause, &abortError{cause})
}

func (p *Pool[T, R]) abortLocked(cause, err error) bool {
	p.closeLocked()
	quiet := p.isQuietLocked()
	if !quiet {
		p.outcomeLocked(cause)
		p.endAllQueuedLocked(err)
	}
	return !quiet
}

// unbegunLocked returns how many accepted tasks no worker has begun and nothing has ended.
func (p *Pool[T, R]) unbegunLocked() int { return p.tasks.queued() - p.untold.own.n }

// outcomeLocked sets the error that Shutdown and Close return from now on, unless it is
// set.
func (p *Pool[T, R]) outcomeLocked(cause error) {
	if p.life.outcome == nil {
		p.life.outcome = &ShutdownError{Aborted: p.life.cut + p.unbegunLocked(), Running: p.count.running, Cause: cause}
	}
}

// endAllQueuedLocked ends all queued tasks with err. From now on, tasks that ask for
// another attempt end with it too.
func (p *Pool[T, R]) endAllQueuedLocked(err error) {
	p.life.abortedBy = err
	p.life.cut += p.unbegunLocked()
	for _, k := range p.keys.queue { // first those that wait for their turn, or they would get it
		for k.ahead.n > 0 {
			p.endQueuedLocked(k.ahead.first, err, aborted)
		}
		for k.behind.n > 0 {
			p.endQueuedLocked(k.behind.first, err, aborted)
		}
		for k.reserved.n > 0 {
			p.endQueuedLocked(k.reserved.first, err, aborted)
		}
	}
	for j := p.tasks.first(); j != nil; j = p.tasks.first() {
		p.endQueuedLocked(j, err, aborted)
	}
	for p.parking.n > 0 {
		p.endQueuedLocked(p.parking.first, err, aborted)
	}
}

// endQueuedLocked ends a task that no worker has. Its error is err, together with the error
// of its last attempt if there was one.
func (p *Pool[T, R]) endQueuedLocked(j *job[T, R], err error, why unrun) {
	p.unmarkDroppableLocked(j)
	if j.state != parked {
		j.attempt = max(1, j.attempt-1) // the next attempt is counted already and will not run
	}
	switch j.state {
	case queued:
		p.tasks.remove(j)
	case parked:
		p.unparkLocked(j)
	default:
		p.takeFromBehindLocked(j)
	}
	if j.batch != nil {
		j.batch.remove(j)
	}
	if call, ok := j.ctx.(*callContext); ok && call.isMerged() {
		go func() { // end may call user code, which must not run under the mutex; nobody waits for it
			defer func() { _ = recover() }() // nobody could be told of a panic
			call.end()
		}()
	}
	p.endUnrunLocked(j, after(err, j.err), why)
}

// endUnrunLocked ends an accepted task that is in no list.
func (p *Pool[T, R]) endUnrunLocked(j *job[T, R], err error, why unrun) {
	j.err = err
	if j.key != nil {
		p.releaseKeyLocked(j, nil)
	}
	if j.to == nil && p.functions.result != nil { // it is called on another goroutine, not under the mutex
		j.ctx, j.state, j.unrun = nil, untold, why
		p.tasks.setAside(j.level, 1)
		p.untold.own.push(j)
		p.helpLocked(&p.untold)
		return
	}
	p.count.unrun(why)
	p.answerLocked(j)
}

// leave is the last call of each goroutine of the pool. When the last one leaves a closed
// pool with nothing left to run, the pool is over.
func (p *Pool[T, R]) leave() {
	p.lock()
	p.life.goroutines--
	last := p.life.goroutines == 0 && !p.life.open && p.isQuietLocked() && !p.life.over
	p.life.over = p.life.over || last
	p.unlock()
	if !last {
		return
	}
	if p.life.unlink != nil {
		p.life.unlink()
	}
	if p.life.tied {
		p.life.cancel(errOver) // releases the parent context
	}
	close(p.life.done)
}
