package workpool

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RetryAfter returns an error with which a handler asks for another attempt: the
// task runs again after d. [Info] and [Result] count the attempts, and only the
// last yields a result. No worker is held meanwhile. With a d of 0, the task goes
// to the end of the queue at once. err is why the attempt failed; it may be nil.
//
// A task that waits for its next attempt counts as queued: it takes room,
// [Pool.Shutdown], [Pool.Wait] and the caller of Do, Map or Stream wait for it, and
// it is removed when the context of that caller ends. If the pool is aborted first,
// or closed with [FinishRunning], the task ends with an error that matches
// [ErrAborted] and err.
//
// The handler decides how often it retries; [Retry] does so for any handler. A
// negative d is a mistake: the returned error wraps [ErrInvalidOption] and err, and
// the task ends with it.
func RetryAfter(d time.Duration, err error) error {
	if d < 0 {
		mistake := invalid("RetryAfter(%v): the delay is 0 or more", d)
		if err != nil {
			mistake = fmt.Errorf("%w: %w", mistake, err)
		}
		return mistake
	}
	if IsPermanent(err) {
		return err // which says that there is no other attempt
	}
	return &retryError{after: d, err: err}
}

// A retryError is the error that RetryAfter returns.
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

// RetryDelay reports whether err asks for another attempt, and after which delay:
// whether it is or wraps an error of [RetryAfter], and none of [Permanent], which
// takes precedence. A pool does so by itself.
// RetryDelay is for code that calls a [Handler] without a pool, or that acts on
// what another handler returned.
func RetryDelay(err error) (d time.Duration, ok bool) {
	var retry *retryError
	var last *finalError
	if !errors.As(err, &retry) || errors.As(err, &last) || IsPermanent(err) {
		return 0, false
	}
	return retry.after, true
}

// Permanent returns an error that matches err and that [Retry] does not retry. The
// task ends with it. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err is or wraps an error of [Permanent]. It is for
// code that calls a [Handler] without a pool.
func IsPermanent(err error) bool {
	var permanent *permanentError
	return errors.As(err, &permanent)
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// asRetry returns err as a *retryError if it wraps one, and err itself otherwise.
func asRetry(err error) error {
	if retryOf(err) != nil {
		return err
	}
	if after, ok := RetryDelay(err); ok {
		return &retryError{after: after, err: err}
	}
	return err
}

// retryOf returns err as a *retryError, or nil. err must have passed through asRetry.
func retryOf(err error) *retryError {
	retry, _ := err.(*retryError) //nolint:errorlint // it is not wrapped any more
	return retry
}

// A finalError is the error of a task that asked for another attempt when Retry had none
// left.
type finalError struct{ err error }

func (e *finalError) Error() string { return "workpool: no attempt left: " + e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// parkLocked keeps j until its next attempt is due.
func (p *Pool[T, R]) parkLocked(j *job[T, R], retry *retryError) {
	j.err = retry.err
	p.releaseSubmitterLocked(j, nil) // it waits for one attempt
	j.state = parked
	p.parking.push(j)
	if p.overflow == DropOldest {
		p.markDroppableLocked(j)
	}
	p.tasks.setAside(j.level, 1)
	p.tasks.parked[j.level]++
	if j.batch != nil {
		j.batch.add(j)
	}
	switch err := p.calledOffLocked(j); {
	case p.life.abortedBy != nil:
		p.endQueuedLocked(j, p.life.abortedBy, aborted)
	case err != nil:
		p.endQueuedLocked(j, err, cancelled)
	case retry.after == 0:
		p.nextAttemptLocked(j)
	default:
		p.parkFor(j, retry.after)
	}
	if k := j.key; k != nil && k.turn == j {
		p.helpKeyLocked(k)
	}
}

func (p *Pool[T, R]) parkFor(j *job[T, R], d time.Duration) {
	var timer *time.Timer
	timer = p.afterFuncLocked(d, func() {
		if j.timer == timer { // else j has been unparked since
			p.nextAttemptLocked(j)
		}
	})
	j.timer = timer
}

// calledOffLocked returns why nobody waits for j any more, or nil. The caller may have
// taken back what was queued, because its context had ended, while j was running.
func (p *Pool[T, R]) calledOffLocked(j *job[T, R]) error {
	switch c := j.ctx.(type) {
	case *batchContext:
		if c.Err() != nil {
			return stdError(c.Context)
		}
	case *callContext:
		if j.to == nil && c.caller.Err() != nil { // of SubmitCancel
			return context.Canceled
		}
	}
	if call, ok := j.to.(*call[T, R]); ok && call.abandoned {
		return context.Canceled
	}
	return nil
}

// nextAttemptLocked makes a parked task ready to run again.
func (p *Pool[T, R]) nextAttemptLocked(j *job[T, R]) {
	p.unparkLocked(j)
	j.attempt++
	j.at = p.observer.now()
	p.queueLocked(j)
}

func (p *Pool[T, R]) unparkLocked(j *job[T, R]) {
	j.state = outside
	p.parking.remove(j)
	p.tasks.setAside(j.level, -1)
	p.tasks.parked[j.level]--
	if j.batch != nil {
		j.batch.begun(j)
		j.batch.add(j)
	}
	if j.timer != nil {
		p.stopTimerLocked(j.timer)
		j.timer = nil
	}
}

// afterFuncLocked calls f, under the mutex, after d. The timer counts as a goroutine of the
// pool, since its function runs on one.
func (p *Pool[T, R]) afterFuncLocked(d time.Duration, f func()) *time.Timer {
	p.life.goroutines++
	return time.AfterFunc(d, func() {
		p.lock()
		f()
		p.unlock()
		p.leave()
	})
}

func (p *Pool[T, R]) stopTimerLocked(timer *time.Timer) {
	if timer.Stop() {
		p.life.goroutines-- // in place of its function
	}
}
