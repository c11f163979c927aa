package workpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// RetryAfter returns an error with which a handler asks for another attempt: the
// task is run again when d has passed, with [Info] and [Result] counting the
// attempts, and answered only after the last. No worker is held meanwhile. A d
// of 0 puts the task at the end of the queue at once. err is why the attempt
// failed; it may be nil.
//
// A task that waits for its next attempt counts as queued: it takes room, is
// waited for by [Pool.Shutdown], [Pool.Wait] and the caller of Do, Map or
// Stream, and is taken back when the context of that caller ends. If the pool
// is aborted first, or closed with [FinishRunning], it ends with an error that
// matches [ErrAborted] and err.
//
// How often is for the handler to decide. [Retry] does so for any handler. A
// negative d is a mistake: the returned error wraps [ErrInvalidOption] and err,
// and the task ends with it.
func RetryAfter(d time.Duration, err error) error {
	if d < 0 {
		mistake := invalid("RetryAfter(%v): the delay is 0 or more", d)
		if err != nil {
			mistake = fmt.Errorf("%w: %w", mistake, err)
		}
		return mistake
	}
	return &retryError{after: d, err: err}
}

// A retryError is what RetryAfter returns.
type retryError struct {
	after time.Duration
	err   error
}

func (e *retryError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("workpool: retry after %v", e.after)
	}
	return fmt.Sprintf("workpool: retry after %v: %v", e.after, e.err)
}

func (e *retryError) Unwrap() error { return e.err }

// RetryDelay tells whether err asks for another attempt, as [RetryAfter] does and
// any error that wraps one of it, and after which time. Within a pool there is no
// need for it; it is for code that runs a [Handler] by other means, or that decides
// by what another handler returned.
func RetryDelay(err error) (d time.Duration, ok bool) {
	var retry *retryError
	var last *finalError
	if !errors.As(err, &retry) || errors.As(err, &last) {
		return 0, false
	}
	return retry.after, true
}

// asRetry makes an error that wraps one of RetryAfter into one itself.
func asRetry(err error) error {
	if retryIn(err) != nil {
		return err
	}
	if after, ok := RetryDelay(err); ok {
		return &retryError{after: after, err: err}
	}
	return err
}

// retryIn returns what asRetry has found.
func retryIn(err error) *retryError {
	retry, _ := err.(*retryError) //nolint:errorlint // it is not wrapped any more
	return retry
}

// A finalError is the error of a task that asks for an attempt that Retry does
// not give.
type finalError struct{ err error }

func (e *finalError) Error() string { return "workpool: no attempt left: " + e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// parkLocked keeps j until its next attempt is due.
func (p *Pool[T, R]) parkLocked(j *job[T, R], retry *retryError) {
	j.err = retry.err
	j.place = parked
	p.parked.push(j)
	p.countBlockedLocked(j, 1)
	if err := cmp.Or(p.abortedBy, j.calledOffLocked()); err != nil {
		p.endQueuedLocked(j, err)
		return
	}
	if retry.after == 0 {
		p.nextAttemptLocked(j)
		return
	}
	if p.timers == nil {
		p.timers = map[*job[T, R]]*time.Timer{}
	}
	var timer *time.Timer
	timer = p.afterFuncLocked(retry.after, func() {
		if p.timers[j] == timer {
			p.nextAttemptLocked(j)
		}
	})
	p.timers[j] = timer
}

// calledOffLocked returns why nobody waits for j any more, or nil. The caller,
// who takes back what is queued when its context ends, may have done so while j
// was running. The contexts that are asked are of package context.
func (j *job[T, R]) calledOffLocked() error {
	switch c := j.ctx.(type) {
	case *batchContext:
		if c.Err() != nil {
			return contextError(c)
		}
	case *callContext:
		if j.abandoned || j.to == nil && c.caller.Err() != nil {
			return context.Canceled
		}
	}
	return nil
}

// nextAttemptLocked makes a parked task ready to run again.
func (p *Pool[T, R]) nextAttemptLocked(j *job[T, R]) {
	p.unparkLocked(j)
	j.attempt++
	p.readyLocked(j)
	if p.waiting.n > 0 {
		p.grantLocked() // where j runs in place of a handler, it has left room
	}
}

func (p *Pool[T, R]) unparkLocked(j *job[T, R]) {
	j.place = elsewhere
	p.parked.remove(j)
	p.countBlockedLocked(j, -1)
	if timer := p.timers[j]; timer != nil {
		p.stopTimerLocked(timer)
		delete(p.timers, j)
	}
}

// afterFuncLocked calls f, under the mutex, when d has passed. The timer
// counts as a goroutine of the pool, as its function runs on one.
func (p *Pool[T, R]) afterFuncLocked(d time.Duration, f func()) *time.Timer {
	p.goroutines++
	return time.AfterFunc(d, func() {
		p.mu.Lock()
		f()
		p.mu.Unlock()
		p.left()
	})
}

func (p *Pool[T, R]) stopTimerLocked(timer *time.Timer) {
	if timer.Stop() {
		go p.left() // in place of its function
	}
}
