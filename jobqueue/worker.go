package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	defaultPrefetch = 512
	maxPrefetch     = 1 << 16
	maxConcurrency  = 1 << 20
	// overdueGrace is how long a handler may take to return after its time is over.
	overdueGrace = time.Second
	// handBackPatience is how long an aborted worker has to hand back its jobs.
	handBackPatience = 2 * time.Second
	maxTidying       = 16
)

// A WorkOption sets one property of a worker. [Queue.Work] and [Queue.WorkOn]
// check its value. Where an option is given twice, the last one holds.
type WorkOption interface {
	apply(c *workConfig) error
}

type workOptionFunc func(c *workConfig) error

func (f workOptionFunc) apply(c *workConfig) error { return f(c) }

// workConfig is what the options of one worker add up to.
type workConfig struct {
	name        string
	concurrency int
	prefetch    int
	timeout     time.Duration
	log         *slog.Logger
}

func newWorkConfig(concurrency int, opts []WorkOption) (workConfig, error) {
	host, _ := os.Hostname()
	c := workConfig{
		name:        fmt.Sprintf("%s/%d", host, os.Getpid()),
		concurrency: concurrency,
		prefetch:    defaultPrefetch,
		log:         slog.Default(),
	}
	for i, opt := range opts {
		if opt == nil {
			return c, invalid("work option %d of %d is nil", i+1, len(opts))
		}
		if err := opt.apply(&c); err != nil {
			return c, err
		}
	}
	return c, nil
}

// WithConcurrency sets how many jobs the worker runs at a time: 1 to 1,048,576.
// The default is runtime.GOMAXPROCS(0), and for [Queue.WorkOn] the number of
// workers that the pool may have at the time.
func WithConcurrency(n int) WorkOption {
	return workOptionFunc(func(c *workConfig) error {
		if n < 1 || n > maxConcurrency {
			return invalid("WithConcurrency(%d): a worker runs 1 to %d jobs at a time", n, maxConcurrency)
		}
		c.concurrency = n
		return nil
	})
}

// WithPrefetch sets how many jobs of each priority the worker may fetch ahead,
// in addition to those that it runs: 0 to 65,536. The default is 512. That is for
// short jobs: it fetches no more than it expects to run within a tenth of a
// second, by what the last ones took, so that long ones are left to others. What waits
// when jobs have held all places for a second goes back to the server.
func WithPrefetch(n int) WorkOption {
	return workOptionFunc(func(c *workConfig) error {
		if n < 0 || n > maxPrefetch {
			return invalid("WithPrefetch(%d): a worker fetches 0 to %d jobs ahead", n, maxPrefetch)
		}
		c.prefetch = n
		return nil
	})
}

// WithTimeout ends the context of each call of the handler after d: more than 0. The
// attempt has failed then, whether the handler returns or not. One that does not keeps
// its place, of those of [WithConcurrency], until it returns. When every place is held
// by such a handler, the worker hands back what it has fetched and begins nothing
// more; it says so in its log and by [Worker.Err]. The default is no limit: the worker
// keeps the job for as long as the handler runs.
//
// It is for [Queue.Work] alone. The handler of a pool of one's own, for
// [Queue.WorkOn], gets its limit from workpool.Timeout.
func WithTimeout(d time.Duration) WorkOption {
	return workOptionFunc(func(c *workConfig) error {
		if d <= 0 {
			return invalid("WithTimeout(%v): the time for an attempt is more than 0", d)
		}
		c.timeout = d
		return nil
	})
}

// WithWorkerName sets the name under which results and dead letters say where a
// job ran: 1 to 255 printable bytes. The default is the name of the host and the
// ID of the process.
func WithWorkerName(name string) WorkOption {
	return workOptionFunc(func(c *workConfig) error {
		if name == "" || len(name) > maxIDLength || !printable(name) {
			return invalid("WithWorkerName(%.300q): a name has 1 to %d printable bytes", name, maxIDLength)
		}
		c.name = name
		return nil
	})
}

