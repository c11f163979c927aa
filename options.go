package workpool

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// The defaults of the options that have a number.
const (
	defaultQueueDepth   = 128
	defaultResultBuffer = 128

	// maxWorkers is far above what a machine can run, and low enough that a
	// mistaken value is reported rather than tried.
	maxWorkers = 1 << 24
)

// An Option sets one property of a pool. [New] checks its value and refuses
// options that contradict one another. Where an option is given twice, the
// last one holds.
type Option interface {
	apply(c *config) error
}

// config is what the options of one pool add up to.
type config struct {
	queueDepth      int
	resultBuffer    int
	workers         int
	mode            ShutdownMode
	shutdownTimeout time.Duration
	ctx             context.Context
	name            string
	resultFunc      any // a func(Result[T, R])

	withResultBuffer, withoutResults bool

	ordered    bool
	keyFunc    any // a func(T) K, as it was given
	key        any // a func(T) any
	priority   any // a func(T) Priority
	overflow   Overflow
	elastic    bool
	minWorkers int
	idle       time.Duration
}

type optionFunc func(c *config) error

func (f optionFunc) apply(c *config) error { return f(c) }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalidOption}, args...)...)
}

func newConfig(opts []Option) (config, error) {
	c := config{
		workers:      runtime.GOMAXPROCS(0),
		queueDepth:   defaultQueueDepth,
		resultBuffer: defaultResultBuffer,
		ctx:          context.Background(),
	}
	for i, opt := range opts {
		if opt == nil {
			return c, invalid("option %d of %d is nil", i+1, len(opts))
		}
		if err := opt.apply(&c); err != nil {
			return c, err
		}
	}
	switch {
	case c.withoutResults && c.resultFunc != nil:
		return c, invalid("WithoutResults and WithResultFunc exclude each other: results are either dropped or passed to the function")
	case c.withoutResults && c.withResultBuffer:
		return c, invalid("WithoutResults and WithResultBuffer(%d) exclude each other: there are no results to buffer", c.resultBuffer)
	case c.resultFunc != nil && c.withResultBuffer:
		return c, invalid("WithResultFunc and WithResultBuffer(%d) exclude each other: results go to the function, not to a buffer", c.resultBuffer)
	case c.ordered && c.withoutResults:
		return c, invalid("WithOrdered and WithoutResults exclude each other: there are no results to put into order")
	case c.ordered && c.resultFunc != nil:
		return c, invalid("WithOrdered and WithResultFunc exclude each other: the function is called by many workers at once")
	case c.elastic && c.minWorkers > c.workers:
		return c, invalid("WithElastic(%d, %v) and WithWorkers(%d) exclude each other: the minimum is above the number of workers", c.minWorkers, c.idle, c.workers)
	}
	return c, nil
}

// WithWorkers sets how many workers the pool runs: 1 to 16,777,216. The
// default is runtime.GOMAXPROCS(0). [Pool.Resize] changes it later. Of very many
// workers, those beyond the first 1,024 are started when tasks wait for them.
func WithWorkers(n int) Option {
	return optionFunc(func(c *config) error {
		c.workers = n
		return checkWorkers("WithWorkers", n)
	})
}

func checkWorkers(name string, n int) error {
	if n < 1 || n > maxWorkers {
		return invalid("%s(%d): a pool has 1 to %d workers", name, n, maxWorkers)
	}
	return nil
}

// WithQueueDepth sets how many accepted tasks may wait while all workers are
// busy: 0 or more. With 0 a task is accepted only when a worker is free to
// take it. The default is 128. A deep queue takes memory only as it fills.
func WithQueueDepth(n int) Option {
	return optionFunc(func(c *config) error {
		if n < 0 {
			return invalid("WithQueueDepth(%d): the depth is 0 or more", n)
		}
		c.queueDepth = n
		return nil
	})
}

