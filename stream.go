package workpool

import (
	"cmp"
	"context"
	"iter"
	"time"
)

// Stream runs the handler for every task of the sequence and yields each task's
// Result as it becomes ready, or with [WithOrdered] in the order of the tasks.
// Index is the position of the task. Stream is lazy: it takes the next task only
// while fewer than queue depth + result buffer + workers tasks are under way. An
// error ends only its own task.
//
// If the stream ends before its input does, the last Result belongs to no task. Its
// Attempt is 0, its Task is zero, its Index is the position of the next task, and
// Err says why the stream ended:
//
//   - an error that wraps a [*PanicError] if the sequence panicked
//   - the error of ctx if that ended; queued tasks yield it too, without
//     running, and running ones are cancelled and waited for
//   - [ErrClosed] if the pool closed first, or [ErrAborted] if it was aborted
//
// A task that was taken from the sequence and not accepted has a Result of its own
// before that, which says why.
//
// The sequence runs on a goroutine of its own. When the loop over Stream ends, also
// by a break, every handler that it started has returned. So has the sequence,
// unless it is blocked: Stream waits a tenth of a second for it, and then leaves it
// to stop when it next yields.
//
// Called with the context of a running handler of the same pool, tasks that no
// other worker takes run in the handler's place while it waits for a result. A
// Stream may be ranged over several times if the sequence may.
func (p *Pool[T, R]) Stream(ctx context.Context, tasks iter.Seq[T]) iter.Seq[Result[T, R]] {
	return func(yield func(Result[T, R]) bool) {
		if err := newStream[T, R](false).run(ctx, p, tasks, yield); err != nil {
			yield(Result[T, R]{Err: err})
		}
	}
}

// iteratorGrace is how long Stream waits, at its end, for its input iterator to return.
const iteratorGrace = 100 * time.Millisecond

// A stream is one range over a Stream. It collects its own results.
type stream[T, R any] struct {
	batch[T, R]
	freed chan struct{} // capacity 1; tells the feeding goroutine to look for space again
	fed   chan struct{} // closed when the feeding goroutine has exited
	stops bool          // the first error ends it, as in ForEach

	abandoned bool // the input is blocked and no longer waited for; used by the consumer only

	// Guarded by the pool's mutex:
	results  list[T, R]     // ended tasks, not yet yielded
	taken    list[T, R]     // those that the consumer has taken at once; only the consumer changes it
	receives bool           // the consumer waits for a result
	refused  []Result[T, R] // of the task that was not accepted, if there was one
	allFed   bool           // no more tasks will come
	err      error          // why the input was not taken to its end
}

func newStream[T, R any](stops bool) *stream[T, R] {
	s := &stream[T, R]{freed: make(chan struct{}, 1), fed: make(chan struct{}), stops: stops}
	s.feeds = true
	return s
}

// run runs the handler for every task and yields the results. It returns an error if it
// cannot begin.
func (s *stream[T, R]) run(ctx context.Context, p *Pool[T, R], tasks iter.Seq[T], yield func(Result[T, R]) bool) error {
	if tasks == nil {
		return errNilTasks
	}
	if err := s.begin(ctx, p, ByStream); err != nil {
		return p.refused(err)
	}
	if p.ordered && !s.stops {
		s.order = new(order[T, R])
	}
	defer s.forget()
	defer s.stop()
	go s.feed(tasks)
	s.deliver(yield)
	return nil
}

func (s *stream[T, R]) failed(err error) {
	if s.stops {
		s.ctx.cancel(err)
	}
}

func (s *stream[T, R]) answerLocked(j *job[T, R]) {
	if s.order == nil {
		s.results.push(j)
	} else {
		s.order.finish(j, &s.results)
	}
	s.endedLocked()
	if s.receives && s.results.n > 0 {
		s.receives = false
		s.wake()
	}
}

// feed submits the tasks of the sequence.
func (s *stream[T, R]) feed(tasks iter.Seq[T]) {
	p := s.pool
	var err error
	returned := false
	defer func() {
		if v := recover(); v != nil || !returned {
			err = from("input sequence", errorOf(v))
		}
		if err != nil && s.stops {
			s.ctx.cancel(err)
		}
		p.lock()
		s.err, s.allFed = err, true
		s.wake()
		p.unlock()
		close(s.fed)
	}()
	for task := range tasks {
		err = s.handIn(s, task, policy{})
		space := s.hasSpaceLocked()
		if err != nil {
			s.refused = append(s.refused, Result[T, R]{Index: s.next, Task: task, Err: err, Attempt: 1})
			s.next++
		}
		p.unlock()
		if err != nil {
			break
		}
		if !space {
			s.awaitSpace()
		}
		if err = s.ended(); err != nil { // without taking another task
			break
		}
	}
	returned = true
}