// WithLogger sets where the worker tells of what nobody waits for. At level Warn:
// what keeps it from its work, as [Worker.Err] says, and jobs that have become dead
// letters. At level Info: each other attempt that has failed. The default is
// slog.Default(). The payloads of jobs are never logged.
func WithLogger(log *slog.Logger) WorkOption {
	return workOptionFunc(func(c *workConfig) error {
		if log == nil {
			return invalid("WithLogger(nil): pass a logger, or leave the option out for slog.Default()")
		}
		c.log = log
		return nil
	})
}

// A Worker runs jobs of a queue in this process. It is made by [Queue.Work] or
// [Queue.WorkOn], and ended by [Worker.Shutdown].
type Worker struct {
	workConfig
	nc       *nats.Conn
	lookout  *lookout
	ackWait  time.Duration
	foreign  bool            // the pool is the caller's
	run      func(*delivery) // runs one job to its end
	handBack func([]*delivery)
	exited   func(*delivery) // is for a job whose run called runtime.Goexit

	succeeded, failed, dead atomic.Uint64 // for Stats
	troubled                atomic.Bool   // there is a trouble

	aborted  context.Context // ends when the worker may wait no longer
	abort    context.CancelCauseFunc
	stopped  chan struct{} // closed when it takes no more jobs
	stopOnce sync.Once
	done     chan struct{}  // closed when all has ended
	ending   sync.WaitGroup // of jobs that are stored or handed back, by no runner

	mu        sync.Mutex // guards what follows
	jobs      sync.Cond  // runners wait here for a job
	stopping  bool
	running   int // jobs begun and not ended
	queues    [levels]queue
	troubles  [troubles]trouble
	stoppedBy error                // why it stopped by itself
	overdue   int                  // places held by handlers whose time has long been over
	turn      uint                 // counts the jobs begun
	lastBegan time.Time            // when the last of them was
	average   time.Duration        // of what a job takes
	held      map[uint64]*delivery // fetched and not ended, by sequence
	doubted   time.Time            // until when the server may have forgotten what it delivered
	connects  uint64               // reconnects seen

	tidying chan struct{} // bounds how many records are deleted at a time
}

// Work runs handler for the jobs of the queue, on a pool of its own, and returns
// at once. Any number of workers, in any number of processes, share the jobs.
//
// A job is acknowledged when its result is stored. Until then the worker tells the
// server that it is alive, three times per [WithAckWait], for every job that it
// has. If it dies, another worker gets its jobs after that time: a handler has to
// bear that a job is run again, and can use the ID from [JobFrom] to know.
//
// What the handler returns decides. A nil error stores the value as the result.
// An error has the job run again after the time of [WithBackoff], one of
// workpool.RetryAfter after that one's, up to [WithMaxAttempts] attempts; a panic
// or runtime.Goexit is an error. After the last attempt, or at an error made by
// workpool.Permanent, the job becomes a dead letter. So does a job that can't be decoded
// in any attempt, see [Codec], and one whose worker dies with each attempt.
//
// The handler's context has the values of ctx, and ends when the worker is
// aborted, or by [WithTimeout]. To the pool each attempt is a task of its own:
// workpool.InfoFrom tells of that, and JobFrom of the job.
//
// When ctx ends, the worker stops as by [Worker.Shutdown], running handlers not
// cancelled; Shutdown waits for them.
func (q *Queue[T, R]) Work(ctx context.Context, handler workpool.Handler[T, R], opts ...WorkOption) (*Worker, error) {
	if ctx == nil {
		return nil, errNilContext
	}
	c, err := newWorkConfig(runtime.GOMAXPROCS(0), opts)
	if err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, invalid("Work: the handler is nil")
	}
	pool, err := workpool.New(attempt(handler), workpool.WithWorkers(c.concurrency), workpool.WithName(q.name))
	if err != nil {
		return nil, fmt.Errorf("jobqueue: making the pool of a worker: %w", err)
	}
	return q.work(ctx, pool, c, false), nil
}