// WithResultBuffer sets how many results may wait for a receiver before the
// workers do: 0 or more. The default is 128. It excludes [WithoutResults] and
// [WithResultFunc].
func WithResultBuffer(n int) Option {
	return optionFunc(func(c *config) error {
		if n < 0 {
			return invalid("WithResultBuffer(%d): the buffer is 0 or more", n)
		}
		c.resultBuffer, c.withResultBuffer = n, true
		return nil
	})
}

// A ShutdownMode says what [Pool.Close] does with the tasks that the pool has
// accepted.
type ShutdownMode int

const (
	// Drain runs every accepted task to its end.
	Drain ShutdownMode = iota
	// FinishRunning lets running tasks end and ends queued ones with
	// ErrAborted, without running them.
	FinishRunning
	// Abort also cancels the contexts of running tasks, with cause
	// ErrAborted, and waits for their handlers to return.
	Abort
)

// String returns the name of the constant.
func (m ShutdownMode) String() string {
	switch m {
	case Drain:
		return "Drain"
	case FinishRunning:
		return "FinishRunning"
	case Abort:
		return "Abort"
	}
	return fmt.Sprintf("ShutdownMode(%d)", int(m))
}

// WithShutdown sets what [Pool.Close] does, and how long it waits before it
// aborts what is left, whatever the mode. A timeout of 0 is no limit. The
// default is Drain without a limit.
func WithShutdown(mode ShutdownMode, timeout time.Duration) Option {
	return optionFunc(func(c *config) error {
		if mode < Drain || mode > Abort {
			return invalid("WithShutdown(%v, %v): the mode is Drain, FinishRunning or Abort", mode, timeout)
		}
		if timeout < 0 {
			return invalid("WithShutdown(%v, %v): the timeout is 0 (no limit) or more", mode, timeout)
		}
		c.mode, c.shutdownTimeout = mode, timeout
		return nil
	})
}

// WithContext ties the life of the pool to ctx: when ctx ends, the pool is
// aborted, as by a [Pool.Shutdown] whose context has ended. Handlers find the
// values of ctx in their context where that of the task has none. The default
// is context.Background().
func WithContext(ctx context.Context) Option {
	return optionFunc(func(c *config) error {
		if ctx == nil {
			return invalid("WithContext(nil): pass context.Background() or leave the option out")
		}
		c.ctx = ctx
		return nil
	})
}

// WithName sets the name that [InfoFrom] reports, for logs and metrics. The
// default is the empty string.
func WithName(name string) Option {
	return optionFunc(func(c *config) error {
		c.name = name
		return nil
	})
}

// WithoutResults drops the results of tasks that were submitted: for handlers
// that are run for their effect. [Pool.Stats] still counts them, and
// [Pool.Results] ends at once. Do, Map and Stream answer as ever.
func WithoutResults() Option {
	return optionFunc(func(c *config) error {
		c.withoutResults = true
		return nil
	})
}

// WithResultFunc passes the results of tasks that were submitted to f in
// place of [Pool.Results], which ends at once. f is called by the worker,
// before it takes its next task, so by many workers at once; a task has ended
// when its call of f has returned. T and R must be those of the pool.
//
// f has no context by which the pool could know it: it must not wait for the same
// pool, as Submit does when there is no room, or all workers may wait for
// themselves. [Pool.TrySubmit] does not wait.
//
// A panic or Goexit of f is reported by [Pool.Shutdown] and [Pool.Close];
// the pool goes on.
func WithResultFunc[T, R any](f func(Result[T, R])) Option {
	return optionFunc(func(c *config) error {
		if f == nil {
			return invalid("WithResultFunc(nil): pass a function, or WithoutResults to drop results")
		}
		c.resultFunc = f
		return nil
	})
}

// typedOf returns a function that was given with the option name for the
// types of a pool, which has to be an F. It returns nil where there is none.
func typedOf[F any](name string, given, function any, want string) (F, error) {
	f, ok := function.(F)
	if function == nil || ok {
		return f, nil
	}
	return f, invalid("%s(%T): this pool needs a %s", name, given, want)
}
