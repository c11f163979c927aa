package workpool

import (
	"context"
	"fmt"
)

// A Handler does the work of one task. It is called by many workers at once.
//
// Its context carries the values of the context that the task was submitted
// with, and ends when the pool is aborted. Under [Pool.Do], [Pool.DoChan],
// [Pool.Map] and [Pool.Stream] it also ends with the context of the caller.
// [InfoFrom] tells from it which task this is and which worker runs it. The
// context is the handler's own only until the handler returns.
type Handler[T, R any] func(ctx context.Context, task T) (R, error)

// A Result is the answer to one accepted task.
type Result[T, R any] struct {
	Index   uint64 // order of acceptance, from 0; in Stream and Map the position in the input
	Task    T      // the task as submitted
	Value   R      // what the handler returned
	Err     error  // what the handler returned, or a *PanicError, ErrGoexit, ErrAborted, or why the caller's context ended
	Worker  int    // the worker that ran the task, 1..N; 0 if it never ran, or ran in Submit by CallerRuns
	Attempt int    // 1 unless retried: see RetryAfter
}

// A Func is a task that brings its own code. See [Call].
type Func[R any] = func(ctx context.Context) (R, error)

// Call calls f. It is the handler of pools whose tasks are closures:
//
//	pool, err := workpool.New(workpool.Call[int])
//	...
//	lines, err := pool.Do(ctx, func(ctx context.Context) (int, error) { return count(ctx, file) })
func Call[R any](ctx context.Context, f Func[R]) (R, error) { return f(ctx) }

// A job is an element of the pool's channels: a task on its way from the caller,
// over the task channel to a worker, and with the handler's answer in it over the
// collector channel to a receiver. Or it stands for a run of tasks that lie in a
// block. Jobs are used again, so that the way allocates nothing.
//
// The pool's mutex guards a job except while one goroutine has it in hand:
// the worker that runs it, or the caller that got it back.
type job[T, R any] struct {
	next, previous *job[T, R] // its neighbours in the list that it is in
	state
	worker  int32
	attempt int32
	index   uint64

	ctx   context.Context // what the context of the handler is made from
	task  T
	value R
	err   error

	to     answerer[T, R] // who gets the answer; nil for Results
	signal chan struct{}  // capacity 1; wakes the goroutine that waits for this job
	lane   *lane[T, R]    // of its key; nil without one
	inside *worker[T, R]  // whose handler waits for it
}

// state is what changes of a job under the mutex only.
type state struct {
	place place
	level level

	promised   bool // it counts on a worker that was free
	positioned bool // the index is the position in a batch
	bound      bool // its context ends with that of its caller
	abandoned  bool // nobody waits for the answer any more
	signals    bool // its caller waits for the signal alone
	isRun      bool // it stands for a run, which is its answerer
}

// A place is where a job is.
type place uint8

const (
	elsewhere place = iota // in hand, spare, or on the way to a receiver
	inLine                 // with a submitter that waits for room
	granted                // with one that has been given room and has not used it yet
	queued                 // in the task channel
	behind                 // behind another task of its key
	parked                 // until its next attempt is due
	finished               // before its turn, in an ordered pool
)

// waits tells whether j has been accepted and no worker has it.
func (j *job[T, R]) waits() bool { return j.place == queued || j.place == behind || j.place == parked }

// tasks returns how many accepted tasks j, which is in the task channel, stands
// for. A run of a Map stands for its first: the next ones are accepted as they are
// claimed.
func (j *job[T, R]) tasks() int {
	if j.isRun {
		if r := j.to.(*run[T, R]); r.accepts() {
			return r.n
		}
	}
	return 1
}

func (j *job[T, R]) result() Result[T, R] {
	return Result[T, R]{Index: j.index, Task: j.task, Value: j.value, Err: j.err, Worker: int(j.worker), Attempt: int(j.attempt)}
}

// afterLast returns err, with which a task ends that no worker has begun again,
// with the error of its last attempt if there was one.
func (j *job[T, R]) afterLast(err error) error {
	if j.err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, j.err)
}

// forget drops the task and its answer, so that the pool retains neither.
func (j *job[T, R]) forget() {
	var noTask T
	var noValue R
	j.task, j.value, j.err = noTask, noValue, nil
}

// reset makes j one that can be used again.
func (j *job[T, R]) reset() {
	j.forget()
	j.next, j.previous, j.worker, j.state = nil, nil, 0, state{}
	if j.to != nil || j.inside != nil {
		j.to, j.inside = nil, nil
	}
}

// An answerer gets the answer of a job in place of Results.
type answerer[T, R any] interface {
	// failed is called by the worker as soon as the handler has failed,
	// without the pool's mutex.
	failed(err error)
	// answerLocked is called once, when the job has ended. The job is the
	// answerer's from then on.
	answerLocked(j *job[T, R])
}