// WorkOn is [Queue.Work] with the handler of a pool that the caller has made, and
// that other tasks may use too. Its jobs are calls of Do: they yield no results
// there. A workpool.RetryAfter of the handler is the pool's own then: the job
// stays with the worker until the pool runs it again. A job that the pool rejects or
// drops, see workpool.WithOverflow, comes again soon and has not used up an attempt.
// One that waits for a worker of the pool waits without a limit; [WithTimeout] is refused.
// Shut down the worker before the pool.
func (q *Queue[T, R]) WorkOn(ctx context.Context, pool *workpool.Pool[T, R], opts ...WorkOption) (*Worker, error) {
	if ctx == nil {
		return nil, errNilContext
	}
	if pool == nil {
		return nil, invalid("WorkOn: the pool is nil")
	}
	c, err := newWorkConfig(max(1, pool.Stats().Size), opts)
	if err != nil {
		return nil, err
	}
	if c.timeout > 0 {
		return nil, invalid("WithTimeout(%v): the time that a job waits for a worker of the pool is not the handler's: make the pool with workpool.Timeout around its handler", c.timeout)
	}
	return q.work(ctx, pool, c, true), nil
}

// attempt returns what runs an attempt on the pool of a worker: handler, with the time
// that it has, and without the pool's own retries, which are for the queue.
func attempt[T, R any](handler workpool.Handler[T, R]) workpool.Handler[T, R] {
	return func(ctx context.Context, job T) (R, error) {
		d, ok := ctx.Value(jobKey{}).(*delivery)
		limited := ok && d.overtime != nil
		var late error
		if limited {
			limit := d.worker.timeout
			late = lateError(limit)
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, limit, late)
			defer cancel()
			defer time.AfterFunc(limit, func() { close(d.overtime) }).Stop()
			defer d.worker.left(d)
		}
		value, err := handler(ctx, job)
		if err != nil { // which spares the search in most cases
			if after, ok := workpool.RetryDelay(err); ok {
				err = &laterError{after, err}
			} else if limited && context.Cause(ctx) == late && !errors.Is(err, late) { //nolint:errorlint // it is that very one
				err = fmt.Errorf("%w: %w", late, err)
			}
		}
		return value, err
	}
}

func lateError(limit time.Duration) error {
	return fmt.Errorf("jobqueue: the handler took longer than %v: %w", limit, context.DeadlineExceeded)
}

// A laterError hides an error of RetryAfter from the pool.
type laterError struct {
	after time.Duration
	err   error
}

func (e *laterError) Error() string { return e.err.Error() }

func (q *Queue[T, R]) work(ctx context.Context, pool *workpool.Pool[T, R], c workConfig, foreign bool) *Worker {
	if q.maxAttempts == 1 { // one that was fetched ahead of a crash would have used up its attempt
		c.prefetch = 0
	}
	w := &Worker{
		workConfig: c,
		nc:         q.nc,
		lookout:    q.lookout,
		ackWait:    q.ackWaitLeast,
		foreign:    foreign,
		stopped:    make(chan struct{}),
		done:       make(chan struct{}),
		held:       map[uint64]*delivery{},
		connects:   q.nc.Stats().Reconnects,
		tidying:    make(chan struct{}, maxTidying),
	}
	w.jobs.L = &w.mu
	w.aborted, w.abort = context.WithCancelCause(context.WithoutCancel(ctx))
	w.run = func(d *delivery) { q.run(w, pool, d) }
	w.handBack = func(ds []*delivery) { q.handBack(w, ds, false) }
	w.exited = func(d *delivery) { q.failed(w, d, fmt.Errorf("a codec: %w", workpool.ErrGoexit)) }

	var parts sync.WaitGroup
	for level := range levels {
		fetched := &w.queues[level]
		fetched.level, fetched.consumer, fetched.room.L = level, q.consumers[level], &w.mu
		for range fetchersPerQueue {
			parts.Go(func() { w.fetch(fetched) })
		}
	}
	for range c.concurrency {
		parts.Go(func() { w.runJobs(&parts) })
	}
	beating, stopBeating := context.WithCancel(context.Background())
	var heart sync.WaitGroup
	heart.Go(func() { w.beat(beating) })
	unwatch := context.AfterFunc(ctx, w.stop)
	go func() {
		defer close(w.done)
		defer w.abort(nil)
		parts.Wait()
		unwatch()
		w.ending.Wait()
		stopBeating()
		heart.Wait()
		if !foreign {
			_ = pool.Shutdown(w.aborted) // waits for handlers that a timeout has left behind
		}
		// What was acknowledged and handed back is to be known before the
		// process ends.
		_ = w.nc.FlushTimeout(handBackPatience)
	}()
	return w
}

