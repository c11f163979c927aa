package workpool

import (
	linked "container/list"
	"context"
	"reflect"
	"time"
)

// A Handler does the work of one task. Many workers call it at once.
//
// Its context has the values of the context that the task was submitted with, and
// ends when the pool is aborted. Under [Pool.Do], [Pool.DoChan], [Pool.Map],
// [Pool.Stream] and [Pool.Group] it also ends with the context of the caller.
// [InfoFrom] returns which task and which worker the context belongs to.
//
// Do not use the context after the handler has returned: it may be cancelled, and
// no longer identifies a handler.
//
// A task that is submitted with the context of a handler, or with one that
// [Timeout] made of it, gets the values that the handler's own task was submitted
// with. A task that is submitted with another context derived from it, as by
// context.WithValue, keeps all the contexts before it. If each task submits the
// next one in this way, the chain grows with each.
//
// A task and its value together may take up to about 64 KB, since [Pool.DoChan]
// returns a channel and Go limits the size of channel elements. Use pointers for
// larger ones.
type Handler[T, R any] func(ctx context.Context, task T) (R, error)

// A Result is the outcome of one task.
type Result[T, R any] struct {
	Index   uint64 // order of acceptance, from 0; in Stream and Map the position in the input
	Task    T      // the task as submitted
	Value   R      // what the handler returned
	Err     error  // what the handler returned, or a *PanicError, ErrGoexit, ErrAborted, ErrDropped, or why the caller's context ended
	Worker  int    // the worker that ran the task, 1..N; 0 if it never ran, or ran in Submit by CallerRuns
	Attempt int    // 1 unless retried, see RetryAfter; 0 in the last Result of a Stream that ended before its input
}

// A Func is a task that is a closure. See [Call].
type Func[R any] = func(ctx context.Context) (R, error)

// Call calls f. It is the handler of pools whose tasks are closures:
//
//	pool, err := workpool.New(workpool.Call[int])
//	...
//	lines, err := pool.Do(ctx, func(ctx context.Context) (int, error) { return count(ctx, file) })
func Call[R any](ctx context.Context, f Func[R]) (R, error) { return f(ctx) }

// NoValue turns a function that returns only an error into a handler:
//
//	pool, err := workpool.New(workpool.NoValue(send))
func NoValue[T any](do func(ctx context.Context, task T) error) Handler[T, struct{}] {
	if do == nil {
		return nil // which New refuses
	}
	return func(ctx context.Context, task T) (struct{}, error) { return struct{}{}, do(ctx, task) }
}

// A job is one task on its way through the pool: from its caller over the task channel to a
// worker, and then, with the answer in it, to its owner. Jobs are reused.
//
// The pool's mutex guards a job, except while its handler runs. During that time, value and
// err belong to the worker, and so do the fields that it writes for the next task of a Map.
type job[T, R any] struct {
	next, prev               *job[T, R] // in the list that it is in
	nextInBatch, prevInBatch *job[T, R] // in the list of its batch

	state   state
	level   level
	bound   bool  // its handler's context ends with the context of a caller
	unrun   unrun // why it has not run
	lane    lane  // the list of the line that it is in
	linked  uint8 // 1 + the index of the list of its batch that it is in, or 0
	attempt int32
	worker  int32
	index   uint64

	ctx   context.Context // what the context of the handler is made from
	task  T
	value R
	err   error

	to        owner[T, R]     // who gets the answer; nil for Results
	batch     *batch[T, R]    // the tasks that are cancelled together with it, or nil
	key       *keyQueue[T, R] // the tasks of its key, or nil
	origin    *origin         // what an observer is told about it, or nil
	at        time.Duration   // when it was handed in, or its next attempt was due, on the observer's clock
	age       *linked.Element // its place among the tasks that may be dropped, or nil
	timer     *time.Timer     // starts its next attempt, or nil
	submitter *submitter      // who waits until it is accepted or has run in place, or nil
}

// An owner gets the answers to tasks that do not go to Results: a call, a Map, a Stream or
// a Group.
type owner[T, R any] interface {
	// failed is called without the mutex when a handler has failed for good.
	failed(err error)
	// answerLocked is called once for each job, when it has ended. From then on the
	// job belongs to the owner.
	answerLocked(j *job[T, R])
}