// awaitSpace waits until the stream may take another task from its input, its context has
// ended, or the pool is closed, which the next task will tell.
func (s *stream[T, R]) awaitSpace() {
	for {
		s.pool.lock()
		space := s.hasSpaceLocked() || !s.pool.life.open
		changed := s.pool.onChangeLocked()
		s.pool.unlock()
		if space {
			return
		}
		select {
		case <-s.freed:
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

// hasSpaceLocked reports whether fewer tasks are under way than the pool may hold, not
// counting the one whose result the consumer is looking at.
func (s *stream[T, R]) hasSpaceLocked() bool {
	n := s.pending + s.results.n + max(0, s.taken.n-1)
	if s.order != nil {
		n += s.order.finished
	}
	return s.pool.holdsFewerLocked(n)
}

// deliver yields results until the last.
func (s *stream[T, R]) deliver(yield func(Result[T, R]) bool) {
	for s.receive() {
		for j := s.taken.first; j != nil; j = j.next {
			if !yield(Result[T, R]{Index: j.index, Task: j.task, Value: j.value, Err: j.err, Worker: int(j.worker), Attempt: int(j.attempt)}) {
				return
			}
			j.forget()
		}
	}
	for _, r := range s.rest() {
		if !yield(r) {
			return
		}
	}
}

// receive gives back the results that it received before, and waits for the next. It takes
// several at once, but few enough that those not yet yielded do not hold up the input. It
// reports false at the end.
func (s *stream[T, R]) receive() bool {
	p := s.pool
	p.lockAhead()
	defer p.unlock()
	s.giveBackLocked()
	select {
	case s.freed <- struct{}{}:
	default:
	}
	var grace <-chan time.Time
	for s.results.n == 0 {
		if s.pending == 0 && (s.allFed || s.abandoned) {
			return false
		}
		s.receives = true
		if grace == nil && !s.abandoned && (s.ctx.Err() != nil || !p.life.open) {
			grace = time.After(iteratorGrace)
		}
		if s.waitLocked(p.onChangeLocked(), grace) {
			s.abandoned, grace = true, nil
		}
	}
	for range min(s.results.n, maxTake, max(1, s.mostLocked()/8)) {
		s.taken.push(s.results.pop())
	}
	return true
}

// mostLocked returns how many tasks may be under way, or a smaller number if that is very
// large.
func (s *stream[T, R]) mostLocked() int {
	const many = 1 << 20
	p := s.pool
	return min(p.queueDepth, many) + min(p.resultBuffer, many) + p.crew.size
}

// giveBackLocked gives back what the consumer has taken.
func (s *stream[T, R]) giveBackLocked() {
	for s.taken.n > 0 {
		s.pool.freeLocked(s.taken.pop())
	}
}

// rest returns the Results that belong to no job: that of a task that was not accepted, and
// the last.
func (s *stream[T, R]) rest() []Result[T, R] {
	p := s.pool
	err := cmp.Or(s.ended(), ErrClosed) // if the input is still blocked
	p.lock()
	defer p.unlock()
	if s.allFed {
		err = s.err
	}
	if err == ErrClosed && p.life.noticed { //nolint:errorlint // our own
		err = cmp.Or(p.life.abortedBy, ErrAborted)
	}
	if err == nil {
		return nil
	}
	return append(s.refused, Result[T, R]{Index: s.next, Err: err})
}

// stop ends what is still under way.
func (s *stream[T, R]) stop() {
	s.ctx.end()
	s.await()
	if s.abandoned {
		return
	}
	select {
	case <-s.fed:
	case <-time.After(iteratorGrace):
	}
	s.await() // for a task that was just being submitted
}

// forget drops the results that were not yielded.
func (s *stream[T, R]) forget() {
	p := s.pool
	p.lock()
	defer p.unlock()
	s.leave()
	s.giveBackLocked()
	for s.results.n > 0 {
		p.freeLocked(s.results.pop())
	}
}