// stop ends the fetching, and hands back what has not begun.
func (w *Worker) stop() {
	w.stopOnce.Do(func() {
		w.mu.Lock()
		w.stopping = true
		back := w.takeWaitingLocked()
		for level := range w.queues {
			w.queues[level].room.Broadcast()
		}
		w.jobs.Broadcast()
		w.ending.Add(1)
		w.mu.Unlock()
		defer w.ending.Done()
		close(w.stopped)
		w.handBack(back)
	})
}

// Shutdown ends the worker in an orderly way: it fetches nothing more, hands back
// at once what it has fetched and not begun, for other workers to run, and waits
// for the running handlers, whose results are stored. Then it returns nil, and no
// code of a job runs any more. It takes up to a second until the server knows that
// this worker wants nothing more; while the server is away, Shutdown waits for it.
//
// If ctx ends first, the contexts of the running handlers end, with the cause
// workpool.ErrAborted, and their jobs are handed back, without having used up an
// attempt. Shutdown then returns an error that matches ctx.Err() and says how many
// these were, two seconds later at the latest. It does not wait for a handler that
// ignores its context: that one runs on while another worker may run the job again.
//
// Shutdown may be called any number of times. Called with the context of a handler
// of the worker, it returns workpool.ErrReentrant.
func (w *Worker) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if d, ok := ctx.Value(jobKey{}).(*delivery); ok && d.worker == w {
		return workpool.ErrReentrant
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stop()
	}()
	select {
	case <-w.done:
		<-stopped
		return nil
	case <-ctx.Done():
	}
	select {
	case <-w.done: // both at once
		return nil
	default:
	}
	w.mu.Lock()
	running := w.running
	w.mu.Unlock()
	w.abort(fmt.Errorf("%w: the worker was shut down", workpool.ErrAborted))
	select {
	case <-w.done:
	case <-time.After(handBackPatience):
	}
	return fmt.Errorf("jobqueue: shutdown cut short: running jobs were handed back (%d): %w", running, contextError(ctx))
}

// runJobs runs one job after the other until the worker stops. It goes on while
// what the last one has ended with is being stored: the number of jobs that have
// begun and not ended is what limits the worker.
//
// A codec may call runtime.Goexit, as a test's FailNow does. Then the goroutine ends,
// another one takes its place, and the attempt has failed.
func (w *Worker) runJobs(runners *sync.WaitGroup) {
	var d *delivery
	defer func() {
		if d != nil {
			runners.Go(func() { w.runJobs(runners) })
			runners.Go(func() { w.exited(d) })
		}
	}()
	for {
		if d = w.next(); d == nil {
			return
		}
		w.run(d)
	}
}

// warn logs what went wrong with a job.
func (w *Worker) warn(d *delivery, what string, err error) {
	if errors.Is(err, context.Canceled) && w.aborted.Err() != nil {
		return
	}
	w.log.Warn("jobqueue: "+what, "queue", d.queue, "id", d.id(), "attempt", d.attempt, "worker", w.name, "error", err)
}