// A state is where a job is. waits depends on the order.
type state uint8

const (
	outside  state = iota // with its caller, a worker or a receiver, or spare
	inLine                // waits in line to be accepted
	queued                // accepted, in the task channel
	behind                // accepted, waits for the turn of its key
	ahead                 // the same, before those in behind: a handler waits for it
	parked                // accepted, waits for its next attempt
	reserved              // accepted, runs only in the place of the handler that waits for it
	untold                // ended without having run; the result function is still to be called
	finished              // ended before its turn, in a pool with WithOrdered
)

// waits reports whether j has been accepted, has not ended, and no worker has it.
func (j *job[T, R]) waits() bool { return j.state >= queued && j.state <= reserved }

func (j *job[T, R]) result() Result[T, R] {
	return Result[T, R]{Index: j.index, Task: j.task, Value: j.value, Err: j.err, Worker: int(j.worker), Attempt: int(j.attempt)}
}

// forget drops the task and its answer, so that the pool retains neither.
func (j *job[T, R]) forget() {
	var noTask T
	var noValue R
	j.task, j.value = noTask, noValue
	if j.err != nil {
		j.err = nil
	}
}

// clear makes j ready to be reused. It leaves the owner alone.
func (j *job[T, R]) clear() {
	j.state, j.level, j.bound, j.unrun, j.worker, j.ctx, j.origin = outside, 0, false, 0, 0, nil, nil
}

// A list is a first-in, first-out queue of jobs, which can be removed from anywhere.
type list[T, R any] struct {
	first, last *job[T, R]
	n           int
}

func (l *list[T, R]) push(j *job[T, R]) {
	if l.n == 0 {
		l.first = j
	} else {
		j.prev, l.last.next = l.last, j
	}
	j.next = nil
	l.last = j
	l.n++
}

func (l *list[T, R]) pushFront(j *job[T, R]) {
	if l.n == 0 {
		j.next, l.last = nil, j
	} else {
		j.next, l.first.prev = l.first, j
	}
	l.first = j
	l.n++
}

// pop removes the first job. It does not clear prev of the new first job: prev has no meaning
// there, and that job may be in the cache of another processor. It does clear the links of the
// removed job, since otherwise a task that runs for long would keep all later ones in memory.
func (l *list[T, R]) pop() *job[T, R] {
	j := l.first
	l.first = j.next
	if l.n--; l.n == 0 {
		l.last = nil
	}
	j.next, j.prev = nil, nil
	return j
}

func (l *list[T, R]) remove(j *job[T, R]) {
	switch j {
	case l.first:
		l.pop()
		return
	case l.last:
		l.last = j.prev
		l.last.next = nil
	default:
		j.prev.next, j.next.prev = j.next, j.prev
	}
	l.n--
	j.next, j.prev = nil, nil
}

// A store keeps jobs for reuse. Its size in bytes is limited, so that memory is released after
// a burst. It is small compared with the stacks of the workers.
type store[T, R any] struct {
	first *job[T, R]
	n     int
	most  int
}

const (
	storeBytes          = 1 << 20 // at least
	storeBytesPerWorker = 256     // for up to storeWorkers of them
	storeWorkers        = 1 << 16
)

func newStore[T, R any](workers int) store[T, R] {
	bytes := max(storeBytes, min(workers, storeWorkers)*storeBytesPerWorker)
	return store[T, R]{most: max(1, bytes/int(reflect.TypeFor[job[T, R]]().Size()))}
}

func (s *store[T, R]) get() *job[T, R] {
	j := s.first
	if j == nil {
		return new(job[T, R])
	}
	s.first, j.next = j.next, nil
	s.n--
	return j
}

// put keeps j, unless the store is full. The task and the answer must have been dropped.
func (s *store[T, R]) put(j *job[T, R]) {
	if s.n >= s.most {
		return
	}
	j.clear()
	if j.to != nil {
		j.to = nil
	}
	j.next, s.first = s.first, j
	s.n++
}
