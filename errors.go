package workpool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// The errors that a caller can test for with [errors.Is]. They often come
// wrapped in a text that says more.
var (
	// ErrClosed is returned by every call that hands a task to a pool, and by
	// [Pool.Resize], once Shutdown, Close or an abort has begun.
	ErrClosed = errors.New("workpool: pool is closed")

	// ErrQueueFull is returned by [Pool.TrySubmit] when the pool has no room.
	// The error of a [Pool.Submit] that gave up waiting for room matches it
	// too, besides the error of its context.
	ErrQueueFull = errors.New("workpool: queue is full")

	// ErrAborted is the error of a task that an abort or a close ended before
	// it ran. It is also the cause with which an abort cancels the contexts of
	// running handlers, whose tasks end with what these return: with ErrAborted
	// if that is context.Cause(ctx) rather than ctx.Err().
	ErrAborted = errors.New("workpool: task aborted")

	// ErrGoexit is the error of a task whose handler called [runtime.Goexit],
	// as testing.T.FailNow does.
	ErrGoexit = errors.New("workpool: handler called runtime.Goexit")

	// ErrReentrant is returned by [Pool.Shutdown] and [Pool.Wait] when their
	// context is that of a handler of the same pool: the handler would wait
	// for its own end.
	ErrReentrant = errors.New("workpool: called from inside a handler of the same pool")

	// ErrInvalidOption is wrapped by the errors of [New] and [Pool.Resize]
	// that refuse a value. Their text names the option and the value.
	ErrInvalidOption = errors.New("workpool: invalid option")
)

var (
	errNilContext = errors.New("workpool: nil context: pass context.Background() where there is no other")
	errNilTasks   = errors.New("workpool: nil sequence of tasks")
)

// A PanicError is the error of a task whose handler panicked. It is also how
// a panic in a result function or in an input iterator is reported.
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // the stack of the panicking goroutine, as debug.Stack formats it
}

// Error returns the value of the panic, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("workpool: panic: %v", e.Value) }

// Unwrap returns the value of the panic if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errorOf returns the error of code that did not return, given what recover
// says about it.
func errorOf(recovered any) error {
	if recovered == nil {
		return ErrGoexit
	}
	return newPanicError(recovered)
}

func newPanicError(value any) *PanicError {
	return &PanicError{Value: value, Stack: debug.Stack()}
}

// A ShutdownError is what [Pool.Shutdown] and [Pool.Close] return when the
// pool was aborted before every task that it had accepted could run.
type ShutdownError struct {
	Aborted int   // tasks that were queued and ended without running
	Running int   // handlers that were still running at the abort
	Cause   error // why the pool was aborted
}

// Error returns the counts and the cause in one line.
func (e *ShutdownError) Error() string {
	return fmt.Sprintf("workpool: shutdown cut short: %d queued tasks aborted, %d still running: %v", e.Aborted, e.Running, e.Cause)
}

// Unwrap returns the cause.
func (e *ShutdownError) Unwrap() error { return e.Cause }

// contextError returns why ctx ended: an error that matches both its cause and
// ctx.Err().
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case cause == nil: // of a context that is not one of package context's
		return err
	case errors.Is(cause, err):
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
